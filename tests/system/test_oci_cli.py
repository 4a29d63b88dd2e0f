"""The command line of zl-oci, as engines and strangers use it: options before and behind the verb, logs, formats, garbage."""
import copy
import json
import os
import pathlib
import platform
import random
import signal
import socket
import subprocess

import pytest

import leftovers
from conftest import BUILD, SLOW, wait_for
from test_oci import OLDER, ZL_OCI, bundle, fields  # noqa: F401  pylint: disable=unused-import

# What runc 1.1 and crun 1.8 take and engines use, with a value that can be said.
EVERYWHERE = {"--root": "/nowhere", "--log": "/dev/null", "--log-format": "json", "--debug": None, "--rootless": "auto",
              "--cgroup-manager": "cgroupfs", "--log-level": "warning", "--systemd-cgroup": "=false", "--criu": "criu"}
MAKING = {"--bundle": "/nowhere", "-b": "/nowhere", "--config": "/nowhere/c.json", "-f": "/nowhere/c.json", "--pid-file": "/nowhere/pid",
          "--pidfd-socket": "/nowhere/p", "--console-socket": "/nowhere/s", "--preserve-fds": "0", "--no-pivot": None, "--no-new-keyring": None}
OPTIONS = {
    "create": MAKING, "run": {**MAKING, "--detach": None, "-d": None, "--keep": None, "--no-subreaper": None}, "start": {}, "state": {},
    "exec": {"--process": "/nowhere", "-p": "/nowhere", "--tty": None, "-t": None, "--detach": None, "-d": None, "--cwd": "/", "--env": "A=B",
             "-e": "A=B", "--user": "1:2", "-u": "1", "--additional-gids": "5", "-g": "5", "--cap": "CAP_KILL", "-c": "KILL",
             "--no-new-privs": None, "--preserve-fds": "0", "--apparmor": "=", "--process-label": "=", "--pid-file": "/nowhere/pid",
             "--pidfd-socket": "/nowhere/p", "--console-socket": "/nowhere/s", "--cgroup": "below", "--ignore-paused": None},
    "kill": {"--all": None, "-a": None}, "delete": {"--force": "=false", "-f": "=0"}, "pause": {}, "resume": {},
    "update": {"--resources": "/nowhere", "-r": "/nowhere", "-m": "1", "--cpuset-cpus": "0", "--cpuset-mems": "0", "--l3-cache-schema": "L3:0=f",
               "--mem-bw-schema": "MB:0=50", **{f"--{name}": "1" for name in (
                   "memory", "memory-swap", "memory-reservation", "kernel-memory", "kernel-memory-tcp", "cpu-quota", "cpu-period", "cpu-burst",
                   "cpu-share", "cpu-rt-period", "cpu-rt-runtime", "cpu-idle", "blkio-weight", "pids-limit")}},
    "events": {"--stats": None, "--interval": "1s"}, "ps": {"--format": "json", "-f": "table"},
}
BY_ITSELF = {"list": {"--quiet", "-q", "--format", "-f"}, "features": set(), "spec": {"--bundle", "-b", "--rootless"}}


def call(*args, **kw):
    return subprocess.run([ZL_OCI, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=30 * SLOW, check=False, **kw)


def children(pid):
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def said(option, value):
    return [option] if value is None else [option + value] if value.startswith("=") else [option, value]


def explained(text):
    """The options that a help text has in its first column."""
    return {word.strip(",") for line in text.splitlines() if line.startswith("    ") for word in line[4:].split("  ")[0 if line[4] == "-" else 2].split()
            if word.startswith("-")}


@pytest.mark.parametrize("verb", BY_ITSELF)
def test_what_is_for_no_container(verb):
    assert explained(call(verb, "--help").stdout) == BY_ITSELF[verb]


@pytest.mark.parametrize("verb", OPTIONS)
def test_every_option_is_taken_and_explained(verb, tmp_path):
    text = call(verb, "--help").stdout
    assert text.startswith(f"usage: zl-oci [OPTION]… {verb} ")
    words = text.replace(",", " ").split()
    assert explained(text) == set(OPTIONS[verb])
    for option, value in OPTIONS[verb].items():
        assert option in words, option
        r = call("--root", tmp_path, verb, *said(option, value), "nobody", *(["true"] if verb == "exec" else []))
        # It gets as far as to look for the container, or for the bundle to make one of.
        assert r.returncode == 1 and ("container does not exist: nobody" in r.stderr or "/nowhere" in r.stderr or "config.json" in r.stderr), \
            (option, r.stderr)
        if value is not None and not value.startswith("="):
            r = call("--root", tmp_path, verb, option)
            assert r.returncode == 1 and f"{option} needs a value" in r.stderr
    for option, value in EVERYWHERE.items():
        assert option in call("--help").stdout.split()
        for args in ([*said(option, value), "list", "-q"], ["list", *said(option, value), "-q"]):
            r = call(*args)
            assert r.returncode == 0, (args, r.stderr)


BAD = [
    ([], "there is no verb"), (["nothing", "x"], "there is no verb 'nothing'"), (["--none", "list"], "there is no option --none"),
    (["list", "--none=1"], "there is no option --none=1"), (["list", "-z"], "there is no option -z"), (["-", "list"], "no verb '-'"),
    (["--", "--root"], "there is no verb '--root'"), (["--root"], "--root needs a value"), (["-b", "x", "create", "c"], "-b belongs behind the verb"),
    (["kill", "--force", "c"], "--force is no option of kill"), (["list", "c"], "'c' is one argument too many"),
    (["create", "a", "b"], "'b' is one argument too many"), (["kill", "a", "TERM", "b"], "'b' is one argument too many"),
    (["create"], "create takes ID"), (["create", ""], "no container id"), (["create", "../x"], "no container id"),
    (["create", "x" * 2000], "no container id"), (["state", "a/b"], "no container id"), (["list", "-f", "xml"], "--format is table or json, not 'xml'"),
    (["--log-format", "xml", "list"], "--log-format is text or json"), (["--log", "/none/log", "list"], "--log: open /none/log"),
    (["--rootless", "perhaps", "list"], "--rootless is true, false or auto"), (["--cgroup-manager=none", "list"], "--cgroup-manager is cgroupfs, systemd or disabled"),
    (["list", "--quiet=perhaps"], "--quiet=perhaps is true or false"), (["start", "nobody"], "container does not exist"),
    (["kill", "nobody", "KILL"], "container does not exist"), (["delete", "nobody"], "container does not exist"),
    (["exec", "nobody", "true"], "container does not exist"), (["ps", "nobody"], "container does not exist"),
    (["checkpoint", "c"], "no checkpoints"), (["restore", "c"], "no checkpoints"), (["checkpoint", "--help"], "no checkpoints"), (["checkpoint", "--image-path", "/nowhere", "c"], "no checkpoints"),
    (["--log-level", "loud", "list"], "--log-level is error, warning or debug"), (["run", "-b", "/nowhere", "c"], "/nowhere"),
    (["run", "-f", "/nowhere", "c"], "read /nowhere"),
]


@pytest.mark.parametrize("args,why", BAD, ids=[" ".join(a)[:40] for a, _ in BAD])
def test_a_bad_call_gets_one_clear_line(bundle, args, why):  # noqa: F811
    r = bundle(*args, check=False)
    assert r.returncode == 1 and r.stdout == "" and why in r.stderr, r.stderr
    assert r.stderr.startswith("zl-oci: ") and r.stderr.count("\n") == 1
    assert not bundle.state.exists() or not any(bundle.state.iterdir())


def test_garbage(bundle):  # noqa: F811
    """Words that a stranger might say, in any order and number: it ends by itself, with one line, and nothing is made."""
    before = leftovers.snapshot(folders=[bundle.folder])
    words = [b"create", b"run", b"exec", b"kill", b"delete", b"ps", b"events", b"update", b"-", b"--", b"--=", b"-b", b"--bundle=", b"--pid-file",
             b"\xff\xfe", b"%s%n", b"x" * 5000, b"--root=\x01", b"-f", b"--format", b"json", b"c", b"", b"9", b"--memory", b"-1", b"--all=true",
             b"\n", "é".encode(), b"--log-format=json", b"--console-socket", b"spec\0"[:4] + b"s"]
    chance = random.Random(4)
    for _ in range(150):
        args = [chance.choice(words) for _ in range(chance.randrange(1, 7))]
        r = subprocess.run([os.fsencode(ZL_OCI), b"--root", os.fsencode(bundle.folder / "garbage"), *args], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=bundle.folder / "rootfs", timeout=30 * SLOW, check=False)
        if args[0] != b"delete" or r.returncode:  # which is content with nothing, when forced
            assert r.returncode == 1 and r.stderr.startswith(b"zl-oci: "), (args, r)
        assert r.stdout == b"" or b"delete" in args, (args, r)
    came = [d for d in leftovers.diff(before, leftovers.snapshot(folders=[bundle.folder])) if str(bundle.folder) in d and "garbage " not in d]
    assert came == []


def test_the_log(bundle):  # noqa: F811
    log = bundle.folder / "log"
    for before, behind in ((["--log", log, "--log-format=json", "--debug"], []), ([], ["--debug", f"--log={log}", "--log-format", "json"])):
        log.unlink(missing_ok=True)
        r = bundle(*before, "state", *behind, "nobody", check=False)
        first, last = map(json.loads, log.read_text().splitlines())
        assert first["level"] == "debug" and "state" in first["msg"]
        assert (last["level"], last["msg"]) == ("error", "container does not exist: nobody") and last["time"].endswith("Z")
        assert r.stderr == "zl-oci: container does not exist: nobody\n"
    log.unlink()
    bundle("--log", log, "state", "nobody", check=False)
    assert log.read_text().startswith('level=error msg="container does not exist: nobody" time="')
    assert bundle("--log", log, "list", "-q").stdout == "" and len(log.read_text().splitlines()) == 1


def groups_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cgroup").read_text()
    except FileNotFoundError:
        return ""  # it has ended


def test_exec_as_the_options_say(bundle):  # noqa: F811
    bundle.write("forever", process={**bundle.config["process"], "noNewPrivileges": False})
    bundle.create()
    assert "container not running" in bundle("exec", "c", "/workload", check=False).stderr
    bundle("start", "c")
    status = ["/workload", "cat", "/proc/self/status", "cat", "/proc/self/environ"]
    r = bundle("exec", "--user", "1000:2000", "-g", "5", "--additional-gids=6", "--cap", "CAP_CHOWN", "-c", "KILL", "--no-new-privs", "--env", "X=a=b",
               "--cwd", "/dev", "c", *status)
    uid, gid, groups, nnp = fields(r.stdout, "Uid", "Gid", "Groups", "NoNewPrivs")
    assert uid == ["1000"] * 4 and gid == ["2000"] * 4 and groups == ["5", "6"] and nnp == ["1"] and "X=a=b" in r.stdout
    sets = [int(v[0], 16) & 0x21 for v in fields(r.stdout, "CapBnd", "CapEff", "CapPrm", "CapAmb")]
    assert sets == [0x21] * 4
    r = bundle("exec", "c", "--", *status)
    assert fields(r.stdout, "Uid", "CapInh", "NoNewPrivs") == [["0"] * 4, ["0" * 16], ["0"]]
    for bad in (["--user", "ann"], ["--user", "1:x"], ["-g", "-1"], ["--cap", "CAP_NONE"]):
        r = bundle("exec", *bad, "c", *status, check=False)
        assert r.returncode == 1 and r.stdout == "" and bad[1][-1] in r.stderr
    bundle("pause", "c")
    assert "paused" in bundle("exec", "c", "/workload", check=False).stderr
    assert "paused already" in bundle("pause", "c", check=False).stderr
    late = subprocess.Popen([ZL_OCI, "--root", bundle.state, "exec", "--ignore-paused", "c", "/workload", "exit", "8"], stdin=subprocess.DEVNULL)
    try:
        wait_for("it waits in the group", lambda: any("zl-oci-c" in groups_of(child) for child in children(late.pid)))
    finally:
        bundle("resume", "c")
        assert late.wait(20 * SLOW) == 8
    assert "not paused" in bundle("resume", "c", check=False).stderr


def test_exec_in_a_group_below(bundle):  # noqa: F811
    """As an init in there sorts its services: in all hierarchies, or in those that are named."""
    bundle.write("forever")
    pid = bundle.create()
    bundle("start", "c")
    groups = {f"{line.split(':')[1]}": line.split(":", 2)[2] for line in groups_of(pid).splitlines() if line.endswith("/zl-oci-c")}
    mounted = {name: pathlib.Path("/sys/fs/cgroup") / (name if name else "unified") for name in groups}
    mounted = {name: path if path.exists() else pathlib.Path("/sys/fs/cgroup") for name, path in mounted.items()}
    look = ["/workload", "cat", "/proc/self/cgroup"]
    assert "no such group" in bundle("exec", "--cgroup", "below", "c", *look, check=False).stderr
    for name, path in mounted.items():
        (path / groups[name].lstrip("/") / "below").mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if name == "cpuset":
                (path / groups[name].lstrip("/") / "below" / file).write_text((path / groups[name].lstrip("/") / file).read_text())
    seen = bundle("exec", "--cgroup", "/below", "c", *look).stdout
    assert all(line.endswith("/zl-oci-c/below") or line.endswith("/below") for line in seen.splitlines()
               if line.split(":")[1] in groups), seen
    if "memory" in groups:
        seen = {line.split(":")[1]: line.rsplit("/", 1)[1] for line in bundle("exec", "--cgroup", "memory:below", "c", *look).stdout.splitlines()}
        assert seen["memory"] == "below" and seen["pids"] != "below"
    for bad, why in (("..", "no path leads out"), ("a/../../x", "no path leads out"), ("none:below", "no such hierarchy"), ("other", "no such group"),
                     ("x" * 400, "no such group")):
        r = bundle("exec", "--cgroup", bad, "c", *look, check=False)
        assert r.returncode == 1 and why in r.stderr and r.stdout == "", (bad, r)


def test_pidfds(bundle):  # noqa: F811
    """To who asks for one: of the container's first process, and of a command; without a receiver nothing goes on running."""
    path = bundle.folder / "pidfd.sock"

    def received(listener):
        conn, _ = listener.accept()
        with conn:
            data, fds, _, _ = socket.recv_fds(conn, 4096, 1)
        assert data == b"pidfd"
        pid = int(next(line.split()[1] for line in pathlib.Path(f"/proc/self/fdinfo/{fds[0]}").read_text().splitlines() if line.startswith("Pid:")))
        return fds[0], pid

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        bundle.write("forever")
        bundle.ids.append("c")
        with open(bundle.folder / "c.out", "w") as out:
            subprocess.run([ZL_OCI, "--root", bundle.state, "create", "--pidfd-socket", path, "c"], cwd=bundle.folder, stdin=subprocess.DEVNULL,
                           stdout=out, stderr=out, timeout=30 * SLOW, check=True)
        fd, pid = received(listener)
        assert pid == json.loads(bundle("state", "c").stdout)["pid"]
        os.close(fd)
        bundle("start", "c")
        with open(bundle.folder / "exec.out", "w") as out:
            subprocess.run([ZL_OCI, "--root", bundle.state, "exec", "-d", "--pidfd-socket", path, "c", "/workload", "forever"],
                           stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=30 * SLOW, check=True)
        fd, command = received(listener)
        assert command != pid and command in json.loads(bundle("ps", "-f", "json", "c").stdout)
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        os.close(fd)
    wait_for("the command has ended", lambda: json.loads(bundle("ps", "-f", "json", "c").stdout) == [pid])
    r = bundle("exec", "--pidfd-socket", path, "c", "/workload", "forever", check=False)
    assert r.returncode == 1 and "--pidfd-socket: send the process" in r.stderr
    assert "write /nowhere/pid" in bundle("exec", "-d", "--pid-file", "/nowhere/pid", "c", "/workload", "forever", check=False).stderr
    assert json.loads(bundle("ps", "-f", "json", "c").stdout) == [pid]
    bundle.ids.append("two")
    r = bundle("run", "-d", "--pidfd-socket", path, "two", check=False)
    assert r.returncode == 1 and bundle("state", "two", check=False).returncode == 1


def test_signals_by_name_and_number(bundle):  # noqa: F811
    """Those of real time, too; what ended it is the exit code of who waits. (The first process of a pid namespace ends by KILL alone.)"""
    linux = copy.deepcopy(bundle.config["linux"])
    linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] != "pid"]
    bundle.write("forever", linux=linux)
    for signal_name, number in (("KILL", 9), ("sigusr1", 10), ("12", 12), ("RTMIN", 34), ("SIGRTMIN+2", 36), ("RTMAX-1", 63), ("64", 64)):
        with subprocess.Popen([ZL_OCI, "--root", bundle.state, "run", "one"], cwd=bundle.folder, stdin=subprocess.DEVNULL) as p:
            try:
                wait_for("it runs", lambda: bundle("exec", "one", "/workload", check=False).returncode == 0)
                bundle("kill", "one", signal_name)
                assert p.wait(20 * SLOW) == 128 + number, signal_name
            finally:
                bundle("delete", "--force", "one")
    bundle.create()
    for bad in ("0", "65", "-9", "SIG", "NOPE", "RTMIN+31", "9x", ""):
        r = bundle("kill", "c", "--", bad, check=False)
        assert r.returncode == 1 and f"no signal is called '{bad}'" in r.stderr, (bad, r)


def test_a_state_that_cannot_be_read(bundle):  # noqa: F811
    """It says so; by force all the same nothing of the container goes on."""
    bundle.write("forever")
    for text in (b"", b"{", b"[]", b'{"id":"c"}', b"\xff" * 100):
        pid = bundle.create()
        bundle("start", "c")
        (bundle.state / "c/state.json").write_bytes(text)
        for verb in ("state", "kill", "delete", "pause", "ps"):
            r = bundle(verb, "c", check=False)
            assert r.returncode == 1 and "the state of c" in r.stderr, (text, verb, r)
        assert os.path.exists(f"/proc/{pid}/exe")
        bundle("delete", "--force", "c")
        assert not os.path.exists(f"/proc/{pid}/exe") and not any(pathlib.Path("/sys/fs/cgroup").glob("*/zl-oci-c"))
        assert bundle("list", "-q").stdout == ""


LISTENING = "import os, socket, sys; s = socket.create_server(('127.0.0.1', 0)); os.dup2(s.fileno(), 3); os.set_inheritable(3, True); " \
    "os.environ.update(LISTEN_PID=str(os.getpid() + int(sys.argv[1])), LISTEN_FDS=sys.argv[2], LISTEN_FDNAMES='web'); " \
    "os.execv(sys.argv[3], sys.argv[3:])"


def test_sockets_that_are_listened_at(bundle):  # noqa: F811
    """What a service manager gave to the engine, and that to us, is the container's (sd_listen_fds(3)); what was for another is not."""
    def run(other, n):
        bundle.write("cat", "/proc/self/environ", "ls", "/proc/self/fd")
        return subprocess.run(["python3", "-c", LISTENING, str(other), str(n), ZL_OCI, "--root", bundle.state, "run", "one"], cwd=bundle.folder, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30 * SLOW, check=False)

    if OLDER:
        pytest.skip("the program that is run in its place is a shell's child")
    r = run(0, 1)
    assert {"LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_FDNAMES=web"} <= set(r.stdout.split("\0")), r
    assert "3 -> socket:" in r.stdout.replace("  ", " ")
    r = run(1, 1)
    assert r.returncode == 0 and "LISTEN_" not in r.stdout and "socket:" not in r.stdout
    for n, why in ((2, "LISTEN_FDS 2: there is no open file 4"), ("many", "LISTEN_FDS is a number"), (99999, "LISTEN_FDS is a number")):
        r = run(0, n)
        assert r.returncode == 1 and why in r.stderr, r


def test_sizes_of_an_update(bundle):  # noqa: F811
    bundle.write("forever", linux={**bundle.config["linux"], "resources": {"memory": {"limit": 64 << 20}}})
    pid = bundle.create()
    groups = {line.split(":")[1]: line.split(":", 2)[2] for line in groups_of(pid).splitlines()}
    file = pathlib.Path(f"/sys/fs/cgroup/memory{groups['memory']}/memory.limit_in_bytes") if "memory" in groups else \
        pathlib.Path(f"/sys/fs/cgroup{groups['']}/memory.max")
    for text, expected in (("33554432", 32 << 20), ("48m", 48 << 20), ("40MiB", 40 << 20), ("36Mb", 36 << 20), ("34816k", 34 << 20), ("1G", 1 << 30)):
        bundle("update", "--memory", text, "c")
        assert int(file.read_text()) == expected, text
    for bad in ("", "m", "1x", "1.5m", "-2", "-1m", "9999999999p", "1mm", "b"):
        r = bundle("update", "--memory", bad, "c", check=False)
        assert r.returncode == 1 and "--memory takes bytes" in r.stderr, (bad, r)
    assert int(file.read_text()) == 1 << 30


KEY_CALLS = {"x86_64": (248, 250), "aarch64": (217, 219)}  # add_key, keyctl


def test_keyrings(bundle):  # noqa: F811
    """The caller's session keyring is the container's only when that is asked for."""
    add, control = KEY_CALLS[platform.machine()]
    script = f"import ctypes, os, sys; c = ctypes.CDLL(None).syscall; assert c({control}, 1, None) > 0; " \
             f"assert c({add}, b'user', b'zl-secret', b'x', 1, -3) > 0; os.execv(sys.argv[1], sys.argv[1:])"
    bundle.write("key", "zl-secret", "forever")
    for options, found in (([], "ENOKEY"), (["--no-new-keyring"], "found")):
        bundle.ids.append("c")
        with open(bundle.folder / "said", "w+") as out:
            subprocess.run(["python3", "-c", script, ZL_OCI, "--root", bundle.state, "run", "--detach", *options, "c"], cwd=bundle.folder, stdout=out,
                           stdin=subprocess.DEVNULL, timeout=30 * SLOW, check=True)
            wait_for("it says so", lambda: (bundle.folder / "said").read_text() == found + "\n")
        r = subprocess.run(["python3", "-c", script, ZL_OCI, "--root", bundle.state, "exec", "c", "/workload", "key", "zl-secret"], text=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=30 * SLOW, check=True)
        assert r.stdout == "ENOKEY\n"
        bundle("delete", "--force", "c")


def test_rights_that_cannot_be_given(bundle):  # noqa: F811
    """They are left out, and the log says so; ambient without inheritable can't be had at all."""
    caps = ["CAP_KILL", "CAP_SYS_TIME"]
    bundle.write("cat", "/proc/self/status", process={**bundle.config["process"], "capabilities": {
        "bounding": caps, "effective": caps, "permitted": caps, "ambient": caps}})
    log = bundle.folder / "log"
    r = subprocess.run(["setpriv", "--bounding-set", "-sys_time", ZL_OCI, "--root", bundle.state, "--log", log, "run", "one"], cwd=bundle.folder,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30 * SLOW, check=False)
    assert [int(v[0], 16) for v in fields(r.stdout, "CapBnd", "CapEff", "CapPrm", "CapAmb")] == [0x20, 0x20, 0x20, 0], r.stderr
    assert log.read_text().startswith("level=warning msg=\"process.capabilities: CAP_SYS_TIME can't be granted")


def test_files_that_stay_open(bundle):  # noqa: F811
    """Those that the caller has open, and never one of ours."""
    (bundle.folder / "kept").write_text("kept open\n")
    bundle.write("cat", "/proc/self/fd/3")
    script = 'exec 3<"$1"; shift; exec "$@"'
    command = [ZL_OCI, "--root", bundle.state, "run", "--preserve-fds", "1", "one"]
    r = subprocess.run(["sh", "-c", script, "sh", bundle.folder / "kept", *command], cwd=bundle.folder, stdout=subprocess.PIPE, text=True,
                       stdin=subprocess.DEVNULL, timeout=30 * SLOW, check=False)
    assert r.stdout == "kept open\n"
    for n, why in (("1", "no open file 3"), ("-1", "a number from 0"), ("many", "a number from 0"), ("99999", "a number from 0")):
        r = bundle("run", "--preserve-fds", n, "one", check=False)
        assert r.returncode == 1 and why in r.stderr


def test_what_it_shows(bundle):  # noqa: F811
    assert json.loads(bundle("list", "--format", "json").stdout) == []
    bundle.write("child-alloc", "1", "forever")
    pid = bundle.create()
    bundle("start", "c")
    (row,) = json.loads(bundle("list", "-f", "json").stdout)
    assert (row["id"], row["pid"], row["status"], row["owner"], row["rootfs"]) == ("c", pid, "running", "root", str(bundle.folder / "rootfs"))
    head, line = bundle("list").stdout.splitlines()
    assert head.split() == ["ID", "PID", "STATUS", "CREATED", "OWNER", "BUNDLE"] and line.split()[:3] == ["c", str(pid), "running"]
    head, line = bundle("ps", "c").stdout.splitlines()
    assert head.split()[:3] == ["UID", "PID", "PPID"] and line.split()[:2] == ["root", str(pid)] and "/workload" in line
    head, line = bundle("ps", "c", "-eo", "pid,args").stdout.splitlines()
    assert head.split() == ["PID", "COMMAND"] and line.split()[0] == str(pid)
    assert "no column PID" in bundle("ps", "c", "-eo", "args", check=False).stderr
    assert "did not take" in bundle("ps", "c", "--no-such-thing", check=False).stderr
    # No ps: it is said which.
    assert "run ps" in bundle("ps", "c", check=False, env={"PATH": "/nowhere"}).stderr
    assert call("--version").stdout.splitlines()[0].startswith("zl-oci version ")


def test_another_document_and_a_container_that_stays(bundle):  # noqa: F811
    bundle.write("say", "the other", "exit", "5")
    (bundle.folder / "config.json").rename(bundle.folder / "other.json")
    r = bundle("run", "--keep", "--config", bundle.folder / "other.json", "c", check=False)
    assert (r.returncode, r.stdout) == (5, "the other\n")
    bundle.ids.append("c")
    assert bundle.status() == "stopped"
    bundle("delete", "c")
    bundle("spec", "--rootless")
    rootless = json.loads((bundle.folder / "config.json").read_text())
    assert {"type": "user"} in rootless["linux"]["namespaces"] and {"type": "network"} not in rootless["linux"]["namespaces"]
    assert rootless["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 0, "size": 1}]
    assert "File exists" in bundle("spec", check=False).stderr


def test_zlayer_oci_is_zl_oci(bundle):
    """The words behind it are not the command line's own."""
    r = subprocess.run([BUILD / "src/bin/zlayer", "oci", "--root", bundle.state, "list", "-q", "--help"], capture_output=True, text=True,
                       timeout=20, check=True)
    assert "zl-oci" in r.stdout
    bundle.write("exit", "9")
    r = subprocess.run([BUILD / "src/bin/zlayer", "oci", "--root", bundle.state, "run", "-b", bundle.folder, "one"], timeout=20, check=False)
    assert r.returncode == 9


def test_without_groups(bundle):  # noqa: F811
    """crun's --cgroup-manager=disabled: the container is where the caller is, and limits are refused."""
    own = pathlib.Path("/proc/self/cgroup").read_text()
    linux = {**bundle.config["linux"], "namespaces": [n for n in bundle.config["linux"]["namespaces"] if n["type"] != "cgroup"]}
    bundle.write("cat", "/proc/self/cgroup", linux=linux)
    r = bundle("--cgroup-manager=disabled", "run", "c")
    assert r.stdout == own
    bundle.write("say", "it ran", linux={**linux, "resources": {"pids": {"limit": 5}}})
    r = bundle("--cgroup-manager=disabled", "run", "c", check=False)
    assert r.returncode == 1 and "linux.resources: --cgroup-manager is disabled, so there can be no limits" in r.stderr
    assert r.stdout == "" and not any(bundle.state.iterdir())


def test_a_unit_is_named_right(bundle):  # noqa: F811
    """What is wrong is told before systemd is asked, which need not be there."""
    for path, why in (("/a/b", "is not SLICE:PREFIX:NAME"), ("a.slice:b", "is not SLICE:PREFIX:NAME"), ("a:b:c:d", "is not SLICE:PREFIX:NAME"),
                      ("a.slice:b:", "is not SLICE:PREFIX:NAME"), ("a:b:c", "'a' is no name of a slice"), ("-a.slice:b:c", "no name of a slice"),
                      ("a--b.slice:b:c", "no name of a slice"), (".slice:b:c", "no name of a slice"), ("a/b.slice:b:c", "no name of a slice"),
                      ("a.slice:b:c/d", "no name of a systemd unit"), ("a.slice:b:c d", "no name of a systemd unit"),
                      ("a.slice:b:c.slice", "which holds no processes"), ("a.slice:b:" + "c" * 300, "no name of a systemd unit")):
        bundle.write("say", "it ran", linux={**bundle.config["linux"], "cgroupsPath": path})
        r = bundle("--systemd-cgroup", "run", "c", check=False)
        assert r.returncode == 1 and why in r.stderr and r.stdout == "", (path, r.stderr)
        assert not any(bundle.state.iterdir())
    for name, value, why in (("Tasks Max", "1", "three letters"), ("", "1", "three letters"), ("TasksMax", "uint64", "is no value"),
                             ("TasksMax", "'open", "is no value"), ("TasksMax", "[1, 'a']", "is no value"), ("TimeoutStopSec", "-1", "is no value")):
        bundle.write("say", "it ran", annotations={f"org.systemd.property.{name}": value})
        r = bundle("--systemd-cgroup", "run", "c", check=False)
        assert r.returncode == 1 and why in r.stderr and r.stdout == "", (name, value, r.stderr)
