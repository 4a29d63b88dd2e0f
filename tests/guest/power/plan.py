"""What the guest does with its stores while their disks are recorded: images, sessions of steps, and what each step is to change."""
import dataclasses
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import urllib.request

TOP = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(TOP / "tests" / "system"))

import check_store  # noqa: E402
import oci  # noqa: E402
import odd  # noqa: E402

HOST = "127.0.0.1:5000"  # in the guest, and here in a network namespace of our own
ODD = odd.images()
PULLED = ["a", "b", "c", "d"]
MOVING = f"{HOST}/t/moving:1"
ANY = "any"  # a digest that can't be told beforehand


def files(rng, folder, count, size):
    return odd.tar([odd.entry(f"{folder}/f{i}", data=rng.randbytes(rng.randrange(1, 2 * size))) for i in range(count)])


def tars():
    rng = random.Random(1)
    small, other = files(rng, "small", 120, 3000), files(rng, "other", 40, 9000)
    return {"a": (ODD["whiteouts"] + [small], "gzip"),
            "b": (ODD["whiteouts"][:2] + ODD["implied"] + [other], "gzip"),
            "c": (ODD["kinds"], "zstd"),
            "d": ([files(rng, f"big{i}", 2, 500000) for i in range(3)], "gzip"),
            "e": ([small] + ODD["hard links below"], "gzip")}


class Images:
    """All images that a store may hold: {reference: digest}, and of each layer {ChainID: (blob, ChainIDs below)}."""

    def __init__(self):
        self.digests, self.layers = {}, {}

    def add(self, reference, folder, digest):
        def read(d):
            return (folder / "blobs" / "sha256" / d[7:]).read_bytes()

        self.digests[reference] = digest
        manifest = json.loads(read(digest))
        below = []
        for diff_id, layer in zip(json.loads(read(manifest["config"]["digest"]))["rootfs"]["diff_ids"], manifest["layers"]):
            chain = check_store.digest(f"{below[-1]} {diff_id}".encode()) if below else diff_id
            self.layers[chain] = (read(layer["digest"]), list(below))
            below.append(chain)


def upload(repository, data):
    """A blob, by the registry's protocol."""
    ask = urllib.request.Request(f"http://{HOST}/v2/{repository}/blobs/uploads/", method="POST")
    with urllib.request.urlopen(ask) as r:
        to = r.headers["Location"]
    to += f"{'&' if '?' in to else '?'}digest={oci.digest(data)}"
    urllib.request.urlopen(urllib.request.Request(to, data, {"Content-Type": "application/octet-stream"}, method="PUT")).close()
    return {"mediaType": "application/vnd.example.data", "digest": oci.digest(data), "size": len(data)}


def artifact(repository, tag):
    rng = random.Random(2)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                           "config": {**upload(repository, b"{}"), "mediaType": "application/vnd.example.config"},
                           "layers": [upload(repository, rng.randbytes(300000)) for _ in range(2)]}).encode()
    urllib.request.urlopen(urllib.request.Request(f"http://{HOST}/v2/{repository}/manifests/{tag}", manifest, {
        "Content-Type": "application/vnd.oci.image.manifest.v1+json"}, method="PUT")).close()
    return oci.digest(manifest)


def make_images(folder):
    """Fills the registry that runs, and `folder` with what is loaded and imported from files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images = Images()
    for name, (layers, form) in tars().items():
        reference = f"{HOST}/t/{name}:1" if name in PULLED else f"docker.io/t/{name}:1"
        at = folder / ("e" if name == "e" else f"pushed-{name}")
        images.add(reference, at, odd.layout(at, layers, name=reference if name == "e" else "latest", compress=form))
        if name in PULLED:
            oci.push(at, reference)
    images.digests[f"{HOST}/t/artifact:1"] = artifact("t/artifact", "1")
    rootfs = files(random.Random(3), "root", 20, 4000)
    (folder / "rootfs.tar").write_bytes(rootfs)
    images.layers[oci.digest(rootfs)] = (rootfs, [])
    return images


# ---- steps

@dataclasses.dataclass
class Step:
    """A line of the guest's shell, and what it changes when it works: {reference: digest, or None when it goes}, or `clears` all.
    dies: it kills itself on its way, if it comes there."""
    line: str
    changes: dict
    dies: bool = False
    clears: bool = False

    def after(self, there):
        """What is there behind it, of what was there before."""
        changed = {**({} if self.clears else there), **self.changes}
        return {reference: digest for reference, digest in changed.items() if digest is not None}


def zlayer(*args, env=""):
    return f"{env} zlayer {' '.join(args)}".strip()


class Story:
    """Steps, and the images that are there after each of them."""

    def __init__(self, images):
        self.images, self.steps, self.there = images, [], {}

    def add(self, line, changes=None, dies=False, clears=False):
        self.steps.append(Step(line, changes or {}, dies, clears))
        if not dies:
            self.there = self.steps[-1].after(self.there)

    def pull(self, *names):
        references = [f"{HOST}/t/{n}:1" for n in names]
        line = " & ".join(zlayer("pull", r) for r in references)
        self.add(line if len(names) == 1 else f"atonce {' '.join(references)}", {r: self.images.digests[r] for r in references})

    def killed_pull(self, name, phase):
        if f"{HOST}/t/{name}:1" not in self.there:
            self.add(zlayer("pull", f"{HOST}/t/{name}:1", env=f"ZLAYER_CRASH_AT={phase}"),
                     {f"{HOST}/t/{name}:1": self.images.digests[f"{HOST}/t/{name}:1"]}, dies=True)

    def load(self):
        self.add(zlayer("image load", "/files/e"), {"docker.io/t/e:1": self.images.digests["docker.io/t/e:1"]})

    def import_(self):
        self.add(zlayer("image import", "/files/rootfs.tar", "-t", "t/imported:1"), {"docker.io/t/imported:1": ANY})

    def tag(self, source, name):
        self.add(zlayer("image tag", source, f"t/{name}:1"), {f"docker.io/t/{name}:1": self.there[source]})

    def rm(self, reference):
        self.add(zlayer("image rm", reference), {reference: None})

    def prune(self, everything=False):
        self.add(zlayer("image prune", *(["--all"] if everything else [])), clears=everything)

    def move(self, source):
        """The tag that moves is pushed, and fetched under its own name."""
        self.add(zlayer("push", source, MOVING))
        self.add(zlayer("pull", MOVING), {MOVING: self.there[source]})


def fixed_story(images):
    """Each kind of work once, and what is known to be awkward: work that takes over from a job that was killed."""
    s = Story(images)
    a, b, c, d = (f"{HOST}/t/{n}:1" for n in PULLED)
    s.pull("a")
    s.killed_pull("b", "pull.commit")
    s.pull("b")
    s.tag(a, "tagged")
    s.load()
    s.move(a)
    s.rm(a)
    s.move(b)
    s.killed_pull("d", "pull.blob:2")
    s.pull("c", "d")
    s.import_()
    s.pull("artifact")
    s.rm(d)
    s.prune(everything=True)
    s.killed_pull("a", "pull.unpacked:3")
    s.pull("a", "b")
    s.prune()
    return s.steps


def again_story(images, rounds=6):
    """What is there comes again under another name, so that nothing may be put in its place that is not on the disk yet."""
    s = Story(images)
    s.load()
    for _ in range(rounds):
        s.move("docker.io/t/e:1")
        s.rm(MOVING)
    return s


def random_story(images, rng, length, after=None):
    s = after or Story(images)
    length += len(s.steps)
    while len(s.steps) < length:
        there = sorted(s.there)
        kind = rng.choices(["pull", "two", "killed", "load", "import", "tag", "rm", "prune", "all", "move"],
                           [6, 3, 3, 2, 1, 2, 3, 2, 1, 2])[0]
        images_here = [r for r in there if s.there[r] != ANY and "artifact" not in r]
        if kind == "pull":
            s.pull(rng.choice([*PULLED, "artifact"]))
        elif kind == "two":
            s.pull(*rng.sample(PULLED, 2))
        elif kind == "killed":
            s.killed_pull(rng.choice(PULLED), rng.choice(["pull.manifest", "pull.blob", "pull.unpacked", "pull.commit"]))
        elif kind == "load":
            s.load()
        elif kind == "import":
            s.import_()
        elif kind == "tag" and there:
            s.tag(rng.choice(there), rng.choice(["tagged", "also"]))
        elif kind == "rm" and there:
            s.rm(rng.choice(there))
        elif kind in ("prune", "all"):
            s.prune(kind == "all")
        elif kind == "move" and images_here:
            s.move(rng.choice(images_here))
    return s.steps


def short_story(images):
    s = Story(images)
    s.pull("a")
    s.pull("d")
    s.rm(f"{HOST}/t/a:1")
    s.load()
    s.pull("b")
    return s.steps


# The kernel writes early; and a neighbour's fsyncs bring names to the disk whose data, on ext4, are not there yet.
EAGER = "echo 10 > /proc/sys/vm/dirty_writeback_centisecs; echo 20 > /proc/sys/vm/dirty_expire_centisecs"
LAZY = "echo 500 > /proc/sys/vm/dirty_writeback_centisecs; echo 3000 > /proc/sys/vm/dirty_expire_centisecs"


@dataclasses.dataclass
class Session:
    """Steps on one disk. weakened: the calls that do nothing there, so that the check must fail."""
    name: str
    steps: list
    system: str = "ext4"
    mount: str = "defaults"
    knobs: str = LAZY
    weakened: str = ""
    cuts: int = 200


def sessions(images, long):
    rng = random.Random(int(os.environ.get("ZLAYER_SEED", "7")))
    all_of_them = [
        Session("written late", fixed_story(images)),
        Session("written at once", random_story(images, rng, 30), mount="commit=1", knobs=EAGER),
        Session("on xfs", random_story(images, rng, 10, again_story(images)), "xfs", knobs=EAGER, cuts=200),
        Session("on btrfs", random_story(images, rng, 20), "btrfs", mount="commit=1", knobs=EAGER, cuts=100),
        Session("without syncfs", short_story(images), weakened="syncfs", cuts=20),
        Session("without fsync", short_story(images), weakened="fsync", cuts=20),
        Session("without any", short_story(images), weakened="fsync fdatasync syncfs", mount="commit=1", knobs=EAGER, cuts=20)]
    if os.environ.get("POWER_UNTIL_FAULT"):
        return all_of_them[:3]
    if long:
        for s in all_of_them[:4]:
            s.cuts *= 4
        all_of_them += [Session("data behind names", random_story(images, rng, 60), mount="data=writeback,commit=1", knobs=EAGER, cuts=800),
                        Session("long, on xfs", random_story(images, rng, 60), "xfs", cuts=400),
                        Session("long, on btrfs", random_story(images, rng, 60), "btrfs", cuts=400)]
    return all_of_them


def script(all_of_them):
    """The guest's part as a shell script; disk i is the i-th letter, the last one takes the marks."""
    disk = [f"/dev/vd{chr(ord('a') + i)}" for i in range(len(all_of_them) + 1)]
    lines = [f"MARKS={disk[-1]}"]
    for i, s in enumerate(all_of_them):
        lines += [s.knobs, f"mount -t {s.system} -o {s.mount} {disk[i]} /data || echo 'POWER FAILED: mount {disk[i]}'"]
        if s.weakened:
            lines += [f"export ZL_UNSYNCED='{s.weakened}' LD_PRELOAD=/build/tests/programs/unsynced.so"]
        if s.knobs == EAGER and not s.weakened:
            lines += ["neighbour & other=$!"]
        lines += [f"step {i} {k} {'dies' if step.dies else 'works'} '{step.line}'" for k, step in enumerate(s.steps)]
        lines += ["unset LD_PRELOAD ZL_UNSYNCED", '[ -z "$other" ] || { kill "$other"; wait "$other"; other=; }', f"mark over {i}", "umount /data"]
    return "\n".join(lines) + "\n"


def registry(folder):
    """Debian's docker-registry with its files in `folder`."""
    config = folder.parent / "registry.yml"
    config.write_text(json.dumps({"version": 0.1, "log": {"level": "error"}, "http": {"addr": HOST},
                                  "storage": {"filesystem": {"rootdirectory": str(folder)}, "delete": {"enabled": True}}}))
    return subprocess.Popen(["docker-registry", "serve", str(config)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
