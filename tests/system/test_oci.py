"""zl-oci, as an engine calls it: what a config.json says is seen from inside; nothing else stays or goes."""
import copy
import errno
import fcntl
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import termios

import pytest

import leftovers
from conftest import BUILD, SLOW, alive, need_root, wait_for

# ZL_OCI_WRAP: a program that runs it without the newer system calls (test_older_kernels.py).
OLDER = bool(os.environ.get("ZL_OCI_WRAP"))
ZL_OCI = pathlib.Path(os.environ.get("ZL_OCI_WRAP") or BUILD / "src/ocirun/zl-oci")
# ZL_OCI_SYSTEMD: that one is given the systemd driver (tools/run-guest-systemd).
SYSTEMD = bool(os.environ.get("ZL_OCI_SYSTEMD"))
GROUP = "system.slice/zl-oci-c.scope" if SYSTEMD else "zl-oci-c"
DEVICES = [p for p in ("/sys/fs/cgroup/devices", "/sys/fs/cgroup/memory") if os.path.isdir(p)]


class Bundle:
    """A root filesystem that holds the workload program, its config, and a state folder."""

    def __init__(self, folder):
        self.folder, self.state, self.ids = folder, folder / "state", []
        (folder / "rootfs").mkdir()
        shutil.copy(BUILD / "tests/programs/workload", folder / "rootfs/workload")
        subprocess.run([ZL_OCI, "spec", "-b", folder], check=True, timeout=20)
        self.config = json.loads((folder / "config.json").read_text())

    def write(self, *args, **members):
        config = {**copy.deepcopy(self.config), **members}
        config["process"]["args"] = ["/workload", *map(str, args)]
        (self.folder / "config.json").write_text(json.dumps(config))

    def __call__(self, *args, check=True, **kw):
        r = subprocess.run([ZL_OCI, "--root", self.state, *map(str, args)], cwd=self.folder, text=True, timeout=30 * SLOW,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **kw)
        assert not check or r.returncode == 0, (args, r.returncode, r.stderr)
        return r

    def run(self, *args, check=False, **members):
        """One container from its beginning to its end."""
        self.write(*args, **members)
        return self("run", "one", check=check)

    def create(self, name="c"):
        """The output goes to a file, as the container holds it beyond the command's end."""
        self.ids.append(name)
        with open(self.folder / f"{name}.out", "w") as out:
            r = subprocess.run([ZL_OCI, "--root", self.state, "create", "--pid-file", self.folder / f"{name}.pid", name],
                               cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=30 * SLOW, check=False)
        assert r.returncode == 0, self.out(name)
        return int((self.folder / f"{name}.pid").read_text())

    def out(self, name="c"):
        return (self.folder / f"{name}.out").read_text()

    def status(self, name="c"):
        return json.loads(self("state", name).stdout)["status"]

    def close(self):
        for name in [*self.ids, "one"]:
            self("delete", "--force", name, check=False)


@pytest.fixture
def bundle():
    need_root()
    folder = tempfile.mkdtemp(prefix="zl-oci-", dir="/tmp")
    b = Bundle(pathlib.Path(folder))
    yield b
    b.close()
    shutil.rmtree(folder, ignore_errors=True)


def fields(text, *names):
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return [lines[n].split() for n in names]


def test_exits(bundle):
    for code in (0, 3, 137):
        assert bundle.run("exit", code).returncode == code
    r = bundle.run("say", "out", "err", "wrong", "exit", 1)
    assert (r.stdout, r.stderr, r.returncode) == ("out\n", "wrong\n", 1)
    config = copy.deepcopy(bundle.config)
    config["process"]["args"] = ["/none"]
    (bundle.folder / "config.json").write_text(json.dumps(config))
    r = bundle("run", "one", check=False)
    assert r.returncode == 127 and "'/none'" in r.stderr and "no such file or directory" in r.stderr


def test_a_life(bundle):
    before = leftovers.snapshot()
    bundle.write("say", "up", "forever")
    pid = bundle.create()
    exe = open(f"/proc/{pid}/exe", "rb")
    shown = json.loads(bundle("state", "c").stdout)
    assert (shown["status"], shown["pid"], shown["bundle"]) == ("created", pid, str(bundle.folder))
    assert bundle("exec", "c", "/workload", check=False).returncode == 1
    assert "exists already" in bundle("create", "c", check=False).stderr
    assert bundle.status() == "created"  # the other create has touched nothing
    bundle("start", "c")
    assert bundle.status() == "running"
    wait_for("it speaks", lambda: "up" in bundle.out())
    assert "does not wait" in bundle("start", "c", check=False).stderr
    assert "not stopped" in bundle("delete", "c", check=False).stderr
    assert bundle("list", "-q").stdout == "c\n"
    assert json.loads(bundle("ps", "-f", "json", "c").stdout) == [pid]
    r = bundle("exec", "-e", "X=y", "c", "/workload", "cat", "/proc/self/environ", "exit", "7", check=False)
    assert r.returncode == 7 and "X=y" in r.stdout
    assert bundle("exec", "c", "/none", check=False).returncode == 127
    bundle("pause", "c")
    assert bundle.status() == "paused"
    bundle("resume", "c")
    assert bundle.status() == "running"
    bundle("kill", "c", "TERM")
    wait_for("it has ended", lambda: bundle.status() == "stopped")
    assert "not running" in bundle("kill", "c", "KILL", check=False).stderr
    # What waited in the container can't be written to, even when it runs no more (CVE-2019-5736).
    with exe, pytest.raises(OSError) as refused, open(f"/proc/self/fd/{exe.fileno()}", "r+b", buffering=0) as writable:
        writable.write(b"x")
    assert refused.value.errno in (errno.EROFS, errno.EPERM)
    assert json.loads(bundle("state", "c").stdout)["pid"] == 0
    bundle("delete", "c")
    assert bundle("state", "c", check=False).returncode == 1
    assert bundle("delete", "c", check=False).returncode == 1 and bundle("delete", "--force", "c").returncode == 0
    came = [d for d in leftovers.diff(before, leftovers.snapshot()) if ": went:" not in d and "(zombie)" not in d]
    assert not [d for d in came if str(bundle.folder) not in d]


def test_kill_all_and_delete_force(bundle):
    bundle.write("child-alloc", "1", "forever")
    for end in (["kill", "--all", "c", "KILL"], ["delete", "--force", "c"]):
        pid = bundle.create()
        bundle("start", "c")
        bundle(*end)
        wait_for("it is gone", lambda p=pid: not alive(p))
        bundle("delete", "--force", "c")


def test_it_outlives_who_made_it(bundle):
    """The maker, which its orphans are given to, ends: neither the container nor a command in it does."""
    bundle.write("forever")
    bundle.ids.append("c")
    o = f"{ZL_OCI} --root {bundle.state}"
    script = f"import ctypes, os; ctypes.CDLL(None).prctl(36, 1); " \
             f"os.system('{o} create c && {o} start c && {o} exec -d c /workload forever')"
    subprocess.run(["python3", "-c", script], cwd=bundle.folder, check=True, timeout=30 * SLOW, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL)
    assert bundle.status() == "running" and len(json.loads(bundle("ps", "-f", "json", "c").stdout)) == 2


def test_many_variables(bundle):
    """All of them, and HOME only when it is not there."""
    env = [f"V{i}={i}" for i in range(5000)]
    for more, home in ([], "HOME=/"), (["HOME=/own"], "HOME=/own"):
        r = bundle.run("cat", "/proc/self/environ", process={**bundle.config["process"], "env": [*env, *more]}, check=True)
        assert r.stdout.rstrip("\0\n").split("\0") == [*env, home]


def test_user_and_rights(bundle):
    process = {**bundle.config["process"], "user": {"uid": 1000, "gid": 2000, "umask": 0o27, "additionalGids": [5, 6]},
               "oomScoreAdj": 321, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                                               {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1}],
               "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}}
    r = bundle.run("cat", "/proc/self/status", "cat", "/proc/self/limits", "cat", "/proc/self/oom_score_adj", process=process)
    assert r.returncode == 0, r.stderr
    uid, gid, groups, umask, nnp = fields(r.stdout, "Uid", "Gid", "Groups", "Umask", "NoNewPrivs")
    assert uid == ["1000"] * 4 and gid == ["2000"] * 4 and groups == ["5", "6"] and umask == ["0027"] and nnp == ["1"]
    sets = [int(v[0], 16) for v in fields(r.stdout, "CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")]
    assert sets == [0x21, 0x20, 0x20, 0x20, 0x20]
    limits = {line[:25].strip(): line[25:].split()[:2] for line in r.stdout.splitlines() if line.startswith("Max ")}
    assert limits["Max open files"] == ["100", "200"] and limits["Max core file size"] == ["0", "unlimited"]
    assert "321" in r.stdout.splitlines()


def test_the_root_and_its_mounts(bundle):
    (bundle.folder / "data").mkdir()
    (bundle.folder / "data/there").write_text("from outside\n")
    (bundle.folder / "rootfs/filled").mkdir()
    (bundle.folder / "rootfs/filled/old").write_text("copied\n")
    (bundle.folder / "rootfs/link").symlink_to("/filled/deep")  # is followed, and stays inside
    (bundle.folder / "rootfs/filled/deep").mkdir()
    mounts = bundle.config["mounts"] + [
        {"destination": "/a/b", "type": "bind", "source": str(bundle.folder / "data"), "options": ["rbind", "ro", "nosuid"]},
        {"destination": "/etc/one", "type": "bind", "source": "data/there", "options": ["bind", "rprivate"]},
        {"destination": "/filled", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "tmpcopyup", "size=1m"]},
        {"destination": "/link", "type": "tmpfs", "source": "tmpfs", "options": ["noexec"]},
    ]
    r = bundle.run("cat", "/a/b/there", "cat", "/etc/one", "cat", "/filled/old", "cat", "/proc/self/mountinfo",
                   mounts=mounts)
    assert r.returncode == 0, r.stderr
    assert r.stdout.startswith("from outside\nfrom outside\ncopied\n")
    seen = {line.split()[4]: line for line in r.stdout.splitlines() if len(line.split()) > 6 and line.split()[4].startswith("/")}
    options = {at: set(line.split()[5].split(",")) for at, line in seen.items()}
    assert {"ro"} <= options["/"] and {"ro", "nosuid"} <= options["/a/b"] and "rw" in options["/etc/one"]
    assert "size=1024k" in seen["/filled"] and {"noexec"} <= options["/filled/deep"]
    assert {"ro", "nosuid", "noexec", "nodev"} <= options["/sys"] and "ro" in options["/proc/sys"]
    masked = [p for p in bundle.config["linux"]["maskedPaths"] if os.path.exists(p)]
    assert masked and set(masked) <= set(seen) and not any("/tmp/" in at for at in seen)
    assert (bundle.folder / "rootfs/etc/one").read_text() == ""  # the target was made, outside it holds nothing


def test_the_mode_of_a_tmpfs(bundle):
    """As it says, else that of the folder it covers, else the kernel's."""
    (bundle.folder / "rootfs/old").mkdir()
    (bundle.folder / "rootfs/old").chmod(0o2750)
    mounts = [{"destination": f"/{at}", "type": "tmpfs", "source": "tmpfs", "options": options} for at, options in
              (("old", []), ("new", []), ("old/said", ["mode=1700"]), ("old/copied", ["tmpcopyup", "mode=711"]))]
    bundle.write("forever", mounts=bundle.config["mounts"] + mounts)
    pid = bundle.create()
    modes = [os.stat(f"/proc/{pid}/root/{at}").st_mode & 0o7777 for at in ("old", "new", "old/said", "old/copied")]
    assert modes == [0o2750, 0o1777, 0o1700, 0o711]


def test_links_do_not_lead_out(bundle):
    """A mount of /proc follows no link; others end inside, whatever a link says."""
    outside = bundle.folder / "outside"
    outside.mkdir()
    (bundle.folder / "rootfs/out").symlink_to("../../../../../../" + str(outside))
    mount = {"destination": "/out/x", "type": "tmpfs", "source": "tmpfs", "options": []}
    r = bundle.run("say", "ok", mounts=bundle.config["mounts"] + [mount])
    assert r.stdout == "ok\n" and not any(outside.iterdir())
    (bundle.folder / "rootfs/proc").rmdir()
    (bundle.folder / "rootfs/proc").symlink_to("out")
    r = bundle.run("say", "ok")
    assert r.returncode == 1 and "mount /proc" in r.stderr


def test_names_sysctls_and_seccomp(bundle):
    linux = {**bundle.config["linux"], "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmni": "777"},
             "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"] if os.uname().machine == "x86_64" else [],
                         "syscalls": [{"names": ["uname", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}}
    r = bundle.run("cat", "/proc/sys/kernel/hostname", "cat", "/proc/sys/kernel/domainname", "cat", "/proc/sys/net/ipv4/ip_forward",
                   "cat", "/proc/sys/kernel/shmmni", "cat", "/proc/self/status", linux=linux, hostname="one", domainname="two")
    assert r.returncode == 0, r.stderr
    assert r.stdout.split()[:4] == ["one", "two", "1", "777"]
    assert fields(r.stdout, "Seccomp")[0] == ["2"]


def test_devices(bundle):
    linux = {**bundle.config["linux"], "devices": [{"type": "c", "path": "/dev/mine", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4}],
             "resources": {"devices": [{"allow": False, "access": "rwm"}]} if DEVICES else {}}
    bundle.write("forever", linux=linux)
    pid = bundle.create()
    st = os.stat(f"/proc/{pid}/root/dev/mine")
    assert stat.S_ISCHR(st.st_mode) and st.st_rdev == os.makedev(1, 5)
    assert (st.st_mode & 0o777, st.st_uid, st.st_gid) == (0o640, 3, 4)
    assert {"null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "ptmx"} <= set(os.listdir(f"/proc/{pid}/root/dev"))
    if DEVICES:
        rules = pathlib.Path("/sys/fs/cgroup/devices", GROUP, "devices.list").read_text().splitlines()
        assert "c 1:3 rwm" in rules and not any(r.startswith("a") for r in rules)


def test_limits(bundle):
    path, group = ("zl-test.slice:deep:c", "zl.slice/zl-test.slice/deep-c.scope") if SYSTEMD else ("/zl-oci-test/deep/c", "zl-oci-test/deep/c")
    linux = {**bundle.config["linux"], "cgroupsPath": path,
             "resources": {"memory": {"limit": 32 << 20, "swap": 64 << 20}, "pids": {"limit": 20}, "cpu": {"quota": 20000, "period": 50000, "shares": 512}}}
    bundle.write("forever", linux=linux)
    bundle.create()
    v1 = pathlib.Path("/sys/fs/cgroup/memory").is_dir()
    files = {"memory/{}/memory.limit_in_bytes": str(32 << 20), "pids/{}/pids.max": "20", "cpu/{}/cpu.shares": "512",
             "cpu/{}/cpu.cfs_quota_us": "20000"} if v1 else \
            {"{}/memory.max": str(32 << 20), "{}/memory.swap.max": str(32 << 20), "{}/pids.max": "20", "{}/cpu.max": "20000 50000"}
    for path, value in files.items():
        assert pathlib.Path("/sys/fs/cgroup", path.format(group)).read_text().strip() == value, path
    # A second one in the same group would end with the first.
    (bundle.folder / "c2.pid").unlink(missing_ok=True)
    r = bundle("create", "c2", check=False)
    assert r.returncode == 1 and ("already" if SYSTEMD else "has processes already") in r.stderr and bundle.status() == "created"
    bundle("delete", "--force", "c")
    for top in ("", "*/"):
        for path in pathlib.Path("/sys/fs/cgroup").glob(f"{top}zl-oci-test"):
            (path / "deep").rmdir()
            path.rmdir()


def test_limits_change(bundle):
    """update, by options and by a document on standard input; a limit above that of memory and swap, too."""
    linux = {**bundle.config["linux"], "resources": {"memory": {"limit": 32 << 20, "swap": 32 << 20}, "pids": {"limit": 20}}}
    bundle.write("forever", linux=linux)
    bundle.create()
    bundle("start", "c")
    v1 = pathlib.Path("/sys/fs/cgroup/memory").is_dir()

    def seen():
        files = ["memory/{}/memory.limit_in_bytes", "pids/{}/pids.max", "cpu/{}/cpu.cfs_quota_us"] if v1 else \
            ["{}/memory.max", "{}/pids.max", "{}/cpu.max"]
        values = [pathlib.Path("/sys/fs/cgroup", f.format(GROUP)).read_text().split()[0] for f in files]
        return values[0], values[1], "max" if values[2] == "-1" else values[2]

    assert seen() == (str(32 << 20), "20", "max")
    bundle("update", "--memory", 64 << 20, "--memory-swap", 64 << 20, "--cpu-quota", "30000", "--cpu-period", "60000", "c")
    assert seen() == (str(64 << 20), "20", "30000")
    r = subprocess.run([ZL_OCI, "--root", bundle.state, "update", "--resources", "-", "c"], text=True, timeout=30 * SLOW, check=False,
                       input=json.dumps({"memory": {"limit": 16 << 20}, "pids": {"limit": -1}, "cpu": {"quota": -1}}))
    assert r.returncode == 0 and seen() == (str(16 << 20), "max", "max")
    for bad in (["--memory", "much"], ["--cpu-period", "1"], ["--memory", "2097152", "--memory-swap", "1048576"], ["-r", "/none"]):
        assert bundle("update", *bad, "c", check=False).returncode == 1
    assert seen()[0] == str(16 << 20)
    stats = json.loads(bundle("events", "--stats", "c").stdout)
    assert stats["type"] == "stats" and stats["id"] == "c"
    data = stats["data"]
    assert data["memory"]["usage"]["limit"] == 16 << 20 and 0 < data["memory"]["usage"]["usage"] < 16 << 20
    assert data["pids"]["current"] == 1 and data["cpu"]["usage"]["total"] > 0
    bundle("delete", "--force", "c")
    assert bundle("events", "--stats", "c", check=False).returncode == 1


def test_features(bundle):
    f = json.loads(bundle("features").stdout)
    assert f["ociVersionMin"] == "1.0.0" and set(f["hooks"]) >= {"prestart", "poststop"}
    assert {"bind", "rprivate", "ro", "tmpcopyup"} <= set(f["mountOptions"]) and "CAP_BPF" in f["linux"]["capabilities"]
    # What is claimed is taken, and what is not is refused.
    for option in f["mountOptions"]:
        mount = {"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": [option]}
        if "bind" not in option and not option.endswith("unbindable") and option not in ("mand", "iversion", "noiversion", "idmap", "ridmap"):
            r = bundle.run("exit", "0", mounts=bundle.config["mounts"] + [mount])
            whole_tree = option[0] == "r" and option not in ("ro", "rw", "relatime", "rshared", "rslave", "rprivate")
            assert r.returncode == (1 if OLDER and whole_tree else 0), (option, r.stderr)
            assert r.returncode == 0 or "a kernel since 5.12" in r.stderr or "Operation not permitted" in r.stderr
    assert set(f["linux"]["namespaces"]) == {"mount", "pid", "network", "ipc", "uts", "cgroup", "user", "time"}
    assert f["linux"]["cgroup"] == {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True}


def test_namespaces_are_joined(bundle):
    bundle.write("forever")
    first = bundle.create("first")
    kinds = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts"}
    linux = {**bundle.config["linux"], "namespaces": [{"type": "mount"}, {"type": "cgroup"}] +
             [{"type": t, "path": f"/proc/{first}/ns/{n}"} for t, n in kinds.items()]}
    bundle.write("forever", linux=linux, hostname="")
    second = bundle.create("second")
    for name in kinds.values():
        assert os.readlink(f"/proc/{first}/ns/{name}") == os.readlink(f"/proc/{second}/ns/{name}"), name
    assert os.readlink(f"/proc/{first}/ns/mnt") != os.readlink(f"/proc/{second}/ns/mnt")
    bundle("delete", "--force", "second")


def test_hooks(bundle):
    """Each kind at its time and place, with the state on its standard input."""
    seen = bundle.folder / "seen"
    script = f'echo "$0 $(cat)" >> {seen}; [ -d /proc/self/fd ] || exit 3'

    def hook(kind):
        return {"path": "/bin/sh", "args": [kind, "-c", script, kind], "env": ["PATH=/usr/bin:/bin"], "timeout": 20}

    outside = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    bundle.write("forever", hooks={**{k: [hook(k)] for k in outside},
                                   "startContainer": [{"path": "/workload", "args": ["workload", "say", "in the container"]}]},
                 annotations={"a": "b"})
    pid = bundle.create()
    said = [line.split(" ", 1) for line in seen.read_text().splitlines()]
    assert [kind for kind, _ in said] == ["prestart", "createRuntime", "createContainer"]
    for kind, text in said[:2]:
        state = json.loads(text)
        assert state == {"ociVersion": "1.2.0", "id": "c", "status": "creating", "pid": pid, "bundle": str(bundle.folder),
                         "annotations": {"a": "b"}}, kind
    assert "in the container" not in bundle.out()
    bundle("start", "c")
    assert "in the container" in bundle.out()
    bundle("delete", "--force", "c")
    said = [line.split(" ", 1) for line in seen.read_text().splitlines()][3:]
    assert [(kind, json.loads(text)["status"]) for kind, text in said] == [("poststart", "running"), ("poststop", "stopped")]


def take_terminal(listener):
    """The master that comes over a console socket."""
    conn, _ = listener.accept()
    _, fds, _, _ = socket.recv_fds(conn, 100, 1)
    conn.close()
    return fds[0]


def read_until(fd, word):
    got = b""
    while word not in got:
        assert select.select([fd], [], [], 20 * SLOW)[0], got
        got += os.read(fd, 4096)
    return got


def test_a_terminal(bundle):
    path = bundle.folder / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        process = {**bundle.config["process"], "terminal": True, "consoleSize": {"height": 33, "width": 99},
                   "user": {"uid": 1000, "gid": 5}}
        bundle.write("say", "on a terminal", "forever", process=process)
        bundle.ids.append("c")
        bundle("create", "--console-socket", path, "c")
        master = take_terminal(listener)
        bundle("start", "c")
        assert b"on a terminal\r\n" in read_until(master, b"\n")
        assert struct.unpack("HHHH", fcntl.ioctl(master, termios.TIOCGWINSZ, b"\0" * 8))[:2] == (33, 99)
        pid = json.loads(bundle("state", "c").stdout)["pid"]
        links = {os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)}
        assert links == {"/dev/pts/0"} and os.stat(f"/proc/{pid}/root/dev/pts/0").st_uid == 1000
        assert os.stat(f"/proc/{pid}/root/dev/console").st_rdev == os.stat(f"/proc/{pid}/root/dev/pts/0").st_rdev
        bundle("exec", "-d", "-t", "--console-socket", path, "c", "/workload", "say", "another", "sleep", "300")
        second = take_terminal(listener)
        assert b"another" in read_until(second, b"\n")
        os.write(master, b"\x1c")  # the terminal's quit character reaches the container's foreground
        os.close(second)
        os.close(master)


def changed(**linux):
    return lambda c: c["linux"].update(linux)


BAD = [
    (lambda c: c.pop("ociVersion"), "needs the key 'ociVersion'"),
    (lambda c: c["root"].update(path="missing"), "root.path"),
    (lambda c: c["root"].update(path="config.json"), "root.path"),
    (lambda c: c["process"].update(cwd="workload"), "no absolute path"),
    (lambda c: c["process"]["capabilities"].update(bounding=["CAP_NONE"]), "'CAP_NONE' is no capability"),
    (lambda c: c["process"].update(rlimits=[{"type": "RLIMIT_X", "soft": 1, "hard": 1}]), "'RLIMIT_X' is none"),
    (lambda c: c["process"].update(rlimits=[{"type": "RLIMIT_AS", "soft": 2, "hard": 1}]), "soft is over hard"),
    (lambda c: c["mounts"].append({"destination": "/x", "type": "nofs", "source": "x"}), "mount /x"),
    (lambda c: c["mounts"].append({"destination": "/x", "source": "x"}), "neither a type nor bind"),
    (lambda c: c["mounts"].append({"destination": "/x", "type": "bind", "source": "/nowhere"}), "mount /x"),
    (lambda c: c["mounts"].append({"destination": "/../x", "type": "tmpfs"}), "mount /../x"),
    (lambda c: c["mounts"].append({"destination": "/x", "type": "tmpfs", "options": ["idmap"]}), "of a bind mount only"),
    (lambda c: c["mounts"].append({"destination": "/x", "type": "bind", "source": "/tmp", "options": ["idmap"]}), "there is none"),
    (lambda c: c["mounts"].append({"destination": "/x", "type": "tmpfs", "options": ["size=much"]}), "mount /x"),
    (changed(namespaces=[]), "needs a mount namespace"),
    (changed(namespaces=[{"type": "mount"}, {"type": "uts"}, {"type": "uts"}]), "is there twice"),
    (changed(namespaces=[{"type": "mount"}, {"type": "uts"}, {"type": "disk"}]), "'disk' is none"),
    (changed(namespaces=[{"type": "mount"}, {"type": "uts"}, {"type": "user"}]), "a new user namespace needs them"),
    (changed(namespaces=[{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/nowhere"}]), "join the namespace /nowhere"),
    (changed(namespaces=[{"type": "mount"}]), "without a uts namespace"),
    *([(changed(cgroupsPath="/a"), "is not SLICE:PREFIX:NAME"), (changed(cgroupsPath="a:b:c"), "no name of a slice")] if SYSTEMD else
      [(changed(cgroupsPath="/a/../b"), "has .."), (changed(cgroupsPath="/"), "root of all groups"),
       (changed(cgroupsPath="a.slice:b:c"), "is a unit of systemd")]),
    (changed(sysctl={"kernel.panic": "1"}), "of no namespace"), (changed(sysctl={"net.no.such": "1"}), "set the sysctl"),
    (changed(seccomp={"defaultAction": "SCMP_ACT_NONE"}), "SCMP_ACT_NONE"),
    (changed(rootfsPropagation="upward"), "'upward' is none"),
    (changed(maskedPaths=["proc"]), "no absolute path"),
    (changed(devices=[{"type": "x", "path": "/dev/x"}]), "'x' is none of"),
    (changed(resources={"memory": {"limit": 2 << 20, "swap": 1 << 20}}), "swap"),
    (changed(intelRdt={"closID": "a/b"}), "is no name of a class"),
    (lambda c: c.update(hooks={"poststop": [{"path": "x"}]}), "hooks.poststop[0].path"),
    (lambda c: c.update(hooks={"prestart": [{"path": "/nowhere"}]}), "hooks.prestart[0]: run /nowhere"),
    (lambda c: c.update(hooks={"createRuntime": [{"path": "/bin/false"}]}), "/bin/false ended with exit code 1"),
    (lambda c: c.update(hooks={"createContainer": [{"path": "/bin/false"}]}), "/bin/false ended with exit code 1"),
    (lambda c: c.update(hooks={"startContainer": [{"path": "/workload", "args": ["workload", "exit", "9"]}]}), "exit code 9"),
    (lambda c: c.update(hooks={"prestart": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]}), "took over 1 s"),
]


def test_a_bad_config_says_where_and_leaves_nothing(bundle):
    before = leftovers.snapshot()
    for change, why in BAD:
        config = copy.deepcopy(bundle.config)
        config["process"]["args"] = ["/workload", "say", "it ran"]
        change(config)
        (bundle.folder / "config.json").write_text(json.dumps(config))
        log = bundle.folder / "log"
        r = bundle("--log", log, "--log-format=json", "run", "one", check=False)
        assert r.returncode == 1 and why in r.stderr and "it ran" not in r.stdout, (why, r.returncode, r.stdout, r.stderr)
        entry = json.loads(log.read_text().splitlines()[-1])
        assert entry["level"] == "error" and why in entry["msg"]
        assert not any(bundle.state.iterdir()), why
    (bundle.folder / "config.json").unlink()
    assert "config.json" in bundle("run", "one", check=False).stderr
    came = [d for d in leftovers.diff(before, leftovers.snapshot()) if ": went:" not in d and "(zombie)" not in d]
    assert not [d for d in came if str(bundle.folder) not in d]


@pytest.mark.parametrize("args", [["create"], ["create", "a", "b"], ["create", "../x"], ["create", ""], ["nothing", "x"], ["--none", "list"],
                                  ["state", "a/b"], ["kill", "x", "SIGNONE"], ["list", "x"], ["start", "-b"], [], ["exec", "x"],
                                  ["list", "--format=xml"]])
def test_a_bad_call_is_refused(bundle, args):
    bundle.write("exit", "0")
    r = bundle(*args, check=False)
    assert r.returncode == 1 and r.stderr
    assert not bundle.state.exists() or not any(bundle.state.iterdir())


@pytest.mark.parametrize("phase", ["shim.attached"])
def test_it_is_killed_while_it_creates(bundle, phase):
    bundle.write("forever")
    bundle.ids.append("c")
    r = bundle("create", "c", check=False, env={**os.environ, "ZLAYER_CRASH_AT": phase})
    assert r.returncode == -signal.SIGKILL
    assert bundle.status() == "stopped"
    bundle("delete", "--force", "c")
    assert not any(bundle.state.iterdir()) and not pathlib.Path("/sys/fs/cgroup/unified/zl-oci-c").exists()
