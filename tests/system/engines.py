"""The real engines over zl-oci: podman, dockerd and containerd, each with folders, sockets and cgroups of its own.

A daemon lives in a network and a mount namespace of its own, with an empty /run: what it sets there goes with it.
"""
import contextlib
import fcntl
import os
import pathlib
import pty
import select
import shutil
import signal
import struct
import subprocess
import tarfile
import termios
import time

import oci
from conftest import BUILD, SLOW, TOP, wait_for

ZL_OCI = BUILD / "src/ocirun/zl-oci"
IMAGE = "localhost/test:1"
APPLETS = ("sh", "cat", "id", "ls", "mount", "ps", "sleep", "echo", "stat", "true", "touch", "hostname", "stty", "readlink",
           "mkdir", "tty", "test", "kill", "rm", "df", "chmod", "head", "grep", "pwd", "env", "mknod", "dd")


def documented(language, first):
    """A file of docs/OCI.md that begins so, for the program as it was built."""
    text = (TOP / "docs/OCI.md").read_text()
    (block,) = [b.split("```")[0] for b in text.split(f"```{language}\n")[1:] if b.startswith(first)]
    return block.replace("/usr/local/libexec/zlayer/zl-oci", str(ZL_OCI))


def entry(kind, mode=0o755, target=""):
    info = tarfile.TarInfo()
    info.type, info.mode, info.linkname, info.mtime = kind, mode, target, 1
    return info


def image(where):
    """An archive for docker with busybox, the workload, two users, a folder with data and a file that is no program."""
    files = {path: entry(tarfile.DIRTYPE, mode) for path, mode in
             (("bin", 0o755), ("etc", 0o755), ("data", 0o755), ("tmp", 0o1777), ("proc", 0o755), ("sys", 0o755), ("dev", 0o755))}
    files.update({"bin/busybox": pathlib.Path(shutil.which("busybox")).read_bytes(),
                  "workload": (BUILD / "tests/programs/workload").read_bytes(),
                  "etc/passwd": b"root:x:0:0:root:/:/bin/sh\nann:x:1000:1001::/:/bin/sh\n", "etc/group": b"root:x:0:\nann:x:1001:\nmore:x:77:ann\n",
                  "plain": entry(tarfile.REGTYPE, 0o644), "data/in-image": b"from the image\n"})
    files.update({f"bin/{name}": entry(tarfile.SYMTYPE, target="busybox") for name in APPLETS})
    oci.layout(where / "layout", [files], {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["/bin/sh"]})
    subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", f"oci:{where}/layout:latest",
                    f"docker-archive:{where}/image.tar:{IMAGE}"], check=True, stdin=subprocess.DEVNULL, timeout=60)
    return where / "image.tar"


def remove_cgroups(name):
    """Empty groups only: one that something goes on running in is a leftover that must show."""
    def gone():
        for pattern in (name, f"*/{name}"):
            for top in pathlib.Path("/sys/fs/cgroup").glob(pattern):
                for path, _, _ in os.walk(top, topdown=False):
                    try:
                        os.rmdir(path)
                    except OSError:  # an engine's helper is about to end in there
                        return False
        return True
    wait_for(f"the cgroups {name} are empty", gone)


def unmounted_hierarchies():
    """Of v1, which a machine may know without having them mounted; containerd looks for every one."""
    mounted = {option for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup " in line
               for option in line.rsplit(" ", 1)[1].split(",")}
    known = [line.split(":")[1] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()]
    return [k for k in known if k and not set(k.split(",")) <= mounted]


class Terminal:
    """A client on a terminal of its own: what is typed goes in, what it shows is waited for."""

    def __init__(self, command, env, cwd, rows=24, columns=80):
        master, slave = pty.openpty()
        self.master = master
        self.resize(rows, columns)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env={**env, "TERM": "dumb"}, start_new_session=True,
                                        cwd=cwd,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.set_blocking(master, False)
        self.slave = slave  # held, so that a client's end is no error here
        self.seen = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def ask(self, command, answer, end="\n"):
        """Again and again: the size comes a little later than the rest."""
        def asked():
            self.process.send_signal(signal.SIGWINCH)  # it may not have listened to the last one yet
            self.type(command + end)
            for _ in range(10):
                self.read()
                if answer in self.seen:
                    return True
            return False
        wait_for(f"{command} says {answer}", asked, 20)
        self.expect(answer)

    def read(self, seconds=0.05):
        if select.select([self.master], [], [], seconds)[0]:
            self.seen += os.read(self.master, 65536).decode(errors="replace")

    def expect(self, text, seconds=20):
        """Waits for the text, and forgets what came up to it."""
        deadline = time.monotonic() + seconds * SLOW
        while text not in self.seen:
            ended = self.process.poll() is not None
            self.read()
            assert text in self.seen or (not ended and time.monotonic() < deadline), (text, self.seen)
        before, _, self.seen = self.seen.partition(text)
        return before

    def end(self, seconds=20):
        deadline = time.monotonic() + seconds * SLOW
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read()
        while select.select([self.master], [], [], 0)[0]:
            self.read()
        return self.process.poll()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self.master)
        os.close(self.slave)


class Engine:
    """A client's command line, the daemon behind it if there is one, and the cgroup that all is below."""

    daemon = None
    prefix = ()  # of each of its calls
    run_options = ()
    at_once = ("rm", "--force")

    def __init__(self, where):
        self.where = where
        self.group = f"zl-test-{type(self).__name__.lower()}-{os.getpid()}"
        self.env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(where), "TMPDIR": str(where)}
        self.terminals = []

    prepare = ""  # of the daemon's namespaces

    def start(self, *command):
        script = self.prepare + \
            "mount -t tmpfs tmpfs /run; ip link set lo up; for c in $1; do mkdir /run/$c; mount -t cgroup -o $c cgroup /run/$c; done; " \
                 "shift; exec \"$@\""
        self.log = open(self.where / "log", "w")
        self.daemon = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-ec", script, "sh", " ".join(unmounted_hierarchies()),
                                        *map(str, command)], env=self.env, cwd=self.where, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                       start_new_session=True)

    def log_text(self):
        return (self.where / "log").read_text(errors="replace")

    def answers(self, *args):
        assert self.daemon.poll() is None, self.log_text()[-4000:]
        return self(*args, check=False).returncode == 0

    def command(self, verb, *args):
        more = self.run_options if verb in ("run", "create") else ()
        return [*self.prefix, *self.client, verb, *more, *map(str, args)]

    @contextlib.contextmanager
    def mount_namespace(self):
        """How to run something in the mount namespace that containers are made in: the daemon's, or else one for a test."""
        if self.daemon:
            yield ["nsenter", "--mount", "--target", str(self.daemon.pid)]
            return
        with subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            holder.stdout.readline()
            self.prefix = ["nsenter", "--mount", "--target", str(holder.pid)]
            try:
                yield self.prefix
                self.clear()
            finally:
                self.prefix = ()
                holder.stdin.close()

    def __call__(self, verb, *args, check=True, stdin=None, timeout=60):
        r = subprocess.run(self.command(verb, *args), env=self.env, cwd=self.where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL, timeout=timeout * SLOW, check=False)
        assert not check or r.returncode == 0, (verb, args, r.returncode, r.stdout, r.stderr)
        return r

    def out(self, *args, **kw):
        return self(*args, **kw).stdout.strip()

    def terminal(self, *args, **kw):
        self.terminals.append(Terminal(self.command(*args), self.env, self.where, **kw))
        return self.terminals[-1]

    def remove(self, *names):
        """podman cleans up after an end by another process of its own, which may be in the way."""
        wait_for(f"{names} are removed", lambda: self(*self.at_once, *names, check=False).returncode == 0, 20)

    def clear(self):
        """After a test: its containers and its clients."""
        while self.terminals:
            self.terminals.pop().close()
        ids = self("ps", "-aq").stdout.split()
        if ids:
            self.remove(*ids)

    def stop(self):
        if self.daemon:
            self.daemon.terminate()
            try:
                self.daemon.wait(20 * SLOW)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait(10)
            self.log.close()
        remove_cgroups(self.group)


class Docker(Engine):
    run_options = ("--network=none",)
    options = ("--config-file", "daemon.json")

    def __init__(self, where, archive):
        super().__init__(where)
        socket = where / "docker.sock"
        (where / "daemon.json").write_text(documented("json", "{"))
        self.client = ["/usr/bin/docker", "--host", f"unix://{socket}", "--config", str(where)]
        self.start("/usr/sbin/dockerd", "--data-root", where / "data", "--exec-root", where / "exec", "--pidfile", where / "pid",
                   "--host", f"unix://{socket}", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
                   "--storage-driver=vfs", "--cgroup-parent", f"/{self.group}", *self.options)
        wait_for("dockerd answers", lambda: self.answers("version"), 20)
        self("load", "--quiet", "--input", archive)


class RemappedDocker(Docker):
    """Every container in a user namespace, whose root is the machine's user 300000; zl-oci is asked for by name."""

    run_options = (*Docker.run_options, "--runtime", "zl")
    options = ("--config-file", "none.json", "--userns-remap", "daemon:daemon", "--add-runtime", f"zl={ZL_OCI}")
    prepare = "echo {} > none.json; echo daemon:300000:65536 > subid; mount --bind subid /etc/subuid; mount --bind subid /etc/subgid; "


class Podman(Engine):
    at_once = ("rm", "--force", "--time", "0")
    # A machine may not raise limits as far as podman's defaults do. (What has no options of its own has the file's.)
    run_options = ("--network=none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")

    def __init__(self, where, archive):
        super().__init__(where)
        (where / "containers.conf").write_text(documented("toml", "[engine]").replace("[engine]\n", '[engine]\nlock_type = "file"\n') +
                                               '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n')
        self.env["CONTAINERS_CONF"] = str(where / "containers.conf")
        self.run_options += ("--cgroup-parent", f"/{self.group}")
        self.client = [shutil.which("podman"), "--root", str(where / "root"), "--runroot", str(where / "runroot"), "--tmpdir", str(where / "tmp"),
                       "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", str(ZL_OCI)]
        self("load", "--quiet", "--input", archive)

    def clear(self):
        super().clear()
        self("pod", "rm", "--all", "--force", "--time", "0")


class Containerd(Engine):
    """Spoken to by ctr, whose verbs are its own: `run` here makes a task on zl-oci in the group that is removed at the end."""

    def __init__(self, where, archive):
        super().__init__(where)
        socket = where / "containerd.sock"
        # ctr forgets --runc-binary when it is given --uidmap: there the name leads to it.
        (where / "bin").mkdir()
        (where / "bin/runc").symlink_to(ZL_OCI)
        self.env["PATH"] = f"{where}/bin:{self.env['PATH']}"
        (where / "config.toml").write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        self.client = ["/usr/bin/ctr", "--address", str(socket), "--namespace", "test"]
        self.start("/usr/bin/containerd", "--config", where / "config.toml", "--root", where / "root", "--state", where / "state",
                   "--address", socket)
        wait_for("containerd answers", lambda: self.answers("version"), 20)
        self("image", "import", "--snapshotter", "native", archive)

    def run(self, name, *command, options=(), call=None):
        return (call or self)("run", "--snapshotter", "native", "--runc-binary", ZL_OCI, "--runc-root", self.where / "zl", "--fifo-dir",
                              self.where / "fifo", "--cgroup", f"/{self.group}/{name}", *options, IMAGE, name, *command)

    def exec(self, name, *command, options=(), call=None, **kw):
        self.execs = getattr(self, "execs", 0) + 1
        return (call or self)("task", "exec", "--fifo-dir", self.where / "fifo", "--exec-id", f"e{self.execs}", *options, name, *command, **kw)

    def clear(self):
        while self.terminals:
            self.terminals.pop().close()
        for name in self("task", "ls", "-q").stdout.split():
            self("task", "delete", "--force", name, check=False)
        for name in self("container", "ls", "-q").stdout.split():
            self("container", "delete", name)
