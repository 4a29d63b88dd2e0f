"""Archives of images and the work on the store: what we write others read, what they write we read, and nothing is lost."""
import concurrent.futures
import gzip
import hashlib
import io
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tarfile
import tempfile
import threading
import time

import check_store
import lying
import oci
import odd
import pytest
from conftest import SLOW, need_root, program, wait_for
from test_images import Store

IMAGES = odd.images()
NAME = "docker.io/t/one:1"


class Here(Store):
    """A store on which the command line works, without an agent."""

    def cli(self, *args, check=True, **kw):
        env = {k: v for k, v in os.environ.items() if not k.startswith("ZLAYER_")}
        env.update(ZLAYER_DATA_DIR=str(self.data), NO_COLOR="1", HOME="/nowhere")
        kw.setdefault("stdin", subprocess.DEVNULL)
        r = subprocess.run([program("zlayer"), *map(str, args)], env=env, stdout=kw.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                           timeout=120 * SLOW, check=False, **kw)
        assert not check or r.returncode == 0, (r.args, r.stdout, r.stderr)
        return r

    def json(self, *args, **kw):
        return json.loads(self.cli(*args, "-o", "json", **kw).stdout)

    def whole(self):
        assert check_store.faults(self.data) == []
        assert not list((self.images / "staging").iterdir())


@pytest.fixture
def store(tmp_path):
    need_root()
    return Here(tmp_path / "data")


@pytest.fixture
def layouts(tmp_path):
    """Folder and digest of three images: two that share layers, one apart."""
    return {name: (tmp_path / name, odd.layout(tmp_path / name, tars, name=f"docker.io/t/{name}:1", compress=form))
            for name, tars, form in (("one", IMAGES["whiteouts"], "gzip"), ("two", IMAGES["whiteouts"][:2] + IMAGES["implied"], "gzip"),
                                     ("three", IMAGES["kinds"], "zstd"))}


def blob(folder, digest):
    return (pathlib.Path(folder) / "blobs" / "sha256" / digest[7:]).read_bytes()


# --- round trips

def test_an_archive_of_ours_keeps_every_byte(store, layouts, tmp_path):
    for folder, _ in layouts.values():
        store.cli("image", "load", folder)
    store.cli("image", "save", "-o", tmp_path / "all.tar", *[f"t/{n}:1" for n in layouts])
    again = Here(tmp_path / "again")
    again.cli("image", "load", tmp_path / "all.tar")
    for name, (folder, digest) in layouts.items():
        record = again.record(f"docker.io/t/{name}:1")
        assert record["digest"] == digest
        assert (again.images / "blobs" / "sha256" / digest[7:]).read_bytes() == blob(folder, digest)
    again.whole()
    second = tmp_path / "again.tar"
    again.cli("image", "save", "-o", second, *[f"t/{n}:1" for n in layouts])
    assert second.read_bytes() == (tmp_path / "all.tar").read_bytes()  # the same images, the same archive


def test_options_stand_before_and_behind_the_images(store, layouts, tmp_path):
    for folder, _ in layouts.values():
        store.cli("image", "load", folder)
    store.cli("image", "save", "-o", tmp_path / "first.tar", "t/one:1", "t/two:1")
    for n, words in enumerate((["t/one:1", "t/two:1", "-o", "@"], ["t/one:1", "-o", "@", "t/two:1"], ["-o", "@", "t/one:1", "--", "t/two:1"])):
        for verb in ("save", "export"):
            out = tmp_path / f"{verb}{n}.tar"
            store.cli("image", verb, *[out if w == "@" else w for w in words])
            assert out.read_bytes() == (tmp_path / "first.tar").read_bytes()
    store.cli("image", "save", "-o", tmp_path / "z", "t/one:1", "--gzip")
    assert (tmp_path / "z").read_bytes()[:8] == b"\x1f\x8b\x08\0\0\0\0\0"  # without the time: the same images, the same archive
    assert store.cli("image", "save", "-o", tmp_path / "none", check=False).returncode == 2


def test_rm_and_inspect_take_several(store, layouts):
    for folder, _ in layouts.values():
        store.cli("image", "load", folder)
    assert [i["reference"] for i in store.json("image", "inspect", "t/two:1", NAME)] == ["docker.io/t/two:1", NAME]
    assert store.json("image", "inspect", NAME)["reference"] == NAME  # of one it is no list
    r = store.cli("image", "inspect", NAME, "t/none:1", "-o", "json", check=False)
    assert r.returncode == 3 and [i["reference"] for i in json.loads(r.stdout)] == [NAME] and b"t/none:1" in r.stderr
    r = store.cli("image", "rm", "t/one:1", "t/none:1", "t/two:1", check=False)
    assert r.returncode == 3
    assert b"removed t/one:1" in r.stderr and b"removed t/two:1" in r.stderr and b"no image 't/none:1'" in r.stderr
    assert [i["reference"] for i in store.json("image", "ls")] == ["docker.io/t/three:1"]
    store.whole()


def test_skopeo_reads_ours(store, layouts, tmp_path):
    folder, digest = layouts["one"]
    store.cli("image", "load", folder)
    store.cli("image", "save", "-o", tmp_path / "a.tar", NAME)
    store.cli("image", "save", "-o", tmp_path / "a.tgz", NAME)
    store.cli("image", "save", "--format", "docker", "-o", tmp_path / "d.tar", NAME)
    for source in (f"oci-archive:{tmp_path}/a.tar:{NAME}", f"oci-archive:{tmp_path}/a.tgz:{NAME}"):
        out = tmp_path / "out"
        subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", source, f"dir:{out}"], check=True, timeout=60 * SLOW)
        assert oci.digest((out / "manifest.json").read_bytes()) == digest
        shutil.rmtree(out)
    subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", f"docker-archive:{tmp_path}/d.tar:{NAME}", f"oci:{tmp_path}/back:x"],
                   check=True, timeout=60 * SLOW)
    manifest = json.loads(blob(tmp_path / "back", json.loads((tmp_path / "back" / "index.json").read_text())["manifests"][0]["digest"]))
    config = json.loads(blob(tmp_path / "back", manifest["config"]["digest"]))
    mine = json.loads(blob(folder, json.loads(blob(folder, digest))["config"]["digest"]))
    assert (config["rootfs"], config["history"]) == (mine["rootfs"], mine["history"])


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "oci"])
def test_we_read_skopeos(store, layouts, tmp_path, form):
    folder, digest = layouts["one"]
    where = tmp_path / "theirs"
    subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", f"oci:{folder}:{NAME}", f"{form}:{where}:{NAME}"], check=True,
                   timeout=60 * SLOW)
    rows = store.json("image", "load", where)
    assert [r["reference"] for r in rows] == [NAME]
    if form != "docker-archive":  # which has no manifest
        assert rows[0]["digest"] == digest
    store.whole()
    other = Here(tmp_path / "other")
    other.cli("image", "load", folder)
    assert store.record(NAME)["chain_ids"] == other.record(NAME)["chain_ids"]


@pytest.fixture
def runroot():
    folder = tempfile.mkdtemp(prefix="zl-")  # podman takes no more than 50 characters
    yield folder
    shutil.rmtree(folder)


def test_podman_reads_ours_and_we_its(store, layouts, tmp_path, runroot):
    if not shutil.which("podman"):
        pytest.skip("podman is not installed (tools/setup test)")
    folder, digest = layouts["one"]
    store.cli("image", "load", folder)
    podman = ["podman", "--root", str(tmp_path / "p"), "--runroot", runroot, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]
    for form in ("oci", "docker"):
        store.cli("image", "save", "--format", form, "-o", tmp_path / f"{form}.tar", NAME)
        subprocess.run([*podman, "load", "--quiet", "-i", tmp_path / f"{form}.tar"], check=True, stdout=subprocess.PIPE, timeout=120 * SLOW)
        out = subprocess.run([*podman, "image", "inspect", NAME], check=True, stdout=subprocess.PIPE, timeout=60 * SLOW).stdout
        assert json.loads(out)[0]["Id"] == json.loads(blob(folder, digest))["config"]["digest"][7:]
        for theirs in ("oci-archive", "docker-archive"):
            (tmp_path / "back.tar").unlink(missing_ok=True)
            subprocess.run([*podman, "save", "--quiet", "--format", theirs, "-o", tmp_path / "back.tar", NAME], check=True, timeout=120 * SLOW)
            back = Here(tmp_path / f"back-{form}-{theirs}")
            assert [r["reference"] for r in back.json("image", "load", tmp_path / "back.tar")] == [NAME]
            assert back.record(NAME)["chain_ids"] == store.record(NAME)["chain_ids"]
            back.whole()
        subprocess.run([*podman, "rmi", "--force", NAME], check=True, stdout=subprocess.PIPE, timeout=60 * SLOW)


def test_docker_reads_ours_and_we_its(store, layouts, tmp_path):
    if not shutil.which("dockerd"):
        pytest.skip("docker.io is not installed (tools/setup test)")
    folder, digest = layouts["one"]
    _, of_zstd = layouts["three"]
    for f, _ in (layouts["one"], layouts["three"]):
        store.cli("image", "load", f)
    store.cli("image", "save", "--format", "docker", "-o", tmp_path / "d.tar", NAME, "t/three:1")
    socket, log = tmp_path / "d.sock", open(tmp_path / "dockerd.log", "wb")
    daemon = subprocess.Popen(["unshare", "-n", "dockerd", "--data-root", tmp_path / "dd", "--exec-root", tmp_path / "de", "--pidfile", tmp_path / "d.pid",
                               "-H", f"unix://{socket}", "--bridge=none", "--iptables=false", "--storage-driver", "vfs"], stdout=log, stderr=log)
    docker = ["/usr/bin/docker", "-H", f"unix://{socket}"]
    try:
        deadline = time.monotonic() + 60 * SLOW
        while subprocess.run([*docker, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
            assert daemon.poll() is None, (tmp_path / "dockerd.log").read_text()[-3000:]
            assert time.monotonic() < deadline, "dockerd does not answer"
            time.sleep(0.05)
        subprocess.run([*docker, "load", "-q", "-i", tmp_path / "d.tar"], check=True, stdout=subprocess.PIPE, timeout=120 * SLOW)
        for name, d, f in ((NAME, digest, folder), ("docker.io/t/three:1", of_zstd, layouts["three"][0])):
            out = subprocess.run([*docker, "image", "inspect", name, "-f", "{{.Id}}"], check=True, stdout=subprocess.PIPE, text=True).stdout
            assert out.strip() == json.loads(blob(f, d))["config"]["digest"]
        subprocess.run([*docker, "save", "-o", tmp_path / "back.tar", "t/one:1", "t/three:1"], check=True, timeout=120 * SLOW)
    finally:
        daemon.terminate()
        daemon.wait(60)
        log.close()
    back = Here(tmp_path / "back")
    assert sorted(r["reference"] for r in back.json("image", "load", tmp_path / "back.tar")) == [NAME, "docker.io/t/three:1"]
    for name in (NAME, "docker.io/t/three:1"):
        assert back.record(name)["config"] == store.record(name)["config"]
    back.whole()


def test_artifacts(store, tmp_path):
    """What is no image keeps its bytes, too."""
    blobs = tmp_path / "a" / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data, media):
        (blobs / oci.digest(data)[7:]).write_bytes(data)
        return {"mediaType": media, "digest": oci.digest(data), "size": len(data)}

    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/vnd.test",
                "config": put(b"{}", "application/vnd.oci.empty.v1+json"), "layers": [put(b"some text", "text/plain")]}
    top = put(json.dumps(manifest).encode(), manifest["mediaType"])
    top["annotations"] = {"org.opencontainers.image.ref.name": "docker.io/t/artifact:1"}
    (tmp_path / "a" / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (tmp_path / "a" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    store.cli("image", "load", tmp_path / "a")
    assert store.record("docker.io/t/artifact:1")["artifact_type"] == "application/vnd.test"
    assert store.json("image", "fsck")["problems"] == []
    store.whole()
    store.cli("image", "save", "-o", tmp_path / "a.tar", "t/artifact:1")
    assert store.cli("image", "save", "--format", "docker", "-o", tmp_path / "d.tar", "t/artifact:1", check=False).returncode == 1
    again = Here(tmp_path / "again")
    assert again.json("image", "load", tmp_path / "a.tar")[0]["digest"] == top["digest"]
    (again.images / "blobs" / "sha256" / oci.digest(b"some text")[7:]).unlink()
    assert again.json("image", "fsck", "--repair")["problems"]
    assert again.json("image", "ls") == []


def test_pipes(store, layouts, tmp_path):
    store.cli("image", "load", layouts["one"][0])
    assert store.cli("image", "save", "-o", "/dev/stdout", NAME).stdout[257:262] == b"ustar"
    with open(tmp_path / "p.tar", "wb") as f:
        store.cli("image", "save", "-o", "-", NAME, stdout=f)
    again = Here(tmp_path / "again")
    cat = subprocess.Popen(["cat", tmp_path / "p.tar"], stdout=subprocess.PIPE)
    assert NAME in again.cli("image", "load", "-", stdin=cat.stdout).stdout.decode()
    cat.stdout.close()
    cat.wait()
    with open(tmp_path / "p.tar", "rb") as f:
        again.cli("image", "load", "-", "-t", "other", stdin=f)
    # What is given is read as it is: a socket can't be opened again, and a file is read on from where it stands.
    ours, theirs = socket.socketpair()
    writer = threading.Thread(target=lambda: (ours.sendall((tmp_path / "p.tar").read_bytes()), ours.close()))
    writer.start()
    again.cli("image", "load", "-", "-t", "socket", stdin=theirs)
    writer.join()
    theirs.close()
    (tmp_path / "q").write_bytes(b"x" * 700 + (tmp_path / "p.tar").read_bytes())
    with open(tmp_path / "q", "rb", buffering=0) as f:
        f.seek(700)
        again.cli("image", "load", "-", "-t", "behind", stdin=f)
    assert [r["reference"] for r in again.json("image", "ls")] == ["docker.io/library/behind:latest", "docker.io/library/other:latest",
                                                                  "docker.io/library/socket:latest", NAME]
    again.whole()


def test_sparse_archives(store, tmp_path):
    """As tar makes them of files with holes, also at their end."""
    digest = odd.layout(tmp_path / "l", [odd.tar([odd.entry("f", data=b"x" + b"\0" * (1 << 20))]) + b"\0" * (1 << 20)], name=NAME, compress="none")
    subprocess.run(["cp", "-r", "--sparse=always", tmp_path / "l", tmp_path / "holes"], check=True)
    subprocess.run(["tar", "-C", tmp_path / "holes", "-cSf", tmp_path / "s.tar", "."], check=True)
    assert (tmp_path / "s.tar").stat().st_size < 1 << 20
    store.cli("image", "load", tmp_path / "s.tar")
    assert store.record(NAME)["digest"] == digest
    store.whole()


def test_records_of_later_versions(store, layouts):
    """What they say more is no damage: the image stays."""
    for name in ("one", "three"):
        store.cli("image", "load", layouts[name][0])
    path = next(p for p in (store.images / "refs").iterdir() if json.loads(p.read_text())["reference"] == NAME)
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": {"more": [1]}}))
    assert NAME in [r["reference"] for r in store.json("image", "ls")]
    store.cli("image", "rm", "t/three:1")
    store.cli("image", "prune")
    assert store.json("image", "fsck")["problems"] == [] and store.record(NAME)["later"]
    store.whole()


def test_fsck_takes_a_shortage_for_no_damage(store, layouts, tmp_path):
    """Whatever file descriptor it is that can't be had: nothing is dropped, and it says so, or all is checked."""
    for folder, _ in layouts.values():
        store.cli("image", "load", folder)
    ends = set()
    for limit in range(6, 40, 3):
        r = subprocess.run(["prlimit", f"--nofile={limit}", "--", program("zl-image"), "--data-dir", store.data], check=False, text=True,
                           input='{"verb": "fsck", "repair": true}', stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60 * SLOW)
        ends.add(r.returncode)
        event = json.loads(r.stdout.splitlines()[-1]) if r.stdout else {}
        assert r.returncode or (event["found"], event["dropped"]) == (0, 0), (limit, event)
        assert len(list((store.images / "refs").iterdir())) == 3 and check_store.faults(store.data) == []
    assert 0 in ends and len(ends) > 1
    store.cli("image", "df")  # the next job clears away what those could not
    store.whole()


def test_names_of_layouts(store, layouts, tmp_path):
    """A bare word is a tag, as skopeo and buildah write them; with a dot, too."""
    for n, name in enumerate(("1.27", "1.0-RC1", "latest")):
        digest = odd.layout(tmp_path / f"l{n}", IMAGES["implied"], name=name)
        store.cli("image", "load", tmp_path / f"l{n}")
        assert store.record(f"docker.io/library/imported-{digest[7:19]}:{name}")["digest"] == digest


def test_images_for_other_machines(store, tmp_path):
    """What an archive names is loaded for whatever machine it is, as it is not run by that; of an index with several this machine's is."""
    digest = odd.layout(tmp_path / "l", IMAGES["implied"], name=NAME, architecture="s390x")
    store.cli("image", "load", tmp_path / "l")
    assert (store.record(NAME)["architecture"], store.record(NAME)["digest"]) == ("s390x", digest)
    store.whole()
    for form in ("oci", "docker"):
        store.cli("image", "save", "--format", form, "-o", tmp_path / f"{form}.tar", NAME)
        again = Here(tmp_path / form)
        again.cli("image", "load", tmp_path / f"{form}.tar")
        assert again.record(NAME)["architecture"] == "s390x"

    def index(*names):
        manifests = []
        for architecture in names:
            size = (tmp_path / "l/blobs/sha256" / digest[7:]).stat().st_size
            manifests.append({"mediaType": lying.MANIFEST, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": architecture}})
        data = json.dumps({"schemaVersion": 2, "mediaType": lying.INDEX, "manifests": manifests}).encode()
        (tmp_path / "l/blobs/sha256" / oci.digest(data)[7:]).write_bytes(data)
        top = {"mediaType": lying.INDEX, "digest": oci.digest(data), "size": len(data), "annotations": {"org.opencontainers.image.ref.name": "t/i:1"}}
        (tmp_path / "l/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    index("s390x")
    store.cli("image", "load", tmp_path / "l")
    assert store.record("docker.io/t/i:1")["manifest"] == digest
    index("s390x", "mips")
    r = store.cli("image", "load", tmp_path / "l", check=False)
    assert r.returncode != 0 and b"no image for this machine" in r.stderr
    index(oci.ARCH)  # which its config is not for
    r = store.cli("image", "load", tmp_path / "l", check=False)
    assert r.returncode != 0 and b"linux/s390x" in r.stderr


def test_what_was_loaded_before_an_error_is_told(store, layouts, tmp_path):
    folder = layouts["one"][0]
    index = json.loads((folder / "index.json").read_text())
    index["manifests"].append({**index["manifests"][0], "digest": oci.digest(b"none")})
    (folder / "index.json").write_text(json.dumps(index))
    r = store.cli("image", "load", folder, check=False)
    assert r.returncode != 0 and oci.digest(b"none")[:19].encode() in r.stderr and NAME.encode() in r.stdout
    assert store.record(NAME)


# --- archives that lie

def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, tuple):
                info.type, info.linkname = data
                t.addfile(info)
            else:
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def of_layout(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in pathlib.Path(folder).rglob("*") if p.is_file()}


def test_archives_that_lie(store, layouts, tmp_path):
    folder, digest = layouts["one"]
    good = of_layout(folder)
    layer = json.loads(good[f"blobs/sha256/{digest[7:]}"])["layers"][1]["digest"]
    config = json.loads(good[f"blobs/sha256/{digest[7:]}"])["config"]["digest"]
    index = json.loads(good["index.json"])
    small = {**index, "manifests": [{**index["manifests"][0], "size": 1}]}
    victim = tmp_path / "victim"
    victim.write_text("safe")
    tar = odd.tar([odd.entry("f", data=b"x")])
    image = json.dumps({"architecture": oci.ARCH, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [oci.digest(tar)]}}).encode()
    docker = {"c.json": image, "l.tar": tar, "manifest.json": b'[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]'}
    for files, code, word in (
            ({**good, f"blobs/sha256/{layer[7:]}": b"other"}, "digest_mismatch", layer[:19]),
            ({k: v for k, v in good.items() if layer[7:] not in k}, "bad_image", layer[:19]),
            ({k: v for k, v in good.items() if config[7:] not in k}, "bad_image", config[:19]),
            ({**good, "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}, "bad_image", "2.0.0"),
            ({**good, "index.json": b"["}, "bad_image", "JSON"),
            ({**good, "index.json": json.dumps(small).encode()}, "digest_mismatch", "bytes"),
            ({**good, "index.json": b'{"schemaVersion":2,"manifests":[]}'}, "bad_image", "no image"),
            ({"x": b"y"}, "bad_image", "neither"),
            ({**good, "../evil": b"x"}, "bad_image", "leaves the archive"),
            ({**docker, "l.tar": (tarfile.SYMTYPE, "../../../victim")}, "bad_image", "link out of"),
            ({**docker, "l.tar": (tarfile.SYMTYPE, "l.tar")}, "bad_image", "no file"),
            ({**docker, "l.tar": tar + b"\0"}, "digest_mismatch", "unpack"),
            ({**docker, "manifest.json": b'[{"Config":"../c.json","Layers":["l.tar"]}]'}, "bad_image", "no file"),
            ({**docker, "manifest.json": b'[{"Config":"/etc/passwd","Layers":["l.tar"]}]'}, "bad_image", "no file"),
            ({**docker, "manifest.json": b'[]'}, "bad_image", "list of images"),
            ({**docker, "manifest.json": b'[{"Config":"c.json","RepoTags":["UPPER"],"Layers":["l.tar"]}]'}, "bad_image", "--tag")):
        (tmp_path / "lie.tar").write_bytes(archive(files))
        event, exit_code = store.job(verb="load", source=str(tmp_path / "lie.tar"))
        assert event.get("code") == code and word in event["message"] + event["hint"], (word, event)
        assert exit_code != 0 and not list((store.images / "refs").iterdir()) and not list((store.images / "staging").iterdir())
        assert victim.read_text() == "safe" and not (tmp_path / "evil").exists()
    (tmp_path / "lie.tar").write_bytes(archive({**docker, "x/l.tar": tar, "l.tar": (tarfile.SYMTYPE, "x/../x/l.tar")}))
    assert store.job(verb="load", source=str(tmp_path / "lie.tar"))[1] == 0  # docker save links layers that it has twice
    # Holes are nobody's bytes: an archive may have some, not a disk full of them.
    for pieces, size in (([(1 << 50, b"x")], (1 << 50) + 1), ([(0, b"x")], 1 << 50), ([(1 << 30, b"x"), ((1 << 30) + 4096, b"y")], 1 << 32)):
        (tmp_path / "lie.tar").write_bytes(odd.tar([odd.pax_sparse("manifest.json", pieces, size)]))
        event, exit_code = store.job(verb="load", source=str(tmp_path / "lie.tar"))
        assert exit_code and event["code"] == "limit_exceeded" and "holes" in event["message"], event
        assert not list((store.images / "staging").iterdir())
    for data in (b"", b"\0" * 1024, b"no tar at all" * 100, archive(good)[:1500]):
        (tmp_path / "lie.tar").write_bytes(data)
        assert store.job(verb="load", source=str(tmp_path / "lie.tar"))[0]["code"] == "bad_image"


def test_save_says_what_is_damaged_and_leaves_no_half_archive(store, layouts, tmp_path):
    store.cli("image", "load", layouts["one"][0])
    layer = store.images / "blobs" / "sha256" / store.record(NAME)["layers"][0][7:]
    data = bytearray(layer.read_bytes())
    data[20] ^= 1
    layer.write_bytes(data)
    (tmp_path / "out").mkdir()
    for form in ("oci", "docker"):
        r = store.cli("image", "save", "--format", form, "-o", tmp_path / "out" / "a.tar", NAME, check=False)
        assert r.returncode == 1 and b"damaged" in r.stderr and b"fsck" in r.stderr
        assert not list((tmp_path / "out").iterdir())
    assert store.cli("image", "save", "-o", tmp_path / "out" / "a.tar", "nothing", check=False).returncode == 3
    assert store.cli("image", "save", "-o", tmp_path / "nowhere" / "a.tar", NAME, check=False).returncode == 3
    assert store.cli("image", "save", NAME, check=False).returncode == 2


# --- the store

def disk_bytes(*tops):
    seen, total = set(), 0
    for top in tops:
        for path in [top, *top.rglob("*")]:
            st = path.lstat()
            if path != top and (st.st_ino not in seen or st.st_nlink == 1):
                total += st.st_blocks * 512
            seen.add(st.st_ino)
    return total


def test_what_df_says_adds_up(store, layouts):
    for folder, _ in layouts.values():
        store.cli("image", "load", folder)
    df = store.json("image", "df")
    assert df["total_bytes"] == disk_bytes(store.images / "blobs" / "sha256", store.images / "layers")
    assert (df["blobs"], df["layers"]) == (len(list((store.images / "blobs" / "sha256").iterdir())), len(list((store.images / "layers").iterdir())))
    assert df["reclaimable_bytes"] == 0
    of = {i["reference"]: i for i in df["images"]}
    assert of["docker.io/t/three:1"]["shared_bytes"] == 0 < of[NAME]["shared_bytes"] == of["docker.io/t/two:1"]["shared_bytes"]
    assert df["total_bytes"] == sum(i["unique_bytes"] for i in df["images"]) + of[NAME]["shared_bytes"]
    assert all(i["bytes"] == i["unique_bytes"] + i["shared_bytes"] for i in df["images"])
    shutil.move(store.images / "refs" / "docker.io%2Ft%2Fthree%3A1", store.data)
    df = store.json("image", "df")
    assert df["reclaimable_bytes"] == of["docker.io/t/three:1"]["bytes"]
    would = store.json("image", "prune", "--dry-run")
    assert store.json("image", "df") == df
    did = store.json("image", "prune")
    assert would == did and did["freed_bytes"] == df["reclaimable_bytes"] == sum(d["bytes"] for d in did["deleted"])
    assert store.json("image", "df")["total_bytes"] == df["total_bytes"] - did["freed_bytes"]
    store.whole()


def test_prune(store, layouts, tmp_path):
    for folder, _ in layouts.values():
        store.cli("image", "load", folder)
    odd.layout(tmp_path / "labelled", IMAGES["v7"], name="docker.io/t/labelled:1", config={"Labels": {"team": "red"}})
    store.cli("image", "load", tmp_path / "labelled")
    lease = store.images / "leases" / "holder"
    lease.write_text("\n".join(store.record(NAME)["chain_ids"]) + "\n")

    def left():
        return sorted(i["reference"] for i in store.json("image", "ls"))

    store.cli("image", "prune")
    assert len(left()) == 4
    assert store.cli("image", "prune", "--filter", "until=1h", check=False).returncode == 2
    assert store.cli("image", "prune", "-a", "--filter", "age=1h", check=False).returncode == 2
    assert store.json("image", "prune", "-a", "--filter", "until=1h")["deleted"] == []
    assert store.json("image", "prune", "-a", "--filter", "label=team=blue")["deleted"] == []
    gone = store.json("image", "prune", "-a", "--filter", "label=team")["deleted"]
    assert [g["name"] for g in gone if g["kind"] == "image"] == ["docker.io/t/labelled:1"] and len(left()) == 3
    store.cli("image", "prune", "--all")
    assert left() == [NAME]  # a container uses it
    store.whole()
    assert store.cli("image", "rm", NAME, check=False).returncode == 1
    store.cli("image", "rm", "--force", NAME)
    assert sorted(p.name for p in (store.images / "layers").iterdir()) == sorted(set(lease.read_text().replace("sha256:", "").split()))
    lease.unlink()
    store.cli("image", "prune")
    assert not list((store.images / "layers").iterdir()) and not list((store.images / "blobs" / "sha256").iterdir())


def test_tag_history_diff(store, layouts, tmp_path):
    store.cli("image", "load", layouts["one"][0])
    store.cli("image", "load", layouts["two"][0])
    store.cli("image", "tag", NAME, "mine:2")
    assert store.record("docker.io/library/mine:2")["digest"] == store.record(NAME)["digest"]
    assert store.cli("image", "tag", NAME, "UPPER", check=False).returncode == 1
    assert store.cli("image", "tag", "nothing", "x", check=False).returncode == 3
    store.cli("image", "rm", NAME)
    store.whole()
    steps = store.json("image", "history", "mine:2")
    assert [s["created_by"] for s in steps] == [f"layer {i}" for i in range(4)]
    assert [s["layer"] for s in steps] == store.record("docker.io/library/mine:2")["layers"]
    assert store.json("image", "diff", "mine:2", "mine:2") == []
    rows = {r["path"]: (r["change"], r["what"]) for r in store.json("image", "diff", "mine:2", "t/two:1")}
    mine = odd.merged([store.images / "layers" / c[7:] for c in store.record("docker.io/library/mine:2")["chain_ids"]], tmp_path / "m")
    other = odd.merged([store.images / "layers" / c[7:] for c in store.record("docker.io/t/two:1")["chain_ids"]], tmp_path / "m")
    for path in set(mine) | set(other):
        if path == ".":
            continue
        a, b = mine.get(path), other.get(path)
        parent = os.path.dirname(path)
        if a is None or b is None:
            if parent and (parent not in mine or parent not in other):
                continue  # its folder is told
            assert rows.pop("/" + path) == ("added" if a is None else "removed", [])
        elif a["kind"] != b["kind"]:
            assert rows.pop("/" + path) == ("changed", ["kind"])
        else:
            what = [name for name, keys in (("content", ("content", "to", "dev")), ("mode", ("mode",)), ("owner", ("uid", "gid")), ("time", ("mtime",)),
                                            ("attributes", ("xattrs",))) if any(a.get(k) != b.get(k) for k in keys)]
            if what:
                assert rows.pop("/" + path) == ("changed", what)
    rows.pop("/", None)
    assert rows == {}


def test_fsck(store, layouts):
    for folder, _ in layouts.values():
        store.cli("image", "load", folder)
    assert store.json("image", "fsck")["problems"] == []
    blobs, layers = store.images / "blobs" / "sha256", store.images / "layers"
    record = store.record(NAME)
    top = layers / record["chain_ids"][0][7:]
    damages = {
        "content": lambda: (top / "stay").write_bytes(b"X"),
        "a file that is gone": lambda: (top / "gone").unlink(),
        "a file too many": lambda: (top / "evil").write_bytes(b""),
        "a mode": lambda: (top / "stay").chmod(0o600),
        "a time": lambda: os.utime(top / "dir", (1, 1)),
        "a whiteout that is gone": lambda: (layers / record["chain_ids"][1][7:] / "gone").unlink(),
        "a layer": lambda: shutil.rmtree(top),
        "a blob": lambda: (blobs / record["layers"][0][7:]).write_bytes(b"other"),
        "a blob that is gone": lambda: (blobs / record["layers"][3][7:]).unlink(),
        "a config": lambda: (blobs / record["config"][7:]).unlink(),
        "a record": lambda: (store.images / "refs" / "docker.io%2Ft%2Fone%3A1").write_text("{"),
        "a name among the blobs": lambda: (blobs / "readme").write_text("x"),
    }
    for what, damage in damages.items():
        damage()
        r = store.cli("image", "fsck", "-o", "json", check=False)
        assert r.returncode == 1 and json.loads(r.stdout)["problems"], what
        store.cli("image", "fsck", "--repair")
        assert store.json("image", "fsck")["problems"] == [], what
        store.whole()
        store.cli("image", "load", layouts["one"][0])  # and the next load makes it good
        store.cli("image", "load", layouts["two"][0])
        assert store.json("image", "fsck")["problems"] == [], what
        store.whole()
    lease = store.images / "leases" / "holder"
    lease.write_text(record["chain_ids"][0] + "\n")
    (top / "stay").write_bytes(b"X")
    r = store.json("image", "fsck", "--repair")
    assert any("container" in p["message"] for p in r["problems"]) and top.exists()


def test_an_agent_does_the_work(node, layouts, tmp_path):
    """The same commands when an agent holds the data dir: it runs the jobs, and its loop is never held up by one."""
    agent = node.start("serve", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for("the agent is there", lambda: node.json("status")["agent"], 20)
        for name, (folder, digest) in layouts.items():
            assert node.json("image", "load", folder)[0]["digest"] == digest
        node.run("image", "tag", "t/one:1", "t/again:1")
        assert [s["created_by"] for s in node.json("image", "history", "t/one:1")] == [f"layer {i}" for i in range(4)]
        assert node.json("image", "diff", "t/one:1", "t/again:1") == [] != node.json("image", "diff", "t/one:1", "t/three:1")
        assert len(node.json("image", "df")["images"]) == 4 and node.json("image", "fsck")["problems"] == []
        node.run("image", "save", "-o", tmp_path / "a.tar", "t/one:1", "t/three:1")
        with open(tmp_path / "b.tar", "wb") as f:
            subprocess.run([node.cli, "image", "save", "-o", "-", "t/one:1", "t/three:1"], env=node.env, stdout=f, stderr=subprocess.DEVNULL, check=True)
        assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
        node.run("image", "rm", "t/one:1")
        assert node.run("image", "rm", "t/one:1", check=False).returncode == 3
        assert [g["name"] for g in node.json("image", "prune", "--all")["deleted"] if g["kind"] == "image"] == \
            ["docker.io/t/again:1", "docker.io/t/three:1", "docker.io/t/two:1"]
        node.run("image", "load", tmp_path / "a.tar")
        assert check_store.faults(node.data) == []
        refused = {"load": {"source": "relative"}, "save": {"references": ["a"]}, "tag": {"reference": "a"}, "diff": {"reference": "a"},
                   "prune": {"filters": ["until=1h"]}, "fsck": {"deep": True}}
        socket = next(p for p in node.data.rglob("zlayer.sock"))
        for verb, body in refused.items():
            out = subprocess.run(["curl", "-s", "--unix-socket", socket, f"http://x/api/v1/images/{verb}", "-d", json.dumps(body)],
                                 stdout=subprocess.PIPE, check=True).stdout
            assert json.loads(out)["error"], (verb, out)
    finally:
        agent.terminate()
        agent.wait(30)


def test_a_root_filesystem_on_another_file_system(store, tmp_path):
    """The kernel does not copy between file systems of different kinds for us."""
    rootfs, other = odd.tar([odd.entry(f"f{i}", data=os.urandom(200000)) for i in range(5)]), tmp_path / "other"
    other.mkdir()
    script = 'mount -t ramfs ramfs "$1" && cat > "$1/r.tar" && exec "$2" image import "$1/r.tar" -t t/r:1'
    r = subprocess.run(["unshare", "-m", "sh", "-ec", script, "sh", other, program("zlayer")], input=rootfs, stdout=subprocess.PIPE, check=False,
                       stderr=subprocess.STDOUT, env={"PATH": os.environ["PATH"], "HOME": "/nowhere", "ZLAYER_DATA_DIR": str(store.data)})
    assert r.returncode == 0, r.stdout
    assert store.record("docker.io/t/r:1")["layers"] == [oci.digest(rootfs)]
    store.whole()


def test_blobs_that_are_there_stay(store, liar, layouts, tmp_path):
    """Nothing puts a file that is not on the disk yet in the place of one that an image needs: not a pull, a load, an import."""
    rootfs = tmp_path / "rootfs.tar"
    rootfs.write_bytes(odd.tar([odd.entry("f", data=b"x")]))
    liar.load(layouts["one"][0])
    for _ in range(2):
        before = {p.name: p.stat().st_ino for p in (store.images / "blobs/sha256").glob("*")}
        for work in (["load", layouts["one"][0]], ["load", layouts["two"][0]], ["import", rootfs, "-t", "t/r:1"]):
            store.cli("image", *work)
        store.cli("pull", f"{liar.host}/t/x:v1")
        now = {p.name: p.stat().st_ino for p in (store.images / "blobs/sha256").glob("*")}
        assert {name: now[name] for name in before} == before
    assert before
    manifest = layouts["one"][1][7:]
    (store.images / "blobs/sha256" / manifest).write_bytes(b"")  # as a power cut leaves what no image needs
    store.cli("image", "load", layouts["one"][0])
    store.whole()


# --- what is said

def on_small_disk(tmp_path, size, command, **kw):
    """What `command` says on stderr, with a data dir on a disk of that size."""
    data = tmp_path / "small"
    data.mkdir(exist_ok=True)
    r = subprocess.run(["unshare", "-m", "sh", "-ec", f'mount -t tmpfs -o size={size} tmpfs "$1"; shift; exec "$@"', "sh", data, program("zlayer"), *command],
                       env={"PATH": os.environ["PATH"], "HOME": "/nowhere", "ZLAYER_DATA_DIR": str(data), "NO_COLOR": "1"}, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, check=False, timeout=60 * SLOW, **kw)
    assert r.returncode == 1 and r.stdout == b""
    return r.stderr.decode(), data


def test_import_and_load_say_that_the_disk_is_full(tmp_path, layouts):
    need_root()
    (tmp_path / "root" / "bin").mkdir(parents=True)
    (tmp_path / "root" / "bin" / "busybox").write_bytes(os.urandom(3 << 20))
    with tarfile.open(tmp_path / "root.tar", "w") as t:
        t.add(tmp_path / "root", arcname=".")
    for size, source in (("1m", "root"), ("1m", "root.tar"), ("5m", "root"), ("5m", "root.tar")):  # full while copying, while unpacking
        said, data = on_small_disk(tmp_path, size, ["image", "import", tmp_path / source, "-t", "t/r:1"])
        assert "error: import docker.io/t/r:1: " in said and "no space left on" in said.lower(), (size, source, said)
        assert f"make room below {data}" in said
        assert size != "1m" or source != "root" or "'bin/busybox'" in said
    here = Here(tmp_path / "data")
    here.cli("image", "import", tmp_path / "root", "-t", "t/r:1")
    here.cli("image", "save", "-o", tmp_path / "a.tar", "t/r:1")
    with open(tmp_path / "a.tar", "rb") as f:
        said, data = on_small_disk(tmp_path, "1m", ["image", "load", "-"], stdin=f)
    assert "/proc/self" not in said and "error: load standard input: " in said and f"make room below {data}" in said, said
    pipe = subprocess.Popen(["cat", tmp_path / "a.tar"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said, data = on_small_disk(tmp_path, "1m", ["image", "load", "-"], stdin=pipe.stdout)
    pipe.stdout.close()
    pipe.wait(30)
    assert said.startswith("error: load standard input: copy the archive: No space left on device") and f"make room below {data}" in said, said


def test_save_says_why_it_can_not_write(store, layouts, tmp_path):
    store.cli("image", "load", layouts["one"][0])
    with open("/dev/full", "wb") as full:
        for form in ("oci", "docker"):
            r = store.cli("image", "save", "--format", form, "-o", "-", NAME, check=False, stdout=full)
            assert r.returncode == 1 and b"the archive: No space left on device" in r.stderr and b"''" not in r.stderr, r.stderr
    (tmp_path / "folder").mkdir()
    for target in ("folder", "folder/"):
        r = store.cli("image", "save", "-o", f"{tmp_path}/{target}", NAME, check=False)
        assert r.returncode == 2 and b"is a folder" in r.stderr
    p = store.start(verb="save", references=[NAME], target=str(tmp_path / "folder"))  # as others than the command line may ask
    out, _ = p.communicate(timeout=30 * SLOW)
    assert p.returncode and "write the archive" in out and "irectory" in out and "progress" not in out, out
    assert sorted(q.name for q in tmp_path.iterdir() if q.name.startswith(".")) == []


def test_save_takes_the_place_of_files_only(store, layouts, tmp_path):
    """Not of devices, pipes and links: a link stays, and what it leads to is the archive."""
    store.cli("image", "load", layouts["one"][0])
    out = tmp_path / "out"
    out.mkdir()
    os.mkfifo(out / "pipe")
    os.mknod(out / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (out / "dangling").symlink_to("nowhere")
    before = {p.name: p.lstat() for p in out.iterdir()}
    for name in before:
        r = store.cli("image", "save", "-o", out / name, NAME, check=False)
        assert r.returncode == 2 and b"no regular file" in r.stderr and b"-o -" in r.stderr, (name, r.stderr)
        event, code = store.job(verb="save", references=[NAME], target=str(out / name))  # as others than the command line may ask
        assert code and event["code"] == "invalid_argument" and "no regular file" in event["message"], event
    assert {p.name: p.lstat() for p in out.iterdir()} == before
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.tar").write_text("old")
    (out / "link").symlink_to("../real/a.tar")
    store.cli("image", "save", "-o", out / "link", NAME)
    assert (out / "link").is_symlink() and tarfile.is_tarfile(tmp_path / "real/a.tar")
    assert stat.S_IMODE((tmp_path / "real/a.tar").stat().st_mode) == 0o600  # it may be a private image
    assert sorted(p.name for p in (tmp_path / "real").iterdir()) == ["a.tar"]


def test_a_killed_save_leaves_nothing(store, tmp_path):
    (tmp_path / "out").mkdir()
    rootfs = tmp_path / "rootfs.tar"
    rootfs.write_bytes(odd.tar([odd.entry(f"f{i}", data=os.urandom(8 << 20)) for i in range(8)]))
    store.cli("image", "import", rootfs, "-t", "t/big:1")
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        p = store.start(verb="save", references=["docker.io/t/big:1"], target=str(tmp_path / "out/a.tar"))
        assert "progress" in p.stdout.readline()  # 4 of 64 MiB are written
        p.send_signal(sent)
        p.communicate(timeout=30 * SLOW)
        assert p.returncode == -sent and list((tmp_path / "out").iterdir()) == []


def test_import_says_what_its_layer_is(store, tmp_path):
    tar = odd.tar([odd.entry("f", data=b"x" * 10000)])
    for kind, data in (("tar", tar), ("tar+gzip", gzip.compress(tar)),
                       ("tar+zstd", subprocess.run(["zstd", "-qc"], input=tar, stdout=subprocess.PIPE, check=True).stdout)):
        (tmp_path / "rootfs").write_bytes(data)
        store.cli("image", "import", tmp_path / "rootfs", "-t", "t/r:1")
        record = store.record("docker.io/t/r:1")
        manifest = json.loads((store.images / "blobs/sha256" / record["digest"][7:]).read_bytes())
        assert manifest["layers"] == [{"mediaType": f"application/vnd.oci.image.layer.v1.{kind}", "digest": oci.digest(data), "size": len(data)}]
        store.cli("image", "save", "-o", tmp_path / "a.tar", "t/r:1")
        subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", f"oci-archive:{tmp_path}/a.tar", f"dir:{tmp_path}/{kind}"], check=True,
                       timeout=60 * SLOW)


def test_a_folder_keeps_links_and_attributes(store, tmp_path):
    rootfs = tmp_path / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    (rootfs / "bin/ping").write_bytes(b"p" * 5000)
    capability = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # CAP_NET_RAW, VFS_CAP_REVISION_2
    os.setxattr(rootfs / "bin/ping", "security.capability", capability)
    os.link(rootfs / "bin/ping", rootfs / "ping4")
    os.link(rootfs / "bin/ping", rootfs / "zz")
    os.setxattr(rootfs / "bin", "trusted.overlay.opaque", b"y")
    store.cli("image", "import", rootfs, "-t", "t/r:1")
    record = store.record("docker.io/t/r:1")
    layer = store.images / "layers" / record["chain_ids"][0][7:]
    assert os.getxattr(layer / "bin/ping", "security.capability") == capability
    assert len({(layer / n).stat().st_ino for n in ("bin/ping", "ping4", "zz")}) == 1 and (layer / "zz").read_bytes() == b"p" * 5000
    with tarfile.open(store.images / "blobs/sha256" / record["layers"][0][7:]) as t:
        assert [(m.name, m.type) for m in t if m.name == "zz"] == [("zz", tarfile.LNKTYPE)]
        assert not [k for m in t for k in m.pax_headers if "trusted" in k]
    store.whole()


def test_what_images_say_does_not_steer_the_terminal(store, tmp_path):
    rootfs = tmp_path / "rootfs.tar"
    rootfs.write_bytes(odd.tar([odd.entry("f", data=b"x")]))
    bad = "\u009b31m\u202e\u2066\u202a\u2069"
    store.cli("image", "import", rootfs, "-t", "t/r:1", "--env", f"A={bad}", "--cmd", bad, "--user", bad)
    assert f"A={bad}" in store.json("image", "inspect", "t/r:1")["env"]  # by number, and the same when read
    for form in ("json", "yaml", "table"):
        said = store.cli("image", "inspect", "t/r:1", "-o", form).stdout.decode()
        assert not set(bad) & set(said) - set("31m") and "\\u202e" in said


def test_results_are_no_events(store, liar, registry, layouts, tmp_path):
    """What programs read is what was made; `event` is between the job and the command line."""
    rootfs = tmp_path / "rootfs.tar"
    rootfs.write_bytes(odd.tar([odd.entry("f", data=b"x")]))
    liar.load(layouts["one"][0])
    results = [store.json("image", "import", rootfs, "-t", "t/r:1"), store.json("pull", f"{liar.host}/t/x:v1"),
               store.json("push", "t/r:1", f"{registry.host}/t/y:1"), store.json("image", "load", layouts["two"][0]), store.json("image", "history", "t/r:1"),
               store.json("image", "diff", "t/r:1", "t/two:1"), store.json("image", "df"), store.json("image", "fsck"),
               store.json("image", "prune", "--all", "--dry-run")]
    for result in results:
        assert result
        for row in result if isinstance(result, list) else [result]:
            assert "event" not in row
    assert results[0]["digest"] and results[1][0]["digest"] and results[2]["digest"]


# --- several at once, a full disk, kill -9

def test_two_pulls_do_the_work_once(store, liar, tmp_path):
    odd.layout(tmp_path / "big", [odd.tar([odd.entry(f"f{i}", data=os.urandom(300000))]) for i in range(8)])
    liar.load(tmp_path / "big")
    liar.on("/blobs/", lying.slowly(0.1))
    jobs = [store.start(verb="pull", reference=f"{liar.host}/t/x:v1", policy="always") for _ in range(4)]
    assert all(p.communicate(timeout=120 * SLOW) and p.returncode == 0 for p in jobs)
    asked = [r[1] for r in liar.requests if "/blobs/" in r[1] and r[0] == "GET"]
    layers = [d["digest"] for d in json.loads(liar.manifests["v1"][0])["layers"]]
    for digest in layers:
        assert sum(digest in path for path in asked) == 1
    store.whole()


def test_loads_and_collectors_at_once(store, layouts):
    def turn(n):
        rng = random.Random(n)
        for _ in range(6):
            name = rng.choice(list(layouts))
            request = rng.choice([{"verb": "load", "source": str(layouts[name][0])}, {"verb": "load", "source": str(layouts[name][0])},
                                  {"verb": "prune"}, {"verb": "prune", "all": True}, {"verb": "remove", "reference": f"docker.io/t/{name}:1"}])
            event, code = store.job(**request)
            assert code == 0 or event["code"] == "image_not_found", (request, event)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(turn, n) for n in range(4)]:
            done.result()
    store.whole()


def test_a_disk_that_fills_at_any_byte(tmp_path):
    need_root()
    odd.layout(tmp_path / "l", [odd.tar([odd.entry(f"d{i}/f{i}", data=os.urandom(20000)) for i in range(20)]), IMAGES["implied"][0]])
    data = tmp_path / "small"
    data.mkdir()
    request = json.dumps({"verb": "load", "source": str(tmp_path / "l")})
    outcomes = set()
    for kib in range(100, 1400, 90):
        script = (f"mount -t tmpfs -o size={kib}k tmpfs {data} && {program('zl-image')} --data-dir {data} && c=0 || c=$?; "
                  f"{check_store.sys.executable} {check_store.__file__} {data} --files >&2 || exit 99; "
                  f"find {data}/images/refs {data}/images/staging -mindepth 1; exit $c")
        r = subprocess.run(["unshare", "-m", "sh", "-c", script], input=request, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        lines = r.stdout.splitlines()
        left = [line for line in lines if line.startswith("/")]
        assert r.returncode in (0, 1), (kib, r.stdout, r.stderr)
        outcomes.add(r.returncode)
        if r.returncode == 0:
            assert len(left) == 1
        else:
            event = json.loads([line for line in lines if line.startswith("{")][-1])
            assert event["code"] == "disk_full" and left == [], (kib, event, left)
    assert outcomes == {0, 1}


def killings():
    return 200 if os.environ.get("ZLAYER_LONG") else 20


def test_killed_at_random(store, liar, layouts, tmp_path):
    """kill -9 during pull, load, prune, save and removal, at any moment: the store is whole each time, and what it holds can be
    exported and read by skopeo."""
    odd.layout(tmp_path / "big", [odd.tar([odd.entry(f"{i}/f{k}", data=os.urandom(3000)) for k in range(150)]) for i in range(6)] + IMAGES["whiteouts"][:1])
    liar.load(tmp_path / "big")
    name = f"{liar.host}/t/x:v1"
    rng = random.Random(5)
    requests = [{"verb": "pull", "reference": name}, {"verb": "pull", "reference": name}, {"verb": "load", "source": str(layouts["one"][0])},
                {"verb": "load", "source": str(layouts["two"][0])}, {"verb": "prune", "all": True}, {"verb": "remove", "reference": name},
                {"verb": "save", "references": [name], "target": str(tmp_path / "k.tar")}, {"verb": "fsck", "repair": True}]
    took = {}
    for round_ in range(killings()):
        request = rng.choice(requests)
        key = request["verb"]
        p = store.start(**request)
        try:
            p.communicate(timeout=rng.uniform(0, took.get(key, 0.5)))
            took[key] = max(0.05, took.get(key, 0.5) * 0.8)
        except subprocess.TimeoutExpired:
            p.send_signal(signal.SIGKILL)
            p.communicate(timeout=30 * SLOW)
            took[key] = min(5.0 * SLOW, took.get(key, 0.5) * 1.2)
        found = check_store.faults(store.data)
        assert found == [], (round_, request, found)
    assert store.job(verb="pull", reference=name)[1] == 0
    assert store.job(verb="prune")[1] == 0
    store.whole()
    store.cli("image", "save", "-o", tmp_path / "end.tar", name)
    subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", f"oci-archive:{tmp_path}/end.tar:{name}", f"dir:{tmp_path}/end"], check=True,
                   timeout=60 * SLOW)
    assert hashlib.sha256((tmp_path / "end" / "manifest.json").read_bytes()).hexdigest() == store.record(name)["digest"][7:]
