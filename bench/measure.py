"""What the measurements share: a node of its own, the peer, waiting for replies, reading /proc, and the report.

Every script runs by itself: `bench/up` prints a table and exits 1 when a goal is missed. `--json FILE` appends each row as
one JSON object a line, which is what tools/run-bench collects. Everything that is started here is held and ended by pid;
data dirs are private and are removed.
"""
import argparse
import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.get("ZLAYER_BUILD", TOP / "build")).resolve()
SPEC = """version: v1
deployment: bench
services:
  web:
    rtype: service
    image: {{name: "hello:latest", pull_policy: never}}
    endpoints:
      - {{name: http, protocol: http, port: {port}, target_port: 8080, expose: public}}
    scale: {{mode: fixed, replicas: {replicas}}}
"""
HEALTH = "    health: {interval: 2s, timeout: 1s, retries: 3, check: {type: http, url: /health}}\n"


def parser(text):
    """The options that every script has."""
    p = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", help="append the rows to this file, a JSON object a line")
    p.add_argument("--no-peer", action="store_true", help="measure zlayer only")
    return p


# --- /proc ---

def read(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return ""


def alive(pid):
    stat = read(f"/proc/{pid}/stat")
    return bool(stat) and stat.rsplit(")", 1)[1].split()[0] not in "ZX"


def wait_for(what, condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(0.002)
    return value


def end(pid, seconds=15.0):
    """SIGTERM and wait; SIGKILL when that does not help."""
    for sig in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)
        with contextlib.suppress(RuntimeError):
            wait_for(f"{pid} ends", lambda: not alive(pid), seconds)
            return


def kib(pid, field, file="status"):
    m = re.search(rf"^{field}:\s+(\d+) kB", read(f"/proc/{pid}/{file}"), re.M)
    return int(m[1]) if m else 0


def pss_mib(pids):
    """Proportional: a page that N processes share counts 1/N for each. Needs root for others' processes."""
    return sum(kib(p, "Pss", "smaps_rollup") for p in pids) / 1024


def wakeups(pid):
    """How often a thread of the process went to sleep by itself, which is how often it had been woken."""
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", read(t / "status") or "voluntary_ctxt_switches: 0", re.M)[1])
               for t in pathlib.Path(f"/proc/{pid}/task").iterdir())


def cpu_ns(pid):
    """Processor time of all threads, to the nanosecond."""
    return sum(int((read(t / "schedstat") or "0").split()[0]) for t in pathlib.Path(f"/proc/{pid}/task").iterdir())


def descendants(pid):
    found = [pid]
    for p in found:
        for task in pathlib.Path(f"/proc/{p}/task").glob("*/children"):
            found += [int(c) for c in read(task).split()]
    return found


def parent(pid):
    stat = read(f"/proc/{pid}/stat")
    return int(stat.rsplit(")", 1)[1].split()[1]) if stat else 0


def comm(pid):
    return read(f"/proc/{pid}/comm").strip()


# --- replies ---

def enter_netns(pid):
    """This thread only."""
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


def good_reply(host, port, timeout=0.02):
    """One request on a connection of its own: whether the reply was a 200 with its whole body. The patience is short: a
    port that swallows requests before its server is there is asked again soon, not when its connection has timed out."""
    c = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        c.request("GET", "/")
        r = c.getresponse()
        return r.status == 200 and len(r.read()) > 0
    except (OSError, http.client.HTTPException):
        return False
    finally:
        c.close()


class Watch(threading.Thread):
    """Asks until all (host, port) pairs have given a good reply; .at is when the last one did. Asks each millisecond, in
    the network namespace of process `netns` when one is given."""

    def __init__(self, targets, netns=None, seconds=60.0):
        super().__init__(daemon=True)
        self.targets, self.netns, self.seconds = list(targets), netns, seconds
        self.at, self.error = None, None

    def run(self):
        try:
            if self.netns:
                enter_netns(self.netns)
            deadline = time.monotonic() + self.seconds
            while self.targets:
                self.targets = [t for t in self.targets if not good_reply(*t)]
                if self.targets and time.monotonic() > deadline:
                    raise RuntimeError(f"no good reply within {self.seconds:.0f} s from {self.targets[:3]}")
                if self.targets:
                    time.sleep(0.001)
            self.at = time.monotonic()
        except (OSError, RuntimeError) as e:
            self.error = e

    def result(self):
        self.join()
        if self.error:
            raise self.error
        return self.at


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# --- the systems ---

def example_root(folder):
    """A root filesystem with the example's static web server."""
    root = folder / "root"
    root.mkdir()
    shutil.copy(BUILD / "examples/hello/hello", root / "hello")
    return root


class Node:
    """zlayer on a data dir of its own, with the example's image in it."""

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("ZLAYER_")}
        self.env.update(NO_COLOR="1", ZLAYER_DATA_DIR=str(self.data))
        self.cli = BUILD / "src/bin/zlayer"
        if not self.cli.exists():
            sys.exit(f"no programs below {BUILD}: run `make` first")
        self.run("image", "import", example_root(folder), "-t", "hello:latest", "--entrypoint", "/hello", "--port", "8080")

    def spec(self, replicas, health=False):
        path = self.folder / f"{replicas}.yml"
        path.write_text(SPEC.format(port=self.port, replicas=replicas) + (HEALTH if health else ""))
        return path

    def run(self, *args, check=True):
        r = subprocess.run([self.cli, *map(str, args)], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, check=False, timeout=120)
        if check and r.returncode:
            log = read(self.data / "agent.log")[-3000:]
            raise RuntimeError(f"zlayer {args[0]} exited {r.returncode}\n{r.stdout}{r.stderr}\n{log}")
        return r.stdout

    def containers(self):
        return json.loads(self.run("ps", "-c", "-o", "json"))["containers"]

    def agent(self):
        words = read(self.data / "agent.lock").split()
        return int(words[0]) if words and alive(int(words[0])) else None

    def stop_agent(self):
        pid = self.agent()
        if pid:
            end(pid)

    def held(self):
        """The processes that hold files of this data dir: agent, proxy and shims, by name."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if any(os.readlink(f"/proc/{pid}/fd/{fd}").startswith(f"{self.data}/") for fd in os.listdir(f"/proc/{pid}/fd")):
                    found.setdefault(comm(pid), []).append(int(pid))
        return found

    def close(self):
        if self.agent() or self.held():
            self.run("down", "bench", check=False)
        self.stop_agent()
        left = self.held()
        if left:
            print(f"left behind, ended now: {left}", file=sys.stderr)
            for pids in left.values():
                for pid in pids:
                    end(pid, 3)
        shutil.rmtree(self.data, ignore_errors=True)


class Docker:
    """A Docker engine in a network and mount namespace of its own, so that the machine's are not touched. Its containers
    are asked from within that namespace. Docker has no start of the engine in its figures: it runs before."""

    TOOLS = ("dockerd", "containerd", "runc", "docker", "unshare", "ip")

    @classmethod
    def missing(cls):
        if os.geteuid() != 0:
            return "needs root"
        absent = [t for t in cls.TOOLS if not shutil.which(t)]
        return f"not installed: {' '.join(absent)} (tools/setup peers)" if absent else None

    def __init__(self, folder):
        self.folder = folder
        self.client = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"
        self.host = f"unix://{folder}/sock"
        self.env = {**os.environ, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(folder / "config")}
        self.cgroups_before = set(self.cgroups())
        # A tmpfs over /run keeps what the engine leaves there from the machine.
        script = ('mount -t tmpfs none /run && ip link set lo up && exec dockerd --data-root "$0/lib" --exec-root "$0/exec" '
                  '--pidfile "$0/pid" -H "unix://$0/sock" --log-level error --live-restore=false')
        with open(folder / "log", "w", encoding="utf-8") as log:
            self.engine = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", script, folder],
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for("dockerd answers", self.answers, 30)
            tar = folder / "root.tar"
            subprocess.run(["tar", "-C", example_root(folder), "-cf", tar, "."], check=True)
            self.run("import", "-c", 'ENTRYPOINT ["/hello"]', "-c", "EXPOSE 8080", tar, "hello:latest")
        except BaseException:
            self.close()
            raise

    def answers(self):
        if self.engine.poll() is not None:
            raise RuntimeError(f"dockerd ended: {read(self.folder / 'log')[-2000:]}")
        return subprocess.run([self.client, "version"], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              check=False).returncode == 0

    def run(self, *args):
        r = subprocess.run([self.client, *map(str, args)], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, check=False, timeout=300)
        if r.returncode:
            raise RuntimeError(f"docker {args[0]} exited {r.returncode}\n{r.stderr}")
        return r.stdout.strip()

    def start(self, *args):
        return subprocess.Popen([self.client, *map(str, args)], env=self.env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL)

    def version(self):
        return "docker " + self.run("version", "-f", "{{.Server.Version}}")

    def remove_all(self):
        ids = self.run("ps", "-aq").split()
        if ids:
            self.run("rm", "-f", *ids)

    def processes(self):
        """By name; without what runs in the containers."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            line = read(f"/proc/{pid}/cmdline")
            if str(self.folder) in line and comm(pid) in ("dockerd", "containerd", "containerd-shim") or \
                    comm(pid) == "docker-proxy" and os.stat(f"/proc/{pid}/ns/net").st_ino == self.netns():
                found.setdefault(comm(pid), []).append(int(pid))
        return found

    def netns(self):
        return os.stat(f"/proc/{self.engine.pid}/ns/net").st_ino

    @staticmethod
    def cgroups():
        return [str(p) for p in pathlib.Path("/sys/fs/cgroup").glob("*/docker")] + \
            [str(p) for p in pathlib.Path("/sys/fs/cgroup").glob("docker")]

    def close(self):
        if self.engine.poll() is None:
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                self.remove_all()
            self.engine.terminate()
            try:
                self.engine.wait(20)
            except subprocess.TimeoutExpired:
                self.engine.kill()
                self.engine.wait()
        for top in set(self.cgroups()) - self.cgroups_before:
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


@contextlib.contextmanager
def systems(no_peer):
    """A node, and the peer or None; says why there is none."""
    if os.geteuid() != 0:
        sys.exit("needs root, for namespaces and networks")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="zl-bench-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, True)
        for name in ("zlayer", "docker"):
            (folder / name).mkdir()
        node = Node(folder / "zlayer")
        stack.callback(node.close)
        peer, why = None, "not asked for (--no-peer)" if no_peer else Docker.missing()
        if not why:
            peer = Docker(folder / "docker")
            stack.callback(peer.close)
            print(f"peer: {peer.version()}, its engine runs already, in a network namespace of its own")
        else:
            print(f"peer: none: docker: {why}")
        yield node, peer


# --- the report ---

def machine():
    """What the figures were taken on."""
    model = re.search(r"model name\s*: (.*)", read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s+(\d+)", read("/proc/meminfo"))
    commit = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"], stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.DEVNULL, check=False).stdout.strip()
    options = {}
    with contextlib.suppress(OSError, ValueError):
        options = {o["name"]: o["value"] for o in json.loads(read(BUILD / "meson-info/intro-buildoptions.json"))}
    cgroup = "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else \
        "hybrid" if os.path.isdir("/sys/fs/cgroup/unified") else "v1"
    return {"processor": model[1] if model else platform.machine(), "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(int(memory[1]) / 2**20) if memory else None, "kernel": platform.release(),
            "cgroup": cgroup, "load_before": os.getloadavg()[0], "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "commit": commit, "buildtype": options.get("buildtype"), "sanitize": options.get("b_sanitize")}


def percentile(values, share):
    """The smallest value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


class Report:
    """Rows: what was measured, in one unit, over n runs; a goal is held against the median."""

    def __init__(self, row, args):
        self.row, self.file, self.missed = row, args.json, 0
        print(f"  {'':52} {'n':>3} {'min':>8} {'median':>8} {'p95':>8} {'max':>8}  goal")

    def add(self, case, unit, values, goal=None, system="zlayer"):
        values = list(values)
        r = {"row": self.row, "system": system, "case": case, "unit": unit, "n": len(values), "min": min(values),
             "median": statistics.median(values), "p95": percentile(values, 0.95), "max": max(values)}
        r = {k: round(v, 3) if isinstance(v, float) else v for k, v in r.items()}
        verdict = ""
        if goal is not None:
            met = r["median"] <= goal
            self.missed += not met
            r.update(goal=goal, met=met)
            verdict = f"<= {goal:g} {unit}: " + ("met" if met else f"MISSED by {r['median'] - goal:.3g} {unit}")
        figures = " ".join(f"{r[k]:8.3g}" if r[k] < 100 else f"{r[k]:8.0f}" for k in ("min", "median", "p95", "max"))
        print(f"  {system + ', ' + case:52} {len(values):3} {figures}  {unit:3} {verdict}", flush=True)
        if self.file:
            with open(self.file, "a", encoding="utf-8") as f:
                f.write(json.dumps(r) + "\n")

    def exit(self):
        sys.exit(1 if self.missed else 0)
