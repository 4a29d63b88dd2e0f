"""What every system test uses: the built programs, a private data dir, free ports, real servers.

Everything a test starts is held by a handle and ended by it; nothing is found by name and killed.
"""
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import lying
import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ZLAYER_BUILD", TOP / "build")).resolve()
SLOW = 4 if os.environ.get("ZLAYER_SANITIZED") else 1  # sanitized programs get more time, as do those in the guest
SANITIZED = any(word in os.environ.get("ZLAYER_SANITIZED", "") for word in ("address", "thread"))

# A shell that starts CI in the background makes it ignore SIGINT, and what is ignored is inherited; the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def program(name):
    """The path of a built program, wherever its room puts it."""
    for folder in ("src/bin", f"src/{name.removeprefix('zl-')}", "src/proxyd", "src/imagejob", "src/shim"):
        path = BUILD / folder / name
        if path.exists():
            return path
    raise FileNotFoundError(f"{name} is not below {BUILD}")


def wait_for(what, condition, seconds=10.0):
    """Polls until condition() is true and returns its value; fails with `what` after the deadline."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds * SLOW:.0f} s still not: {what}")
        time.sleep(0.01)


given_ports = set()


def free_port():
    """Below what the kernel gives to outgoing connections, one of which would hold the port when it is wanted."""
    first = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10000, max(first, 12000))
        with socket.socket() as s:
            try:
                s.bind(("", port))
            except OSError:
                continue
        if port not in given_ports:
            given_ports.add(port)
            return port


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def need_root():
    if os.geteuid() != 0:
        pytest.skip("needs root")


class Node:
    """One data dir and the zlayer programs that work on it."""

    def __init__(self, folder):
        self.data = pathlib.Path(folder)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("ZLAYER_")}
        self.env.update(NO_COLOR="1", ZLAYER_DATA_DIR=str(self.data))
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        self.cli = program("zlayer")

    def run(self, *args, check=True, timeout=60, env=None, cwd=None, stdin=None):
        """Runs `zlayer args`; returns the finished process with text output."""
        r = subprocess.run([self.cli, *map(str, args)], env={**self.env, **(env or {})}, cwd=cwd, input=stdin,
                           stdin=None if stdin is not None else subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout * SLOW,
                           check=False)
        if check and r.returncode != 0:
            raise AssertionError(f"zlayer {' '.join(map(str, args))} exited {r.returncode}\n{r.stdout}{r.stderr}"
                                 f"\n--- agent.log\n{self.agent_log()}")
        return r

    def start(self, *args, env=None, cwd=None, **kw):
        """Starts `zlayer args` and returns the running process."""
        return subprocess.Popen([self.cli, *map(str, args)], env={**self.env, **(env or {})}, cwd=cwd,
                                stdin=subprocess.DEVNULL, stdout=kw.pop("stdout", subprocess.PIPE),
                                stderr=kw.pop("stderr", subprocess.PIPE), text=True, **kw)

    def json(self, *args, **kw):
        return json.loads(self.run(*args, "-o", "json", **kw).stdout)

    def agent_log(self):
        try:
            return (self.data / "agent.log").read_text(errors="replace")[-8000:]
        except FileNotFoundError:
            return "(none)"

    def agent_pid(self):
        """The pid of the agent that holds the data dir, or None."""
        try:
            pid = int((self.data / "agent.lock").read_text().split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return None
        return pid if alive(pid) else None

    def proxy_pid(self):
        for pid in os.listdir("/proc"):
            if pid.isdigit():
                try:
                    for fd in os.listdir(f"/proc/{pid}/fd"):
                        if os.readlink(f"/proc/{pid}/fd/{fd}") == str(self.data / "proxy.lock") and \
                                "zl-proxy" in pathlib.Path(f"/proc/{pid}/comm").read_text():
                            return int(pid)
                except (FileNotFoundError, PermissionError, ProcessLookupError):
                    pass
        return None

    def write_spec(self, text, name=".zlayer.yml"):
        path = self.data.parent / name
        path.write_text(text)
        return path

    def close(self):
        """Ends what is left, whatever the test did: deployments, agent, proxy, shims."""
        for name in self.deployments():
            try:
                self.run("down", name, "--force", check=False, timeout=60)
            except subprocess.TimeoutExpired:
                pass
        pid = self.agent_pid()
        if pid:
            os.kill(pid, signal.SIGTERM)
            try:
                wait_for("the agent ends", lambda: not alive(pid), 10)
            except AssertionError:
                os.kill(pid, signal.SIGKILL)
        for pid in self.holders():
            os.kill(pid, signal.SIGKILL)

    def deployments(self):
        """Of the containers that there are, an agent or not."""
        names = set()
        for path in (self.data / "containers").glob("*/meta.json"):
            try:
                names.add(json.loads(path.read_text())["deployment"])
            except (FileNotFoundError, ValueError, KeyError):
                pass
        return names

    def holders(self):
        """The shims and the proxy of this data dir: who holds a lock file below it. A shim's children come first."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
                files = {os.readlink(f.path) for f in os.scandir(f"/proc/{pid}/fd")} if name in ("zl-shim", "zl-proxy") else ()
                if any(f.startswith(f"{self.data}/") and f.endswith("lock") for f in files):
                    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                    found += [int(child) for child in children] + [int(pid)]
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                pass
        return found


def traces():
    """Links and cgroups as every zlayer on this machine makes them."""
    return {str(p) for pattern in ("class/net/zl*", "fs/cgroup/zlayer-*", "fs/cgroup/*/zlayer-*")
            for p in pathlib.Path("/sys").glob(pattern)}


@pytest.fixture(scope="session", autouse=True)
def nothing_stays():
    """What the tests of a session leave behind is a defect of a test, if not of what it tests."""
    before = traces()
    yield
    assert traces() <= before, sorted(traces() - before)


@pytest.fixture
def node():
    """A node on a data dir of its own."""
    need_root()
    folder = tempfile.mkdtemp(prefix="zl-", dir="/tmp")
    n = Node(pathlib.Path(folder) / "data")
    yield n
    n.close()
    shutil.rmtree(folder, ignore_errors=True)


class Registry:
    """Debian's docker-registry on a free loopback port, with storage of its own. tls, auth: of its configuration; inside: a pid whose
    network namespace it lives in; urls: which it lets manifests name, as an expression."""

    def __init__(self, folder, tls=None, auth=None, inside=None, urls=None):
        self.enter = ["nsenter", "--target", str(inside), "--net"] if inside else []
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        config = pathlib.Path(folder) / "config.yml"
        config.write_text(json.dumps({  # which is YAML, too
            "version": 0.1, "log": {"level": "error"}, "storage": {"filesystem": {"rootdirectory": f"{folder}/data"}, "delete": {"enabled": True}},
            "http": {"addr": self.host, **({"tls": tls} if tls else {})}, **({"auth": auth} if auth else {}),
            **({"validation": {"manifests": {"urls": {"allow": [urls]}}}} if urls else {})}))
        self.log = pathlib.Path(folder) / "access.log"
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([*self.enter, "docker-registry", "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.DEVNULL)
        wait_for("docker-registry listens", self.listens, 20)

    def listens(self):
        assert self.process.poll() is None, "docker-registry ended"
        if self.enter:
            return subprocess.run([*self.enter, "curl", "-s", f"http://{self.host}/v2/"], stdout=subprocess.DEVNULL, check=False).returncode == 0
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self):
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def store(tmp_path):
    """A data dir and the image jobs on it."""
    from test_images import Store  # pylint: disable=import-outside-toplevel  (it needs this module)
    return Store(tmp_path / "data")


@pytest.fixture
def liar():
    """A registry that lies on request."""
    r = lying.Registry()
    yield r
    r.close()


@pytest.fixture
def registry(tmp_path):
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed (tools/setup test)")
    r = Registry(tmp_path)
    yield r
    r.close()
