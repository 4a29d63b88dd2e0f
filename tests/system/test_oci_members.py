"""Members of config.json that test_oci.py does not have: each is seen from inside, or is refused for what is missing."""
import ctypes
import fcntl
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import termios

import pytest

from test_oci import OLDER, ZL_OCI, bundle, fields, read_until  # noqa: F401  (a fixture)

MAP = [{"containerID": 0, "hostID": 200000, "size": 65536}]
BUSYBOX = shutil.which("busybox")


@pytest.fixture
def box(bundle):  # noqa: F811
    """A bundle whose root has a shell."""
    if not BUSYBOX:
        pytest.skip("busybox-static is not installed (tools/setup test)")
    shutil.copy(BUSYBOX, bundle.folder / "rootfs/busybox")
    (bundle.folder / "rootfs/tmp").mkdir()

    def sh(script, check=True, namespaces=(), process=None, **members):
        linux = {**bundle.config["linux"], **members.pop("linux", {})}
        linux["namespaces"] = bundle.config["linux"]["namespaces"] + list(namespaces)
        process = {**bundle.config["process"], **(process or {}), "args": ["/busybox", "sh", "-c", script]}
        process["env"] = ["PATH=/bin"]
        config = {**bundle.config, "linux": linux, "process": process, **members}
        (bundle.folder / "config.json").write_text(json.dumps(config))
        r = bundle("run", "one", check=False)
        assert not check or r.returncode == 0, (r.returncode, r.stdout, r.stderr)
        return r

    bundle.sh = sh
    return bundle


def user(maps=MAP, **linux):
    return {"namespaces": [{"type": "user"}], "linux": {"uidMappings": maps, "gidMappings": maps, **linux}}


def opened(folder):
    """A user namespace's root can go there."""
    for p in [folder, folder / "rootfs"]:
        p.chmod(0o755)
    for p in [folder / "rootfs", *(folder / "rootfs").iterdir()]:
        os.chown(p, 200000, 200000)


def test_user_namespace(box):
    opened(box.folder)
    r = box.sh("busybox=/busybox; $busybox cat /proc/self/uid_map; $busybox id -u; $busybox stat -c '%u %t:%T' /dev/null /busybox; "
               "$busybox touch /tmp/new && $busybox stat -c %u /tmp/new; $busybox cat /proc/self/status; echo x > /dev/null; "
               "$busybox mount -t tmpfs none /tmp && echo mounted; $busybox hostname", root={"path": "rootfs"},
               process={"capabilities": {k: ["CAP_SYS_ADMIN", "CAP_KILL"] for k in ("bounding", "effective", "permitted")}}, **user())
    lines = r.stdout.splitlines()
    assert lines[0].split() == ["0", "200000", "65536"] and lines[1] == "0"
    assert lines[2] == "65534 1:3" and lines[3].startswith("0 ")  # the machine's device, the container's file
    assert lines[4] == "0" and (box.folder / "rootfs/tmp/new").stat().st_uid == 200000
    assert "mounted" in lines and lines[-1] == "zl-oci"


def test_user_namespace_exec_and_ids(box):
    opened(box.folder)
    linux = {**box.config["linux"], "uidMappings": MAP, "gidMappings": MAP}
    linux["namespaces"] = linux["namespaces"] + [{"type": "user"}]
    process = {**box.config["process"], "user": {"uid": 7, "gid": 8, "additionalGids": [9]}}
    box.write("forever", linux=linux, process=process)
    pid = box.create()
    box("start", "c")
    status = open(f"/proc/{pid}/status").read()
    assert fields(status, "Uid", "Gid", "Groups") == [["200007"] * 4, ["200008"] * 4, ["200009"]]
    r = box("exec", "c", "/busybox", "sh", "-c", "/busybox id; /busybox cat /proc/self/uid_map; /busybox readlink /proc/self/ns/user")
    assert "uid=7 gid=8 groups=8,9" in r.stdout.replace("groups=9", "groups=8,9") and "200000" in r.stdout
    assert os.readlink(f"/proc/{pid}/ns/user") in r.stdout
    # Another container joins the same one.
    linux = {**linux, "namespaces": [{**n, "path": f"/proc/{pid}/ns/user"} if n["type"] == "user" else n for n in linux["namespaces"]]}
    del linux["uidMappings"], linux["gidMappings"]
    box.write("forever", linux=linux, process=process)
    second = box.create("second")
    assert os.readlink(f"/proc/{pid}/ns/user") == os.readlink(f"/proc/{second}/ns/user")
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink(f"/proc/{second}/ns/net")
    assert fields(open(f"/proc/{second}/status").read(), "Uid") == [["200000"] * 4]  # it waits as the namespace's root
    box("start", "second")
    assert fields(open(f"/proc/{second}/status").read(), "Uid") == [["200007"] * 4]


def test_user_namespace_wants_sense(box):
    for maps, why in (([], "needs them"), ([{"containerID": 1, "hostID": 1, "size": 1}], "id 0 of the container must be mapped"),
                      (MAP + [{"containerID": 5, "hostID": 1, "size": 1}], "overlaps"),
                      ([{"containerID": 0, "hostID": 4294967295, "size": 2}], "beyond")):
        r = box.sh("echo it ran", check=False, **user(maps))
        assert r.returncode == 1 and why in r.stderr and "it ran" not in r.stdout, (why, r.stderr)
    r = box.sh("echo it ran", check=False, process={"user": {"uid": 70000, "gid": 0}}, **user())
    assert r.returncode == 1 and "70000:0 is not mapped" in r.stderr
    r = box.sh("echo it ran", check=False, linux={"uidMappings": MAP, "gidMappings": MAP})
    assert r.returncode == 1 and "there is no user namespace" in r.stderr


def test_time_namespace(box):
    script = "/busybox cat /proc/uptime; /busybox readlink /proc/self/ns/time"
    r = box.sh(script, namespaces=[{"type": "time"}], linux={"timeOffsets": {"boottime": {"secs": 1000000}, "monotonic": {"secs": 5}}})
    uptime, ns = r.stdout.split("\n")[:2]
    assert float(uptime.split()[0]) - float(open("/proc/uptime").read().split()[0]) > 999000
    assert ns != os.readlink("/proc/self/ns/time")
    assert "no new time namespace" in box.sh("true", check=False, linux={"timeOffsets": {"monotonic": {"secs": 5}}}).stderr
    box.write("forever", linux={**box.config["linux"], "namespaces": box.config["linux"]["namespaces"] + [{"type": "time"}],
                                "timeOffsets": {"monotonic": {"secs": 7}}})
    pid = box.create()
    box("start", "c")
    assert os.readlink(f"/proc/{pid}/ns/time") in box("exec", "c", "/busybox", "readlink", "/proc/self/ns/time").stdout
    r = box.sh(script, namespaces=[{"type": "time", "path": f"/proc/{pid}/ns/time"}])
    assert os.readlink(f"/proc/{pid}/ns/time") in r.stdout


def test_mapped_owners(box):
    data = box.folder / "data"
    (data / "below").mkdir(parents=True)
    (data / "file").write_text("x")
    mount = {"destination": "/data", "type": "bind", "source": str(data), "options": ["rbind", "idmap"]}
    script = "/busybox stat -c '%u:%g' /data/file; /busybox touch /data/new && /busybox stat -c %u /data/new"
    maps = {"uidMappings": [{"containerID": 0, "hostID": 3000, "size": 1000}], "gidMappings": [{"containerID": 0, "hostID": 4000, "size": 1000}]}
    r = box.sh(script, check=False, mounts=box.config["mounts"] + [{**mount, **maps}])
    if OLDER:
        assert r.returncode == 1 and f"open {data} to map its owners" in r.stderr, r
        return
    if "map the owners of" in r.stderr:
        pytest.skip(f"this kernel maps no owners of the file system of {data}")
    assert r.stdout.splitlines()[0] == "3000:4000"
    opened(box.folder)
    before = (data / "file").stat().st_uid
    r = box.sh(script, root={"path": "rootfs"}, mounts=box.config["mounts"] + [mount], **user())
    assert r.stdout.split() == ["0:0", "0"] and before == 0 and (data / "new").stat().st_uid == 0
    r = box.sh(script, check=False, mounts=box.config["mounts"] + [{**mount, "uidMappings": MAP}])
    assert r.returncode == 1 and "come together" in r.stderr


def test_whole_trees(box):
    """Attributes for all mounts of a tree, of which the one below would stay writable else."""
    tree = box.folder / "tree"
    (tree / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "zl-test", tree / "below"], check=True)
    try:
        def flags(*options):
            mount = {"destination": "/tree", "type": "bind", "source": str(tree), "options": ["rbind", *options]}
            r = box.sh("/busybox cat /proc/self/mountinfo", check=False, mounts=box.config["mounts"] + [mount])
            if OLDER and any(option.startswith("r") and option != "ro" for option in options):
                assert r.returncode == 1 and "mount /tree: " in r.stderr, r
                return None
            assert r.returncode == 0, r
            text = r.stdout
            return [set(line.split()[5].split(",")) for line in text.splitlines() if line.split()[4] in ("/tree", "/tree/below")]

        assert ["ro" in f for f in flags("ro")] == [True, False]
        if OLDER:
            assert flags("rro") is None
            return
        assert ["ro" in f for f in flags("rro")] == [True, True]
        assert ["ro" in f for f in flags("rro", "rrw")] == [False, False]
        assert all({"nosuid", "nodev", "noexec", "noatime", "nodiratime"} <= f
                   for f in flags("rnosuid", "rnodev", "rnoexec", "rnoatime", "rnodiratime"))
        assert all("relatime" in f for f in flags("rnoatime", "rrelatime"))
        assert not any({"relatime", "noatime"} & f for f in flags("rstrictatime"))
        assert all("nosymfollow" in f for f in flags("rnosymfollow"))
    finally:
        subprocess.run(["umount", tree / "below"], check=True)


def test_scheduling(box):
    def run(**process):
        box.write("forever", process={**box.config["process"], **process})
        pid = box.create()
        box("start", "c")
        return pid

    pid = run(scheduler={"policy": "SCHED_BATCH", "nice": 7}, ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0})
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH and os.getpriority(os.PRIO_PROCESS, pid) == 7
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(252, 1, pid) >> 13 == 3  # ioprio_get
    box("delete", "--force", "c")
    fifo = {"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    if os.path.exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"):  # a new group has no real time to give
        assert "set the scheduler" in box.sh("true", check=False, process={"scheduler": fifo}).stderr
    else:
        pid = run(scheduler=fifo)
        assert os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO and os.sched_getparam(pid).sched_priority == 3
        box("delete", "--force", "c")
    pid = run(execCPUAffinity={"initial": "0", "final": "0"})
    assert len(os.sched_getaffinity(pid)) == os.cpu_count()  # of exec alone
    (box.folder / "process.json").write_text(json.dumps(
        {**box.config["process"], "args": ["/workload", "cat", "/proc/self/status"], "execCPUAffinity": {"initial": "0", "final": "0"}}))
    assert fields(box("exec", "--process", box.folder / "process.json", "c").stdout, "Cpus_allowed_list") == [["0"]]
    for bad, why in (({"policy": "SCHED_X"}, "'SCHED_X' is none"), ({"policy": "SCHED_OTHER", "nice": 20}, "not from -20 to 19"),
                     ({"policy": "SCHED_OTHER", "priority": 1}, "of SCHED_FIFO and SCHED_RR only"),
                     ({"policy": "SCHED_OTHER", "runtime": 1}, "of SCHED_DEADLINE only"), ({"policy": "SCHED_FIFO", "priority": 1000}, "set the scheduler"),
                     ({"policy": "SCHED_OTHER", "flags": ["X"]}, "'X' is none")):
        r = box.run("say", "it ran", process={**box.config["process"], "scheduler": bad})
        assert r.returncode == 1 and why in r.stderr and "it ran" not in r.stdout, (bad, r.stderr)


def test_the_machine_it_sees(box):
    assert box.sh("/busybox uname -m", linux={"personality": {"domain": "LINUX32"}}).stdout.strip() in ("i686", "armv8l")
    assert box.sh("/busybox uname -m", linux={"personality": {"domain": "LINUX"}}).stdout.strip() == os.uname().machine
    assert "neither LINUX nor" in box.sh("true", check=False, linux={"personality": {"domain": "BSD"}}).stderr
    if os.path.exists("/proc/self/numa_maps"):
        text = box.sh("/busybox cat /proc/self/numa_maps", linux={"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}}).stdout
        assert "bind=static:0" in text
    else:
        r = box.sh("echo it ran", check=False, linux={"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}})
        assert r.returncode == 1 and "set the memory policy" in r.stderr
    for bad, why in (({"mode": "MPOL_X"}, "'MPOL_X' is none"), ({"mode": "MPOL_BIND", "nodes": "a"}, "no list"),
                     ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["X"]}, "'X' is none")):
        assert why in box.sh("true", check=False, linux={"memoryPolicy": bad}).stderr


def test_security_modules_that_are_absent(box):
    for process, where, why in (({"apparmorProfile": "none-such"}, "/sys/kernel/security/apparmor", "AppArmor is not enabled here"),
                                ({"selinuxLabel": "a:b:c:d"}, "/sys/fs/selinux/enforce", "SELinux is not enabled here")):
        r = box.sh("echo it ran", check=False, process=process)
        assert r.returncode == 1 and "it ran" not in r.stdout
        assert os.path.exists(where) or why in r.stderr
    if not os.path.exists("/sys/fs/selinux/enforce"):
        assert "linux.mountLabel" in box.sh("true", check=False, linux={"mountLabel": "a:b:c:d"}).stderr
    assert box.sh("true", process={"apparmorProfile": "", "selinuxLabel": ""}).returncode == 0


def test_a_filter_that_notifies(box):
    """The listener of SCMP_ACT_NOTIFY comes to the socket with the state, and decides what the container is told."""
    path = box.folder / "listener"
    filters = {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
               "listenerPath": str(path), "listenerMetadata": "meta",
               "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        box.write("forever", linux={**box.config["linux"], "seccomp": filters})
        pid = box.create()
        box("start", "c")
        conn, _ = listener.accept()
        data, fds, _, _ = socket.recv_fds(conn, 65536, 1)  # all in the message that the descriptor comes with
        assert conn.recv(65536) == b""
        state = json.loads(data)
        assert state["fds"] == ["seccompFd"] and state["pid"] == pid and state["metadata"] == "meta" and state["state"]["id"] == "c"
        assert os.readlink(f"/proc/self/fd/{fds[0]}") == "anon_inode:seccomp notify"
        os.close(fds[0])
        conn.close()
        assert "seccomp notify" not in " ".join(os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd"))
        box("delete", "--force", "c")
    for change, why in (({"listenerPath": "/nowhere"}, "send the filter's listener"), ({"listenerPath": None}, "needs linux.seccomp.listenerPath"),
                        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "it can't be SCMP_ACT_NOTIFY"), ({"flags": ["X"]}, "'X' is none"),
                        ({"syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}, "can't be used for write")):
        seccomp = {k: v for k, v in {**filters, **change}.items() if v is not None}
        r = box.sh("echo it ran", check=False, linux={"seccomp": seccomp})
        assert r.returncode == 1 and why in r.stderr and "it ran" not in r.stdout, (why, r.stderr)


def test_network_devices(box):
    subprocess.run(["ip", "link", "add", "zlnd0", "type", "veth", "peer", "name", "zlnd1"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", "10.99.7.3/24", "dev", "zlnd0"], check=True)
        subprocess.run(["ip", "addr", "add", "fd00:7::3/64", "dev", "zlnd0"], check=True)
        r = box.sh("echo it ran", check=False, linux={"netDevices": {"zlnd0": {"name": "lo"}}})
        assert r.returncode == 1 and "move the network device zlnd0" in r.stderr and os.path.exists("/sys/class/net/zlnd0")
        r = box.sh("/busybox ip addr show dev web0", linux={"netDevices": {"zlnd0": {"name": "web0"}}})
        assert "10.99.7.3/24" in r.stdout and "fd00:7::3/64" in r.stdout and re.search(r"<[^>]*\bUP\b", r.stdout)
    finally:
        subprocess.run(["ip", "link", "del", "zlnd1"], check=False, stderr=subprocess.DEVNULL)
    assert "move the network device none0" in box.sh("true", check=False, linux={"netDevices": {"none0": {}}}).stderr
    assert "no name of a device" in box.sh("true", check=False, linux={"netDevices": {"eth0": {"name": "a/b"}}}).stderr


def test_files_that_stay_open(box):
    (box.folder / "given").write_text("from outside")
    box.write("cat", "/proc/self/fd/3")

    def run(n, redirect="3<given"):
        return subprocess.run(["sh", "-c", f"exec {ZL_OCI} --root {box.state} run --preserve-fds {n} one {redirect} 5<given"], cwd=box.folder,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30, check=False)

    assert run(1).stdout == "from outside"
    assert "from outside" not in run(0).stdout
    r = run(1, "3<&-")
    assert r.returncode == 1 and "there is no open file 3" in r.stderr
    assert "a number from 0" in run("x").stderr
    box.write("forever")
    box.create()
    box("start", "c")
    r = subprocess.run(["sh", "-c", f"exec {ZL_OCI} --root {box.state} exec --preserve-fds 1 c /busybox ls -l /proc/self/fd 3<given 4<given"],
                       cwd=box.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=30, check=True)
    assert " 3 -> " in r.stdout and "given" in r.stdout and " 4 -> " not in r.stdout.replace("/proc", "")


def test_a_terminal_that_is_carried(box):
    """run and exec in the foreground bring the terminal to their own: size, keys, output, and the exit code."""
    process = {**box.config["process"], "terminal": True, "args": ["/busybox", "sh", "-c", "/busybox stty size; read x; echo got $x; exit 7"],
               "env": ["PATH=/bin"]}
    (box.folder / "config.json").write_text(json.dumps({**box.config, "process": process}))

    def carried(*args):
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 21, 77, 0, 0))
        before = termios.tcgetattr(slave)
        p = subprocess.Popen([ZL_OCI, "--root", box.state, *args], cwd=box.folder, stdin=slave, stdout=slave, stderr=slave)
        read_until(master, b"21 77\r\n")
        assert not termios.tcgetattr(slave)[3] & termios.ICANON
        os.write(master, b"a word\r")
        assert b"got a word" in read_until(master, b"got a word\r\n")
        assert p.wait(timeout=20) == 7 and termios.tcgetattr(slave) == before
        os.close(slave)
        os.close(master)

    carried("run", "one")
    assert "needs --console-socket" in box("run", "-d", "one", check=False).stderr
    box.write("forever")
    box.create()
    box("start", "c")
    carried("exec", "-t", "c", *process["args"])
    r = box("exec", "-t", "c", "/busybox", "tty", check=False)  # ours is none, theirs is one
    assert r.returncode == 0 and "/dev/" in r.stdout


def test_no_process(box):
    config = {k: v for k, v in box.config.items() if k != "process"}
    (box.folder / "config.json").write_text(json.dumps(config))
    assert "nothing to run" in box("run", "one", check=False).stderr
    box.create()
    r = box("start", "c", check=False)
    assert r.returncode == 1 and "no process to start" in r.stderr and box.status() == "created"
    box("delete", "--force", "c")


def own_profile():
    """The names that the runtime's own profile allows: enough for a shell."""
    text = (pathlib.Path(__file__).parents[2] / "src/runtime/native/seccomp.c").read_text()
    return re.findall(r'^ +"([a-z0-9_]+)",$', text, re.M)


def test_filters(box):
    def run(script, rules, check=True, **filter_):
        rules = [{"action": "SCMP_ACT_ERRNO", **r} for r in rules]
        return box.sh(script, check=check, root={"path": "rootfs"}, linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, **filter_}})

    mkdir = ["mkdir", "mkdirat"]
    assert "No space left" in run("/busybox mkdir /tmp/a", [{"names": mkdir, "errnoRet": 28}], check=False).stderr
    assert "not permitted" in run("/busybox mkdir /tmp/a", [{"names": mkdir}], check=False).stderr
    script = "/busybox kill -0 1 || echo refused; /busybox kill -CONT 1 && echo sent"
    for op, value in (("EQ", 0), ("LE", 0), ("LT", 1), ("NE", 18)):
        r = run(script, [{"names": ["kill"], "args": [{"index": 1, "value": value, "op": f"SCMP_CMP_{op}"}]}])
        assert r.stdout == "refused\nsent\n", op
    for op, value in (("GE", 18), ("GT", 17)):
        r = run("/busybox kill -0 1 && echo sent; /busybox kill -CONT 1 || echo refused",
                [{"names": ["kill"], "args": [{"index": 1, "value": value, "op": f"SCMP_CMP_{op}"}]}])
        assert r.stdout == "sent\nrefused\n", op
    setuid = [{"index": i, "value": 0o4000, "valueTwo": 0o4000, "op": "SCMP_CMP_MASKED_EQ"} for i in (1, 2)]
    r = run("/busybox touch /tmp/f; /busybox chmod 4755 /tmp/f || echo refused; /busybox chmod 755 /tmp/f && echo done",
            [{"names": ["chmod"], "args": setuid[:1]}, {"names": ["fchmodat"], "args": setuid[1:]}])
    assert r.stdout == "refused\ndone\n"
    for action in ("SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"):
        assert run("exec /busybox mkdir /tmp/a", [{"names": mkdir, "action": action}], check=False).returncode == 159, action
    assert run("/busybox mkdir /tmp/logged && echo made", [{"names": mkdir, "action": "SCMP_ACT_LOG"}]).stdout == "made\n"
    assert "not implemented" in run("/busybox mkdir /tmp/a", [{"names": mkdir, "action": "SCMP_ACT_TRACE"}], check=False).stderr  # nobody traces
    names = [n for n in own_profile() if n not in mkdir] + ["clone", "clone3", "fork", "vfork"]
    r = run("/busybox mkdir /tmp/a; /busybox true && echo fine", [{"names": names, "action": "SCMP_ACT_ALLOW"}],
            defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=61)
    assert len(names) > 200 and "No data available" in r.stderr and r.stdout == "fine\n"


@pytest.mark.skipif(os.uname().machine != "x86_64" or not shutil.which("cc"), reason="needs cc, and x86 as the second architecture")
def test_architectures_of_a_filter(box):
    """A call of another architecture kills, unless the filter has it; then the rules are for it, too."""
    source = ('#include <stdio.h>\nint main(void) { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(39), "b"("/x"), "c"(0) : "memory");'
              ' printf("%ld\\n", (long)(int)r); return 0; }')
    subprocess.run(["cc", "-static", "-no-pie", "-x", "c", "-", "-o", box.folder / "rootfs/old"], input=source, text=True, check=True)
    rule = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}
    assert box.sh("exec /old", check=False, linux={"seccomp": {**rule, "architectures": ["SCMP_ARCH_X86_64"]}}).returncode == 159
    assert box.sh("/old", linux={"seccomp": {**rule, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]}}).stdout == "-28\n"
    r = box.sh("true", check=False, linux={"seccomp": {**rule, "architectures": ["SCMP_ARCH_NONE"]}})
    assert r.returncode == 1 and "SCMP_ARCH_NONE" in r.stderr


def test_propagation(box):
    def tags(at, **linux):
        text = box.sh("/busybox cat /proc/self/mountinfo", mounts=box.config["mounts"] + [mount], linux=linux).stdout
        return [" ".join(line.split(" - ")[0].split()[6:]) for line in text.splitlines() if line.split()[4] == at][-1]

    mount = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["rshared"]}
    assert tags("/tmp").startswith("shared:") and tags("/") == ""
    assert tags("/", rootfsPropagation="shared").startswith("shared:")
    assert tags("/", rootfsPropagation="unbindable") == "unbindable"
    for kind in ("private", "rprivate"):
        assert tags("/", rootfsPropagation=kind) == ""
    for kind in ("slave", "rslave"):
        assert "shared" not in tags("/", rootfsPropagation=kind)
    mount["options"] = ["runbindable"]
    assert tags("/tmp") == "unbindable"


WITH_SHARED_MOUNTS = """mount --make-rshared /
mkdir "$1/own" && mount -t tmpfs zl-test "$1/own" && cp -r "$1/rootfs" "$1/config.json" "$1/own"
mkdir "$1/shared" && mount -t tmpfs zl-test "$1/shared" && mkdir "$1/shared/theirs"
sort /proc/self/mountinfo > "$1/before"
"$2" --root "$1/state" run -b "$1/own" one; echo $? > "$1/code"
sort /proc/self/mountinfo > "$1/after"
"""


@pytest.mark.parametrize("kind", [None, "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable"])
def test_propagation_leaves_the_machines_mounts(box, kind):
    """On a machine whose mounts are all shared, as systemd makes them: nothing is unmounted there, nor mounted, but what a
    container mounts on a volume that is shared, where its root is no slave."""
    linux = {"rootfsPropagation": kind} if kind else {}
    mount = {"destination": "/v", "type": "bind", "source": str(box.folder / "shared"), "options": ["rbind", "rshared"]}
    caps = {k: ["CAP_SYS_ADMIN"] for k in ("bounding", "effective", "permitted")}
    box.write("true")
    config = json.loads((box.folder / "config.json").read_text())
    config["mounts"].append(mount)
    config["linux"].update(linux)
    config["process"].update(capabilities=caps, args=["/busybox", "sh", "-c", "/busybox mount -t tmpfs zl-inside /v/theirs && /busybox cat /proc/self/mountinfo"])
    (box.folder / "config.json").write_text(json.dumps(config))
    r = subprocess.run(["unshare", "--mount", "sh", "-ec", WITH_SHARED_MOUNTS, "sh", box.folder, ZL_OCI], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert r.returncode == 0 and (box.folder / "code").read_text() == "0\n" and " /v/theirs " in r.stdout, r
    before, after = ((box.folder / name).read_text().splitlines() for name in ("before", "after"))
    assert not set(before) - set(after)
    outside = [line.split()[4] for line in set(after) - set(before)]
    follows = kind in (None, "rslave", "unbindable", "rprivate")
    assert outside == ([] if follows else [f"{box.folder}/shared/theirs"]), r.stdout
    tags = next(line.split(" - ")[0] for line in r.stdout.splitlines() if line.split()[4] == "/v")
    assert ("master:" in tags) == (kind in (None, "rslave", "unbindable"))


def test_filters_are_kept(box):
    """Compiled once: the second container takes the file, unless it is not what it should be."""
    def run(errno_ret):
        seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno_ret}]}
        return box.sh("/busybox mkdir /tmp/a", check=False, linux={"seccomp": seccomp}).stderr

    kept = box.state / ".seccomp"
    assert "No space" in run(28) and len(list(kept.iterdir())) == 1
    file = next(kept.iterdir())
    whole, stamp = file.read_bytes(), file.stat().st_mtime_ns
    assert "No space" in run(28) and file.stat().st_mtime_ns == stamp and kept.stat().st_mode & 0o777 == 0o700
    assert "No data" in run(61) and len(list(kept.iterdir())) == 2
    for broken in (b"", whole[:-3], whole[:10], b"x" + whole[1:], whole + b"\0" * 8 * 5000):
        file.write_bytes(broken)
        assert "No space" in run(28) and file.read_bytes() == whole
    for i in range(70):
        (kept / f"{i:016x}").touch()
    assert "Invalid" in run(22) and len(list(kept.iterdir())) == 1
    assert box("list", "-q").stdout == ""
