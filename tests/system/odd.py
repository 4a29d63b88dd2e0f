"""Images whose layers hold every odd thing that a tar can hold, written by Python's tarfile and by hand, and trees of
files described so that two of them can be compared."""
import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile

import oci

MEDIA = "application/vnd.oci.image.layer.v1.tar"
DIR, REG, SYM, LNK, CHR, BLK, FIFO = (tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                                      tarfile.BLKTYPE, tarfile.FIFOTYPE)


def entry(path, kind=REG, data=b"", **more):
    """(TarInfo, data) of one entry; its time is fixed unless it is said."""
    info = tarfile.TarInfo(path)
    info.type, info.mtime, info.mode, info.size = kind, 1000000000, 0o755 if kind == DIR else 0o644, len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def tar(entries, form=tarfile.PAX_FORMAT):
    """A tar of entries in this order, which may name a path twice."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as t:
        for info, data in entries:
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def header(name, size, kind, magic=b"ustar\x0000", rest=b"", mode=0o644):
    """A header block made by hand, for what tarfile does not write."""
    h = bytearray(512)
    h[0:len(name)] = name
    h[100:108] = b"%07o\0" % mode
    h[108:116] = h[116:124] = b"%07o\0" % 0
    h[124:136] = b"%011o\0" % size
    h[136:148] = b"%011o\0" % 1000000000
    h[156:157] = kind
    h[257:257 + len(magic)] = magic
    h[345:345 + len(rest)] = rest
    h[148:156] = b" " * 8
    h[148:156] = b"%06o\0 " % sum(h)
    return bytes(h)


def old_gnu_sparse(name, pieces, size):
    """A sparse file in GNU tar's old format: pieces are (offset, data)."""
    m = b"".join(b"%011o\0%011o\0" % (at, len(data)) for at, data in pieces[:4]).ljust(96, b"\0") + b"\0"
    rest = b"\0" * 41 + m + b"%011o\0" % size
    body = b"".join(data for _, data in pieces)
    return header(name, len(body), b"S", b"ustar  \0", rest) + body + b"\0" * (-len(body) % 512)


def pax_sparse(name, content_map, size):
    """A sparse file in GNU tar's format for pax, version 1.0."""
    table = b"%d\n" % len(content_map) + b"".join(b"%d\n%d\n" % (at, len(data)) for at, data in content_map)
    table += b"\0" * (-len(table) % 512)
    body = table + b"".join(data for _, data in content_map)
    info, _ = entry(f"GNUSparseFile.0/{name}", data=body, pax_headers={
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": str(size)})
    return info, body


END = b"\0" * 1024
CAP = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0).decode("latin-1")  # cap_net_bind_service, effective


def images():
    """{name: [layer's tar, lowest first]}"""
    long = "/".join(["long" * 12] * 12)
    return {
        "kinds": [tar([
            entry("./", DIR, mode=0o750, uid=3, gid=4, mtime=12345),
            entry("d", DIR, mode=0o2775, uid=1, gid=50), entry("d/inherits-no-group", data=b"x"),
            entry("d/sub", DIR, mode=0o1777), entry("none", DIR, mode=0), entry("none/in", data=b"n", mode=0),
            entry("suid", data=b"s" * 5000, mode=0o4755), entry("sgid", data=b"s", mode=0o2711, uid=7, gid=8),
            entry("both", data=b"", mode=0o7777, uid=9), entry("empty"), entry("big-owner", uid=3000000, gid=4000000000),
            entry("soft", SYM, linkname="/etc/../etc/./x", uid=5, mtime=77), entry("soft-up", SYM, linkname="../../../up"),
            entry("fifo", FIFO, mode=0o4604), entry("null", CHR, devmajor=1, devminor=3, mode=0o666, uid=2),
            entry("disk", BLK, devmajor=7, devminor=200, mode=0o660, gid=6), entry("old", mtime=-5), entry("zero", mtime=0),
            entry("fraction", mtime=1234567890.123456789, pax_headers={"mtime": "1234567890.123456789"}),
            entry("far", mtime=2**33),
        ])],
        "old kinds": [tar([entry("contiguous", tarfile.CONTTYPE, b"c"), entry("oldtype", tarfile.AREGTYPE, b"o"),
                           entry("hard", data=b"h"), entry("hard2", LNK, linkname="hard")])],
        "names": [tar([
            entry(long, data=b"long"), entry("l" * 255, data=b"255"), entry("longlink", SYM, linkname="t" * 3000),
            entry("ümläut-Ω", data=b"u"), entry("space and\ttab\nnewline", data=b"w"), entry("\udcff\udcfe", data=b"no utf-8"),
            entry("./dotted/./x", data=b"1"), entry("slashes//y", data=b"2"), entry("/absolute", data=b"3"),
            entry("trailing/", DIR), entry(".hidden", data=b"h"), entry("..two", data=b"t"), entry("-dash", data=b"d"),
            entry("Case", data=b"A"), entry("case", data=b"a")], tarfile.GNU_FORMAT)],
        "pax names": [tar([entry(long, data=b"long"), entry("longlink", SYM, linkname="t" * 3000), entry("ümläut-Ω", data=b"u"),
                           entry("hard" + "h" * 150, data=b"x"), entry("hard2", LNK, linkname="hard" + "h" * 150)])],
        "v7": [tar([entry("a", DIR), entry("a/b", data=b"v7")], tarfile.USTAR_FORMAT)],
        "hard links": [tar([
            entry("a", data=b"one", mode=0o600, uid=4), entry("b", LNK, linkname="a"), entry("c", LNK, linkname="b"),
            entry("d/e", LNK, linkname="./a"),
            entry("s", SYM, linkname="a"), entry("to-soft", LNK, linkname="s"), entry("x", data=b"replaced"),
            entry("x", LNK, linkname="a"), entry("abs", LNK, linkname="/a"), entry("p", FIFO), entry("p2", LNK, linkname="p")])],
        "hard links below": [
            tar([entry("low", DIR, mode=0o711, uid=1, mtime=5), entry("low/f", data=b"below", mode=0o4750, uid=10, gid=20, mtime=9.5,
                       pax_headers={"SCHILY.xattr.user.k": "v", "mtime": "9.5"}), entry("low/s", SYM, linkname="f", uid=6, mtime=8),
                 entry("low/p", FIFO, mode=0o640, mtime=7), entry("low/g", data=b"old")]),
            tar([entry("up1", LNK, linkname="low/f"), entry("up2", LNK, linkname="low/f"), entry("up3", LNK, linkname="up1"),
                 entry("soft", LNK, linkname="low/s"), entry("fifo", LNK, linkname="low/p"),
                 entry("soft2", LNK, linkname="low/s"), entry("soft3", LNK, linkname="soft2"), entry("fifo2", LNK, linkname="fifo"),
                 entry("g-old", LNK, linkname="low/g"), entry("low/g", data=b"new")])],
        "replaced": [tar([
            entry("f", data=b"1"), entry("f", data=b"22", mode=0o600), entry("d", DIR), entry("d/x", data=b"x"), entry("d", data=b"now a file"),
            entry("g", data=b"file"), entry("g", DIR, mode=0o700), entry("g/y", data=b"y"), entry("l", SYM, linkname="f"), entry("l", data=b"no link"),
            entry("m", data=b"m"), entry("m", SYM, linkname="f"), entry("k", DIR, mode=0o700), entry("k/z", data=b"z"),
            entry("k", DIR, mode=0o711, uid=3, mtime=4), entry("p", FIFO), entry("p", data=b"p"), entry("h1", data=b"h"),
            entry("h2", LNK, linkname="h1"), entry("h1", data=b"other")])],
        "replaced below": [
            tar([entry("f", data=b"1"), entry("d", DIR), entry("d/x", data=b"x"), entry("e", DIR, mode=0o701, mtime=3), entry("e/keep", data=b"k"),
                 entry("l", SYM, linkname="e"), entry("s", data=b"s")]),
            tar([entry("f", DIR), entry("f/in", data=b"i"), entry("d", data=b"file"), entry("e", DIR, mode=0o770, uid=2, mtime=44),
                 entry("e/new", data=b"n"), entry("l", DIR, mtime=2), entry("s", SYM, linkname="f")])],
        "links on the way": [tar([
            entry("usr", DIR), entry("usr/bin", DIR, mtime=6), entry("bin", SYM, linkname="usr/bin"), entry("bin/tool", data=b"t"),
            entry("abs", SYM, linkname="/usr/bin"), entry("abs/tool2", data=b"t2"), entry("up", SYM, linkname="../../../../usr"),
            entry("up/in", data=b"i"), entry("chain", SYM, linkname="chain2/bin"), entry("chain2", SYM, linkname="usr"),
            entry("chain/deep", data=b"d"), entry("bin/hard", LNK, linkname="abs/tool"), entry("bin/dir", DIR, mode=0o750, mtime=8)])],
        "implied": [
            tar([entry("a", DIR, mode=0o711, uid=5, gid=6, mtime=50, pax_headers={"SCHILY.xattr.user.d": "dir"}), entry("a/b", DIR, mode=0o1770, mtime=60),
                 entry("a/b/c", data=b"1")]),
            tar([entry("a/b/d", data=b"2")]),
            tar([entry("a/b/e", data=b"3"), entry("a", DIR, mode=0o755, mtime=70)])],
        "odd orders": [tar([
            entry("z/y/x", data=b"deep first"), entry("z/y", DIR, mode=0o700, mtime=11), entry("z", DIR, mode=0o750, uid=3, mtime=10),
            entry("ro", DIR, mode=0o555, mtime=12), entry("ro/f", data=b"in a folder that is read-only")])],
        "whiteouts": [
            tar([entry("gone", data=b"g"), entry("dir", DIR), entry("dir/a", data=b"a"), entry("dir/sub", DIR), entry("dir/sub/b", data=b"b"),
                 entry("opaque", DIR, mode=0o711, mtime=20), entry("opaque/old", data=b"o"), entry("opaque/sub", DIR), entry("opaque/sub/old", data=b"o"),
                 entry("again", data=b"1"), entry("readd", DIR), entry("readd/low", data=b"l"), entry("link", SYM, linkname="gone"),
                 entry("late", DIR), entry("late/low", data=b"l"), entry("stay", data=b"s")]),
            tar([entry(".wh.gone"), entry("dir/.wh.sub"), entry("opaque", DIR, mode=0o700, mtime=21), entry("opaque/.wh..wh..opq"),
                 entry("opaque/new", data=b"n"), entry("opaque/sub", DIR), entry("opaque/sub/new", data=b"n"), entry(".wh.again"),
                 entry("again", data=b"2"), entry(".wh.readd"), entry("readd", DIR, mtime=30), entry("readd/up", data=b"u"),
                 entry(".wh.link"), entry(".wh.never-was"), entry("late", DIR, mtime=31), entry("late/up", data=b"u"), entry("late/.wh..wh..opq")]),
            tar([entry("gone", data=b"back"), entry("opaque/old", data=b"other"), entry("dir/sub/c", data=b"c")]),
            tar([entry("opaque/.wh.old"), entry(".wh.dir")])],
        "attributes": [tar([
            entry("x", data=b"x", pax_headers={"SCHILY.xattr.user.text": "v",
                                               "SCHILY.xattr.security.capability": CAP}, uid=4, mode=0o755),
            entry("binary", pax_headers={"SCHILY.xattr.user.binary": "\x01=\n\x7f"}),
            entry("d", DIR, pax_headers={"SCHILY.xattr.user.on-a-folder": "y"})])],
        "sparse": [old_gnu_sparse(b"old", [(4096, b"a" * 512), (1 << 20, b"b" * 512)], (1 << 20) + 512) +
                   old_gnu_sparse(b"hole-at-the-end", [(0, b"c" * 512), (1 << 22, b"")], 1 << 22) +
                   tar([pax_sparse("pax", [(8192, b"d" * 512), (1 << 21, b"e")], (1 << 21) + 1)])],
        "empty": [END, tar([])],
        "globals": [_with_globals()],
        "many layers": [tar([entry(f"l{i % 7}/f{i}", data=b"%d" % i), entry("same", data=b"%d" % i, mtime=i)]) for i in range(40)],
    }


def _with_globals():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "of all"}) as t:
        info, data = entry("g", data=b"g")
        t.addfile(info, io.BytesIO(data))
    return out.getvalue()


COMPRESS = {"gzip": (lambda t: gzip.compress(t, 1, mtime=0), "+gzip"), "none": (lambda t: t, ""),
            "zstd": (lambda t: subprocess.run(["zstd", "-q", "-c"], input=t, stdout=subprocess.PIPE, check=True).stdout, "+zstd")}


def layout(folder, tars, name="latest", compress="gzip", config=None, architecture=oci.ARCH):
    """An OCI layout of these layers; returns the manifest's digest."""
    folder = pathlib.Path(folder)
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    pack, suffix = COMPRESS[compress]

    def put(data, media):
        (blobs / oci.digest(data)[7:]).write_bytes(data)
        return {"mediaType": media, "digest": oci.digest(data), "size": len(data)}

    image = {"architecture": architecture, "os": "linux", "created": "2024-01-02T03:04:05Z", "config": config or {"Cmd": ["/x"]},
             "rootfs": {"type": "layers", "diff_ids": [oci.digest(t) for t in tars]},
             "history": [{"created": "2024-01-02T03:04:05Z", "created_by": f"layer {i}"} for i in range(len(tars))]}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": put(json.dumps(image).encode(), "application/vnd.oci.image.config.v1+json"),
                "layers": [put(pack(t), MEDIA + suffix) for t in tars]}
    top = put(json.dumps(manifest).encode(), manifest["mediaType"])
    top["annotations"] = {"org.opencontainers.image.ref.name": name}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    return top["digest"]


def snapshot(root):
    """{path: what lstat, xattrs and content say} of a tree; hard links by the least of their names."""
    root = os.fsencode(str(root))
    seen, inodes = {}, {}
    for folder, folders, files in os.walk(root):
        for path in ([folder] if folder == root else []) + [os.path.join(folder, n) for n in folders + files]:
            st = os.lstat(path)
            short = os.path.relpath(path, root).decode("utf-8", "surrogateescape")
            kind = stat.S_IFMT(st.st_mode)
            it = {"kind": kind, "mode": stat.S_IMODE(st.st_mode), "uid": st.st_uid, "gid": st.st_gid, "mtime": st.st_mtime_ns}
            if stat.S_ISREG(kind):
                with open(path, "rb") as f:
                    it["content"] = hashlib.sha256(f.read()).hexdigest()
                it["size"] = st.st_size
            if stat.S_ISLNK(kind):
                it["to"] = os.readlink(path).decode("utf-8", "surrogateescape")
            if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
                it["dev"] = st.st_rdev
            it["xattrs"] = {k: os.getxattr(path, k, follow_symlinks=False).hex() for k in os.listxattr(path, follow_symlinks=False)
                            if not k.startswith("trusted.overlay.")}
            if not stat.S_ISDIR(kind):
                inodes.setdefault((st.st_dev, st.st_ino), []).append(short)
            seen[short] = it
    for names in inodes.values():
        for name in names:
            seen[name]["links"] = min(names)
    return seen


def merged(layers, where):
    """The snapshot of layers (folders, lowest first) as the kernel's overlay shows them."""
    where = pathlib.Path(where)
    where.mkdir(exist_ok=True)
    short = pathlib.Path(tempfile.mkdtemp(prefix="zl-"))  # a page holds the names of many layers only if they are short
    try:
        for i, layer in enumerate(layers):
            (short / str(i)).symlink_to(layer)
        empty = short / "empty"
        empty.mkdir()
        lowers = ":".join([str(i) for i in reversed(range(len(layers)))] + ["empty"])
        script = f"cd {short} && mount -t overlay overlay -o lowerdir={lowers} {where} && exec {sys.executable} {__file__} {where}"
        out = subprocess.run(["unshare", "-m", "sh", "-c", script], check=True, stdout=subprocess.PIPE).stdout
        return json.loads(out)
    finally:
        shutil.rmtree(short)


def differences(mine, other, ignore=()):
    """Lines that say where two snapshots differ; ignore: (path, key) pairs, path "*" for all."""
    lines = []
    for path in sorted(set(mine) | set(other)):
        a, b = mine.get(path), other.get(path)
        if a is None or b is None:
            lines.append(f"{path!r} is only in {'the other' if a is None else 'ours'}")
            continue
        lines += [f"{path!r}: {key} is {a.get(key)!r}, the other has {b.get(key)!r}" for key in sorted(set(a) | set(b))
                  if a.get(key) != b.get(key) and (path, key) not in ignore and ("*", key) not in ignore]
    return lines


if __name__ == "__main__":
    json.dump(snapshot(sys.argv[1]), sys.stdout)
