#!/usr/bin/env python3
"""Power cuts: makes again what a guest's disks held at many instants, and checks the image stores there.

usage: cuts.py prepare BUILD WORK     the images, the registry's files, the empty disks, the guest's script, below WORK
       cuts.py check BUILD WORK       what WORK/disks.log and WORK/console tell of

Run by tools/run-guest-power in a network and a mount namespace of its own. A cut is session:event:kept:seed: the disk as it was before
this event of the log, with everything that a flush had brought there, and of the later writes each block of 4 KiB with the likelihood
`kept`. $ZLAYER_CUT checks one cut again, $ZLAYER_SEED makes other stories and cuts, and ZLAYER_LONG=1 more of them; with
POWER_UNTIL_FAULT=1 (of tools/run-weakened-power) there are the first three sessions only, each until its first fault.
"""
import concurrent.futures
import json
import os
import pathlib
import pickle
import random
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import disk
import plan
from plan import check_store

BLOCK = 4096
MAKE = {  # of each file system: bytes of the disk, what makes it, how its cuts are mounted, how many of them at once
    "ext4": (128 << 20, ["mke2fs", "-q", "-t", "ext4", "-b", BLOCK, "-J", "size=8", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"], "loop", 2),
    "xfs": (320 << 20, ["mkfs.xfs", "-q", "-K", "-s", f"size={BLOCK}"], "loop,nouuid", 2),
    "btrfs": (256 << 20, ["mkfs.btrfs", "-q", "-K"], "loop", 1)}  # which knows a disk by its UUID
RETRY_EACH = 6  # of the cuts, one in so many has its work tried again, and every other one of those with a blob that is broken


def run(*argv, check=True, **kw):
    return subprocess.run([str(a) for a in argv], check=check, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=300, **kw)


def listens(registry):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and registry.poll() is None:
        try:
            urllib.request.urlopen(f"http://{plan.HOST}/v2/").close()
            return registry
        except urllib.error.URLError:
            time.sleep(0.02)
    raise AssertionError("docker-registry does not listen")


def unmount(folder):
    """A program that the other thread is about to start may hold what was open here, until it is started."""
    deadline = time.monotonic() + 30
    while (r := run("umount", folder, check=False)).returncode != 0:
        if time.monotonic() > deadline:
            raise AssertionError(r.stdout)
        time.sleep(0.01)


def prepare(_, work):
    shutil.rmtree(work / "registry", ignore_errors=True)
    registry = listens(plan.registry(work / "registry"))
    try:
        images = plan.make_images(work / "files")
    finally:
        registry.terminate()
        registry.wait(10)
    sessions = plan.sessions(images, bool(os.environ.get("ZLAYER_LONG")))
    for i, session in enumerate(sessions):
        image = work / f"disk{i}.img"
        image.unlink(missing_ok=True)
        size, make, _, _ = MAKE[session.system]
        with open(image, "wb") as f:
            f.truncate(size)
        run(*make, image)
    (work / "script").write_text(plan.script(sessions))
    (work / "plan").write_bytes(pickle.dumps((images, sessions)))
    print(len(sessions))


# ---- what was recorded

class Recording:
    """What happened to one session's disk: ("write", offset, data), ("flush",), ("begin" or "end", step, exit code), in their order."""

    def __init__(self, image):
        self.image, self.events, self.codes, self.over = image, [], {}, False

    def mark(self, what, step, code):
        self.events.append((what, step, code))
        if what == "end":
            self.codes[step] = code


def recordings(work, count):
    found = [Recording(work / f"disk{i}.img") for i in range(count)]
    for kind, number, offset, data in disk.entries(work / "disks.log"):
        if kind == disk.MARK:
            what, session, *rest = data.decode().split()
            r = found[int(session)]
            if what == "over":
                r.over = True
            else:
                r.mark(what, int(rest[0]), int(rest[1]) if rest[1:] else None)
        elif not found[number].over:
            found[number].events.append(("write", offset, data) if kind == disk.WRITE else ("flush",))
    return found


def choose(recording, session, number, rng):
    """Cuts behind every step that has ended, with nothing more on the disk than what had to be there; and anywhere."""
    events = recording.events
    first = next(i for i, e in enumerate(events) if e[0] == "begin")
    cuts = [(number, i + 1, 0.0, 0) for i, e in enumerate(events) if e[0] == "end"]
    while len(cuts) < session.cuts:
        kept = rng.choice([0.0, 1.0, round(rng.random(), 2), round(rng.random(), 2)])
        cuts.append((number, rng.randrange(first, len(events) + 1), kept, rng.randrange(1 << 30)))
    return sorted(cuts)


class Disks:
    """Makes the disks of cuts, which come in the order of their events."""

    def __init__(self, recording, path):
        self.events, self.path = recording.events, path
        self.at, self.pending = 0, []
        run("cp", "--sparse=always", recording.image, path)
        self.file = os.open(path, os.O_RDWR)

    def cut(self, cut, path):
        """How many blocks might have been there or not."""
        _, event, kept, seed = cut
        for e in self.events[self.at:event]:
            if e[0] == "write":
                self.pending.append(e)
            elif e[0] == "flush":
                for _, offset, data in self.pending:
                    os.pwrite(self.file, data, offset)
                self.pending = []
        self.at = event
        run("cp", "--sparse=always", self.path, path)
        rng, blocks = random.Random(seed), 0
        with open(path, "r+b", buffering=0) as f:
            for _, offset, data in self.pending:
                for i in range(0, len(data), BLOCK):
                    blocks += 1
                    if rng.random() < kept:
                        os.pwrite(f.fileno(), data[i:i + BLOCK], offset + i)
        return blocks


# ---- what must be there

class Check:
    """One cut: the disk, mounted, and what is wrong with the store on it."""

    def __init__(self, build, images, session, recording, cut):
        self.build, self.images, self.session, self.cut = build, images, session, cut
        self.faults, self.leftovers = [], 0
        self.before, self.after, self.during = {}, {}, None  # images behind the last step that ended, and behind the one in work
        for e in recording.events[:cut[1]]:
            if e[0] == "begin":
                self.during = session.steps[e[1]]
                self.after = self.during.after(self.before) if recording.codes.get(e[1]) == 0 else dict(self.before)
            elif e[0] == "end":
                self.before, self.during = self.after, None

    def zlayer(self, *args):
        env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "ZLAYER_CONFIG_DIR": "/nowhere", "ZLAYER_DATA_DIR": str(self.data), "NO_COLOR": "1"}
        return run(self.build / "src/bin/zlayer", *args, env=env, check=False)

    def run(self, image, folder, retry):
        """Mounts and checks it. retry: work is tried again, on the store as the cut left it; else fsck repairs it."""
        folder.mkdir(exist_ok=True)
        try:
            run("mount", "-t", self.session.system, "-o", MAKE[self.session.system][2], image, folder)
        except subprocess.CalledProcessError as e:
            self.faults.append(f"the file system can't be mounted: {e.stdout}")
            return self
        try:
            self.data = folder / "data"
            if (self.data / "images" / "refs").is_dir():
                retry = retry or (self.cut[3] % 2 == 0 and bool(check_store.Store(self.data).broken()))
                self.store(not retry)
            elif self.before:
                self.faults.append("there is no store, and there were images")
            if retry and not self.faults:
                self.retry()
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as e:
            self.faults.append(f"the check fails: {e!r}")
        finally:
            unmount(folder)
        return self

    def store(self, repair):
        store = check_store.Store(self.data)
        self.faults += store.check(True, after_power_cut=True)
        there = {record["reference"]: record["digest"] for _, record in store.records()}
        for reference in sorted({*there, *self.before, *self.after}):
            allowed = [self.before.get(reference)] + ([self.after.get(reference)] if self.during else [])
            if not any(a == there.get(reference) or (a == plan.ANY and reference in there) for a in allowed):
                self.faults.append(f"{reference} is {there.get(reference)}, it should be {' or '.join(map(str, allowed))}")
        self.layers(store)
        if not self.faults:
            self.fsck(store, repair)

    def layers(self, store):
        """A layer that has its name is taken for whole, also by the next pull: those that no image names are looked at, too."""
        named = {chain for _, record in store.records() for chain in record["chain_ids"]}
        for folder in sorted((self.data / "images" / "layers").iterdir()):
            chain = f"sha256:{folder.name}"
            if folder.name.startswith(".") or chain in named:
                continue
            if chain not in self.images.layers:
                self.faults.append(f"the layer {folder.name} is of no image")
                continue
            self.leftovers += 1
            blob, below = self.images.layers[chain]
            unnamed = check_store.Store(self.data)
            unnamed.compare(chain, folder, *check_store.model(check_store.plain(blob)), [folder.parent / b[7:] for b in below])
            self.faults += [f"of no image: {f}" for f in unnamed.faults]

    def fsck(self, store, repair):
        """Finds nothing but blobs that no image names, which `--repair` drops, and nothing then."""
        needed, broken = set(store.named()), sorted(store.broken())
        self.leftovers += len(broken)
        r = self.zlayer("image", "fsck", "-o", "json", *(["--repair"] if repair else []))
        try:
            found = json.loads(r.stdout[:r.stdout.rindex("}") + 1])["problems"]
        except (ValueError, KeyError):
            self.faults.append(f"fsck: {r.stdout}")
            return
        if sorted(p["name"] for p in found if p["kind"] == "blob") != broken or len(found) != len(broken) or needed & set(broken):
            self.faults.append(f"fsck finds {found}, the blobs {broken} are broken")
        if repair and (r := self.zlayer("image", "fsck")).returncode != 0:
            self.faults.append(f"fsck after --repair: {r.stdout}")

    def retry(self):
        """What was in work, or else the first image, can be fetched; and then nothing is left over."""
        wanted = [r for r in (self.during.changes if self.during else {}) if r.startswith(plan.HOST) and r != plan.MOVING]
        for reference in wanted or [f"{plan.HOST}/t/a:1"]:
            r = self.zlayer("pull", reference)
            if r.returncode != 0:
                self.faults.append(f"pull {reference} again: {r.stdout}")
        r = self.zlayer("image", "prune")
        if r.returncode != 0:
            self.faults.append(f"prune: {r.stdout}")
        store = check_store.Store(self.data)
        self.faults += [f"after a retry: {f}" for f in store.check(True)]
        there = {record["reference"]: record["digest"] for _, record in store.records()}
        for reference in wanted:
            if there.get(reference) != self.images.digests[reference]:
                self.faults.append(f"{reference} after a retry is {there.get(reference)}")
        left = [str(p) for f in ("staging", "refs", "layers", "blobs/sha256") for p in (self.data / "images" / f).iterdir()
                if f == "staging" or p.name.startswith(".")]
        if left:
            self.faults.append(f"after a retry there are left: {left}")


def check_session(build, work, images, session, recording, cuts):
    """Checks these cuts, in two threads where two can be mounted. A weakened session is through with its first fault."""
    once = session.weakened or os.environ.get("POWER_UNTIL_FAULT")
    disks = Disks(recording, work / "written.img")
    done, waiting = [], {}

    def finish(some):
        for f in some:
            waiting.pop(f)
            done.append(f.result())

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for n, cut in enumerate(cuts):
            if once and any(c.faults for c in done):
                break
            if len(waiting) == MAKE[session.system][3]:
                finish(concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED).done)
            slot = next(s for s in (0, 1) if s not in waiting.values())
            check = Check(build, images, session, recording, cut)
            check.blocks = disks.cut(cut, work / f"cut{slot}.img")
            waiting[pool.submit(check.run, work / f"cut{slot}.img", work / f"mnt{slot}", n % RETRY_EACH == 0)] = slot
        finish(list(waiting))
    return done


def check(build, work):
    images, sessions = pickle.loads((work / "plan").read_bytes())
    title = "guest with power cuts"
    console = (work / "console").read_text(errors="replace")
    ready, failed = re.search(r"GUEST READY (.*)", console), re.findall(r"POWER FAILED.*", console)
    if not ready or "GUEST DONE" not in console or failed:
        print(f"{title}: the guest did not do its work; the console's last lines:", *console.splitlines()[-60:], sep="\n")
        return 0, 1, 0
    print(f"{title}: kernel {ready[1]}")
    passed = bad = skipped = 0
    only = os.environ.get("ZLAYER_CUT")
    seed = int(os.environ.get("ZLAYER_SEED", "7"))
    known = pathlib.Path("/proc/filesystems").read_text().split()
    registry = listens(plan.registry(work / "registry"))
    try:
        for i, (session, recording) in enumerate(zip(sessions, recordings(work, len(sessions)))):
            if only and int(only.split(":")[0]) != i:
                continue
            if session.system not in known:
                skipped += 1
                print(f"{title} SKIPPED {session.name}: skip: the kernel here has no {session.system}")
                continue
            cuts = [tuple(float(p) if "." in p else int(p) for p in only.split(":"))] if only else \
                choose(recording, session, i, random.Random(seed + i))
            start = time.monotonic()
            done = check_session(build, work, images, session, recording, cuts)
            faults = [(c.cut, c.faults) for c in done if c.faults]
            ok = bool(faults) == bool(session.weakened)
            passed, bad = passed + ok, bad + (not ok)
            report(title, session, recording, done, faults, ok, time.monotonic() - start)
    finally:
        registry.terminate()
        registry.wait(10)
    return passed, bad, skipped


def report(title, session, recording, done, faults, ok, seconds):
    writes = sum(e[0] == "write" for e in recording.events)
    flushes = sum(e[0] == "flush" for e in recording.events)
    if session.weakened and ok:
        print(f"{title}: {session.name}: seen: {faults[0][1][0][:120]}")
    elif session.weakened:
        print(f"{title} FAILED {session.name}: NOT SEEN: {len(done)} cuts show nothing wrong where {session.weakened} did nothing")
    else:
        print(f"{title}: {session.name} ({session.system}): {len(session.steps)} steps, {writes} writes, {flushes} flushes; {len(done)} cuts in {seconds:.0f} s, "
              f"{sum(c.during is not None for c in done)} in the middle of a step, {sum(c.blocks > 0 for c in done)} with writes under way, "
              f"{sum(c.leftovers > 0 for c in done)} that left blobs or layers of no image")
        for cut, found in faults:
            print(f"{title} FAILED {session.name}: ZLAYER_CUT={':'.join(map(str, cut))}", *found[:10], sep="\n    ")


def main(what, build, work):
    build, work = pathlib.Path(build).resolve(), pathlib.Path(work).resolve()
    if what == "prepare":
        prepare(build, work)
        return 0
    passed, failed, skipped = check(build, work)
    if os.environ.get("ZLAYER_COUNTS"):
        with open(os.environ["ZLAYER_COUNTS"], "a", encoding="utf-8") as f:
            f.write(f"{passed} {failed} {skipped}\n")
    print(f"guest with power cuts: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
