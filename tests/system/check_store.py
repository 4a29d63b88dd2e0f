#!/usr/bin/env python3
"""Whether an image store is whole, by an eye that shares no code with what wrote it.

usage: check_store.py DATA_DIR [--files] [--after-power-cut]

Recomputes the digest of every blob, each image's chain of manifest, config, diff ids and ChainIDs, and, with --files, makes of
each layer's blob by Python's tarfile what the layer must hold, and compares: kind, mode, owner, time, links, content. Prints
each fault on a line; exits 1 when there is one. What no image names (of a job that was killed) is no fault, and after a power cut
such a blob may hold anything: no job takes one that it has not hashed.
"""
import gzip
import hashlib
import io
import json
import os
import pathlib
import stat
import subprocess
import sys
import tarfile


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def plain(blob):
    if blob[:2] == b"\x1f\x8b":
        return gzip.decompress(blob)
    if blob[:4] == b"\x28\xb5\x2f\xfd":
        return subprocess.run(["zstd", "-dqc"], input=blob, stdout=subprocess.PIPE, check=True).stdout
    return blob


def file_name(reference):
    """What the file of a reference's record is called."""
    plain = "".join(chr(b) if chr(b).isalnum() or b in b"-_." else f"%{b:02X}" for b in reference.encode())
    if len(plain) <= 245:
        return plain
    value = 0x6c62272e07bb014262b821756295c58d  # FNV-1a, 128 bits
    for b in reference.encode():
        value = (value ^ b) * 0x1000000000000000000013b % 2 ** 128
    return f"%h{value:032x}"


class Store:
    def __init__(self, data):
        self.images = pathlib.Path(data) / "images"
        self.blobs = self.images / "blobs" / "sha256"
        self.faults = []

    def fault(self, text):
        self.faults.append(text)

    def records(self):
        for path in sorted((self.images / "refs").iterdir()):
            if not path.name.startswith("."):
                try:
                    yield path.name, json.loads(path.read_text())
                except ValueError:
                    self.fault(f"the record {path.name} is no JSON")

    def named(self):
        """The names of the blobs that some image needs."""
        for _, record in self.records():
            yield from (d[7:] for d in [record["digest"], record.get("manifest") or record["digest"], record["config"], *record["layers"]])

    def broken(self):
        """The names of the blobs that have another digest than their name."""
        return [b.name for b in self.blobs.iterdir() if not b.name.startswith(".") and digest(b.read_bytes())[7:] != b.name]

    def check(self, files, after_power_cut=False):
        needed = set(self.named()) if after_power_cut else None
        for blob in self.broken():
            if needed is None or blob in needed:
                self.fault(f"the blob {blob} has another digest")
        done = set()
        for name, record in self.records():
            self.image(name, record)
            if files and not self.faults and not record.get("artifact_type"):
                self.files(record, done)
        return self.faults

    def read(self, what, name):
        path = self.blobs / name[7:]
        if not path.exists():
            self.fault(f"{what}: the blob {name} is missing")
            return None
        return path.read_bytes()

    def image(self, name, record):
        what = record["reference"]
        if name != file_name(what):
            self.fault(f"{what}: its record lies under another name, {name}")
        manifest = self.read(what, record.get("manifest") or record["digest"])
        config = self.read(what, record["config"])
        if self.read(what, record["digest"]) is None or manifest is None or config is None:
            return
        manifest = json.loads(manifest)
        if manifest["config"]["digest"] != record["config"] or [d["digest"] for d in manifest["layers"]] != record["layers"]:
            self.fault(f"{what}: the record is not its manifest's")
        if record.get("artifact_type"):  # blobs of any type, none of them a layer to unpack
            for layer in record["layers"]:
                self.read(what, layer)
            return
        config = json.loads(config)
        chain = ""
        if len(config["rootfs"]["diff_ids"]) != len(record["chain_ids"]):
            self.fault(f"{what}: another number of layers than its config")
            return
        for diff_id, said, layer, blob in zip(config["rootfs"]["diff_ids"], record["chain_ids"], record["layers"], manifest["layers"]):
            chain = digest(f"{chain} {diff_id}".encode()) if chain else diff_id
            if chain != said:
                self.fault(f"{what}: the ChainID {said} should be {chain}")
            data = self.read(what, layer)
            if data is not None and (len(data) != blob["size"] or digest(plain(data)) != diff_id):
                self.fault(f"{what}: the layer {layer} does not unpack to {diff_id}")
            if not (self.images / "layers" / chain[7:]).is_dir():
                self.fault(f"{what}: the layer {chain} is missing")

    # ---- files: a model of the layer in memory, from what tarfile reads

    def files(self, record, done):
        lowers = []
        for chain, layer in zip(record["chain_ids"], record["layers"]):
            folder = self.images / "layers" / chain[7:]
            if chain not in done:
                done.add(chain)
                expected, marks = model(plain((self.blobs / layer[7:]).read_bytes()))
                self.compare(chain, folder, expected, marks, lowers)
            lowers.append(folder)

    def compare(self, chain, folder, expected, marks, lowers):
        actual = {}
        for top, folders, names in os.walk(folder):
            for n in folders + names:
                path = os.path.join(top, n)
                actual[os.path.relpath(path, folder)] = os.lstat(path)
        layer = f"layer {chain[7:19]}"
        for path, want in expected.items():
            st = actual.get(path)
            if st is None:
                self.fault(f"{layer}: {path} is missing")
                continue
            for key, value in want.items():
                have = look(folder / path, st, key)
                if have != value:
                    self.fault(f"{layer}: {path}: {key} is {have!r}, its blob says {value!r}")
        for path, st in actual.items():
            if path in expected or path in marks.copied or stat.S_ISDIR(st.st_mode):  # folders may be implied
                continue
            hidden = any(path == h or path.startswith(h + "/") for h in marks.hidden)
            opaque = any(o == "." or path.startswith(o + "/") for o in marks.opaque)
            if not (stat.S_ISCHR(st.st_mode) and st.st_rdev == 0):
                self.fault(f"{layer}: {path} is not in its blob")
            elif not hidden and not opaque:
                self.fault(f"{layer}: {path} is hidden, its blob does not say so")
        for path in marks.hidden:
            if path not in actual and shown(lowers, path):
                self.fault(f"{layer}: {path} is not hidden, its blob says so")


def shown(lowers, path):
    """Whether the layers below show something at the path."""
    for folder in reversed(lowers):
        parts = path.split("/")
        for i in range(len(parts)):
            at = folder / "/".join(parts[:i + 1])
            try:
                st = at.lstat()
            except (FileNotFoundError, NotADirectoryError):
                break
            if i == len(parts) - 1:
                return not (stat.S_ISCHR(st.st_mode) and st.st_rdev == 0)
            if not stat.S_ISDIR(st.st_mode):
                return False
    return False


def look(path, st, key):
    return {"mode": lambda: st.st_mode, "owner": lambda: (st.st_uid, st.st_gid), "time": lambda: int(st.st_mtime),
            "to": lambda: os.readlink(path), "dev": lambda: (os.major(st.st_rdev), os.minor(st.st_rdev)),
            "content": lambda: hashlib.sha256(path.read_bytes()).hexdigest()}[key]()


KINDS = {tarfile.REGTYPE: stat.S_IFREG, tarfile.AREGTYPE: stat.S_IFREG, tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK,
         tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO}


class Marks:
    """What a layer hides, which folders it makes opaque, and what its hard links bring up from below."""

    def __init__(self):
        self.hidden, self.opaque, self.copied = set(), set(), set()


def model(data):
    """({path: what must be there}, marks) of a tar without links on the way to entries."""
    expected, marks = {}, Marks()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for m in tar:
            path = os.path.normpath(m.name.lstrip("/"))
            folder, name = os.path.split(path)
            if path == ".":
                continue
            if name == ".wh..wh..opq":
                marks.opaque.add(folder or ".")
            elif name.startswith(".wh."):
                marks.hidden.add(os.path.join(folder, name[4:]))
            elif m.type == tarfile.LNKTYPE:
                target = os.path.normpath(m.linkname.lstrip("/"))
                expected[path] = expected.get(target, {})
                if target not in expected:
                    marks.copied.add(target)
            else:
                expected[path] = entry(tar, m)
    return expected, marks


def entry(tar, m):
    kind = KINDS.get(m.type, stat.S_IFREG)
    it = {"mode": kind | (0o777 if m.issym() else m.mode & 0o7777), "owner": (m.uid, m.gid), "time": int(m.mtime // 1)}
    if m.issym():
        it["to"] = m.linkname
    if m.ischr() or m.isblk():
        it["dev"] = (m.devmajor, m.devminor)
    if kind == stat.S_IFREG:
        it["content"] = hashlib.sha256(tar.extractfile(m).read()).hexdigest()
    return it


def faults(data, files=True, after_power_cut=False):
    """The faults of a store, as lines."""
    return Store(data).check(files, after_power_cut)


if __name__ == "__main__":
    found = faults(sys.argv[1], "--files" in sys.argv, "--after-power-cut" in sys.argv)
    print("\n".join(found), end="\n" if found else "")
    sys.exit(1 if found else 0)
