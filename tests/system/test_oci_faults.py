"""zl-oci when the kernel says no: each system call of a command fails once, and kills the process that does it once.

A command ends in one line that says what failed, or does all that it was asked for: what the document says is seen from
inside as without the fault. Nothing is left: no process, mount, group or file, at the latest after `delete --force`.
tests/programs/faults.c lets the n-th call of one process of the command fail; a good run says which calls there are.
"""
import collections
import copy
import ctypes
import json
import os
import pathlib
import re
import subprocess
import time

import pytest

from conftest import BUILD, SANITIZED, SLOW, wait_for
from test_oci import ZL_OCI, bundle  # noqa: F401  pylint: disable=unused-import

pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer's own system calls would fail, and its leak checker wants to be the only tracer")
FAULTS = BUILD / "tests/programs/faults"
LONG = bool(os.environ.get("ZLAYER_LONG"))
# Of the C library, or such as can't fail, or whose failure nobody could tell; accept4 is after the end of `create`.
NEVER = set("""exit_group exit rt_sigaction rt_sigreturn rt_sigprocmask close brk munmap mprotect getpid gettid getppid getuid geteuid getgid
 getegid set_tid_address set_robust_list rseq arch_prctl futex getrandom sched_yield sched_getaffinity restart_syscall umask clock_gettime
 clock_nanosleep vfork accept4""".split())
# What fits: the first in `make check`, all with ZLAYER_LONG; EPERM where it does not ask for another way (a filter's word for
# calls that are newer, a user namespace's for devices and maps), which looks different. The others fail with the first row's.
ERRORS = collections.defaultdict(lambda: ["EIO", "ENOMEM"], {
    **dict.fromkeys("mount umount2 pivot_root unshare setns prctl capset setgroups setresuid setresgid seccomp sethostname setdomainname prlimit64 "
                    "fchmodat fchownat fchown mount_setattr move_mount bpf setsid ioprio_set sched_setattr set_mempolicy personality kill "
                    "pidfd_send_signal".split(), ["EPERM", "ENOMEM"]),
    **dict.fromkeys("write mkdirat mknodat symlinkat renameat linkat ftruncate fsync".split(), ["ENOSPC", "EIO"]),
    **dict.fromkeys("clone clone3 mmap pipe2 socketpair socket memfd_create execve execveat open_tree pidfd_open".split(), ["ENOMEM"]),
    **dict.fromkeys(["keyctl"], ["ENOMEM", "EDQUOT"]),
})


def table_of(trace):
    """(process, call, n) of what zl-oci does itself, in the order in which a good run did it."""
    own, counts, calls = set(), collections.Counter(), []
    for line in trace.splitlines():
        process, call = line.split()
        if call == "exec":
            # The first process becomes zl-oci, and then its sealed copy; another one becomes the container's or a hook.
            own ^= {process} if process != "0" else set()
            if process == "0":
                own.discard("0")
            continue
        counts[process, call] += 1
        if call not in NEVER and process not in own and not (process == "0" and call == "execve"):
            calls.append((process, call, counts[process, call]))
    return calls


class Machine:
    """What a command may leave behind; orphans are given to us."""

    def __init__(self, b):
        ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
        self.bundle = b

    def mounts(self):
        """That have to do with the bundle: others on the machine come and go."""
        return [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if self.bundle.folder.name in line]

    def groups(self):
        top = pathlib.Path("/sys/fs/cgroup")
        return [g for where in (top, *top.iterdir()) for g in [where / group_of(self.bundle)] if g.exists()]

    def children(self):
        """Reaps what has ended; says what has not."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return []
        pids = pathlib.Path("/proc/thread-self/children").read_text().split()
        return [f"process {pid}: {pathlib.Path('/proc', pid, 'cmdline').read_text()}" for pid in pids]

    def left(self, what="all"):
        out = [f"in the state folder: {p}" for p in self.bundle.state.glob("*") if p.name != ".seccomp"]  # the cache
        out += [f"group: {g}" for g in self.groups()]
        out += [f"mount: {m}" for m in self.mounts()]
        out += [f"file: {p}" for p in self.bundle.folder.iterdir() if p.name not in KNOWN]
        return out + self.children()

    def left_in_the_end(self):
        """Not what is about to end by itself, as a hook is that could not be waited for."""
        deadline = time.monotonic() + 10 * SLOW
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return left

    def expect_nothing(self, where):
        left = self.left_in_the_end()
        assert not left, (where, left)


KNOWN = {"rootfs", "config.json", "state", "data", "trace", "c.out", "c.err"}


@pytest.fixture
def machine(bundle):  # noqa: F811
    m = Machine(bundle)
    yield m
    bundle("delete", "--force", "c", check=False)
    bundle("delete", "--force", "one", check=False)
    m.children()
    ctypes.CDLL(None).prctl(36, 0)


def group_of(b):
    """Of its own name: other containers of this machine may be called as ours are."""
    return b.folder.name.replace("zl-oci-", "zl-faults-")


def everything(b, *args):
    """A document that asks for one of each."""
    c = copy.deepcopy(b.config)
    c["process"].update(args=["/workload", *args], cwd="/srv/deep", oomScoreAdj=500, user={"uid": 1000, "gid": 1000, "umask": 0o27, "additionalGids": [7]},
                        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 300}], ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6},
                        scheduler={"policy": "SCHED_BATCH", "nice": 5})
    c["mounts"] += [{"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro", "nosuid", "nodev"]},
                    {"destination": "/tree", "type": "bind", "source": "data", "options": ["rbind", "rro", "rnoexec", "rprivate"]},
                    {"destination": "/srv", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "tmpcopyup", "size=1m"]}]
    c["linux"].update(sysctl={"kernel.shmmni": "777"}, devices=[{"type": "c", "path": "/dev/mine", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4}],
                      resources={"memory": {"limit": 64 << 20}, "pids": {"limit": 30}, "devices": [{"allow": False, "access": "rwm"}]},
                      seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]})
    c["linux"]["cgroupsPath"] = "/" + group_of(b)
    c["hooks"] = {"createRuntime": [{"path": "/bin/true"}], "startContainer": [{"path": "/workload"}]}
    return c


LOOK = ["cat", "/proc/self/status", "cat", "/proc/self/mountinfo", "cat", "/proc/self/limits", "cat", "/proc/self/oom_score_adj", "cat", "/proc/self/stat",
        "cat", "/proc/sys/kernel/shmmni", "cat", "/proc/sys/kernel/hostname", "ls", "/dev", "ls", "/proc/self/fd", "ls", "/proc/self/cwd", "cat", "/srv/deep/old",
        "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "cat", "/sys/fs/cgroup/memory.max", "cat", "/sys/fs/cgroup/pids/pids.max",
        "cat", "/sys/fs/cgroup/pids.max", "cat", "/sys/fs/cgroup/devices/devices.list", "ls", "/proc/self/ns", "cat", "/proc/self/environ", "key", "zl-faults"]
STATUS = "Uid Gid Groups Umask CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters SigBlk SigIgn SigCgt".split()


def whose(m):
    """A namespace of its own, or the caller's; of pipes that they are there."""
    path = f"/proc/self/ns/{m[1]}"
    return f"{m[1]} {'ours' if os.path.exists(path) and os.readlink(path) == m[0] else 'its own'}"


def seen(text):
    """The output of LOOK without what differs from one container to the next."""
    out = []
    for line in text.splitlines():
        if re.match(r"\d+ \d+ \d+:\d+ ", line):
            before, _, after = line.partition(" - ")
            fields = before.split()
            line = " ".join([*fields[3:6], after]) if "/tmp/" not in fields[3] else " ".join(fields[4:6])
        elif re.match(r"\d+ \(workload\) ", line):  # nice, real-time priority, policy
            fields = line.split()
            line = " ".join(["sched", fields[18], fields[39], fields[40]])
        elif re.match(r"\w+:\t", line) and line.split(":")[0] not in STATUS:
            continue
        line = re.sub(r"/proc/\d+/fd", "/proc/N/fd", line)
        out.append(re.sub(r"(\w+):\[\d+\]", whose, line))
    return sorted(out)


def one_line(r):
    """Says what failed, once; the hint is a line of its own."""
    lines = [line for line in r.stderr.splitlines() if not line.startswith("hint: ")]
    return len(lines) == 1 and lines[0].startswith("zl-oci: ") and len(lines[0]) > 12


def set_out(bundle):  # noqa: F811
    (bundle.folder / "data").mkdir(exist_ok=True)
    for name in ("srv/deep", "data", "tree", "proc", "dev", "sys"):  # for those who may not make them
        (bundle.folder / "rootfs" / name).mkdir(parents=True, exist_ok=True)
    bundle.folder.chmod(0o711)
    (bundle.folder / "rootfs/srv/deep/old").write_text("copied\n")


class Case:
    """One command: what is there before, and what it has done when it says so."""

    def __init__(self, m):
        self.m, self.b = m, m.bundle

    args, fresh, name = (), True, "c"

    def prepare(self):
        self.document()

    def document(self, *args):
        (self.b.folder / "config.json").write_text(json.dumps(everything(self.b, *(args or LOOK))))

    def create(self, *args):
        self.document(*args)
        with open(self.b.folder / "c.out", "w") as out:
            subprocess.run([ZL_OCI, "--root", self.b.state, "create", "c"], cwd=self.b.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                           timeout=30 * SLOW, check=True)

    def running(self):
        """Made once, and again when a fault has ended it."""
        r = self.b("state", "c", check=False)
        if r.returncode or json.loads(r.stdout)["status"] != "running":
            self.b("delete", "--force", "c")
            self.create("forever")
            self.b("start", "c")

    def command(self, *how):
        """Through a file, where the container holds its output beyond the command's end."""
        holds = self.args[0] == "create"
        with open(self.b.folder / "c.out" if holds else os.devnull, "w") as out, open(self.b.folder / "c.err", "w") as err:
            r = subprocess.run([FAULTS, *map(str, how), ZL_OCI, "--root", self.b.state, *self.args], cwd=self.b.folder, text=True, check=False,
                               timeout=30 * SLOW, stdin=subprocess.DEVNULL, stdout=out if holds else subprocess.PIPE, stderr=err)
        r.stderr = (self.b.folder / "c.err").read_text()
        return r

    def facts(self, r):
        return seen(r.stdout)

    def after_failure(self):
        """What must hold then; the container is deleted afterwards."""

    def record(self):
        self.prepare()
        trace = self.b.folder / "trace"
        r = self.command("record", trace)
        assert r.returncode == 0 and not r.stderr, r
        return table_of(trace.read_text()), self.facts(r)

    def clean(self):
        if self.fresh:
            self.b("delete", "--force", self.name)
            self.m.expect_nothing(self.args)


class Run(Case):
    args, name = ("run", "one"), "one"


class RunInNamespaces(Run):
    """Users and clocks of its own: a helper, maps, and sources that are opened ahead."""

    def document(self, *args):
        c = everything(self.b, *(args or LOOK))
        c["linux"]["namespaces"] += [{"type": "user"}, {"type": "time"}]
        c["linux"].update(uidMappings=[{"containerID": 0, "hostID": 100000, "size": 65536}], gidMappings=[{"containerID": 0, "hostID": 100000, "size": 65536}],
                          timeOffsets={"boottime": {"secs": 1000, "nanosecs": 0}}, sysctl={}, devices=[])
        (self.b.folder / "config.json").write_text(json.dumps(c))


class Create(Case):
    args = ("create", "c")

    def facts(self, r):
        status = json.loads(self.b("state", "c").stdout)["status"]
        if status != "created":
            return [status]
        self.b("start", "c")
        return self.ended()

    def ended(self):
        wait_for("it has ended", lambda: json.loads(self.b("state", "c").stdout)["status"] == "stopped", 20)
        return seen((self.b.folder / "c.out").read_text())


class Start(Create):
    args = ("start", "c")

    def prepare(self):
        self.create()

    def facts(self, r):
        return self.ended()


class Exec(Case):
    args, fresh = ("exec", "c", "/workload", *LOOK), False

    def prepare(self):
        self.running()

    def alone(self):
        """The container is as it was, and the command has gone."""
        wait_for("the command has gone", lambda: len(json.loads(self.b("ps", "-f", "json", "c").stdout)) == 1)
        assert self.b.status() == "running"

    def facts(self, r):
        self.alone()
        return seen(r.stdout)

    def after_failure(self):
        self.alone()


class Update(Exec):
    args = ("update", "--memory", str(48 << 20), "--pids-limit", "25", "--cpu-share", "600", "c")

    def prepare(self):
        self.running()
        self.b("update", "--memory", str(64 << 20), "--pids-limit", "30", "--cpu-share", "700", "c")

    def limits(self):
        files = ["memory/{}/memory.limit_in_bytes", "pids/{}/pids.max", "cpu/{}/cpu.shares", "{}/memory.max", "{}/pids.max", "{}/cpu.weight"]
        found = [pathlib.Path("/sys/fs/cgroup", f.format(group_of(self.b))) for f in files]
        return [p.read_text() for p in found if p.exists()]

    def facts(self, r):
        return self.limits()

    def after_failure(self):
        assert int(self.limits()[0]) == 64 << 20 and int(self.limits()[1]) == 30


class Pause(Exec):
    args, after = ("pause", "c"), "paused"

    def prepare(self):
        self.b("resume", "c", check=False)
        self.running()

    def facts(self, r):
        assert self.b.status() == self.after
        return self.after

    def after_failure(self):
        assert self.b.status() in ("running", "paused")


class Resume(Pause):
    args, after = ("resume", "c"), "running"

    def prepare(self):
        super().prepare()
        self.b("pause", "c")


class Kill(Case):
    args = ("kill", "c", "KILL")

    def prepare(self):
        self.running()

    def facts(self, r):
        wait_for("it has ended", lambda: self.b.status() == "stopped")

    def after_failure(self):
        assert self.b.status() in ("running", "stopped")


class Delete(Case):
    args = ("delete", "c")

    def prepare(self):
        self.create("exit", "0")
        self.b("start", "c")
        wait_for("it has ended", lambda: self.b.status() == "stopped")

    def facts(self, r):
        self.m.expect_nothing(self.args)


class DeleteByForce(Delete):
    args = ("delete", "--force", "c")

    def prepare(self):
        self.running()


class Tell(Exec):
    args = ("state", "c")

    def facts(self, r):
        return re.sub(r'"(pid|created)": [^,\n]*', "", r.stdout)

    def after_failure(self):
        assert self.b.status() == "running"


class List(Tell):
    args = ("list", "-f", "json")


class Ps(Tell):
    args = ("ps", "-f", "json", "c")

    def facts(self, r):
        return len(json.loads(r.stdout))


CASES = [Run, RunInNamespaces, Create, Start, Exec, Update, Pause, Resume, Kill, Delete, DeleteByForce, Tell, List, Ps]
# Of these every one is tried, as each takes something from the container.
HARDENING = set("""mount umount2 pivot_root unshare setns prctl capset setgroups setresuid setresgid seccomp prlimit64 mount_setattr move_mount keyctl
 close_range fchdir chdir chmod fchmodat fchownat mknodat sethostname setsid""".split())


def chosen(calls):
    """In `make check` the first two and the last of a kind in each process, and all that harden."""
    if LONG:
        return calls
    last = {(process, call): n for process, call, n in calls}
    return [(p, c, n) for p, c, n in calls if c in HARDENING or n <= 2 or n == last[p, c]]


@pytest.mark.parametrize("kind", CASES, ids=lambda k: k.__name__)
def test_each_system_call_fails(machine, kind):
    """Once, with what fits: the command fails with a line, or has done all of it."""
    set_out(machine.bundle)
    case, bad, missed, tried = kind(machine), [], 0, 0
    case.record()
    case.clean()
    calls, good = case.record()
    case.clean()
    assert len(calls) > 10
    for process, call, n in chosen(calls):
        for error in ERRORS[call][:None if LONG else 1]:
            where = (process, call, n, error)
            tried += 1
            case.prepare()
            r = case.command("inject", *where)
            # Where one is waited for, there may be less to do than the time before.
            missed += r.returncode == 99
            if r.returncode in (0, 99):
                found = case.facts(r)
                if found != good:
                    bad.append((where, "it is not as it should be", [x for x in found if x not in good], [x for x in good if x not in found]))
            elif r.returncode not in (1, 126, 127) or not one_line(r):
                bad.append((where, r.returncode, r.stderr))
            else:
                case.after_failure()
                left = machine.left_in_the_end() if case.args[0] in ("run", "create") and not r.stderr.startswith("zl-oci: remove ") else []
                if left:
                    bad.append((where, r.stderr, left))
            case.clean()
    assert not bad, "\n".join(map(str, bad))
    assert missed <= 1 + tried // 10, (missed, tried)


KILLS = [Run, RunInNamespaces, Create, Start, Exec, Update, Pause, Resume, Delete, DeleteByForce]


@pytest.mark.parametrize("kind", KILLS, ids=lambda k: k.__name__)
def test_it_is_killed_at_each_system_call(machine, kind):
    """SIGKILL of zl-oci: what is there is found and shown, and `delete --force` removes it."""
    set_out(machine.bundle)
    case = kind(machine)
    case.record()
    case.clean()
    calls, missed, tried = [c for c in case.record()[0] if c[0] == "0"], 0, 0
    case.clean()
    for process, call, n in calls if LONG else calls[::3]:
        tried += 1
        case.prepare()
        r = case.command("inject", process, call, n, "KILL")
        where = (call, n, r.returncode, r.stderr)
        assert r.returncode in (128 + 9, 99), where
        missed += r.returncode == 99
        known = machine.bundle("state", case.name, check=False)
        assert known.returncode == 0 or one_line(known), (where, known)
        listed = machine.bundle("list", "-q").stdout.split()
        assert listed == ([case.name] if (machine.bundle.state / case.name).exists() else []), (where, listed)
        machine.bundle("delete", "--force", case.name)
        machine.expect_nothing(where)
    assert missed <= 1 + tried // 10, (missed, tried)
