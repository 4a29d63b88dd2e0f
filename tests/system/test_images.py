"""The image job against real and lying registries, and the store that it leaves behind."""
import concurrent.futures
import ctypes
import gzip
import hashlib
import json
import os
import pathlib
import signal
import stat
import subprocess
import tarfile
import threading
import time

import lying
import oci
import pytest
from conftest import SLOW, free_port, need_root, program


class Store:
    """A data dir and the image jobs on it."""

    def __init__(self, folder, enter=()):
        self.data = pathlib.Path(folder)
        self.enter = enter  # what starts a job elsewhere
        self.images = self.data / "images"

    def start(self, env=None, **request):
        p = subprocess.Popen([*self.enter, program("zl-image"), "--data-dir", self.data], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True,
                             env={**{k: v for k, v in os.environ.items() if k != "DOCKER_CONFIG"}, "HOME": "/nowhere",
                                  "ZLAYER_CONFIG_DIR": "/nowhere", **(env or {})})
        p.stdin.write(json.dumps(request))
        p.stdin.close()
        p.stdin = None
        return p

    def job(self, env=None, **request):
        """Runs a job; returns its last event and exit code."""
        p = self.start(env, **request)
        out, errors = p.communicate(timeout=60 * SLOW)
        assert errors == "", errors
        lines = [json.loads(line) for line in out.splitlines()]
        return (lines[-1] if lines else None), p.returncode

    def pull(self, reference, policy="always", **more):
        return self.job(verb="pull", reference=reference, policy=policy, **more)

    def pulled(self, reference, **more):
        event, code = self.pull(reference, **more)
        assert (event["event"], code) == ("done", 0), event
        return self.record(event["reference"])

    def failed(self, reference, code, *words, **more):
        """The pull fails with this code, says these words, and leaves nothing that looks like an image."""
        event, exit_code = self.pull(reference, **more)
        assert event["event"] == "error" and exit_code not in (0, -signal.SIGKILL), event
        assert event["code"] == code, event
        for word in words:
            assert word in event["message"] + event["hint"], (word, event)
        assert not list((self.images / "refs").iterdir())
        self.check()
        assert [p.name for p in (self.images / "staging").iterdir() if p.name != ".partial"] == []
        return event

    def record(self, reference):
        for path in (self.images / "refs").iterdir():
            record = json.loads(path.read_text())
            if record["reference"] == reference:
                return record
        raise KeyError(reference)

    def root(self, record):
        """The image's files as overlayfs shows them: {path: lstat}, read from the layers from the lowest up."""
        seen = {}
        for chain in record["chain_ids"]:
            layer = self.images / "layers" / chain.removeprefix("sha256:")
            for path in sorted(layer.rglob("*")):
                name = str(path.relative_to(layer))
                st = path.lstat()
                if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
                    seen = {k: v for k, v in seen.items() if k != name and not k.startswith(name + "/")}
                    continue
                if not stat.S_ISDIR(st.st_mode):
                    seen = {k: v for k, v in seen.items() if not k.startswith(name + "/")}
                seen[name] = (path, st)
        return seen

    def check(self):
        """An independent look at the store: every blob has its digest, every record what it names, no lock is held."""
        for blob in (self.images / "blobs" / "sha256").iterdir():
            if not blob.name.startswith("."):
                assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        for path in (self.images / "refs").iterdir():
            if path.name.startswith("."):
                continue
            record = json.loads(path.read_text())
            chain = ""
            config = json.loads((self.images / "blobs" / "sha256" / record["config"][7:]).read_text())
            for diff_id, chain_id in zip(config["rootfs"]["diff_ids"], record["chain_ids"], strict=True):
                chain = oci.digest(f"{chain} {diff_id}".encode()) if chain else diff_id
                assert chain == chain_id
                assert (self.images / "layers" / chain[7:]).is_dir()
            for blob in (record["digest"], record.get("manifest") or record["digest"], *record["layers"]):
                assert (self.images / "blobs" / "sha256" / blob[7:]).exists()


LAYERS = [{"bin/app": b"#!app\n" * 1000, "etc/conf": b"one"}, {"etc/conf": b"two", "data/big": os.urandom(300000)}]


@pytest.fixture
def image(tmp_path, liar):
    """An image of two layers in the lying registry; returns its manifest."""
    oci.layout(tmp_path / "layout", LAYERS, {"Cmd": ["/bin/app"], "Env": ["A=1"]})
    return liar.load(tmp_path / "layout")


# --- the way things should be

def test_pull_what_skopeo_pushed(store, registry, tmp_path):
    digest = oci.layout(tmp_path / "l", LAYERS, {"Entrypoint": ["/bin/app"], "Labels": {"a": "b"}, "StopSignal": "SIGINT",
                                                 "ExposedPorts": {"80/tcp": {}}})
    oci.push(tmp_path / "l", f"{registry.host}/team/app:v1")
    record = store.pulled(f"{registry.host}/team/app:v1")
    assert record["digest"] == digest
    assert (record["entrypoint"], record["labels"], record["stop_signal"]) == (["/bin/app"], ["a=b"], "SIGINT")
    root = store.root(record)
    assert root["etc/conf"][0].read_bytes() == b"two"
    assert root["data/big"][0].read_bytes() == LAYERS[1]["data/big"]
    assert root["bin/app"][1].st_mode & 0o7777 == 0o755 and root["bin/app"][1].st_mtime == 1
    store.check()
    assert store.pulled(f"{registry.host}/team/app@{digest}")["digest"] == digest


def test_an_untrusted_name_gives_one_clear_error(store, registry):
    event = store.failed(f"{registry.host}/no/such:thing", "image_not_found", f"{registry.host}/no/such:thing", "pushed")
    assert "manifest" in event["message"]


def test_a_known_image_is_not_fetched_again(store, liar, image):
    store.pulled(f"{liar.host}/t/x:v1")
    liar.requests.clear()
    store.pulled(f"{liar.host}/t/x:v1")
    assert [r[0] for r in liar.requests] == ["HEAD"]
    liar.requests.clear()
    for policy in ("if_not_present", "never"):
        store.pulled(f"{liar.host}/t/x:v1", policy=policy)
    assert liar.requests == []


def test_never_touches_no_network(store, liar, image):
    store.failed(f"{liar.host}/t/x:v1", "image_not_found", "never", policy="never")
    assert liar.requests == []


def test_newer_uses_what_is_here_when_the_registry_is_away(store, liar, image):
    record = store.pulled(f"{liar.host}/t/x:v1")
    liar.on("/v2/", lambda h: h.reply(503, b"{}"))
    event, code = store.pull(f"{liar.host}/t/x:v1", policy="newer")
    assert code == 0 and event["digest"] == record["digest"] and "503" in event["warning"]
    event, code = store.pull(f"{liar.host}/t/x:v1", policy="always")
    assert code != 0 and event["code"] == "registry_error"


def test_newer_fetches_what_has_changed(store, liar, image, tmp_path):
    first = store.pulled(f"{liar.host}/t/x:v1")
    oci.layout(tmp_path / "l2", [LAYERS[0], {"new": b"thing"}])
    liar.load(tmp_path / "l2")
    liar.requests.clear()
    second = store.pulled(f"{liar.host}/t/x:v1", policy="newer")
    assert second["digest"] != first["digest"] and "new" in store.root(second)
    assert second["chain_ids"][0] == first["chain_ids"][0]
    assert not [r for r in liar.requests if image["layers"][0]["digest"] in r[1]]  # the shared layer stayed


def test_an_index_gives_this_machines_image(store, liar, image):
    real = liar.manifests["v1"][0]
    index = {"schemaVersion": 2, "mediaType": lying.INDEX, "manifests": [
        {"mediaType": lying.MANIFEST, "digest": oci.digest(b"other"), "size": 5, "platform": {"os": "linux", "architecture": "mips"}},
        {"mediaType": lying.MANIFEST, "digest": oci.digest(b"proof"), "size": 5, "platform": {"os": "unknown", "architecture": "unknown"}},
        {"mediaType": lying.MANIFEST, "digest": oci.digest(real), "size": len(real), "platform": {"os": "linux", "architecture": oci.ARCH}}]}
    liar.put_manifest("multi", json.dumps(index).encode(), lying.INDEX)
    record = store.pulled(f"{liar.host}/t/x:multi")
    assert record["manifest"] == oci.digest(real) and record["digest"] == oci.digest(json.dumps(index).encode())
    index["manifests"].pop()
    liar.put_manifest("foreign", json.dumps(index).encode(), lying.INDEX)
    event, _ = store.pull(f"{liar.host}/t/x:foreign")
    assert event["code"] == "bad_image" and "linux/mips" in event["message"]


def zstd(data, *options):
    """Of a pipe: the frame does not say how much it holds, unless an option does."""
    return subprocess.run(["zstd", "-qc", *options], input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("size", [1000, 3 << 20], ids=["small", "large"])  # small ones are unpacked in one go, where they say their size
@pytest.mark.parametrize("compress", ["none", "gzip", "gzip in members", "zstd", "zstd, its size unsaid"])
def test_compressions(store, liar, compress, size):
    files = {"a": b"a" * 100000, "b": os.urandom(size)}
    tar = oci.tar_of(files)
    data = {"none": lambda: tar, "gzip": lambda: gzip.compress(tar), "gzip in members": lambda: gzip.compress(tar[:5000]) + gzip.compress(tar[5000:]),
            "zstd": lambda: zstd(tar, f"--stream-size={len(tar)}"), "zstd, its size unsaid": lambda: zstd(tar)}[compress]()
    media = "" if compress == "none" else "+" + compress[:4]
    put_image(liar, [(data, "application/vnd.oci.image.layer.v1.tar" + media, oci.digest(tar))])
    root = store.root(store.pulled(f"{liar.host}/t/x:v1"))
    assert {name: path.read_bytes() for name, (path, _) in root.items()} == files


def test_a_window_too_wide(store, liar):
    tar = oci.tar_of({"a": b"a" * 100000})
    put_image(liar, [(zstd(tar, "--long=27"), "application/vnd.oci.image.layer.v1.tar+zstd", oci.digest(tar))])
    store.failed(f"{liar.host}/t/x:v1", "limit_exceeded", "window", "8 MiB")


def test_nothing_of_progress(store, liar, image):
    events = {}
    for quiet in False, True:
        p = store.start(verb="pull", reference=f"{liar.host}/t/x:v1", policy="always", quiet=quiet)
        events[quiet] = [json.loads(line)["event"] for line in p.communicate(timeout=60 * SLOW)[0].splitlines()]
        store.job(verb="remove", reference=f"{liar.host}/t/x:v1")
    assert "progress" in events[False] and events[False][-1] == "done" and events[True] == ["done"]


def put_image(liar, layers, config=None, more_config=None, more_manifest=None):
    """layers: (blob, media type, diff id) each."""
    config = json.dumps({"os": "linux", "architecture": oci.ARCH, "config": config or {},
                         "rootfs": {"type": "layers", "diff_ids": [d for _, _, d in layers]}, **(more_config or {})}).encode()
    liar.blobs[oci.digest(config)] = config
    for data, _, _ in layers:
        liar.blobs[oci.digest(data)] = data
    manifest = {"schemaVersion": 2, "mediaType": lying.MANIFEST,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": oci.digest(config), "size": len(config)},
                "layers": [{"mediaType": m, "digest": oci.digest(b), "size": len(b)} for b, m, _ in layers], **(more_manifest or {})}
    liar.put_manifest("v1", json.dumps(manifest).encode())
    return manifest


def put_tars(liar, *tars):
    return put_image(liar, [(t, "application/vnd.oci.image.layer.v1.tar", oci.digest(t)) for t in tars])


PLAIN = "application/vnd.oci.image.layer.v1.tar"


def blob_gets(liar, digest):
    return sum(path.endswith(f"/blobs/{digest}") for method, path, *_ in liar.requests if method == "GET")


def test_the_same_layers_in_another_form(store, liar):
    """They are unpacked already, but the image is whole only with its own blobs."""
    tar = oci.tar_of({"f": b"x" * 5000})
    for form in (gzip.compress(tar, 9), gzip.compress(tar, 1), tar):
        assert not liar.blobs.get(oci.digest(form))
        put_image(liar, [(form, PLAIN, oci.digest(tar))])
        record = store.pulled(f"{liar.host}/t/x:v1")
        assert record["layers"] == [oci.digest(form)]
        store.check()
    assert len(list((store.images / "layers").iterdir())) == 1


@pytest.mark.parametrize("policy", ["always", "newer", "if_not_present"])
def test_a_blob_that_was_lost_comes_again(store, liar, image, policy):
    reference = f"{liar.host}/t/x:v1"
    record = store.pulled(reference)
    for blob in (record["layers"][1], record["config"], record["digest"]):
        (store.images / "blobs" / "sha256" / blob[7:]).unlink()
        store.pulled(reference, policy=policy)
        store.check()
    assert blob_gets(liar, record["layers"][0]) == 1  # what is there is not fetched again


def test_layers_that_a_container_kept(store, liar, image):
    """A lease keeps layers, not blobs."""
    record = store.pulled(f"{liar.host}/t/x:v1")
    (store.images / "leases" / "holder").write_text("".join(c + "\n" for c in record["chain_ids"]))
    assert store.job(verb="remove", reference=f"{liar.host}/t/x:v1", force=True)[1] == 0
    assert not list((store.images / "blobs" / "sha256").iterdir()) and len(list((store.images / "layers").iterdir())) == 2
    store.pulled(f"{liar.host}/t/x:v1")
    store.check()


def test_a_blob_of_several_layers_is_fetched_once(store, liar):
    tar = oci.tar_of({"f": b"x" * 5000})
    put_tars(liar, *[tar] * 5)
    record = store.pulled(f"{liar.host}/t/x:v1")
    assert len(set(record["chain_ids"])) == 5 and blob_gets(liar, oci.digest(tar)) == 1
    store.check()


def test_tokens(store, liar, image, tmp_path):
    lying.need_token(liar)
    store.pulled(f"{liar.host}/t/x:v1")
    tokens = [r for r in liar.requests if r[1].startswith("/token")]
    assert tokens[0][1] == "/token?service=test&scope=repository%3At%2Fx%3Apull" and tokens[0][2] is None
    assert len(tokens) == 1


def test_credentials_of_docker_login(store, liar, image, tmp_path):
    lying.need_token(liar, user="me:secret")
    store.failed(f"{liar.host}/t/x:v1", "unauthorized", "refuses access", "zlayer login", "wrong ?[31mpassword")
    (tmp_path / "config.json").write_text(json.dumps({"auths": {f"http://{liar.host}": {"auth": "bWU6c2VjcmV0"}}}))
    event, code = store.job({"DOCKER_CONFIG": str(tmp_path)}, verb="pull", reference=f"{liar.host}/t/x:v1")
    assert code == 0, event


def test_a_redirect_gets_no_credentials(store, liar, image):
    other = lying.Registry()
    try:
        other.blobs = dict(liar.blobs)
        lying.need_token(liar)

        def away(handler):
            handler.reply(307, b"", {"Location": f"http://{other.host}{handler.path}"})
        liar.on("/blobs/", away)
        store.pulled(f"{liar.host}/t/x:v1")
        assert other.requests and all(r[2] is None for r in other.requests)
        assert any(r[2] == "Bearer sesame" for r in liar.requests)
    finally:
        other.close()


def test_two_pulls_do_the_work_once(store, liar, image):
    liar.on("/blobs/", lying.slowly(0.2))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: store.pull(f"{liar.host}/t/x:v1"), range(4)))
    assert not [event for event, code in results if code], results
    for layer in image["layers"]:
        assert len([r for r in liar.requests if layer["digest"] in r[1]]) == 1
    store.check()
    assert not list((store.images / "locks").iterdir())


def test_remove_collects_what_nobody_needs(store, liar, image, tmp_path):
    store.pulled(f"{liar.host}/t/x:v1")
    oci.layout(tmp_path / "l2", [LAYERS[0]])
    liar.load(tmp_path / "l2")
    store.pulled(f"{liar.host}/t/x:v1", policy="newer")  # the old one's second layer is nobody's now
    liar.put_manifest("v2", liar.manifests["v1"][0])
    record = store.pulled(f"{liar.host}/t/x:v2")
    event, code = store.job(verb="remove", reference=f"{liar.host}/t/x:v1")
    assert code == 0 and event["freed_bytes"] > 0
    assert [p.name for p in (store.images / "layers").iterdir()] == [record["chain_ids"][0][7:]]
    store.check()
    event, code = store.job(verb="remove", reference=f"{liar.host}/t/x:v1")
    assert (event["code"], code) == ("image_not_found", 3)
    assert store.job(verb="remove", reference=f"{liar.host}/t/x:v2")[1] == 0
    assert not list((store.images / "layers").iterdir()) and not list((store.images / "blobs/sha256").iterdir())


# --- what registries do on bad days

def test_a_bad_day_is_waited_out(store, liar, image):
    liar.times(2, "/manifests/", lambda h: h.reply(503, b"{}", {"Retry-After": "0"}))
    liar.times(1, image["layers"][1]["digest"], lambda h: h.reply(429, b"{}"))
    liar.times(1, image["config"]["digest"], lambda h: h.cut(b"x" * 10, 0))
    store.pulled(f"{liar.host}/t/x:v1")


def test_a_cut_blob_goes_on_where_it_stopped(store, liar, image):
    big = image["layers"][1]
    data = liar.blobs[big["digest"]]
    liar.times(1, big["digest"], lambda h: h.cut(data, 100000))
    store.pulled(f"{liar.host}/t/x:v1")
    assert [r[3] for r in liar.requests if big["digest"] in r[1]] == [None, "bytes=100000-"]


def half_a_blob(store, liar, kill):
    """A job that ended in the middle of a blob, killed or given up; returns the blob's digest."""
    tar = oci.tar_of({"f": os.urandom(3 << 20)})
    put_tars(liar, tar)
    digest = oci.digest(tar)
    over = threading.Event()

    def half(handler):
        if handler.headers.get("Range"):
            return handler.reply(404, b"")
        handler.cut(tar, 2 << 20)
        if kill:
            over.wait(20 * SLOW)
        return True
    liar.on(digest, half)
    p = store.start(verb="pull", reference=f"{liar.host}/t/x:v1", policy="always")
    if kill:
        deadline = time.monotonic() + 20 * SLOW
        while not any(f.stat().st_size >= 2 << 20 for f in store.images.glob("staging/*/blob.*")):
            assert time.monotonic() < deadline and p.poll() is None
            time.sleep(0.01)
        p.kill()
    p.communicate()
    assert p.returncode != 0
    over.set()
    liar.behaviours.clear()
    liar.requests.clear()
    return digest


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "given up"])
def test_the_next_job_goes_on_where_one_ended(store, liar, kill):
    digest = half_a_blob(store, liar, kill)
    store.pulled(f"{liar.host}/t/x:v1")
    assert [r[3] for r in liar.requests if digest in r[1]] == [f"bytes={2 << 20}-"]
    store.check()
    assert not list((store.images / "staging").iterdir())


def test_what_a_job_left_is_not_trusted(store, liar):
    digest = half_a_blob(store, liar, True)
    assert store.job(verb="df")[1] == 0  # which finds the dead job's folder
    left = store.images / "staging" / ".partial" / digest[7:]
    with open(left, "r+b") as f:
        f.write(b"\xff" * 100)
    store.pulled(f"{liar.host}/t/x:v1")
    assert [r[3] for r in liar.requests if digest in r[1]] == [f"bytes={2 << 20}-", None]
    store.check()


def test_what_a_job_left_whole_and_wrong(store, liar):
    """As a power cut leaves it: all of the size, and other bytes. That is no fault of the registry."""
    digest = half_a_blob(store, liar, True)
    assert store.job(verb="df")[1] == 0
    left = store.images / "staging" / ".partial" / digest[7:]
    with open(left, "r+b") as f:
        f.truncate(len(liar.blobs[digest]))
    store.pulled(f"{liar.host}/t/x:v1")
    assert [r[3] for r in liar.requests if digest in r[1]] == [None]
    store.check()


def test_what_a_job_left_goes(store, liar):
    """With prune, and by itself when it is old."""
    for how in ("prune", "old"):
        digest = half_a_blob(store, liar, True)
        assert store.job(verb="df")[1] == 0
        left = store.images / "staging" / ".partial" / digest[7:]
        assert left.stat().st_size == 2 << 20
        if how == "old":
            os.utime(left, (time.time() - 90000,) * 2)
        assert store.job(verb="prune" if how == "prune" else "df")[1] == 0
        assert not list((store.images / "staging").iterdir())


def test_a_server_without_ranges_starts_again(store, liar, image):
    big = image["layers"][1]
    data = liar.blobs[big["digest"]]
    liar.times(1, big["digest"], lambda h: h.cut(data, 100000))
    liar.on(big["digest"], lambda h: h.reply(200, data))
    store.pulled(f"{liar.host}/t/x:v1")


def test_a_server_that_sends_another_range(store, liar, image):
    big = image["layers"][1]
    data = liar.blobs[big["digest"]]
    liar.times(1, big["digest"], lambda h: h.cut(data, 100000))
    liar.on(big["digest"], lambda h: h.reply(206, data[5:], {"Content-Range": f"bytes 5-{len(data) - 1}/{len(data)}"}))
    store.failed(f"{liar.host}/t/x:v1", "registry_error", "another range")


def test_nobody_there(store):
    port = free_port()
    store.failed(f"127.0.0.1:{port}/t/x:v1", "pull_failed", f"127.0.0.1:{port}", "is a registry running")


def test_a_stalled_registry(store, liar, image):
    liar.on(image["layers"][0]["digest"], lambda h: h.stall())
    began = time.monotonic()
    store.failed(f"{liar.host}/t/x:v1", "pull_failed", image["layers"][0]["digest"][:19], stall_s=1)
    assert time.monotonic() - began < 25


def test_plain_http_is_for_loopback(store, liar, image):
    """TEST-NET-1 is asked by HTTPS, and a redirect to it by HTTP is not followed."""
    liar.on("/blobs/", lambda h: h.reply(307, b"", {"Location": "http://192.0.2.1/x"}))
    store.failed(f"{liar.host}/t/x:v1", "registry_error", "loopback")


def test_a_redirect_loop(store, liar, image):
    liar.on("/blobs/", lambda h: h.reply(307, b"", {"Location": h.path}))
    store.failed(f"{liar.host}/t/x:v1", "registry_error", "redirects")
    liar.behaviours.clear()
    liar.on("/blobs/", lambda h: h.reply(307, b"", {"Location": "file:///etc/passwd"}))
    store.failed(f"{liar.host}/t/x:v1", "registry_error")


# --- lies

def replies(data, **headers):
    return lambda h: h.reply(200, data, {k.replace("_", "-"): v for k, v in headers.items()})


def test_lies_about_blobs(store, liar, image):
    layer = image["layers"][1]
    data = liar.blobs[layer["digest"]]
    name = f"{liar.host}/t/x:v1"
    for lie, words in ((data[:-1] + bytes([data[-1] ^ 1]), ["digest"]), (data[:-1], ["bytes"]), (data + b"x", ["more than"]),
                       (b"", ["0 bytes"])):
        liar.behaviours = [(layer["digest"], replies(lie))]
        store.failed(name, "digest_mismatch", layer["digest"][:19], name, *words)
    liar.behaviours = [(layer["digest"], lambda h: h.endless())]
    store.failed(name, "digest_mismatch", "more than")
    liar.behaviours = [(layer["digest"], lambda h: h.endless(403))]
    store.failed(name, "unauthorized", "refuses access")
    liar.behaviours = [(layer["digest"], lambda h: h.reply(404, b"{}"))]
    store.failed(name, "registry_error", layer["digest"][:19])
    liar.behaviours = [(image["config"]["digest"], replies(b"{}"))]
    store.failed(name, "digest_mismatch", "config")
    liar.behaviours = []
    store.pulled(name)


def test_lies_about_manifests(store, liar, image):
    real = liar.manifests["v1"][0]
    name = f"{liar.host}/t/x:v1"
    for behaviour, code, word in (
            (replies(real, Content_Type=lying.MANIFEST, Docker_Content_Digest=oci.digest(b"x")), "digest_mismatch", "registry says"),
            (replies(real, Content_Type=lying.INDEX), "bad_image", "calls itself"),
            (replies(b"<html>", Content_Type="text/html"), "bad_image", "JSON"),
            (replies(b'{"schemaVersion":1}', Content_Type="application/vnd.docker.distribution.manifest.v1+prettyjws"), "bad_image", "schema 1"),
            (replies(b" " * (5 << 20), Content_Type=lying.MANIFEST), "limit_exceeded", "larger than"),
            (lambda h: h.endless(), "limit_exceeded", "larger than")):
        liar.behaviours = [("/manifests/", behaviour)]
        store.failed(name, code, word)
    liar.behaviours = [("/manifests/", replies(real, Content_Type=lying.MANIFEST))]
    store.failed(f"{liar.host}/t/x@{oci.digest(b'other')}", "digest_mismatch", "asked for")


def test_an_index_of_itself(store, liar, image):
    """A digest can't hold itself, so the deepest lie is a chain of indexes."""
    inner, media = liar.manifests["v1"]
    for depth in range(4):
        inner = json.dumps({"schemaVersion": 2, "mediaType": lying.INDEX, "manifests": [
            {"mediaType": media, "digest": oci.digest(inner), "size": len(inner),
             "platform": {"os": "linux", "architecture": oci.ARCH}}]}).encode()
        media = lying.INDEX
        liar.put_manifest(f"deep{depth}", inner, media)
    store.failed(f"{liar.host}/t/x:deep3", "bad_image", "index")
    store.pulled(f"{liar.host}/t/x:deep1")


def test_bad_layers(store, liar):
    name = f"{liar.host}/t/x:v1"
    tar = oci.tar_of({"a": b"x" * 5000})
    media = "application/vnd.oci.image.layer.v1.tar"
    for data, diff, code in ((b"no tar at all" * 100, None, "bad_image"),
                             (gzip.compress(tar)[:-12], oci.digest(tar), "bad_image"),
                             (gzip.compress(tar)[:50], oci.digest(tar), "bad_image"),
                             (tar[:1000], None, "bad_image"),
                             (gzip.compress(tar), oci.digest(b"else"), "digest_mismatch")):
        put_image(liar, [(data, media, diff or oci.digest(data))])
        store.failed(name, code)


def test_manifest_and_config_disagree(store, liar):
    tar = oci.tar_of({"a": b"x"})
    manifest = put_image(liar, [(tar, "application/vnd.oci.image.layer.v1.tar", oci.digest(tar))])
    manifest["layers"] *= 2
    liar.put_manifest("v1", json.dumps(manifest).encode())
    store.failed(f"{liar.host}/t/x:v1", "bad_image", "2 layers")


# --- what layers try

def entry(kind, **more):
    info = tarfile.TarInfo()
    info.type, info.mtime, info.mode = kind, 1, 0o755
    for key, value in more.items():
        setattr(info, key, value)
    return info


def test_layers_that_break_out(store, liar, tmp_path):
    need_root()
    victim = tmp_path / "victim"
    victim.mkdir()
    name = f"{liar.host}/t/x:v1"
    for files in ({"../evil": b"x"}, {"a/../../evil": b"x"}, {"link": entry(tarfile.LNKTYPE, linkname="../../../etc/passwd")},
                  {"link": entry(tarfile.LNKTYPE, linkname="/etc/shadow")}, {".wh.": b""}, {"a/.wh..": b""}):
        put_tars(liar, oci.tar_of(files))
        store.failed(name, "bad_image")
    harmless = [
        {"/abs": b"x", "//abs2": b"y"},
        {"out": entry(tarfile.SYMTYPE, linkname=str(victim)), "out/evil": b"x"},
        {"out": entry(tarfile.SYMTYPE, linkname="../../../../../../../.."), "out/tmp/evil": b"x"},
        {"out": entry(tarfile.SYMTYPE, linkname=str(victim)), "out/": entry(tarfile.DIRTYPE)},
        {"out": entry(tarfile.SYMTYPE, linkname=str(victim / "file")), "out2": entry(tarfile.LNKTYPE, linkname="out"),
         "out": b"written"},
        {"f": b"a", "f/g": b"b"},
    ]
    for files in harmless:
        put_tars(liar, oci.tar_of(files))
        store.pulled(name)
        store.check()
        assert not list(victim.iterdir())
    assert "f/g" in store.root(store.record(name))


def test_odd_entries(store, liar):
    need_root()
    tar = oci.tar_of({
        "d": entry(tarfile.DIRTYPE, mode=0o700, uid=12, gid=34, mtime=99),
        "d/f": entry(tarfile.REGTYPE, mode=0o4711, uid=1000000, gid=5, mtime=7.25),
        "d/hard": entry(tarfile.LNKTYPE, linkname="d/f"),
        "d/soft": entry(tarfile.SYMTYPE, linkname="/anywhere", uid=3),
        "d/fifo": entry(tarfile.FIFOTYPE, mode=0o600),
        "d/null": entry(tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        "d/" + "n" * 200 + "/" + "m" * 200: b"long",
        "d/cap": entry(tarfile.REGTYPE, pax_headers={
            "SCHILY.xattr.user.mine": "v", "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.opaque": "y"}),
    })
    put_tars(liar, tar)
    root = store.root(store.pulled(f"{liar.host}/t/x:v1"))
    st = root["d"][1]
    assert (st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_mtime) == (0o700, 12, 34, 99)
    st = root["d/f"][1]
    assert (st.st_mode & 0o7777, st.st_uid, st.st_nlink, st.st_mtime) == (0o4711, 1000000, 2, 7.25)
    assert root["d/hard"][1].st_ino == st.st_ino
    assert os.readlink(root["d/soft"][0]) == "/anywhere" and root["d/soft"][1].st_uid == 3
    assert stat.S_ISFIFO(root["d/fifo"][1].st_mode)
    assert root["d/null"][1].st_rdev == os.makedev(1, 3)
    names = os.listxattr(root["d/cap"][0])
    assert not [n for n in names if "overlay" in n] and "user.mine" in names


def overlay(store, record, tmp_path):
    """The image's root as the kernel merges it, for as long as the test needs it: {path: content or None}."""
    lowers = ":".join(str(store.images / "layers" / c[7:]) for c in reversed(record["chain_ids"]))
    where = tmp_path / "merged"
    where.mkdir(exist_ok=True)
    script = (f"mount -t overlay overlay -o lowerdir={lowers} {where} && cd {where} && find . -mindepth 1 "
              f"-printf '%P %y %m %T@\\n' && find . -type f -printf 'content %P ' -exec cat {{}} \\; -printf '\\n'")
    out = subprocess.run(["unshare", "-m", "sh", "-c", script], check=True, stdout=subprocess.PIPE, text=True).stdout
    seen, content = {}, {}
    for line in out.splitlines():
        if line.startswith("content "):
            _, path, text = line.split(" ", 2)
            content[path] = text
        else:
            path, kind, mode, mtime = line.split(" ")
            seen[path] = (kind, mode, float(mtime))
    return seen, content


def test_whiteouts_as_overlayfs_shows_them(store, liar, tmp_path):
    need_root()
    lower = oci.tar_of({"keep": b"1", "gone": b"2", "dir": entry(tarfile.DIRTYPE, mode=0o711, uid=7, mtime=55), "dir/old": b"3",
                        "dir/sub": entry(tarfile.DIRTYPE), "dir/sub/old": b"4", "both": entry(tarfile.DIRTYPE), "both/low": b"5",
                        "readd": entry(tarfile.DIRTYPE), "readd/low": b"6", "implied": entry(tarfile.DIRTYPE, mode=0o750, mtime=77),
                        "implied/low": b"7", "was-file": b"8", "target": b"linked"})
    upper = oci.tar_of({".wh.gone": b"", "dir/new": b"n", "dir/sub/new": b"n", "dir/.wh..wh..opq": b"",  # the marker comes last
                        "both/up": b"u", "readd": entry(tarfile.DIRTYPE, mtime=66), "readd/up": b"u", ".wh.readd": b"",
                        "implied/up": b"u", ".wh.never": b"", "was-file": entry(tarfile.DIRTYPE), "was-file/in": b"i",
                        "link": entry(tarfile.LNKTYPE, linkname="target")})
    top = oci.tar_of({"dir/old": b"again", ".wh.keep": b"", "keep": b"kept"})
    put_tars(liar, lower, upper, top)
    record = store.pulled(f"{liar.host}/t/x:v1")
    seen, content = overlay(store, record, tmp_path)
    assert content == {"keep": "kept", "dir/old": "again", "dir/new": "n", "dir/sub/new": "n", "both/low": "5", "both/up": "u",
                       "readd/up": "u", "implied/low": "7", "implied/up": "u", "was-file/in": "i", "target": "linked",
                       "link": "linked"}
    assert seen["implied"] == ("d", "750", 77.0)  # implied by the upper layer, it looks as it does below
    assert seen["readd"][2] == 66.0


# --- kill -9

@pytest.mark.parametrize("phase", ["pull.manifest", "pull.blob", "pull.blob:2", "pull.unpacked", "pull.unpacked:2", "pull.commit"])
def test_killed_in_a_phase(store, liar, image, phase):
    name = f"{liar.host}/t/x:v1"
    p = store.start({"ZLAYER_CRASH_AT": phase}, verb="pull", reference=name)
    p.communicate(timeout=30 * SLOW)
    assert p.returncode == -signal.SIGKILL
    assert not list((store.images / "refs").iterdir())
    store.check()
    record = store.pulled(name)
    store.check()
    assert store.root(record)["data/big"][0].read_bytes() == LAYERS[1]["data/big"]
    assert not list((store.images / "staging").iterdir()) and not list((store.images / "locks").iterdir())


def test_killed_import(store, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "f").write_text("x")
    request = {"verb": "import", "reference": "mine", "source": str(tmp_path / "root"), "cmd": ["/f"]}
    for phase in ("pull.unpacked", "import.commit"):
        p = store.start({"ZLAYER_CRASH_AT": phase}, **request)
        p.communicate(timeout=30 * SLOW)
        assert p.returncode == -signal.SIGKILL and not list((store.images / "refs").iterdir())
    event, code = store.job(**request)
    assert code == 0 and event["reference"] == "docker.io/library/mine:latest"
    assert not list((store.images / "staging").iterdir())
    store.check()


# --- confinement, disk

def test_the_job_is_confined(store, liar, image):
    """Seen from outside, while a blob is slow: no right but those for placing files, no new privileges, a filter."""
    need_root()
    liar.on("/blobs/", lying.slowly(1.0))
    p = store.start(verb="pull", reference=f"{liar.host}/t/x:v1")
    try:
        deadline = time.monotonic() + 10
        while not [r for r in liar.requests if "/blobs/" in r[1]]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{p.pid}/status").read_text().splitlines() if ":\t" in line)
        chown, dac_override, fowner, fsetid, mknod, setfcap = 0, 1, 3, 4, 27, 31
        allowed = sum(1 << c for c in (chown, dac_override, fowner, fsetid, mknod, setfcap))
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(status[name], 16) & ~allowed == 0, name
        assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
    finally:
        p.communicate(timeout=30 * SLOW)
    assert p.returncode == 0


def landlock_abi():
    """0 when the kernel has no Landlock."""
    create_ruleset, want_version = 444, 1
    return max(0, ctypes.CDLL(None, use_errno=True).syscall(create_ruleset, None, 0, want_version))


def test_the_job_writes_nowhere_else(store, liar, image, tmp_path):
    """Whatever leads it out of the store, a link here, Landlock holds it: it is root, so that no file mode would."""
    need_root()
    if landlock_abi() < 2:
        pytest.skip("this kernel has no Landlock of ABI 2")
    name = f"{liar.host}/t/x:v1"
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "f").write_text("x")
    first = store.pulled(name)
    assert store.job(verb="remove", reference=name)[1] == 0
    for folder in ("refs", "layers", "blobs"):
        outside = tmp_path / "outside" / folder
        outside.parent.mkdir(exist_ok=True)
        (store.images / folder).rename(outside)
        (store.images / folder).symlink_to(outside)
        before = sorted(outside.rglob("*"))
        for request in ({"verb": "pull", "reference": name},
                        {"verb": "import", "reference": "mine", "source": str(tmp_path / "root"), "cmd": ["/f"]}):
            event, code = store.job(**request)
            assert code != 0 and "Permission denied" in event["message"], (folder, request, event)
            assert sorted(outside.rglob("*")) == before, (folder, request)
        (store.images / folder).unlink()
        outside.rename(store.images / folder)
        assert store.job(verb="prune", all=True)[1] == 0  # what is there is not written again
    assert store.pulled(name)["digest"] == first["digest"]


def test_a_full_disk(tmp_path, liar):
    need_root()
    tar = oci.tar_of({f"f{i}": os.urandom(100000) for i in range(30)})
    put_tars(liar, tar)
    data = tmp_path / "small"
    data.mkdir()
    request = json.dumps({"verb": "pull", "reference": f"{liar.host}/t/x:v1"})
    for size in ("1m", "4m"):  # full while fetching, full while unpacking
        script = f"mount -t tmpfs -o size={size} tmpfs {data} && {program('zl-image')} --data-dir {data}; c=$?; find {data} -type f; exit $c"
        r = subprocess.run(["unshare", "-m", "sh", "-c", script], input=request, stdout=subprocess.PIPE, text=True, check=False)
        lines = r.stdout.splitlines()
        errors = [json.loads(line) for line in lines if line.startswith("{") and "error" in line]
        assert r.returncode == 1 and errors[-1]["code"] == "disk_full" and "room" in errors[-1]["hint"], r.stdout
        assert oci.digest(tar)[:19] in errors[-1]["message"]
        assert not [line for line in lines if "/refs/" in line or "/staging/" in line]
