"""Whole deployments of an ordinary user: in a mount and a network namespace that the test makes, with a user, ids and devices in it
that the machine does not have; with ranges of ids and with the own one alone."""
import collections
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

import oci
from conftest import BUILD, alive, need_root, program, wait_for

# Of this run alone, as the user's processes are known by their ids.
RUN = os.getpid() % 1000
UID, FIRST, COUNT = 60000 + RUN, 1000000 + RUN * 65536, 65536
PORT = 18080
WORKLOAD = BUILD / "tests/programs/workload"
HOST, NEIGHBOUR = "192.0.2.1", "192.0.2.2"  # TEST-NET-1
DEVICES = {"tun": (10, 200, "/dev/net/tun"), "fuse": (10, 229, "/dev/fuse")}


class Place:
    """Processes that keep namespaces for the test: one of the user's machine, one of its only neighbour."""

    def __init__(self, flags, script=""):
        self.process = subprocess.Popen(["unshare", *flags, "--propagation", "private", "sh", "-ec", f"{script}\necho up; exec cat"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = self.process.stdout.readline()
        assert line == "up\n", line + self.process.stdout.read()

    def command(self, *args):
        return ["nsenter", "-t", str(self.process.pid), "-m", "-n", *map(str, args)]

    def run(self, *args, **kw):
        kw.setdefault("timeout", 60)
        return subprocess.run(self.command(*args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                              **kw)

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


class User:
    def __init__(self, folder, ranges):
        self.folder, self.home, self.runtime = folder, folder / "home", folder / "runtime"
        self.data = self.home / ".local/share/zlayer"
        for path in (self.home, self.runtime):
            path.mkdir(mode=0o700)
            os.chown(path, UID, UID)
        (folder / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nzltest:x:{UID}:{UID}::{self.home}:/bin/sh\n")
        (folder / "subid").write_text(f"zltest:{FIRST}:{COUNT}\n" if ranges else "")
        binds = [("passwd", "/etc/passwd"), ("subid", "/etc/subuid"), ("subid", "/etc/subgid")]
        # Where no udev has made them, they are root's alone; everywhere else a user may open them.
        for name, (major, minor, at) in DEVICES.items():
            if pathlib.Path(at).exists():
                os.mknod(folder / name, 0o20666, os.makedev(major, minor))
                os.chmod(folder / name, 0o666)
                binds.append((name, at))
        self.place = Place(["-m", "-n"], "\n".join(f"mount --bind {folder}/{a} {b}" for a, b in binds) + "\nip link set lo up")
        self.neighbour = None
        self.before = []

    def meet(self):
        """A link to a neighbour, which is where the default route goes."""
        self.neighbour = Place(["-m", "-n"], f"ip link set lo up; ip link add other type veth peer name here netns {self.place.process.pid}; "
                                             f"ip addr add {NEIGHBOUR}/24 dev other; ip link set other up")
        for args in (("addr", "add", f"{HOST}/24", "dev", "here"), ("link", "set", "here", "up"), ("route", "add", "default", "via", NEIGHBOUR)):
            r = self.place.run("ip", *args)
            assert r.returncode == 0, r.stdout

    def command(self, *args, env=None):
        """As the user; what `before` names is run before that, still as root."""
        given = {"HOME": self.home, "XDG_RUNTIME_DIR": self.runtime, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NO_COLOR": "1", **(env or {})}
        given |= {k: v for k, v in os.environ.items() if k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "ZLAYER_LOG")}
        words = [f"{k}={v}" for k, v in given.items() if v is not None]
        return self.place.command("env", "-i", "-C", self.home, *words, *self.before, shutil.which("setpriv"), f"--reuid={UID}", f"--regid={UID}",
                                  "--clear-groups", *args)

    def run(self, *args, check=True, env=None, timeout=60):
        r = subprocess.run(self.command(program("zlayer"), *map(str, args), env=env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, timeout=timeout, check=False)
        assert not check or r.returncode == 0, (args, r.returncode, r.stdout, r.stderr, self.log())
        return r

    def json(self, *args):
        return json.loads(self.run(*args, "-o", "json").stdout)

    def log(self):
        return "".join(f"--- {n}\n{(self.data / n).read_text()[-6000:]}" for n in ("agent.log", "holder.log") if (self.data / n).exists())

    def processes(self):
        """pid: name, of all that are the user's or have an id of its ranges; zombies have ended."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                uid = os.stat(f"/proc/{pid}").st_uid
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                uids = {int(u) for u in status.split("\nUid:")[1].split("\n")[0].split()} | {uid}
                if any(u == UID or FIRST <= u < FIRST + COUNT for u in uids) and alive(int(pid)):
                    found[int(pid)] = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except (FileNotFoundError, ProcessLookupError):
                pass
        return found

    def one(self, name):
        return [pid for pid, command in self.processes().items() if command.startswith(name)]

    def agent_pid(self):
        return int((self.data / "agent.lock").read_text().split()[0])

    def fetch(self, port=PORT):
        r = self.place.run("curl", "-sS", "-m", "10", f"http://127.0.0.1:{port}/")
        return r.stdout if r.returncode == 0 else f"curl {r.returncode}: {r.stdout}"

    def import_workload(self, *words, tag="work:1"):
        root = self.home / "root"
        (root / "bin").mkdir(parents=True, exist_ok=True)
        shutil.copy(WORKLOAD, root / "workload")
        shutil.copy(shutil.which("busybox"), root / "bin/busybox")
        subprocess.run(["chown", "-R", f"{UID}:{UID}", root], check=True)
        return self.run("image", "import", root, "-t", tag, "--entrypoint", "/workload", *[w for word in words for w in ("--cmd", word)])

    def write(self, text):
        (self.home / ".zlayer.yml").write_text(text)

    def close(self):
        self.before = []
        for name in ("shop", "other"):
            self.run("down", name, "--force", check=False)
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.neighbour:
            self.neighbour.close()
        self.place.close()


def make(ranges):
    need_root()
    for name in ("busybox", "newuidmap", "setpriv", "unshare", "nsenter", "curl"):
        if not shutil.which(name):
            pytest.skip(f"{name} is not installed (tools/setup run test)")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="zl-user-", dir="/tmp"))
    folder.chmod(0o755)
    return User(folder, ranges)


@pytest.fixture(params=["ranges", "own"])
def user(request):
    u = make(request.param == "ranges")
    u.ranges = request.param == "ranges"
    yield u
    u.close()
    shutil.rmtree(u.folder, ignore_errors=True)


@pytest.fixture
def ranged():
    u = make(True)
    yield u
    u.close()
    shutil.rmtree(u.folder, ignore_errors=True)


def document(replicas=3, image="work:1", extra="", port=PORT):
    return f"""version: v1
deployment: shop
services:
  web:
    image: {{name: "{image}"}}
    endpoints:
      - {{name: http, protocol: http, port: {port}, target_port: 8080, expose: public}}
    scale: {{mode: fixed, replicas: {replicas}}}
    health: {{interval: 1s, timeout: 2s, check: {{type: tcp}}}}
{extra}"""


CLIENT = """  client:
    image: {name: "work:1"}
    command: {args: [forever]}
"""


def gone(u, by_itself=False):
    """Nothing runs without a deployment but the agent, which ends by a signal, or `by_itself` after ten seconds; of a container
    nothing is on the disk."""
    wait_for("all but the agent has ended", lambda: all(c.startswith("zlayerd") for c in u.processes().values()), 30)
    for pid in [] if by_itself else u.one("zlayerd"):
        os.kill(pid, signal.SIGTERM)
    wait_for("the agent has ended", lambda: not u.processes(), 30)
    assert not any((u.data / "containers").iterdir())
    names = {p.name for p in u.data.iterdir()}
    assert not {n for n in names if n.startswith(("holder", "."))} and "images" in names
    r = u.place.run("cat", "/proc/self/mountinfo")
    assert "zlayer" not in r.stdout, r.stdout
    links = {line["ifname"] for line in json.loads(u.place.run("ip", "-j", "link").stdout)}
    assert links <= {"lo", "here"}, links


def test_the_main_job(user, tmp_path):
    """An image that another program pushed is pulled, another one imported; replicas run, are reached, looked into, and go."""
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed (tools/setup test)")
    config = tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
                      "http: {addr: '127.0.0.1:15000'}\n")
    registry = subprocess.Popen(user.place.command("docker-registry", "serve", config), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
    try:
        folder = oci.tarfile.TarInfo("owned")
        folder.type, folder.mode, folder.uid, folder.gid = oci.tarfile.DIRTYPE, 0o700, 33, 34
        layers = [{"workload": WORKLOAD.read_bytes(), "bin/busybox": pathlib.Path(shutil.which("busybox")).read_bytes(),
                   "etc/passwd": b"root:x:0:0:root:/:/workload\n", "etc/group": b"root:x:0:root\nbin:x:1:root\n", "full/old": b"old",
                   "owned": folder, "removed": b"removed"},
                  {".wh.removed": b"", "full/.wh..wh..opq": b"", "full/new": b"new"}]
        oci.layout(tmp_path / "layout", layers, {"Entrypoint": ["/workload"], "Cmd": ["say", "hello from the replica", "serve", "8080"]})
        wait_for("docker-registry listens", lambda: user.place.run("curl", "-s", "http://127.0.0.1:15000/v2/").returncode == 0, 20)
        r = user.place.run("skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:latest",
                           "docker://127.0.0.1:15000/team/work:1")
        assert r.returncode == 0, r.stdout
        pulled = user.run("pull", "127.0.0.1:15000/team/work:1")
        assert ("its files are other users'" in pulled.stderr) == (not user.ranges), pulled.stderr
        archive = user.home / "work.tar"
        user.run("image", "save", "-o", archive, "127.0.0.1:15000/team/work:1")
        user.run("image", "rm", "127.0.0.1:15000/team/work:1")
        loaded = user.run("image", "load", archive)
        assert ("its files are other users'" in loaded.stderr) == (not user.ranges), loaded.stderr
        user.import_workload("forever")
        user.write(document(3, "127.0.0.1:15000/team/work:1", CLIENT))
        up = user.run("up", "-b")
        assert "3/3" in up.stdout
        hosts = collections.Counter(user.fetch().split()[0] for _ in range(30))
        assert set(hosts) == {"web-1", "web-2", "web-3"}
        assert user.run("logs", "-d", "shop", "-s", "web", "-n", "100").stdout.count("hello from the replica") == 3
        # A service by its name, from another one; the layers as they were meant; a write; who one is.
        look = "/bin/busybox wget -qO- http://web:18080/; /bin/busybox id -u; /bin/busybox ls /full; /bin/busybox stat -c %u:%g /owned; " \
               "/bin/busybox ls /; /bin/busybox rm -r /full; /bin/busybox mkdir /full; /bin/busybox ls /full; /bin/busybox cat /proc/1/uid_map"
        named = user.run("exec", "client", "--", "/bin/busybox", "wget", "-qO-", f"http://web:{PORT}/").stdout
        assert named.startswith("web-"), named
        out = user.run("exec", "web", "--", "/bin/busybox", "sh", "-c", look).stdout
        words = out.split()
        assert words[0].startswith("web-") and "new" in words and "old" not in words and "removed" not in words, out
        assert ("33:34" if user.ranges else "0:0") in words, out
        assert str(UID) in words and (str(FIRST) in words) == user.ranges
        assert user.run("exec", "web", "--", "/bin/busybox", "false", check=False).returncode == 1
        names = [c["name"] for c in user.json("ps", "-c")["containers"]]
        assert sorted(names) == ["shop.client.1", "shop.web.1", "shop.web.2", "shop.web.3"]
        assert [d["name"] for d in user.json("status")["deployments"]] == ["shop"]
        user.run("down", "shop")
        assert {r["reference"] for r in user.json("image", "ls")} == {"docker.io/library/work:1", "127.0.0.1:15000/team/work:1"}
        user.run("image", "rm", "127.0.0.1:15000/team/work:1")  # by the agent, which could not remove the files itself
        user.run("image", "rm", "work:1")
        assert not any((user.data / "images/layers").iterdir())
        gone(user, by_itself=True)
    finally:
        registry.terminate()
        registry.wait(10)


def test_a_killed_replica_and_a_killed_shim_heal(user):
    user.import_workload("serve", "8080")
    user.write(document(2))
    user.run("up", "-b")
    first = {c["id"]: c["pid"] for c in user.json("ps", "-c")["containers"]}
    os.kill(list(first.values())[0], signal.SIGKILL)
    wait_for("another replica", lambda: user.json("status", "shop")["services"][0]["ready"] == 2 and
             {c["id"] for c in user.json("ps", "-c")["containers"] if c["state"] == "running"} != set(first), 30)
    # With its shim killed, the container is ended by its record: nothing of it runs beside its successor.
    def two_with_containers():
        found = {pid: pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in user.one("zl-shim")}
        return found if len(found) == 2 and all(len(children) == 1 for children in found.values()) else None
    shim, children = next(iter(wait_for("two shims with a container each", two_with_containers).items()))
    os.kill(shim, signal.SIGKILL)
    wait_for("what the shim left has ended", lambda: not alive(int(children[0])), 30)
    wait_for("another replica", lambda: user.json("status", "shop")["services"][0]["ready"] == 2 and len(user.one("zl-shim")) == 2, 30)
    user.run("down", "shop")
    gone(user)


def test_nothing_notices_that_the_agent_was_killed(user):
    user.import_workload("serve", "8080")
    user.write(document(2))
    user.run("up", "-b")
    pids = {c["name"]: c["pid"] for c in user.json("ps", "-c")["containers"]}
    agent = user.agent_pid()
    os.kill(agent, signal.SIGKILL)
    wait_for("the agent has ended", lambda: not alive(agent))
    assert {user.fetch().split()[0] for _ in range(20)} == {"web-1", "web-2"}
    user.write(document(3))
    user.run("up", "-b")  # adopts, and makes another one in the same namespaces
    assert user.agent_pid() != agent
    now = {c["name"]: c["pid"] for c in user.json("ps", "-c")["containers"]}
    assert pids.items() <= now.items() and len(now) == 3
    assert {user.fetch().split()[0] for _ in range(30)} == {"web-1", "web-2", "web-3"}
    assert len({os.readlink(f"/proc/{pid}/ns/user") for pid in now.values()}) == 1
    os.kill(user.agent_pid(), signal.SIGKILL)
    user.run("down", "shop")  # the next one needs no `up` to clean up
    gone(user)


def test_a_killed_holder_has_a_successor_in_the_same_namespaces(ranged):
    ranged.meet()
    ranged.import_workload("serve", "8080")
    ranged.write(document(2))
    ranged.run("up", "-b")
    record = (ranged.data / "holder.lock").read_text().split()
    where = os.readlink(f"/proc/{record[3]}/ns/net")
    os.kill(int(record[1]), signal.SIGKILL)
    after = wait_for("another holder", lambda: [r for r in [(ranged.data / "holder.lock").read_text().split()] if r and r != record], 20)[0]
    assert not alive(int(record[3])) and os.readlink(f"/proc/{after[3]}/ns/net") == where
    wait_for("one pasta", lambda: len(ranged.one("pasta")) == 1, 20)
    ranged.write(document(3))
    ranged.run("up", "-b")
    assert {ranged.fetch().split()[0] for _ in range(30)} == {"web-1", "web-2", "web-3"}
    ranged.run("down", "shop")
    gone(ranged)


def test_agent_and_holder_killed_together(ranged):
    """What runs keeps its namespaces; the next agent finds them by it."""
    ranged.import_workload("serve", "8080")
    ranged.write(document(2))
    ranged.run("up", "-b")
    pids = {c["pid"] for c in ranged.json("ps", "-c")["containers"]}
    agent, record = ranged.agent_pid(), (ranged.data / "holder.lock").read_text().split()
    os.kill(agent, signal.SIGKILL)
    os.kill(int(record[1]), signal.SIGKILL)
    wait_for("both have ended", lambda: not alive(agent) and not alive(int(record[1])) and not alive(int(record[3])))
    assert {ranged.fetch().split()[0] for _ in range(20)} == {"web-1", "web-2"}
    ranged.write(document(3))
    ranged.run("up", "-b")
    now = {c["pid"] for c in ranged.json("ps", "-c")["containers"]}
    assert pids < now and len(now) == 3
    assert {ranged.fetch().split()[0] for _ in range(30)} == {"web-1", "web-2", "web-3"}
    ranged.run("down", "shop")
    gone(ranged)


def test_an_end_with_the_session_is_a_warning(ranged):
    ranged.place.run("mount", "-t", "tmpfs", "tmpfs", "/run")
    ranged.place.run("sh", "-c", f"mkdir -p /run/systemd/users && touch /run/systemd/users/{UID}")
    ranged.import_workload("serve", "8080")
    ranged.write(document(1))
    assert "enable-linger" in ranged.run("up", "-b").stderr
    ranged.place.run("rm", f"/run/systemd/users/{UID}")
    assert "enable-linger" not in ranged.run("status", "shop").stderr
    ranged.run("down", "shop")
    gone(ranged)


def test_outward_through_pasta(user):
    """A server of the neighbour's is reached; the host's loopback is not, by no address."""
    if not shutil.which("pasta"):
        pytest.skip("pasta is not installed (tools/setup run)")
    if not pathlib.Path("/dev/net/tun").exists():
        pytest.skip("the kernel has no tun")
    user.meet()
    servers = [subprocess.Popen(user.neighbour.command(WORKLOAD, "serve", "8088"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL),
               subprocess.Popen(user.place.command(WORKLOAD, "serve", "8089"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)]
    try:
        wait_for("the servers listen", lambda: user.place.run("curl", "-s", f"http://{NEIGHBOUR}:8088/").returncode == 0 and
                 user.place.run("curl", "-s", "http://127.0.0.1:8089/").returncode == 0, 20)
        user.import_workload("forever")
        user.write("version: v1\ndeployment: shop\nservices:\n" + CLIENT)
        assert "way out" not in user.run("up", "-b").stderr

        def get(where):
            return user.run("exec", "client", "--", "/workload", "get", where).stdout
        wait_for("the neighbour answers", lambda: "no reply" not in get(f"{NEIGHBOUR}:8088") and ": E" not in get(f"{NEIGHBOUR}:8088"), 20)
        for where in ("10.202.0.1:8089", "10.202.0.2:8089", "169.254.1.1:8089"):
            assert ": E" in get(where), where
        pasta = user.one("pasta")
        assert len(pasta) == 1
        os.kill(pasta[0], signal.SIGKILL)
        wait_for("another pasta", lambda: user.one("pasta") not in ([], pasta), 20)
        wait_for("the neighbour answers again", lambda: ": E" not in get(f"{NEIGHBOUR}:8088"), 20)
        user.run("down", "shop")
        gone(user)
    finally:
        for s in servers:
            s.terminate()
            s.wait(10)


def test_ports_say_what_is_in_the_way(ranged):
    ranged.import_workload("serve", "8080")
    floor = int(ranged.place.run("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").stdout)
    if floor > 80:
        ranged.write(document(1, port=80))
        r = ranged.run("up", "-b", check=False)
        assert r.returncode == 5 and "port 80" in r.stderr and "ip_unprivileged_port_start" in r.stderr, r.stderr
    server = subprocess.Popen(ranged.place.command(WORKLOAD, "serve", str(PORT)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_for("the other program listens", lambda: ranged.place.run("curl", "-s", f"http://127.0.0.1:{PORT}/").returncode == 0)
        ranged.write(document(1))
        r = ranged.run("up", "-b", check=False)
        assert r.returncode == 1 and f"port {PORT}" in r.stderr and "ss -ltnp" in r.stderr, r.stderr
    finally:
        server.terminate()
        server.wait(10)
    gone(ranged)


def test_without_user_namespaces_it_says_so(ranged):
    ranged.before = [BUILD / "tests/programs/without", "NAMESPACES"]
    root = ranged.home / "root"
    root.mkdir()
    shutil.copy(WORKLOAD, root / "workload")
    os.chown(root, UID, UID)
    r = ranged.run("image", "import", root, "-t", "work:1", "--entrypoint", "/workload", check=False)
    assert r.returncode == 5 and "make a user namespace" in r.stderr and "unprivileged_userns_clone" in r.stderr, r.stderr
    ranged.write(document(1))
    r = ranged.run("up", "-b", check=False)
    assert r.returncode == 5 and "make a user namespace" in r.stderr and "unprivileged_userns_clone" in r.stderr, r.stderr
    assert not ranged.processes()


def test_layers_by_fuse_overlayfs(ranged):
    """Where the kernel does not stack them: here, as the data dir is on such a stack itself."""
    if not shutil.which("fuse-overlayfs") or not pathlib.Path("/dev/fuse").exists():
        pytest.skip("no fuse-overlayfs (tools/setup run) or no /dev/fuse")
    for name in ("lower", "upper", "work"):
        (ranged.folder / name).mkdir()
        os.chown(ranged.folder / name, UID, UID)
    r = ranged.place.run("mount", "-t", "overlay", "overlay", "-o",
                         ",".join(f"{n}dir={ranged.folder}/{n}" for n in ("lower", "upper", "work")), ranged.home)
    if r.returncode:
        pytest.skip(f"no overlay can be mounted here: {r.stdout}")
    root = ranged.folder / "upper/root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(WORKLOAD, root / "workload")
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    subprocess.run(["chown", "-R", f"{UID}:{UID}", root], check=True)
    ranged.run("image", "import", "root", "-t", "work:1", "--entrypoint", "/workload", "--cmd", "serve", "--cmd", "8080")
    assert {r["name"]: r for r in ranged.json("doctor")}["overlayfs"]["result"] == "warn"
    spec = ranged.folder / "upper/spec.yml"
    spec.write_text(document(2))
    ranged.run("up", "-b", "spec.yml")
    assert len(ranged.one("/usr/bin/fuse-overlayfs")) == 2
    out = ranged.run("exec", "web", "--", "/bin/busybox", "sh", "-c", "/bin/busybox rm /workload && echo new > /new && /bin/busybox ls / && "
                     "/bin/busybox chown 5:6 /new && /bin/busybox stat -c %u:%g /new && /bin/busybox ps | "
                     "/bin/busybox grep -c [f]use-over; true").stdout.split()
    assert "new" in out and "workload" not in out and "5:6" in out, out
    assert out[-1] == "0", "the program that stacks is none of the container's processes"
    os.kill(ranged.one("zl-shim")[0], signal.SIGKILL)
    wait_for("a successor with layers of its own", lambda: len(ranged.one("/usr/bin/fuse-overlayfs")) == 2 and len(ranged.one("zl-shim")) == 2 and
             {ranged.fetch().split()[0] for _ in range(10)} == {"web-1", "web-2"}, 30)
    ranged.run("down", "shop")
    wait_for("all has ended", lambda: not ranged.processes(), 30)


HIERARCHIES = [p for p in pathlib.Path("/sys/fs/cgroup").iterdir() if (p / "cgroup.procs").exists()] if \
    not pathlib.Path("/sys/fs/cgroup/cgroup.procs").exists() else [pathlib.Path("/sys/fs/cgroup")]
LIMITED = "    resources: {cpu: 0.5, memory: 64Mi}\n"


def test_limits_without_groups_are_a_warning(ranged):
    ranged.import_workload("serve", "8080")
    ranged.write(document(1, extra=LIMITED))
    assert "no cgroup is delegated" in ranged.run("up", "-b").stderr
    assert "no cgroup is delegated" in ranged.run("status", "shop").stderr
    assert any("no cgroup is delegated" in w for w in ranged.json("status", "shop")["warnings"])
    ranged.run("down", "shop")
    gone(ranged)


def test_delegated_groups(ranged):
    """Folders that are the user's, in each hierarchy; the agent is in that of v2, as a user's session is."""
    name, made = f"zl-test-user-{os.getpid()}", []
    try:
        for h in HIERARCHIES:
            group = h / name
            group.mkdir()
            made.append(group)
            for p in [group, *(group / n for n in ("cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads") if (group / n).exists())]:
                os.chown(p, UID, UID)
            for n in ("cpuset.cpus", "cpuset.mems"):
                if (group / n).exists() and (h / n).exists():
                    (group / n).write_text((h / n).read_text())
        unified = next((h for h in HIERARCHIES if (h / "cgroup.controllers").exists()), None)
        if not unified:
            pytest.skip("there is no v2 tree here")
        if len(HIERARCHIES) == 1:  # what root does for a user's slice
            (unified / "cgroup.subtree_control").write_text("+memory +pids +cpu")
        caller = unified / name / "caller"
        caller.mkdir()
        made.append(caller)
        subprocess.run(["chown", "-R", f"{UID}:{UID}", caller], check=True)
        ranged.before = [shutil.which("sh"), "-c", f'echo 0 > {caller}/cgroup.procs && exec "$@"', "sh"]
        ranged.import_workload("serve", "8080")
        ranged.write(document(1, extra=LIMITED))
        assert "resources" not in ranged.run("up", "-b").stderr
        one = ranged.json("ps", "-c")["containers"][0]["id"]
        limits = [f.read_text().strip() for h in HIERARCHIES for n in ("memory.max", "memory.limit_in_bytes") for f in h.glob(f"{name}/zlayer-*/{one}/{n}")]
        assert limits == [str(64 << 20)], limits
        os.kill(ranged.one("zl-shim")[0], signal.SIGKILL)
        wait_for("a successor", lambda: [c["id"] for c in ranged.json("ps", "-c")["containers"] if c["state"] == "running"] not in ([], [one]), 30)
        ranged.run("down", "shop")
        wait_for("all has ended", lambda: not ranged.processes(), 30)
        assert not [p for h in HIERARCHIES for p in h.glob(f"{name}/zlayer-*")]
    finally:
        ranged.before = []
        for pid in ranged.processes():
            os.kill(pid, signal.SIGKILL)
        wait_for("the groups are empty", lambda: not ranged.processes())
        for group in reversed(made):
            for below in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
                below.rmdir()
            group.rmdir()


def test_doctor_says_what_this_user_has(user):
    rows = {r["name"]: r for r in user.json("doctor")}
    assert rows["user namespaces"]["result"] == "ok" and rows["ids"]["result"] == ("ok" if user.ranges else "warn")
    assert ("65536" in rows["ids"]["found"]) == user.ranges and ("add-subuids" in rows["ids"]["fix"]) != user.ranges
    assert {"overlayfs", "veth", "nftables", "pasta", "cgroups", "ports"} <= set(rows)
    assert not list(user.home.rglob("*probe*"))
    user.before = [BUILD / "tests/programs/without", "NAMESPACES"]
    r = user.run("doctor", check=False)
    assert r.returncode == 1 and "unprivileged_userns_clone" in r.stdout


def test_another_user_in_an_image_needs_an_id(user):
    user.import_workload("serve", "8080")
    root = user.home / "root"
    r = user.run("image", "import", root, "-t", "work:1", "--entrypoint", "/workload", "--cmd", "serve", "--cmd", "8080", "--user", "1000")
    user.write(document(1))
    r = user.run("up", "-b", check=False)
    if user.ranges:
        assert r.returncode == 0 and user.run("exec", "web", "--", "/bin/busybox", "id", "-u").stdout == "1000\n"
    else:
        assert r.returncode == 1 and "become user 1000, an id that is not mapped" in r.stderr, r.stderr
    user.run("down", "shop")
    gone(user)


def test_the_socket_is_found_without_the_session(ranged):
    """The run dir is the session's; who is not told of it, as by cron, gets there by the data dir."""
    ranged.import_workload("serve", "8080")
    ranged.write(document(1))
    ranged.run("up", "-b")
    assert (ranged.runtime / "zlayer/zlayer.sock").is_socket()
    assert "shop" in ranged.run("status", env={"XDG_RUNTIME_DIR": None}).stdout
    ranged.run("down", "shop", env={"XDG_RUNTIME_DIR": None})
    gone(ranged)
    os.chown(ranged.runtime, 0, 0)  # not this user's: it is left alone
    ranged.runtime.chmod(0o777)
    ranged.run("up", "-b")
    assert (ranged.data / "run/zlayer.sock").is_socket() and not (ranged.data / "run").is_symlink()
    ranged.run("down", "shop")
    gone(ranged)
