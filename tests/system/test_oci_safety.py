"""The container is the adversary, its image and its mounts included: one class of attacks on runtimes a test.

tools/run-weakened builds zl-oci without one defence after the other, and expects the test that names it to fail
(tests/system/weakened/<test>.patch).
"""
import copy
import errno
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys

import pytest

from conftest import BUILD, SLOW, wait_for
from test_oci import ZL_OCI, bundle, fields, read_until, take_terminal  # noqa: F401  pylint: disable=unused-import

pytestmark = pytest.mark.usefixtures("own_group")
# Without the shared mounts and the private mount namespace a bind below /proc would be one of the machine.
ALONE = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]


@pytest.fixture
def own_group(bundle):  # noqa: F811
    """Other containers of this machine may be called as ours are."""
    bundle.config["linux"]["cgroupsPath"] = "/" + bundle.folder.name.replace("zl-oci-", "zl-safety-")


def alone(bundle, script):
    return subprocess.run([*ALONE, f"{script}\nexec {ZL_OCI} --root {bundle.state} run one"], cwd=bundle.folder, text=True,
                          timeout=30 * SLOW, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)


def process_of(bundle, **members):
    return {**copy.deepcopy(bundle.config["process"]), **members}


def test_descriptors(bundle):
    """None of the caller's is open in the container, nor in a command in it (CVE-2016-9962, CVE-2024-21626)."""
    folder = os.open(bundle.folder, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(folder, True)
    high = os.dup2(folder, 200, inheritable=True)
    bundle.write("ls", "/proc/self/fd", "say", "listed", "forever")
    bundle.ids.append("c")
    with open(bundle.folder / "c.out", "w") as out:
        subprocess.run([ZL_OCI, "--root", bundle.state, "create", "c"], cwd=bundle.folder, stdin=subprocess.DEVNULL, stdout=out,
                       stderr=out, timeout=30 * SLOW, check=True, pass_fds=[folder, high])
    bundle("start", "c")
    wait_for("it lists", lambda: "listed" in bundle.out())
    r = bundle("exec", "c", "/workload", "ls", "/proc/self/fd", pass_fds=[folder, high])
    os.close(folder)
    os.close(high)
    for text in (bundle.out(), r.stdout):
        open_ones = {line.split()[0] for line in text.splitlines() if "->" in line and "/proc/" not in line}
        assert open_ones <= {"0", "1", "2"}, text


def test_working_folder(bundle):
    """One that a descriptor of the runtime leads to is none of the container's (CVE-2024-21626)."""
    for n in range(3, 16):
        r = bundle.run("say", "inside", process=process_of(bundle, cwd=f"/proc/self/fd/{n}"))
        assert r.returncode == 1 and "inside" not in r.stdout and "working folder" in r.stderr, (n, r)
    bundle.write("forever")
    bundle.create()
    bundle("start", "c")
    for n in range(3, 16):
        for cwd in (f"/proc/self/fd/{n}", f"/proc/self/fd/{n}/..", f"/proc/1/fd/{n}"):
            r = bundle("exec", "--cwd", cwd, "c", "/workload", "say", "inside", check=False)
            assert r.returncode == 1 and "inside" not in r.stdout and "working folder" in r.stderr, (cwd, r)


def test_working_folder_of_a_kept_descriptor(bundle):
    """What the caller hands on is open in the container, and is still no working folder in it."""
    folder = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(folder, 3, inheritable=True) if folder != 3 else os.set_inheritable(3, True)
    bundle.write("say", "inside", process=process_of(bundle, cwd="/proc/self/fd/3"))
    r = bundle("run", "--preserve-fds", "1", "one", check=False, pass_fds=[3])
    os.close(folder)
    assert r.returncode == 1 and "inside" not in r.stdout and "working folder" in r.stderr, r


def test_own_program(bundle):
    """What waits, and what runs `#!/proc/self/exe`, can't reach the runtime's file to write to it (CVE-2019-5736)."""
    own = bundle.folder / "own-oci"
    shutil.copy(ZL_OCI, own)
    bundle.write("forever")
    bundle.ids.append("c")
    with open(bundle.folder / "c.out", "w") as out:
        subprocess.run([own, "--root", bundle.state, "create", "c"], cwd=bundle.folder, stdin=subprocess.DEVNULL, stdout=out,
                       stderr=out, timeout=30 * SLOW, check=True)
    pid = json.loads(bundle("state", "c").stdout)["pid"]
    exe = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
    bundle("delete", "--force", "c")  # while it runs the kernel refuses anyhow
    try:
        with pytest.raises(OSError) as refused:
            os.close(os.open(f"/proc/self/fd/{exe}", os.O_WRONLY))
        assert refused.value.errno in (errno.EROFS, errno.EPERM)
    finally:
        os.close(exe)
    script = bundle.folder / "rootfs/script"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    bundle.write("forever")
    config = json.loads((bundle.folder / "config.json").read_text())
    config["process"]["args"] = ["/script"]
    (bundle.folder / "config.json").write_text(json.dumps(config))
    before = own.read_bytes()
    r = subprocess.run([own, "--root", bundle.state, "run", "one"], cwd=bundle.folder, stdin=subprocess.DEVNULL, timeout=30 * SLOW,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    assert r.returncode != 0 and own.read_bytes() == before


def test_proc_is_no_link(bundle):
    """/proc and /sys of the image that are links, or lead over one (CVE-2019-16884, CVE-2023-27561, CVE-2023-28642)."""
    (bundle.folder / "rootfs/elsewhere").mkdir()
    for name in ("proc", "sys"):
        at = bundle.folder / "rootfs" / name
        if at.is_dir():
            at.rmdir()
        at.symlink_to("elsewhere")
        r = bundle.run("say", "it runs")
        assert r.returncode == 1 and f"mount /{name}" in r.stderr and "it runs" not in r.stdout, r
        at.unlink()
        at.mkdir()


def test_targets_stay_inside(bundle):
    """A mount's target that is a link, or below one, is made and mounted inside the root (CVE-2021-30465)."""
    outside = bundle.folder / "outside"
    outside.mkdir()
    for target in (str(outside), "../" * 12 + str(outside).lstrip("/")):
        link = bundle.folder / "rootfs/link"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        mount = {"destination": "/link/below", "type": "tmpfs", "source": "tmpfs", "options": []}
        r = bundle.run("say", "it runs", mounts=bundle.config["mounts"] + [mount])
        assert not any(outside.iterdir()), (target, r)
        assert r.stdout == "it runs\n", (target, r)


def test_targets_are_raced(bundle):
    """Another process exchanges a folder of a target with a link to the host's all the time (CVE-2021-30465)."""
    volume, outside = bundle.folder / "volume", bundle.folder / "outside"
    for folder in (volume / "a", outside):
        folder.mkdir(parents=True)
    (volume / "link").symlink_to("../" * 12 + str(outside).lstrip("/"))
    swap = "import ctypes, os\nc = ctypes.CDLL(None)\nwhile True: c.syscall(316, -100, b'a', -100, b'link', 2)" \
        if os.uname().machine == "x86_64" else \
        "import ctypes, os\nc = ctypes.CDLL(None)\nwhile True: c.syscall(276, -100, b'a', -100, b'link', 2)"
    with subprocess.Popen(["python3", "-c", swap], cwd=volume) as racer:
        try:
            mounts = bundle.config["mounts"] + [
                {"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind"]},
                {"destination": "/v/a/b/c", "type": "tmpfs", "source": "tmpfs", "options": []}]
            for _ in range(200):  # most end because the kernel would not follow what is being exchanged
                r = bundle.run("say", "it runs", mounts=mounts)
                assert r.returncode in (0, 1) and not any(outside.iterdir()), r
                assert str(outside) not in pathlib.Path("/proc/self/mountinfo").read_text()
        finally:
            racer.kill()


def test_null_device(bundle):
    """What hides a path is the null device, whatever the image has under its name (CVE-2025-31133)."""
    mounts = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    null = bundle.folder / "rootfs/dev/null"
    null.parent.mkdir(exist_ok=True)
    (bundle.folder / "rootfs/fake").write_text("not hidden\n")
    linux = {**bundle.config["linux"], "maskedPaths": ["/secret"]}
    (bundle.folder / "rootfs/secret").write_text("secret\n")
    for make in (lambda: null.symlink_to("/fake"), lambda: null.write_text("not hidden\n")):
        null.unlink(missing_ok=True)
        make()
        r = bundle.run("cat", "/secret", mounts=mounts, linux=linux)
        assert r.returncode == 1 and not r.stdout and "/dev/null" in r.stderr, r
    null.unlink()
    r = bundle.run("cat", "/secret", mounts=mounts, linux=linux)
    assert (r.returncode, r.stdout) == (0, ""), r


def test_a_proc_that_is_none(bundle):
    """A volume on /proc does not say where the runtime's own descriptors lead (CVE-2019-16884, CVE-2025-52881)."""
    fake = bundle.folder / "fake"
    (fake / "self/fd").mkdir(parents=True)
    for n in range(64):
        (fake / f"self/fd/{n}").symlink_to("/dev")
    mounts = [m for m in bundle.config["mounts"] if m["destination"] != "/proc"]
    mounts.append({"destination": "/proc", "type": "bind", "source": str(fake), "options": ["rbind"]})
    r = bundle.run("touch", "/made", "say", "it runs", mounts=mounts, root={"path": "rootfs", "readonly": True})
    assert r.returncode == 1 and "it runs" not in r.stdout and not (bundle.folder / "rootfs/made").exists(), r


def test_writes_hit_procfs(bundle):
    """A sysctl, a score: what is written is the kernel's own file, or nothing is (CVE-2025-52881)."""
    decoy = bundle.folder / "decoy"
    decoy.mkdir()
    (decoy / "shmmni").write_text("untouched\n")
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (decoy / "random").mkdir()
    (decoy / "random/boot_id").write_text(boot + "\n")  # without which it gets no further
    bundle.write("say", "it runs", linux={**bundle.config["linux"], "sysctl": {"kernel.shmmni": "777"}})
    for source in (decoy, "/proc/sys/kernel"):  # procfs, too, but over what is meant
        r = alone(bundle, f"mount --bind {source} /proc/sys/kernel")
        assert r.returncode == 1 and "set the sysctl kernel/shmmni" in r.stderr and "it runs" not in r.stdout, r
        assert (decoy / "shmmni").read_text() == "untouched\n"
    bundle.write("say", "it runs", process=process_of(bundle, oomScoreAdj=500))
    r = alone(bundle, f"mount -t tmpfs none /proc; mkdir -p /proc/self/fd /proc/sys/kernel/random; echo 0 >/proc/self/oom_score_adj; "
                      f"echo {boot} >/proc/sys/kernel/random/boot_id")
    assert r.returncode == 1 and "it runs" not in r.stdout, r


def test_inheritable_capabilities(bundle):
    """None by default, nor for a command with more of them (CVE-2022-29162)."""
    bundle.write("forever")
    bundle.create()
    bundle("start", "c")
    r = bundle("exec", "--cap", "CAP_SYS_PTRACE", "c", "/workload", "cat", "/proc/self/status")
    inheritable, ambient, effective = fields(r.stdout, "CapInh", "CapAmb", "CapEff")
    assert inheritable == ambient == ["0" * 16] and int(effective[0], 16) & 1 << 19


def test_groups(bundle):
    """The caller's supplementary groups stay outside."""
    bundle.write("cat", "/proc/self/status")
    r = bundle("run", "one", extra_groups=[27, 4321])
    assert fields(r.stdout, "Groups") == [[]], r.stdout


def swapping(folder):
    """A process that exchanges a and b of a folder all the time."""
    number = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
    code = f"import ctypes\nc = ctypes.CDLL(None)\nwhile True: c.syscall({number}, -100, b'a', -100, b'b', 2)"
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder)


def test_flags_are_raced(bundle):
    """A volume's folders are exchanged between a mount and the setting of its flags."""
    volume, data = bundle.folder / "volume", bundle.folder / "data"
    for folder in (data, volume / "a/x", volume / "b/x"):
        folder.mkdir(parents=True)
    mounts = bundle.config["mounts"] + [
        {"destination": "/v", "type": "bind", "source": str(volume), "options": ["bind"]},
        {"destination": "/v/b/x", "type": "tmpfs", "source": "tmpfs", "options": []},
        {"destination": "/v/a/x", "type": "bind", "source": str(data), "options": ["bind", "ro", "nosuid"]}]
    bundle.write("cat", "/proc/self/mountinfo", mounts=mounts)
    with swapping(volume) as racer:
        try:
            for _ in range(60):
                r = bundle("run", "one")
                lines = [line.split() for line in r.stdout.splitlines()]
                options = [set(f[5].split(",")) for f in lines if f[3].endswith(f"{bundle.folder.name}/data")]
                assert options and {"ro", "nosuid"} <= options[0], r.stdout
        finally:
            racer.kill()


def test_masks_are_raced(bundle):
    """What hides folders is empty, whatever is exchanged with the first that was hidden (CVE-2025-31133)."""
    volume = bundle.folder / "volume"
    for folder in ("a/one", "a/two", "b/one", "b/two"):
        (volume / folder).mkdir(parents=True)
    for at in "ab":
        (volume / at / "one/leak").touch()
    mounts = bundle.config["mounts"] + [{"destination": "/v", "type": "bind", "source": str(volume), "options": ["bind"]}]
    linux = {**bundle.config["linux"], "maskedPaths": ["/v/a/one", "/v/a/two"]}
    bundle.write("ls", "/v/a/two", "ls", "/v/b/two", mounts=mounts, linux=linux)
    with swapping(volume) as racer:
        try:
            for _ in range(60):
                assert "leak" not in bundle("run", "one").stdout
        finally:
            racer.kill()


def test_own_program_in_memory(bundle):
    """Where there is no mount API, it runs from a copy that nobody can write to (CVE-2019-5736)."""
    own = bundle.folder / "own-oci"
    shutil.copy(ZL_OCI, own)
    bundle.write("forever")
    bundle.ids.append("c")
    with open(bundle.folder / "c.out", "w") as out:
        subprocess.run([BUILD / "tests/programs/without", "ENOSYS", own, "--root", bundle.state, "create", "c"], cwd=bundle.folder, check=True,
                       stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=30 * SLOW)
    pid = json.loads(bundle("state", "c").stdout)["pid"]
    assert "memfd" in os.readlink(f"/proc/{pid}/exe")
    exe = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
    bundle("delete", "--force", "c")
    with pytest.raises(OSError) as refused, open(f"/proc/self/fd/{exe}", "r+b", buffering=0) as writable:
        writable.write(b"x")
    os.close(exe)
    assert refused.value.errno == errno.EPERM


def test_session_keyring(bundle):
    """The caller's keys stay outside, of the container and of a command in it."""
    number = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
    give = f"import ctypes, os, sys; c = ctypes.CDLL(None); c.syscall({number[1]}, 1, None); " \
           f"k = c.syscall({number[0]}, b'user', b'zl-safety', b'x', 1, -3); k > 0 or sys.exit(77); os.execv(sys.argv[1], sys.argv[1:])"

    def with_key(*args):
        r = subprocess.run([sys.executable, "-c", give, ZL_OCI, "--root", bundle.state, *args], cwd=bundle.folder, text=True, timeout=30 * SLOW,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if r.returncode == 77:
            pytest.skip("the kernel, or a filter, lets nobody have keys")
        return r

    bundle.write("key", "zl-safety")
    assert with_key("run", "--no-new-keyring", "one").stdout == "found\n"
    assert with_key("run", "one").stdout == "ENOKEY\n"
    bundle.write("forever")
    bundle.create()
    bundle("start", "c")
    assert with_key("exec", "c", "/workload", "key", "zl-safety").stdout == "ENOKEY\n"


NOTIFY = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_NOTIFY"}]}


class Holding:
    """A listener of a filter that never takes the connection: who starts with it stands still where it gets the filter."""

    def __init__(self, bundle):
        self.path = bundle.folder / "listener"
        self.one, self.two = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.one.bind(str(self.path))
        self.one.listen(0)
        self.two.connect(str(self.path))

    def __enter__(self):
        return {**NOTIFY, "listenerPath": str(self.path)}

    def __exit__(self, *_):
        self.one.close()
        self.two.close()


def stands_still(pid):
    return fields(pathlib.Path(f"/proc/{pid}/status").read_text(), "Seccomp")[0] == ["2"]


def test_looked_into_at_its_start(bundle):
    """Who has the container's rights can't look into its first process before that is the program (CVE-2016-9962)."""
    with Holding(bundle) as seccomp:
        bundle.write("forever", linux={**bundle.config["linux"], "seccomp": seccomp}, process=process_of(bundle, capabilities={}))
        pid = bundle.create()
        with subprocess.Popen([ZL_OCI, "--root", bundle.state, "start", "c"], stderr=subprocess.DEVNULL) as start:
            wait_for("it stands still", lambda: stands_still(pid))
            assert fields(pathlib.Path(f"/proc/{pid}/status").read_text(), "CapPrm", "Uid") == [["0" * 16], ["0"] * 4]
            r = subprocess.run(["setpriv", "--bounding-set=-all", "--inh-caps=-all", "ls", "-l", f"/proc/{pid}/fd"], capture_output=True, text=True, check=False)
            start.kill()
        assert "->" not in r.stdout and "ermission denied" in r.stderr, r


def test_looked_into_on_its_way_in(bundle):
    """Nor can its root look into a command that has entered its namespaces and has rights of the host's yet."""
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.folder.chmod(0o711)
    for name in ("proc", "dev", "sys"):
        (bundle.folder / "rootfs" / name).mkdir()
    linux = {**bundle.config["linux"], "namespaces": bundle.config["linux"]["namespaces"] + [{"type": "user"}], "uidMappings": maps, "gidMappings": maps}
    bundle.write("forever", linux=linux)
    pid = bundle.create()
    bundle("start", "c")
    with Holding(bundle) as seccomp:
        kept = bundle.state / "c/config.json"  # as a container with such a filter has it: this one runs already
        config = json.loads(kept.read_text())
        config["linux"]["seccomp"] = seccomp
        config["process"]["noNewPrivileges"] = False
        kept.write_text(json.dumps(config))
        with subprocess.Popen([ZL_OCI, "--root", bundle.state, "exec", "c", "/workload", "exit", "0"], stderr=subprocess.DEVNULL) as command:
            wait_for("it is inside", lambda: len(json.loads(bundle("ps", "-f", "json", "c").stdout)) == 2)
            other = next(p for p in json.loads(bundle("ps", "-f", "json", "c").stdout) if p != pid)
            wait_for("it stands still", lambda: stands_still(other))
            seize = f"import ctypes, os; c = ctypes.CDLL(None, use_errno=True); print(c.ptrace(0x4206, {other}, 0, 0), os.strerror(ctypes.get_errno()))"
            r = subprocess.run(["nsenter", "--user", "--target", str(pid), "/usr/bin/python3", "-c", seize], cwd="/", capture_output=True, text=True,
                               check=False)
            os.kill(other, signal.SIGKILL)
            command.kill()
        assert r.stdout == "-1 Operation not permitted\n", r


def on_terminal(bundle, **members):
    """Runs with a console socket; what it says there."""
    path = bundle.folder / "console"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        bundle.write("cat", "/dev/console", "forever", process=process_of(bundle, terminal=True), **members)
        bundle.ids.append("c")
        r = bundle("create", "--console-socket", path, "c", check=False)
        if r.returncode:
            return r, None
        return r, take_terminal(listener)


def test_console_is_no_link(bundle):
    """/dev/console of the image that leads elsewhere: what is there is not covered by the terminal (CVE-2025-52565)."""
    (bundle.folder / "rootfs/dev/pts").mkdir(parents=True)
    (bundle.folder / "rootfs/etc").mkdir()
    (bundle.folder / "rootfs/etc/there").write_text("as it was\n")
    (bundle.folder / "rootfs/dev/console").symlink_to("/etc/there")
    mounts = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
    r, _ = on_terminal(bundle, mounts=mounts)
    assert r.returncode == 1 and "bind /dev/console" in r.stderr, r


def test_console_is_the_terminal(bundle):
    """/dev/pts of the image with a link to a devpts, and one under the number that the terminal has (CVE-2025-52565)."""
    (bundle.folder / "rootfs/dev/pts").mkdir(parents=True)
    (bundle.folder / "rootfs/secret").write_text("secret\n")
    (bundle.folder / "rootfs/dev/pts/ptmx").symlink_to("/real/ptmx")
    for n in range(8):
        (bundle.folder / f"rootfs/dev/pts/{n}").symlink_to("/secret")
    mounts = [{**m, "destination": "/real" if m["destination"] == "/dev/pts" else m["destination"]} for m in bundle.config["mounts"] if m["destination"] != "/dev"]
    r, master = on_terminal(bundle, mounts=mounts)
    assert r.returncode == 0, r
    pid = json.loads(bundle("state", "c").stdout)["pid"]
    console, terminal = (os.stat(f"/proc/{pid}/root/{at}") for at in ("dev/console", "real/0"))
    os.close(master)
    assert stat.S_ISCHR(console.st_mode) and console.st_rdev == terminal.st_rdev


def test_terminal_of_the_caller(bundle):
    """Without a terminal of its own the container has the caller's as a file, and not as its own: it can't type there."""
    bundle.write("tty", "forever")
    master, slave = pty.openpty()
    take = f"import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"

    def on_the_callers(*args):
        r = subprocess.run([sys.executable, "-c", take, ZL_OCI, "--root", bundle.state, *args], cwd=bundle.folder, stdin=slave, stdout=slave, stderr=slave,
                           timeout=30 * SLOW, check=False)
        assert r.returncode == 0
        return read_until(master, b"size").decode()

    bundle.ids.append("c")
    assert "tty 1 1 1 controlling no" in on_the_callers("run", "-d", "c")
    assert "tty 1 1 1 controlling no" in on_the_callers("exec", "c", "/workload", "tty")
    os.close(master)
    os.close(slave)


DEVICES = [(10, 237), (10, 200), (10, 229), (1, 11)]  # loop-control, tun, fuse, kmsg


def test_devices_beyond_the_rules(bundle):
    """A node of the image opens no device that the document does not allow."""
    if not (pathlib.Path("/sys/fs/cgroup/devices").is_dir() or pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()):
        pytest.skip("no devices controller, nor cgroup v2")
    node = bundle.folder / "rootfs/node"
    number = None
    for major, minor in DEVICES:
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        try:
            os.close(os.open(node, os.O_RDONLY | os.O_NONBLOCK))
            number = (major, minor)
            break
        except OSError:
            node.unlink()
    if not number:
        pytest.skip("none of the devices that this tries is on the machine")
    rules = [{"allow": False, "access": "rwm"}]
    r = bundle.run("open", "/node", linux={**bundle.config["linux"], "resources": {"devices": rules}})
    assert r.stdout == "/node: EPERM\n", r
    rules.append({"allow": True, "type": "c", "major": number[0], "minor": number[1], "access": "r"})
    r = bundle.run("open", "/node", linux={**bundle.config["linux"], "resources": {"devices": rules}})
    assert r.stdout == "/node: open\n", r


def test_labels_hit_procfs(bundle):
    """A label is written to the kernel's own file, and not to what a volume has in its place (CVE-2025-52881)."""
    fake = bundle.folder / "fake/self/attr"
    (fake / "apparmor").mkdir(parents=True)
    for file in ("exec", "apparmor/exec"):
        (fake / file).write_text("untouched\n")
    has_apparmor = "mount -t tmpfs none /sys/kernel/security; mkdir /sys/kernel/security/apparmor"
    if not os.path.isdir("/sys/kernel/security"):
        pytest.skip("the kernel has no /sys/kernel/security")
    others = [m for m in bundle.config["mounts"] if m["destination"] != "/proc"]
    volume = {"destination": "/proc", "type": "bind", "source": str(bundle.folder / "fake"), "options": ["rbind"]}
    bundle.write("say", "it runs", root={"path": "rootfs"}, process=process_of(bundle, apparmorProfile="strict"), mounts=[*others, volume],
                 linux={**bundle.config["linux"], "maskedPaths": [], "readonlyPaths": []})
    r = alone(bundle, has_apparmor)
    assert r.returncode == 1 and "it runs" not in r.stdout and "AppArmor profile strict" in r.stderr, r
    assert {(fake / file).read_text() for file in ("exec", "apparmor/exec")} == {"untouched\n"}


def test_descriptors_of_hooks(bundle):
    """None of the runtime's is open in a hook, outside or inside."""
    seen = bundle.folder / "seen"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"ls -l /proc/self/fd >>{seen}"], "env": ["PATH=/usr/bin:/bin"]}
    inside = {"path": "/workload", "args": ["workload", "ls", "/proc/self/fd"]}
    bundle.write("exit", "0", hooks={**{k: [hook] for k in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")}, "startContainer": [inside]})
    r = bundle("run", "one")
    text = seen.read_text() + r.stdout
    assert text.count("->") > 5 * 3
    leads = {line.rsplit(" -> ", 1)[0].split()[-1]: line for line in text.splitlines() if " -> " in line and not re.search(r"-> /proc/\d+/fd$", line)}
    assert set(leads) <= {"0", "1", "2"}, leads
