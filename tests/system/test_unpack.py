"""Layers as we unpack them, beside what umoci makes of the same images: type, mode, owner, time, attributes, links, content."""
import json
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time

import lying
import oci
import odd
import pytest
from conftest import SLOW, need_root, program
from test_images import put_image, put_tars

IMAGES = odd.images()


def ours(store, liar, folder, where):
    liar.load(folder)
    record = store.pulled(f"{liar.host}/t/x:v1")
    return odd.merged([store.images / "layers" / c[7:] for c in record["chain_ids"]], where)


# What umoci 0.4.7 can't unpack is compared with what GNU tar makes of the one layer.
BY_TAR = {"sparse", "globals", "old kinds"}


def by_umoci(layout, where):
    if not shutil.which("umoci"):
        pytest.skip("umoci is not installed (tools/setup test)")
    r = subprocess.run(["umoci", "raw", "unpack", "--image", f"{layout}:latest", where], check=False,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert r.returncode == 0, r.stdout
    return odd.snapshot(where)


def by_tar(layers, where):
    where.mkdir()
    for layer in layers:
        subprocess.run(["tar", "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", where], input=layer, check=True)
    return odd.snapshot(where)


@pytest.mark.parametrize("name", IMAGES)
def test_the_same_tree_as_others_make(store, liar, tmp_path, name):
    need_root()
    began = time.time_ns()
    odd.layout(tmp_path / "layout", IMAGES[name])
    mine = ours(store, liar, tmp_path / "layout", tmp_path / "merged")
    theirs = by_tar(IMAGES[name], tmp_path / "other") if name in BY_TAR else by_umoci(tmp_path / "layout", tmp_path / "other")
    for path, it in theirs.items():  # folders that no entry names are as old as can be here, and of now there
        if it["mtime"] > began and mine.get(path, {}).get("mtime") == 0:
            it["mtime"] = 0
    lines = odd.differences(mine, theirs)
    assert not lines, "\n".join(lines)


def test_whatever_form_it_has(store, liar, tmp_path):
    """The tree and the ChainIDs are the same, compressed or not."""
    need_root()
    seen = []
    for form in odd.COMPRESS:
        odd.layout(tmp_path / form, IMAGES["whiteouts"], compress=form)
        seen.append(ours(store, liar, tmp_path / form, tmp_path / "merged"))
        shutil.rmtree(store.images / "layers")
    assert seen[0] == seen[1] == seen[2]
    # Frames that a zstd reader skips may stand before the others; pzstd writes them.
    skipped = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"1234"
    put_image(liar, [(skipped + odd.COMPRESS["zstd"][0](t), odd.MEDIA + "+zstd", oci.digest(t)) for t in IMAGES["whiteouts"]])
    record = store.pulled(f"{liar.host}/t/x:v1")
    assert odd.merged([store.images / "layers" / c[7:] for c in record["chain_ids"]], tmp_path / "merged") == seen[0]


def test_windows_of_zstd(store, liar, tmp_path):
    """A frame may make us hold 8 MiB of it, no more."""
    data = odd.tar([odd.entry("f", data=os.urandom(1 << 20) * 20)])
    for log, good in ((23, True), (27, False)):
        packed = subprocess.run(["zstd", "-q", "-c", f"--long={log}"], input=data, stdout=subprocess.PIPE, check=True).stdout
        liar.blobs.clear()
        put_image(liar, [(packed, odd.MEDIA + "+zstd", odd.oci.digest(data))])
        if good:
            store.pulled(f"{liar.host}/t/x:v1")
            shutil.rmtree(store.images)
        else:
            store.failed(f"{liar.host}/t/x:v1", "limit_exceeded", "window", "8 MiB")


# Runs a program as the root of a user namespace whose ids are 100000 and on outside.
MAPPED = """
import ctypes, os, sys
made, go = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    os.write(made[1], b"x")
    os.read(go[0], 1)
    os.setgid(0)
    os.setuid(0)
    os.execv(sys.argv[1], sys.argv[1:])
os.read(made[0], 1)
for kind in "ug":
    with open(f"/proc/{pid}/{kind}id_map", "w") as f:
        f.write("0 100000 65536")
os.write(go[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_owners_of_a_user_namespace(liar, tmp_path):
    """Rootless: the ids of the layers are those of the namespace; devices, which it may not make, are left out."""
    need_root()
    odd.layout(tmp_path / "layout", [odd.tar([
        odd.entry("f", data=b"x", uid=12, gid=34, mode=0o4755, pax_headers={"SCHILY.xattr.security.capability": odd.CAP}),
        odd.entry("d", odd.DIR, uid=5, mode=0o555), odd.entry("d/null", odd.CHR, devmajor=1, devminor=3), odd.entry("gone"),
        odd.entry("beyond", uid=0)]), odd.tar([odd.entry(".wh.gone"), odd.entry("hard", odd.LNK, linkname="f")])])
    liar.load(tmp_path / "layout")
    where = pathlib.Path(tempfile.mkdtemp(prefix="zl-"))
    try:
        os.chmod(where, 0o755)
        data = where / "data"
        data.mkdir()
        os.chown(data, 100000, 100000)
        command = [sys.executable, "-c", MAPPED, program("zl-image"), "--data-dir", data]
        request = json.dumps({"verb": "pull", "reference": f"{liar.host}/t/x:v1"})
        r = subprocess.run(command, input=request, stdout=subprocess.PIPE, text=True, check=False, timeout=60 * SLOW)
        assert r.returncode == 0, r.stdout
        record = json.loads(next((data / "images" / "refs").iterdir()).read_text())
        low, up = (data / "images" / "layers" / c[7:] for c in record["chain_ids"])
        for path in (low / "f", up / "hard"):
            st = path.lstat()
            assert (st.st_uid, st.st_gid, st.st_mode & 0o7777) == (100012, 100034, 0o4755)
            assert "security.capability" in os.listxattr(path)
        assert (low / "d").lstat().st_uid == 100005 and not (low / "d" / "null").exists()
        assert (up / "gone").lstat().st_rdev == 0
        odd.layout(tmp_path / "layout", [odd.tar([odd.entry("f", uid=70000)])])
        liar.load(tmp_path / "layout")
        r = subprocess.run(command, input=request, stdout=subprocess.PIPE, text=True, check=False, timeout=60 * SLOW)
        event = json.loads(r.stdout.splitlines()[-1])
        assert event["code"] == "bad_image" and "owner" in event["message"] and "subuid" in event["hint"], event
    finally:
        shutil.rmtree(where)


def test_hostile_notes(store, liar, tmp_path):
    """Links in a circle, a hard link to nothing and to a folder, owners that nobody can be: one error each."""
    for name, entries, word in (
            ("circle", [odd.entry("a", odd.SYM, linkname="b"), odd.entry("b", odd.SYM, linkname="a"), odd.entry("a/x")], "folders above"),
            ("nothing", [odd.entry("h", odd.LNK, linkname="nowhere")], "which no layer has"),
            ("folder", [odd.entry("d", odd.DIR), odd.entry("h", odd.LNK, linkname="d")], "is a folder"),
            ("nobody", [odd.entry("f", uid=2**32 - 1)], "belongs to nobody"),
            ("deep", [odd.entry("l", odd.SYM, linkname="a/" * 600), odd.entry("l/x", data=b"x")], "folders above")):
        odd.layout(tmp_path / name, [odd.tar(entries)])
        liar.load(tmp_path / name)
        store.failed(f"{liar.host}/t/x:v1", "bad_image", word)


def test_what_nobody_else_may_enter(store, liar, image_of_one):
    """Images have programs that are set-user-ID: they are for their containers, not for the users of the machine."""
    need_root()
    store.pulled(image_of_one)
    assert stat.S_IMODE(store.images.stat().st_mode) == 0o700
    os.chmod(store.images, 0o711)  # as earlier versions made it
    store.pulled(image_of_one)
    assert stat.S_IMODE(store.images.stat().st_mode) == 0o700


@pytest.fixture
def image_of_one(liar):
    put_tars(liar, odd.tar([odd.entry("su", data=b"x", mode=0o4755), odd.entry("d", odd.DIR), odd.entry("d/f", data=b"f", mode=0o666)]))
    return f"{liar.host}/t/x:v1"


def test_nothing_is_inherited_from_the_folders_above(store, liar, image_of_one):
    """A default ACL masks the modes of new files, and a set-group-ID folder gives its group."""
    need_root()
    store.data.mkdir()
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", tag, perm, -1) for tag, perm in ((1, 7), (4, 5), (0x20, 0)))
    try:
        os.setxattr(store.data, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("this file system has no ACLs")
    os.chown(store.data, 0, 1234)
    os.chmod(store.data, 0o2711)
    layer = store.images / "layers" / store.pulled(image_of_one)["chain_ids"][0][7:]
    for name, mode in ((".", 0o755), ("su", 0o4755), ("d", 0o755), ("d/f", 0o666)):
        st = (layer / name).stat()
        assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (mode, 0, 0), name
        assert not [x for x in os.listxattr(layer / name) if "acl" in x], name


def test_holes_below_stay_holes(store, liar):
    """A hard link into a lower layer brings the file up, not its size."""
    need_root()
    put_tars(liar, odd.tar([odd.pax_sparse("huge", [(1 << 30, b"middle")], 100 << 30)]), odd.tar([odd.entry("link", odd.LNK, linkname="huge")]))
    record = store.pulled(f"{liar.host}/t/x:v1")
    st = (store.images / "layers" / record["chain_ids"][1][7:] / "link").stat()
    assert st.st_size == 100 << 30 and st.st_blocks * 512 < 1 << 20
    with open(store.images / "layers" / record["chain_ids"][1][7:] / "link", "rb") as f:
        f.seek((1 << 30) - 1)
        assert f.read(8) == b"\0middle\0"


def test_memory_is_bounded_where_only_blobs_are_lost(store, liar):
    if SLOW > 1:
        pytest.skip("sanitized programs take more")
    need_root()
    put_tars(liar, *[odd.tar([odd.entry("f", data=os.urandom(1000000))]) for _ in range(90)])
    for layer in store.pulled(f"{liar.host}/t/x:v1")["layers"]:
        (store.images / "blobs/sha256" / layer[7:]).unlink()
    expect_little_memory(store, liar)
    store.check()


def test_memory_is_bounded(store, liar, tmp_path):
    """Many folders and much data, in several layers at once: what is kept of them is on the disk."""
    if SLOW > 1:
        pytest.skip("sanitized programs take more")
    tars = [odd.tar([odd.entry(f"{i}/" + "/".join(["d" * 100] * 3) + f"/{k}", odd.DIR) for k in range(9000)] +
                    [odd.entry(f"{i}/big", data=os.urandom(1 << 20) * 30)]) for i in range(4)]
    odd.layout(tmp_path / "layout", tars, compress="zstd")
    liar.load(tmp_path / "layout")
    expect_little_memory(store, liar)


def expect_little_memory(store, liar):
    request = json.dumps({"verb": "pull", "reference": f"{liar.host}/t/x:v1"})
    r = subprocess.run([sys.executable, "-c", "import resource, subprocess, sys\n"
                        "r = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
                        "print(r.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)",
                        program("zl-image"), "--data-dir", store.data], input=request, stdout=subprocess.PIPE, text=True, check=True)
    code, kib = map(int, r.stdout.split())
    assert code == 0 and kib <= 64 << 10, f"exit {code}, {kib} KiB"


@pytest.mark.parametrize("words", [{"x": "y" * 4000000}, {f"l{i:06d}": "v" * 20 for i in range(75000)}], ids=["one", "many"])
def test_memory_is_bounded_with_the_largest_documents(store, liar, words):
    """Index, manifest and config as large as may be, and layers whose frames want the largest windows; some blobs are small."""
    if SLOW > 1:
        pytest.skip("sanitized programs take more")
    layers = []
    for i in range(12):
        tar = odd.tar([odd.entry(f"f{i}", data=os.urandom(4096 if i % 2 else 12 << 20) * (6000 if i % 2 else 2))])
        packed = subprocess.run(["zstd", "-q", "-c", "--long=23"], input=tar, stdout=subprocess.PIPE, check=True).stdout
        layers.append((packed, odd.MEDIA + "+zstd", odd.oci.digest(tar)))
    config = {"Cmd": ["/x"], "Labels": {k: words[k] for k in list(words)[:20000]} if len(words) > 1 else {}}
    manifest = put_image(liar, layers, config, {"more": words}, {"annotations": words})
    data = liar.manifests["v1"][0]
    assert len(data) > 2 << 20
    liar.put_manifest("v1", json.dumps({"schemaVersion": 2, "mediaType": lying.INDEX, "annotations": words, "manifests": [
        {"mediaType": lying.MANIFEST, "digest": odd.oci.digest(data), "size": len(data),
         "platform": {"os": "linux", "architecture": odd.oci.ARCH}}]}).encode(), lying.INDEX)
    assert manifest["config"]["size"] > 2 << 20
    expect_little_memory(store, liar)
