"""zl-oci by an ordinary user: with the own id alone, with the ranges of /etc/subuid, with groups that are delegated and without."""
import errno
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

import pytest

from conftest import need_root, wait_for
from test_oci import ZL_OCI

UID = 54321
GROUP = "zl-test-delegated"
BUSYBOX = shutil.which("busybox")
HIERARCHIES = [p for p in pathlib.Path("/sys/fs/cgroup").iterdir() if (p / "cgroup.procs").exists()] if \
    not pathlib.Path("/sys/fs/cgroup/cgroup.procs").exists() else [pathlib.Path("/sys/fs/cgroup")]


class Rootless:
    def __init__(self, folder, uid=UID):
        self.folder, self.uid, self.before, self.wrap = folder, uid, "", []
        for name in ("rootfs/proc", "rootfs/dev", "rootfs/sys", "rootfs/tmp", "run"):
            (folder / name).mkdir(parents=True)
        shutil.copy(BUSYBOX, folder / "rootfs/busybox")
        (folder / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nzltest:x:{self.uid}:{self.uid}::/:/bin/sh\n")
        (folder / "subid").write_text(f"zltest:300000:65536\n{self.uid}:300000:65536\n")
        self("spec", "--rootless", root=True)
        self.config = json.loads((folder / "config.json").read_text())
        own = [{"containerID": 0, "hostID": uid, "size": 1}]
        self.config["linux"].update(uidMappings=own, gidMappings=own)
        caps = [f"CAP_{c}" for c in ("CHOWN", "KILL", "DAC_OVERRIDE")]
        self.config["process"].update(terminal=False, env=["PATH=/bin"],
                                      capabilities={k: caps for k in ("bounding", "effective", "permitted")})
        subprocess.run(["chown", "-R", f"{self.uid}:{self.uid}", folder], check=True)

    def __call__(self, *args, root=False, check=True):
        """In a mount namespace whose /etc/passwd and /etc/subuid know the user."""
        user = "" if root else f"setpriv --reuid={self.uid} --regid={self.uid} --clear-groups "
        binds = " && ".join(f"mount --bind {self.folder}/{a} /etc/{b}" for a, b in (("passwd", "passwd"), ("subid", "subuid"), ("subid", "subgid")))
        script = f'{self.before} {binds} && cd {self.folder} && XDG_RUNTIME_DIR={self.folder}/run exec {user}{ZL_OCI} "$@"'
        with open(self.folder / "out", "w+") as out:
            r = subprocess.run([*self.wrap, "unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *map(str, args)],
                               stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, timeout=60, check=False)
            out.seek(0)
            r.stdout = out.read()
        assert not check or r.returncode == 0, (args, r.returncode, r.stdout)
        return r

    def write(self, script, **linux):
        self.config["process"]["args"] = ["/busybox", "sh", "-c", script]
        (self.folder / "config.json").write_text(json.dumps({**self.config, "linux": {**self.config["linux"], **linux}}))


@pytest.fixture
def rootless(request):
    need_root()
    for program in ("busybox", "newuidmap", "setpriv", "unshare"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (tools/setup test)")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="zl-rootless-", dir="/tmp"))
    folder.chmod(0o755)
    r = Rootless(folder, getattr(request, "param", UID))
    yield r
    r.before = ""
    r("delete", "--force", "c", check=False)
    shutil.rmtree(folder, ignore_errors=True)


LOOK = "/busybox id; /busybox cat /proc/self/uid_map; echo x > /dev/null; /busybox ls -l /dev; /busybox touch /tmp/made; /busybox readlink /proc/self/ns/net"


def test_the_own_id(rootless):
    rootless.write(LOOK, resources={})
    rootless.config["root"]["readonly"] = False
    rootless.write(LOOK)
    out = rootless("run", "c").stdout
    assert "uid=0 gid=0" in out and out.split("\n")[1].split() == ["0", str(UID), "1"]
    assert "1,   3" in out and (rootless.folder / "rootfs/tmp/made").stat().st_uid == UID
    assert not any((rootless.folder / "run/zl-oci").iterdir())


# A user of its own, whose holder goes on: keys of containers that ended are given back later, and would make room meanwhile.
@pytest.mark.parametrize("rootless", [40000 + os.getpid() % 10000], indirect=True, ids=["own-user"])
def test_too_many_keys(rootless):
    """Each container has a session keyring, and a user's keys are counted: one too many is refused by the limit's name."""
    add, control = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
    script = f"""import ctypes, os, select
os.setresgid({rootless.uid}, {rootless.uid}, {rootless.uid}); os.setresuid({rootless.uid}, {rootless.uid}, {rootless.uid})
c, i, full = ctypes.CDLL(None, use_errno=True), 0, False
while not full or not select.select([0], [], [], .001)[0]:
    while c.syscall({add}, b"user", b"zl-%d" % i, b"x", 1, -2) > 0: i += 1
    full = full or not print(ctypes.get_errno(), flush=True)"""
    rootless.write("true", resources={}, cgroupsPath=f"zl-test-keys-{os.getpid()}")
    # A first session keyring is beyond the count; who has logged in has one.
    join = f"import ctypes, os, sys; assert ctypes.CDLL(None).syscall({control}, 1, None) > 0; os.execvp(sys.argv[1], sys.argv[1:])"
    rootless.wrap = [sys.executable, "-c", join]
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert int(holder.stdout.readline()) == errno.EDQUOT
        r = rootless("run", "keys", check=False)
        assert r.returncode == 1 and "kernel.keys.maxkeys" in r.stdout, r.stdout
        assert not any((rootless.folder / "run/zl-oci").iterdir())
        rootless("run", "--no-new-keyring", "keys")
        holder.stdin.close()


def test_ranges_of_subuid(rootless):
    maps = [{"containerID": 0, "hostID": UID, "size": 1}, {"containerID": 1, "hostID": 300000, "size": 65536}]
    rootless.config["root"]["readonly"] = False
    rootless.write(LOOK + "; /busybox chown 5:6 /tmp/made", uidMappings=maps, gidMappings=maps)
    out = rootless("run", "c").stdout
    assert [line.split() for line in out.split("\n")[1:3]] == [["0", str(UID), "1"], ["1", "300000", "65536"]]
    assert (rootless.folder / "rootfs/tmp/made").stat().st_uid == 300004
    maps[1]["size"] = 65537  # more than the file gives
    rootless.write(LOOK, uidMappings=maps, gidMappings=maps)
    r = rootless("run", "c", check=False)
    assert r.returncode == 1 and "map the users" in r.stdout
    assert not any((rootless.folder / "run/zl-oci").iterdir())


def test_a_life(rootless):
    rootless.write("trap 'exit 0' TERM; echo up; while :; do /busybox sleep 1; done")
    rootless("create", "c")
    state = json.loads(rootless("state", "c").stdout)
    assert state["status"] == "created"
    rootless("start", "c")
    assert "uid=0" in rootless("exec", "c", "/busybox", "id").stdout
    r = rootless("pause", "c", check=False)
    assert r.returncode == 1 and "freeze c" in r.stdout
    rootless("kill", "c", "KILL")
    wait_for("it has ended", lambda: json.loads(rootless("state", "c").stdout)["status"] == "stopped")
    rootless("delete", "c")
    assert not any((rootless.folder / "run/zl-oci").iterdir())


def test_a_forced_delete_without_groups(rootless):
    """What runs is ended, by its first process, as there is no group that holds it."""
    rootless.write("/busybox sleep 1000 & exec /busybox sleep 1000", resources={})
    rootless("run", "-d", "c")
    pid = json.loads(rootless("state", "c").stdout)["pid"]
    assert "no cgroup" in rootless("ps", "c", check=False).stdout
    rootless("kill", "--all", "c", "WINCH")
    inside = os.readlink(f"/proc/{pid}/ns/pid")
    rootless("delete", "--force", "c")
    left = [p for p in pathlib.Path("/proc").glob("[0-9]*") if namespace_of_living(p) == inside]
    assert not left and not any((rootless.folder / "run/zl-oci").iterdir())


def namespace_of_living(path):
    try:
        zombie = "State:\tZ" in (path / "status").read_text()
        return "" if zombie else os.readlink(path / "ns/pid")
    except OSError:  # it has gone meanwhile
        return ""


def test_what_is_not_possible_says_why(rootless):
    rootless.write("echo it ran", resources={"memory": {"limit": 64 << 20}})
    r = rootless("run", "c", check=False)
    assert r.returncode == 1 and "no cgroup is delegated" in r.stdout and "it ran" not in r.stdout
    rootless.write("echo it ran", namespaces=[{"type": "mount"}, {"type": "pid"}, {"type": "uts"}], uidMappings=[], gidMappings=[])
    r = rootless("run", "c", check=False)
    assert r.returncode == 1 and "make the namespaces" in r.stdout and "user namespace" in r.stdout
    rootless.write("echo it ran", uidMappings=[{"containerID": 0, "hostID": 0, "size": 1}])
    r = rootless("run", "c", check=False)
    assert r.returncode == 1 and "map the users" in r.stdout
    assert not any((rootless.folder / "run/zl-oci").iterdir())


def test_delegated_groups(rootless):
    """Folders that belong to the user, in each hierarchy; the caller is in that of v2, as a user's session is."""
    made = []
    try:
        for h in HIERARCHIES:
            group = h / GROUP
            group.mkdir()
            made.append(group)
            for p in [group, *(group / n for n in ("cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads") if (group / n).exists())]:
                os.chown(p, UID, UID)
            for n in ("cpuset.cpus", "cpuset.mems"):
                if (group / n).exists() and (h / n).exists():
                    (group / n).write_text((h / n).read_text())
        unified = next((h for h in HIERARCHIES if (h / "cgroup.controllers").exists()), None)
        if len(HIERARCHIES) == 1:  # what root does for a user's slice
            (unified / "cgroup.subtree_control").write_text("+memory +pids")
        if unified:
            (unified / GROUP / "caller").mkdir()
            made.append(unified / GROUP / "caller")
            subprocess.run(["chown", "-R", f"{UID}:{UID}", unified / GROUP / "caller"], check=True)
            rootless.before = f"echo 0 > {unified / GROUP / 'caller' / 'cgroup.procs'} &&"
        rootless.write("trap 'exit 0' TERM; while :; do /busybox sleep 1; done", cgroupsPath=f"/{GROUP}/c",
                       resources={"memory": {"limit": 64 << 20}, "pids": {"limit": 33}})
        rootless("run", "-d", "c")
        limits = [f.read_text().strip() for h in HIERARCHIES for n in ("memory.max", "memory.limit_in_bytes", "pids.max")
                  for f in [h / GROUP / "c" / n] if f.exists()]
        assert sorted(limits) == ["33", str(64 << 20)]
        rootless("pause", "c")
        assert json.loads(rootless("state", "c").stdout)["status"] == "paused"
        rootless("resume", "c")
        rootless("update", "--pids-limit", "44", "c")
        assert "44" in [f.read_text().strip() for h in HIERARCHIES for f in [h / GROUP / "c" / "pids.max"] if f.exists()]
        rootless("delete", "--force", "c")
        assert not any((h / GROUP / "c").exists() for h in HIERARCHIES)
    finally:
        for group in reversed(made):
            group.rmdir()
