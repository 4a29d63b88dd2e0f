"""Images as unlike each other as can be, pushed by us and run by podman and docker, pushed by them and run by us: the same tree
everywhere, and manifests that are the same byte for byte."""
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import engines
import odd
import pytest
from conftest import Registry, need_root
from test_images import Store
from test_registry import pulled, pushed, raw_in, run_here

LONG = bool(os.environ.get("ZLAYER_LONG"))
# Without what engines refuse (two entries of one path in a layer) or do each in its own way (folders that no entry names, links with
# another mode than their file).
ODD = ("kinds", "implied", "odd orders", "whiteouts")
NAMES = [odd.tar([odd.entry("ümläut-Ω", data=b"u"), odd.entry("l" * 200, odd.DIR), odd.entry("l" * 200 + "/" + "m" * 200, data=b"long"),
                  odd.entry("space and\ttab", data=b"s"), odd.entry("longlink", odd.SYM, linkname="t" * 3000), odd.entry("-dash", data=b"d")])]
LINKS_BELOW = [odd.tar([odd.entry("low", odd.DIR, mode=0o711, uid=1, mtime=5), odd.entry("low/file", data=b"below", mode=0o4750, uid=10, gid=20)]),
               odd.tar([odd.entry(name, odd.LNK, linkname="low/file", mode=0o4750, uid=10, gid=20) for name in ("up1", "up2")])]
# All that the image says of a file, but for what a runtime puts there itself.
TREE = r"""cd / && busybox find . -mindepth 1 \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./etc -o -path ./.dockerenv \) -prune \
 -o -print0 | busybox sort -z > /dev/shm/all && busybox xargs -0 busybox stat -c '%N %F %a %u %g %t %T' < /dev/shm/all &&
 busybox xargs -0 sh -c 'for f; do [ ! -f "$f" ] || [ -L "$f" ] || busybox sha256sum "$f"; done' x < /dev/shm/all"""


def packages(most, good):
    """Files of this machine's packages, of `most` bytes together."""
    files, total = {}, 0
    for folder in ("/usr/share/doc", "/usr/share/perl", "/usr/lib/python3", "/usr/share", "/usr/bin", "/usr/lib"):
        for top, below, names in os.walk(folder):
            below.sort()
            for name in sorted(names):
                path = pathlib.Path(top, name)
                if path.is_symlink() or not path.is_file() or not good(path.stat().st_size) or str(path) in files:
                    continue
                files[str(path)] = path.read_bytes()
                total += len(files[str(path)])
                if total >= most:
                    return files
    return files


def tar_of(files):
    entries, folders = [], set()
    for name, data in files.items():
        for parent in [str(p)[1:] for p in reversed(pathlib.PurePath(name).parents[:-1])]:
            if parent not in folders:
                folders.add(parent)
                entries.append(odd.entry(parent, odd.DIR))
        entries.append(odd.entry(name[1:], data=data))
    return odd.tar(entries)


def images(base):
    """{name: [its layers' tars]}, the base with its programs as the last."""
    small = packages(200 << 20 if LONG else 4 << 20, lambda n: n <= 64 << 10)
    large = packages(200 << 20 if LONG else 16 << 20, lambda n: n >= 4 << 20)
    names = sorted(small)[:600]
    everything = odd.images()
    return {"many": [tar_of(small), base],
            "large": [*(tar_of(dict(list(large.items())[i::3])) for i in range(3)), base],
            "layers": [*(tar_of({n: small[n] for n in names[i::119]}) for i in range(119)), base],
            "odd": [*(tar for name in ODD for tar in everything[name]), *LINKS_BELOW, *NAMES, base]}


def several_platforms(folder, tars):
    """An index over this machine's image and another's."""
    odd.layout(folder, tars, config={"Cmd": ["/bin/sh"]})
    blobs = folder / "blobs" / "sha256"
    top = json.loads((folder / "index.json").read_text())["manifests"][0]
    mine = json.loads((blobs / top["digest"][7:]).read_text())
    config = {**json.loads((blobs / mine["config"]["digest"][7:]).read_text()), "architecture": "s390x"}

    def put(document, media):
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}
    other = put({**mine, "config": put(config, mine["config"]["mediaType"])}, top["mediaType"])
    mine = {k: top[k] for k in ("mediaType", "digest", "size")}
    index = put({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        {**other, "platform": {"os": "linux", "architecture": "s390x"}}, {**mine, "platform": {"os": "linux", "architecture": odd.oci.ARCH}}]},
                "application/vnd.oci.image.index.v1+json")
    index["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [index]}))


def goes_round(name, folder, registry, node, engine):
    """From skopeo to us, from us to the engine, from the engine to us."""
    store = Store(node.data, registry.enter)
    at = {who: f"{registry.host}/trip/{name}:{who}" for who in ("skopeo", "ours", "theirs")}
    subprocess.run([*registry.enter, "skopeo", "copy", "--all", "--quiet", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false",
                    f"oci:{folder}:latest", f"docker://{at['skopeo']}"], check=True, stdin=subprocess.DEVNULL, timeout=300)

    def manifest(who):
        return raw_in(registry, f"trip/{name}:{who}")
    record = pulled(store, at["skopeo"])
    pushed(store, at["skopeo"], at["ours"])
    kept = store.images / "blobs/sha256"
    assert manifest("ours") == manifest("skopeo") == (kept / record["digest"][7:]).read_bytes()
    engine("pull", "--quiet", *engine.plain, at["ours"], timeout=300)
    wanted = engine.out("run", "--rm", at["ours"], "sh", "-c", TREE, timeout=120).strip()
    assert len(wanted.splitlines()) > 30
    assert run_here(node, at["skopeo"], "sh", "-c", TREE).strip() == wanted
    engine("tag", at["ours"], at["theirs"])
    engine("push", *engine.plain, at["theirs"], timeout=300)
    record = pulled(store, at["theirs"])
    assert manifest("theirs") == (kept / record["digest"][7:]).read_bytes()
    assert run_here(node, at["theirs"], "sh", "-c", TREE).strip() == wanted
    engine("rmi", "--force", at["theirs"], at["ours"])
    assert store.job(verb="remove", reference=at["theirs"])[1] == store.job(verb="remove", reference=at["skopeo"])[1] == 0


@pytest.mark.parametrize("kind", ["podman", "docker"])
def test_every_image_goes_round(kind, node, tmp_path):
    need_root()
    there = shutil.which("podman") if kind == "podman" else os.path.exists("/usr/sbin/dockerd")
    if not there or not shutil.which("busybox") or not shutil.which("docker-registry"):
        pytest.skip(f"{kind}, docker-registry or busybox is not installed (tools/setup test)")
    archive = engines.image(tmp_path)
    layer = json.loads(next((tmp_path / "layout/blobs/sha256").glob(
        json.loads((tmp_path / "layout/index.json").read_text())["manifests"][0]["digest"][7:])).read_text())["layers"][0]["digest"]
    base = gzip.decompress((tmp_path / "layout/blobs/sha256" / layer[7:]).read_bytes())
    made = images(base)
    for name, tars in made.items():
        odd.layout(tmp_path / name, tars, config={"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]})
    several_platforms(tmp_path / "platforms", made["large"][-2:])
    where = pathlib.Path(tempfile.mkdtemp(prefix="zl-", dir="/tmp"))  # podman takes no long paths
    engine = (engines.Podman if kind == "podman" else engines.Docker)(where, archive)
    engine.plain = ("--tls-verify=false",) if kind == "podman" else ()
    if kind == "podman":
        engine.run_options += ("--cgroups=no-conmon",)
    (tmp_path / "registry").mkdir()
    registry = Registry(tmp_path / "registry", inside=None if kind == "podman" else engine.daemon.pid)
    try:
        for name in [*made, "platforms"]:
            goes_round(name, tmp_path / name, registry, node, engine)
    finally:
        registry.close()
        engine.clear()
        engine.stop()
        shutil.rmtree(where)
