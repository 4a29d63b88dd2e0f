"""podman, docker and containerd run their containers on zl-oci; what each was asked for is seen from inside the container."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

import engines
import leftovers
from conftest import need_root, wait_for
from engines import IMAGE

V1 = pathlib.Path("/sys/fs/cgroup/memory").is_dir()
LIMITS = {"memory": "/sys/fs/cgroup/memory/memory.limit_in_bytes", "pids": "/sys/fs/cgroup/pids/pids.max",
          "quota": "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "period": "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
          "shares": "/sys/fs/cgroup/cpu/cpu.shares"} if V1 else \
         {"memory": "/sys/fs/cgroup/memory.max", "pids": "/sys/fs/cgroup/pids.max", "quota": "/sys/fs/cgroup/cpu.max",
          "period": "/sys/fs/cgroup/cpu.max", "shares": "/sys/fs/cgroup/cpu.weight"}
DENY_MKDIR = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}


@pytest.fixture(scope="module")
def place():
    """A folder for all engines, with the image; at the end nothing of theirs is left on the machine."""
    need_root()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="zl-engines-", dir="/tmp"))
    folder.chmod(0o711)  # root of a user namespace is another user
    before = leftovers.snapshot()
    if not shutil.which("busybox"):
        pytest.skip("busybox is not installed (tools/setup test)")
    yield folder, engines.image(folder)
    shutil.rmtree(folder)
    leftovers.expect_none(before, ignore=["processes: went", "namespaces: went", "sockets: went", "mounts: went"])


def running(place, kind, program):
    if not os.path.exists(program):
        pytest.skip(f"{program} is not installed (tools/setup test)")
    folder, archive = place
    where = folder / kind.__name__.lower()
    where.mkdir()
    engine = kind(where, archive)
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def docker_daemon(place):
    yield from running(place, engines.Docker, "/usr/sbin/dockerd")


@pytest.fixture(scope="module")
def remapped_daemon(place):
    if not os.path.exists("/etc/subuid"):
        pytest.skip("there is no /etc/subuid (tools/setup test: uidmap)")
    yield from running(place, engines.RemappedDocker, "/usr/sbin/dockerd")


@pytest.fixture(scope="module")
def podman_store(place):
    yield from running(place, engines.Podman, "/usr/bin/podman")


@pytest.fixture(scope="module")
def containerd_daemon(place):
    yield from running(place, engines.Containerd, "/usr/bin/containerd")


@pytest.fixture(params=["docker", "podman"])
def engine(request):
    e = request.getfixturevalue({"docker": "docker_daemon", "podman": "podman_store"}[request.param])
    yield e
    e.clear()


@pytest.fixture
def docker(docker_daemon):
    yield docker_daemon
    docker_daemon.clear()


@pytest.fixture
def remapped(remapped_daemon):
    yield remapped_daemon
    remapped_daemon.clear()


@pytest.fixture
def podman(podman_store):
    yield podman_store
    podman_store.clear()


@pytest.fixture
def containerd(containerd_daemon):
    yield containerd_daemon
    containerd_daemon.clear()


def status_of(text):
    return {line.split(":", 1)[0]: line.split(":", 1)[1].split() for line in text.splitlines() if ":" in line}


def is_docker(engine):
    return isinstance(engine, engines.Docker)


def pid_of(engine, name):
    return int(engine.out("inspect", name, "--format", "{{.State.Pid}}"))


def is_frozen(pid):
    """What the kernel says of the group that a process is in."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "freezer":
            return pathlib.Path(f"/sys/fs/cgroup/freezer{path}/freezer.state").read_text() == "FROZEN\n"
    return "frozen 1" in pathlib.Path(f"/sys/fs/cgroup{path}/cgroup.events").read_text()


def test_run_and_its_exit_codes(engine):
    r = engine("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; echo wrong >&2; exit 9", stdin="typed\n", check=False)
    assert (r.stdout, r.stderr, r.returncode) == ("typed\n", "wrong\n", 9)
    # What the engines read in our messages makes their exit codes.
    for program, code in (("nosuch", 127), ("/nosuch", 127), ("/plain", 126)):
        assert engine("run", "--rm", IMAGE, program, check=False).returncode == code, program
    assert engine("run", "--rm", "--tmpfs", "/t:size=lots", IMAGE, "true", check=False).returncode in (125, 126)
    runtime = engine.out("info", "--format", "{{.DefaultRuntime}}" if is_docker(engine) else "{{.Host.OCIRuntime.Path}}")
    assert runtime in ("zl", str(engines.ZL_OCI))


def test_rights(engine):
    profile = engine.where / "seccomp.json"
    profile.write_text(json.dumps(DENY_MKDIR))
    look = "cat /proc/self/status; grep core /proc/self/limits; cat /proc/self/oom_score_adj; mkdir /tmp/new"
    r = engine("run", "--rm", "--user", "ann", "--group-add", "5", "--cap-drop", "all", "--cap-add", "chown", "--security-opt", "no-new-privileges",
               "--security-opt", f"seccomp={profile}", "--ulimit", "core=0:7", "--oom-score-adj", "333", IMAGE, "sh", "-c", look, check=False)
    seen = status_of(r.stdout)
    assert (seen["Uid"], seen["Gid"], set(seen["Groups"]) - {"1001"}) == (["1000"] * 4, ["1001"] * 4, {"5", "77"})
    # podman makes what it adds to a user's rights ambient
    expected = [1, 0, 0, 0] if is_docker(engine) else [1, 1, 1, 1]
    assert [int(seen[c][0], 16) for c in ("CapBnd", "CapEff", "CapPrm", "CapAmb")] == expected
    assert seen["NoNewPrivs"] == ["1"] and seen["Seccomp"] == ["2"]
    assert r.stdout.split()[-4:] == ["0", "7", "bytes", "333"] and "Operation not supported" in r.stderr and r.returncode == 1
    # With the engine's own profile, none, and root's capabilities as it gives them.
    default = status_of(engine.out("run", "--rm", IMAGE, "cat", "/proc/self/status"))
    assert default["Seccomp"] == ["2"] and default["NoNewPrivs"] == ["0"] and int(default["CapEff"][0], 16) & 0x21 == 0x21
    assert int(default["CapBnd"][0], 16) & 1 << 21 == 0  # no CAP_SYS_ADMIN
    free = status_of(engine.out("run", "--rm", "--security-opt", "seccomp=unconfined", "--cap-add", "sys_admin", IMAGE, "cat", "/proc/self/status"))
    assert free["Seccomp"] == ["0"] and int(free["CapBnd"][0], 16) & 1 << 21


def test_the_root_volumes_and_tmpfs(engine):
    host = engine.where / "host"
    host.mkdir()
    (host / "file").write_text("from the host\n")
    script = """touch /x; touch /ro/x; touch /rw/made; touch /t/x /dev/shm/x && echo written; cat /ro/file /data/in-image; echo more > /data/more
    mkdir /t/sub && cp /bin/busybox /t/run 2>/dev/null; /t/run true; pwd; hostname; echo $A $FROM_IMAGE; cat /proc/sys/net/ipv4/ip_forward
    stat -c %F:%t:%T /dev/mine; grep -E ' /(t|ro|data|dev/shm) ' /proc/self/mountinfo"""
    r = engine("run", "--rm", "--read-only", "-v", f"{host}:/ro:ro", "-v", f"{host}:/rw", "-v", "vol:/data", "--tmpfs", "/t:size=2m,mode=1777,noexec",
               "--shm-size", "3m", "--workdir", "/data", "--hostname", "web", "-e", "A=B", "--sysctl", "net.ipv4.ip_forward=1", "--device",
               "/dev/zero:/dev/mine", IMAGE, "sh", "-c", script)
    assert "touch: /x: Read-only file system" in r.stderr and "touch: /ro/x: Read-only file system" in r.stderr
    assert "/t/run: " in r.stderr and (host / "made").exists()
    lines = r.stdout.splitlines()
    assert lines[:8] == ["written", "from the host", "from the image", "/data", "web", "B yes", "1", "character special file:1:5"]
    mounts = {line.split()[4]: line for line in lines[8:]}
    assert "size=2048k" in mounts["/t"] and "noexec" in mounts["/t"] and "size=3072k" in mounts["/dev/shm"] and " ro," in mounts["/ro"]
    # The volume was filled from the image and keeps what was written.
    assert engine.out("run", "--rm", "-v", "vol:/data:ro", IMAGE, "cat", "/data/more", "/data/in-image") == "more\nfrom the image"
    engine("volume", "rm", "vol")


VOLUME = {"docker": lambda s, d, o: ("-v", f"{s}:{d}:{o}"), "podman": lambda s, d, o: ("-v", f"{s}:{d}:{o}"),
          "containerd": lambda s, d, o: ("--mount", f"type=bind,src={s},dst={d},options=rbind:{o}")}


@pytest.mark.parametrize("kind", VOLUME)
def test_mounts_spread_as_a_volume_says(kind, request):
    """One made on the machine shows in the container, one made in the container on the machine, both, or neither."""
    e = request.getfixturevalue(kind)
    shared = e.where / "shared"
    for folder in ("ours", "theirs", "plain"):
        (shared / folder).mkdir(parents=True)
    with e.mount_namespace() as inside:
        def run(*command, check=True):
            return subprocess.run([*inside, *map(str, command)], check=check, timeout=30, stdout=subprocess.PIPE, text=True).stdout

        run("mount", "-t", "tmpfs", "zl-test", shared)
        run("mount", "--make-shared", shared)
        run("mkdir", shared / "ours", shared / "theirs")
        for option, expected in (("rprivate", (False, False)), ("rslave", (True, False)), ("rshared", (True, True))):
            volume = VOLUME[kind](shared, "/v", option)
            if kind == "containerd":
                # docker and podman say by themselves that the root is shared, too, without which nothing goes out
                root = ["--rootfs-propagation", "shared"] if option == "rshared" else []
                e.run("one", "sleep", "1000", options=["-d", "--cap-add", "CAP_SYS_ADMIN", *root, *volume])
                call = e.exec
            else:
                e("run", "-d", "--name", "one", "--cap-add", "sys_admin", "--security-opt", "seccomp=unconfined", *volume, IMAGE, "sleep", "1000")
                call = lambda name, *command: e("exec", name, *command)  # noqa: E731
            run("mount", "-t", "tmpfs", "zl-test", shared / "ours")
            call("one", "mount", "-t", "tmpfs", "zl-test", "/v/theirs")
            seen = call("one", "cat", "/proc/self/mountinfo").stdout, run("cat", "/proc/self/mountinfo")
            assert (" /v/theirs " in seen[0], f" {shared}/ours " in seen[1]) == (True, True)
            assert (" /v/ours " in seen[0], f" {shared}/theirs " in seen[1]) == expected, option
            e.clear()
            run("umount", shared / "ours")
            run("sh", "-c", f"umount {shared}/theirs 2>/dev/null; true")
        run("umount", shared)


def test_limits_update_and_stats(engine):
    engine("run", "-d", "--name", "one", "--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5", "--cpu-shares", "512", "--pids-limit", "20", IMAGE,
           "sleep", "1000")

    def seen(what):
        return engine.out("exec", "one", "cat", LIMITS[what]).split()[0]

    assert (seen("memory"), seen("pids"), seen("quota")) == (str(64 << 20), "20", "50000")
    assert seen("shares") == "512" or not V1
    r = engine("exec", "one", "sh", "-c", "i=0; while [ $i -lt 40 ]; do sleep 30 & i=$((i+1)); done", check=False)
    assert "can't fork" in r.stderr and r.returncode != 0
    stats = json.loads(engine.out("stats", "--no-stream", "--format", "{{json .}}" if is_docker(engine) else "json", "one"))
    stats = stats if is_docker(engine) else stats[0]
    assert stats["PIDs" if is_docker(engine) else "pids"] in [str(n) for n in range(1, 21)]
    used = stats["MemUsage" if is_docker(engine) else "mem_usage"]
    assert ("64MiB" in used or "67.11MB" in used) and not used.startswith("0B")
    # A program that takes more than it may is killed, and the engine says so (podman on v1 never does).
    r = engine("run", "--name", "oom", "--memory", "32m", "--memory-swap", "32m", IMAGE, "/workload", "alloc", "100", check=False)
    assert r.returncode == 137
    assert engine.out("inspect", "oom", "--format", "{{.State.OOMKilled}}") == "true" or not is_docker(engine)
    assert engine.out("run", "--rm", "--memory", "32m", "--memory-swap", "32m", IMAGE, "/workload", "child-alloc", "100") == "child signal 9"


def test_update(engine):
    engine("run", "-d", "--name", "one", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "20", IMAGE, "sleep", "1000")
    engine("update", "--memory", "128m", "--memory-swap", "128m", "--cpu-quota", "30000", "--cpu-period", "60000", "--cpuset-cpus", "0", "one")
    look = "; ".join(f"cat {LIMITS[what]}" for what in ("memory", "pids", "quota", "period"))
    memory, pids, quota, period, cpus = engine.out("exec", "one", "sh", "-c", f"{look}; grep Cpus_allowed_list /proc/self/status").splitlines()
    assert (memory, pids, int(quota.split()[0]) / int(period.split()[-1]), cpus.split()[-1]) == (str(128 << 20), "20", 0.5, "0")
    engine("update", "--memory", "96m", "--cpu-quota", "120000", "one")
    memory, pids, quota, period = engine.out("exec", "one", "sh", "-c", look).splitlines()
    assert (memory, pids, int(quota.split()[0]) / int(period.split()[-1])) == (str(96 << 20), "20", 2)


@pytest.mark.skipif(not V1, reason="the files of cgroup v1")
def test_more_limits(engine):
    script = "grep Cpus_allowed_list /proc/self/status; cd /sys/fs/cgroup; cat memory/memory.soft_limit_in_bytes memory/memory.swappiness; " \
             "head -n 1 memory/memory.oom_control; cat cpu/cpu.shares cpuset/cpuset.mems"
    seen = engine.out("run", "--rm", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--memory", "50m", "--memory-reservation", "20m", "--memory-swappiness",
                      "7", "--oom-kill-disable", "--cpu-shares", "77", IMAGE, "sh", "-c", script).split()
    assert seen == ["Cpus_allowed_list:", "0", str(20 << 20), "7", "oom_kill_disable", "1", "77", "0"]


def test_a_life(engine):
    engine("run", "-d", "--name", "one", IMAGE, "sh", "-c", "trap 'echo told; exit 7' TERM; trap 'echo usr1' USR1; echo up; while true; do echo >> /tmp/beats; sleep 0.02; done")
    wait_for("it speaks", lambda: engine("logs", "one").stdout == "up\n")
    assert "sleep" in engine.out("top", "one")
    assert engine.out("exec", "-e", "X=y", "-u", "1000:5", "-w", "/tmp", "one", "sh", "-c", "echo $X; id -u; id -g; pwd").split() == ["y", "1000", "5", "/tmp"]
    assert engine("exec", "one", "sh", "-c", "exit 9", check=False).returncode == 9
    assert engine("exec", "-i", "one", "cat", stdin="piped\n").stdout == "piped\n"
    assert engine("exec", "one", "nosuch", check=False).returncode == (126 if is_docker(engine) else 127)
    assert engine("exec", "one", "/plain", check=False).returncode == 126
    engine("kill", "--signal", "USR1", "one")
    wait_for("the signal came", lambda: "usr1" in engine("logs", "one").stdout)
    engine("pause", "one")
    assert engine.out("inspect", "one", "--format", "{{.State.Status}}") == "paused"
    beats = pathlib.Path(f"/proc/{pid_of(engine, 'one')}/root/tmp/beats")
    assert is_frozen(pid_of(engine, "one"))
    before = beats.read_text()
    assert engine("exec", "one", "true", check=False).returncode != 0
    assert beats.read_text() == before
    engine("unpause", "one")
    assert engine.out("inspect", "one", "--format", "{{.State.Status}}") == "running"
    wait_for("it goes on", lambda: len(beats.read_text()) > len(before))
    engine("stop", "-t", "20", "one")
    assert engine.out("inspect", "one", "--format", "{{.State.Status}} {{.State.ExitCode}}") == "exited 7"
    assert engine("logs", "one").stdout.split() == ["up", "usr1", "told"]
    engine("start", "one")
    engine("restart", "-t", "20", "one")
    wait_for("it was told, and speaks again", lambda: engine("logs", "one").stdout.split() == ["up", "usr1", "told", "up", "told", "up"])
    # A command that nobody waits for, and one with all rights that the caller has.
    engine("exec", "-d", "one", "sh", "-c", "echo left > /tmp/left; exec sleep 1000")
    wait_for("it has run", lambda: engine.out("exec", "one", "sh", "-c", "cat /tmp/left || true") == "left")
    sets = [status_of(engine.out("exec", *more, "one", "cat", "/proc/self/status"))["CapEff"][0] for more in ((), ("--privileged",))]
    known = (1 << 38) - 1
    assert sets[0] != sets[1] and int(sets[1], 16) & known == int(status_of(pathlib.Path("/proc/self/status").read_text())["CapPrm"][0], 16) & known
    engine("kill", "one")
    assert engine.out("wait", "one") == "137"
    engine("rm", "one")
    # The grace of a stop ends: nobody waits for one that does not listen.
    engine("run", "-d", "--name", "deaf", IMAGE, "/workload", "until-signal", "10")
    engine("stop", "-t", "0", "deaf")
    assert engine.out("inspect", "deaf", "--format", "{{.State.ExitCode}}") == "137"


def test_terminals(engine):
    # run -it, left by its key, found again by attach
    t = engine.terminal("run", "-it", "--detach-keys", "ctrl-x", "--name", "one", IMAGE, "sh", rows=33, columns=99)
    t.expect("# ")
    t.ask("stty size", "33 99")
    t.ask("tty; echo $((40 + 2))", "/dev/pts/0\r\n42")
    t.type("\x18")
    assert t.end() == 0 and engine.out("inspect", "one", "--format", "{{.State.Status}}") == "running"
    t = engine.terminal("attach", "one", rows=20, columns=70)
    t.ask("stty size", "20 70")
    # exec -it, which follows its window, and whose keys are signals
    e = engine.terminal("exec", "-it", "one", "sh", rows=25, columns=85)
    e.expect("# ")
    e.ask("stty size", "25 85")
    e.resize(40, 120)
    e.ask("stty size", "40 120")
    e.type("echo li''stens; cat\n")
    e.expect("listens")
    e.ask("\x03", "# ", "")  # a shell that is about to run it takes no notice of the first
    e.type("echo sti''ll; exit 6\n")
    e.expect("still")
    assert e.end() == 6
    t.type("exit 5\n")
    assert t.end() == 5 or not is_docker(engine)
    assert engine.out("wait", "one") == "5"


def machine_segment(pid):
    """Makes a shared memory segment in that process's ipc namespace; the key it has."""
    key = 0x7a6c0000 + os.getpid() % 0x10000
    script = f"import ctypes; c = ctypes.CDLL(None); exit(c.shmget({key}, 4096, 0o1600) < 0)"
    subprocess.run(["nsenter", "--ipc", "--target", str(pid), "python3", "-c", script], check=True, timeout=30)
    return str(key)


def test_namespaces_are_shared(engine):
    look = "for n in pid ipc uts net mnt; do readlink /proc/self/ns/$n; done"
    engine("run", "-d", "--name", "one", "--ipc", "shareable", IMAGE, "sleep", "1000")
    ids = [dict(part.strip("]").split(":[") for part in engine.out(*args, IMAGE if args[0] == "run" else "one", "sh", "-c", look).split())
           for args in (("exec",), ("run", "--rm", "--pid", "container:one", "--ipc", "container:one"),
                        ("run", "--rm", "--pid", "host", "--ipc", "host", "--uts", "host"), ("run", "--rm"))]
    own, joined, host, other = ids
    assert [joined[n] == own[n] for n in ("pid", "ipc", "uts", "mnt")] == [True, True, False, False]
    machine = {n: os.readlink(f"/proc/self/ns/{n}").split("[")[1].strip("]") for n in own}
    assert [host[n] == machine[n] for n in ("pid", "ipc", "uts", "mnt")] == [True, True, True, False]
    assert len({other[n] for n in other} & ({own[n] for n in own} | {machine[n] for n in machine})) == 0
    # In one's pid namespace its program is seen and can be signalled.
    assert "sleep" in engine.out("run", "--rm", "--pid", "container:one", IMAGE, "ps")
    # A segment of one's is seen where its ipc namespace is.
    segment = machine_segment(pid_of(engine, "one"))
    look = ["cat", "/proc/sysvipc/shm"]
    assert segment in engine.out("run", "--rm", "--ipc", "container:one", IMAGE, *look).split()
    assert segment not in engine.out("run", "--rm", IMAGE, *look).split()


def test_health(engine):
    check = ["--health-cmd", "test -e /tmp/well", "--health-interval", "1s" if is_docker(engine) else "1h", "--health-retries", "1"]
    engine("run", "-d", "--name", "one", *check, IMAGE, "sh", "-c", "touch /tmp/well; sleep 1000")

    def health():
        if not is_docker(engine):  # without systemd it has no timers, and asks when it is told to
            return "healthy" if engine("healthcheck", "run", "one", check=False).returncode == 0 else "unhealthy"
        return engine.out("inspect", "one", "--format", "{{.State.Health.Status}}")

    wait_for("it is well", lambda: health() == "healthy")
    engine("exec", "one", "rm", "/tmp/well")
    wait_for("it is not", lambda: health() == "unhealthy")


def test_builds(engine):
    """The steps of a build are containers, too; buildah asks for ambient capabilities that can't be had."""
    context = engine.where / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo built > /made && chmod 600 /made\nUSER ann\nRUN id -u > /tmp/who\n")
    engine("build", "--network=none", "--tag", "built", *([] if is_docker(engine) else ["--isolation=oci", "--layers=false"]), context)
    assert engine.out("run", "--rm", "--user", "root", "built", "cat", "/made", "/tmp/who").split() == ["built", "1000"]
    engine("image", "rm", "built")


def test_privileged(engine):
    """All that the caller may give: what this machine's root lacks is left out."""
    seen = status_of(engine.out("run", "--rm", "--privileged", IMAGE, "cat", "/proc/self/status"))
    own = status_of(pathlib.Path("/proc/self/status").read_text())
    assert seen["CapEff"] == seen["CapBnd"] and seen["Seccomp"] == ["0"]
    known = (1 << 38) - 1  # docker 20.10 knows no later ones
    assert int(seen["CapEff"][0], 16) & known == int(own["CapPrm"][0], 16) & known
    script = "mount -t tmpfs tmpfs /tmp && grep -c ' /tmp ' /proc/self/mountinfo; [ -w /proc/sys/kernel/hostname ] && ls /dev | grep -c zero"
    assert engine.out("run", "--rm", "--privileged", IMAGE, "sh", "-c", script).split() == ["1", "1"]


def test_podman_pods_and_systemd(podman):
    podman("pod", "create", "--name", "pod", "--infra-image", IMAGE, "--infra-command", "/workload forever", "--network=none", "--hostname", "both",
           "--cgroup-parent", f"/{podman.group}")
    look = "hostname; for n in ipc uts pid; do readlink /proc/self/ns/$n; done"
    podman("run", "-d", "--pod", "pod", "--name", "one", IMAGE, "sleep", "1000")
    both = [podman.out(*args, "sh", "-c", look).split() for args in (("exec", "one"), ("run", "--rm", "--pod", "pod", IMAGE))]
    assert both[0][0] == "both" and both[0][:3] == both[1][:3] and both[0][3] != both[1][3]
    podman("pod", "rm", "--force", "--time", "0", "pod")
    # What a systemd in there would need
    seen = podman.out("run", "--rm", "--systemd=always", IMAGE, "sh", "-c", "echo $container; cat /proc/self/mountinfo").splitlines()
    assert seen[0] == "podman" and {"/run", "/tmp", "/var/log/journal"} <= {line.split()[4] for line in seen[1:]}
    assert not V1 or any(line.split()[4] == "/sys/fs/cgroup/systemd" for line in seen[1:])


def test_docker_takes_it_by_name(remapped):
    """Where another is the default (here with a user namespace): the whole life of one container."""
    assert remapped.out("info", "--format", "{{.DefaultRuntime}}") == "runc"
    remapped("run", "-d", "--name", "one", "--memory", "64m", "--pids-limit", "20", "--read-only", "--tmpfs", "/tmp", "--health-cmd", "test -e /tmp/well",
             "--health-interval", "1s", IMAGE, "sh", "-c", "trap 'exit 7' TERM; touch /tmp/well; while true; do echo >> /tmp/beats; sleep 0.02; done")
    assert remapped.out("inspect", "one", "--format", "{{.HostConfig.Runtime}}") == "zl"
    states = [json.loads(p.read_text()) for p in (remapped.where / "exec").glob("runtime-*/moby/*/state.json")]
    assert [s["pid"] for s in states] == [pid_of(remapped, "one")]  # ours, so it is zl-oci that has made it
    wait_for("it is well", lambda: remapped.out("inspect", "one", "--format", "{{.State.Health.Status}}") == "healthy")
    remapped("update", "--memory", "96m", "--memory-swap", "96m", "one")
    seen = remapped("exec", "one", "sh", "-c", f"cat {LIMITS['memory']} {LIMITS['pids']}; touch /x || true")
    assert seen.stdout.split() == [str(96 << 20), "20"] and "Read-only file system" in seen.stderr
    e = remapped.terminal("exec", "-it", "one", "sh")
    e.expect("# ")
    e.ask("tty", "/dev/pts/0")
    e.type("exit 4\n")
    assert e.end() == 4
    assert json.loads(remapped.out("stats", "--no-stream", "--format", "{{json .}}", "one"))["MemUsage"].endswith("/ 96MiB")
    remapped("pause", "one")
    assert is_frozen(pid_of(remapped, "one"))
    remapped("unpause", "one")
    remapped("stop", "-t", "20", "one")
    assert remapped.out("inspect", "one", "--format", "{{.State.ExitCode}}") == "7"
    t = remapped.terminal("run", "-it", "--detach-keys", "ctrl-x", "--name", "two", IMAGE, "sh")
    t.expect("# ")
    t.type("\x18")
    assert t.end() == 0
    t = remapped.terminal("attach", "two")
    t.ask("echo at''tached", "attached")
    t.type("exit 5\n")
    assert t.end() == 5


def test_podman_takes_it_by_name(podman):
    """Of containers.conf, where it is told that our log is JSON, and that we can do without groups."""
    assert podman.client[-2] == "--runtime"
    podman.client, by_path = podman.client[:-2], podman.client
    try:
        assert podman.out("info", "--format", "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}") == f"zl-oci {engines.ZL_OCI}"
        podman("run", "-d", "--name", "one", "--memory", "64m", IMAGE, "sleep", "1000")
        assert podman.out("inspect", "one", "--format", "{{.OCIRuntime}}") == "zl-oci"
        assert podman.out("exec", "one", "cat", LIMITS["memory"]) == str(64 << 20)
        podman.clear()
        # Without groups: it is in the caller's, and is stopped all the same.
        podman.run_options = podman.run_options[:-2]
        podman("run", "-d", "--name", "one", "--cgroups", "disabled", "--read-only", IMAGE, "sleep", "1000")
        groups = [pathlib.Path(f"/proc/{pid}/cgroup").read_text() for pid in (pid_of(podman, "one"), "self")]
        assert groups[0] == groups[1] and podman("exec", "one", "touch", "/x", check=False).returncode == 1
        pid = pid_of(podman, "one")
        podman("stop", "-t", "0", "one")
        assert not os.path.exists(f"/proc/{pid}")
        podman.clear()
    finally:
        podman.run_options = (*podman.run_options[:len(type(podman).run_options)], "--cgroup-parent", f"/{podman.group}")
        podman.client = by_path


def test_podman_passes_sockets_on(podman):
    """A service that systemd would start at its first connection: podman gives us the socket, and we the container."""
    command = podman.command("run", "--rm", IMAGE, "sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; readlink /proc/self/fd/3")
    script = "import os, socket, sys; s = socket.create_server(('127.0.0.1', 0)); os.dup2(s.fileno(), 3); os.set_inheritable(3, True); " \
             "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execvp(sys.argv[1], sys.argv[1:])"
    r = subprocess.run(["python3", "-c", script, *command], env=podman.env, cwd=podman.where, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert r.stdout.splitlines()[0] == "1 1" and r.stdout.splitlines()[1].startswith("socket:"), r


MAPPED = ["--uidmap", "0:300000:5000", "--gidmap", "0:400000:5000"]
WHO = "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g; stat -c %u:%g /data/in-image; touch /tmp/x; stat -c %u:%g /tmp/x"


def who(text):
    words = text.split()
    return words[:3], words[3:6], words[6:]


def user_namespace(pid):
    return os.readlink(f"/proc/{pid}/ns/user")


def test_podman_in_user_namespaces(podman):
    podman("run", "-d", "--name", "one", *MAPPED, "--user", "ann", "--memory", "64m", "-v", "vol:/data", "--tmpfs", "/t:mode=1777", IMAGE, "sleep", "1000")
    expected = (["0", "300000", "5000"], ["0", "400000", "5000"])
    assert who(podman.out("exec", "one", "sh", "-c", WHO)) == (*expected, ["1000", "1001", "0:0", "1000:1001"])
    assert user_namespace(pid_of(podman, "one")) != user_namespace("self")
    assert os.stat(f"/proc/{pid_of(podman, 'one')}").st_uid == 301000
    assert podman.out("exec", "one", "sh", "-c", f"touch /t/x && cat {LIMITS['memory']}") == str(64 << 20)
    # Its terminal is its user's, whoever that is outside.
    e = podman.terminal("exec", "-it", "one", "sh")
    e.expect("$ ")
    e.ask("stat -c %u:%a:owner $(tty)", "1000:620:owner")
    e.type("exit 3\n")
    assert e.end() == 3
    joined = podman.out("run", "--rm", "--userns", "container:one", IMAGE, "sh", "-c", f"readlink /proc/self/ns/user; {WHO}").split("\n", 1)
    assert joined[0] == user_namespace(pid_of(podman, "one")) and who(joined[1]) == (*expected, ["0", "0", "0:0", "0:0"])
    assert podman.out("run", "--rm", "--userns", "host", IMAGE, "readlink", "/proc/self/ns/user") == user_namespace("self")
    podman.remove("one")
    podman("volume", "rm", "vol")


def test_docker_in_user_namespaces(remapped):
    remapped("run", "-d", "--name", "one", "--user", "ann", "--memory", "64m", "-v", "vol:/data", "--tmpfs", "/t:mode=1777", IMAGE, "sleep", "1000")
    ids = ["0", "300000", "65536"]
    assert who(remapped.out("exec", "one", "sh", "-c", WHO)) == (ids, ids, ["1000", "1001", "0:0", "1000:1001"])
    assert os.stat(f"/proc/{pid_of(remapped, 'one')}").st_uid == 301000
    assert remapped.out("exec", "one", "sh", "-c", f"touch /t/x && cat {LIMITS['memory']}") == str(64 << 20)
    t = remapped.terminal("run", "-it", "--rm", "--user", "ann", IMAGE, "sh")
    t.expect("$ ")
    t.ask("stat -c %u:%a:owner $(tty)", "1000:620:owner")
    t.type("exit 3\n")
    assert t.end() == 3
    assert remapped.out("run", "--rm", "--userns", "host", IMAGE, "readlink", "/proc/self/ns/user") == user_namespace("self")


def test_containerd_in_user_namespaces(containerd):
    r = containerd.run("one", "sh", "-c", WHO.replace("$", ""), options=["--rm", *MAPPED])
    assert who(r.stdout) == (["0", "300000", "5000"], ["0", "400000", "5000"], ["0", "0", "0:0", "0:0"])


def test_containerd_rights_limits_and_files(containerd):
    """One container with what ctr can ask for, from inside."""
    profile, host = containerd.where / "seccomp.json", containerd.where / "host"
    profile.write_text(json.dumps(DENY_MKDIR))
    host.mkdir()
    (host / "file").write_text("from the host\n")
    script = f"""cat /proc/self/status; touch /x; touch /ro/x; cat /ro/file; df -k /t | tail -n 1; pwd; echo $A; cat {LIMITS['memory']} {LIMITS['quota']}
    mkdir /t/new"""
    script = re.sub("/sys/fs/cgroup/([a-z]+/)?", fr"/cg/\1{containerd.group}/one/", script)  # ctr mounts none
    r = containerd.run("one", "sh", "-c", script, call=lambda *args: containerd(*args, check=False), options=[
        "--rm", "--read-only", "--cap-drop", "CAP_CHOWN", "--cap-add", "CAP_SYS_TIME", "--seccomp", "--seccomp-profile", profile, "--memory-limit",
        64 << 20, "--cpus", "0.5", "--mount", f"type=bind,src={host},dst=/ro,options=rbind:ro", "--mount", "type=bind,src=/sys/fs/cgroup,dst=/cg,options=rbind:ro",
        "--mount", "type=tmpfs,src=tmpfs,dst=/t,options=size=2m",
        "--env", "A=B", "--cwd", "/data"])
    seen = status_of(r.stdout)
    rights = int(seen["CapEff"][0], 16)
    assert (rights & 1, rights >> 25 & 1, rights >> 5 & 1) == (0, 1, 1) and seen["NoNewPrivs"] == ["1"] and seen["Seccomp"] == ["2"]
    assert "touch: /x: Read-only file system" in r.stderr and "touch: /ro/x: Read-only file system" in r.stderr
    assert "mkdir: can't create directory '/t/new': Operation not supported" in r.stderr and r.returncode == 1
    lines = r.stdout.splitlines()
    at = lines.index("from the host")
    assert lines[at + 1].split()[1] == "2048" and lines[at + 2:at + 5] == ["/data", "B", str(64 << 20)] and lines[at + 5].split()[0] == "50000"


def test_containerd_a_life(containerd):
    for command, code in ((["/workload", "exit", "9"], 9), (["nosuch"], 1), (["/plain"], 1)):
        r = containerd.run("short", *command, options=["--rm"], call=lambda *args: containerd(*args, check=False))
        assert r.returncode == code, r.stderr
        assert code == 9 or command[0] in r.stderr
    containerd.run("one", "sh", "-c", "trap 'exit 7' TERM; while true; do sleep 0.02; done", options=["-d"])
    assert containerd.out("task", "ls").split()[-3:] == ["one", containerd.out("task", "ls").split()[-2], "RUNNING"]
    r = containerd.exec("one", "sh", "-c", "id -u; id -g; pwd; exit 4", options=["--user", "ann", "--cwd", "/tmp"],
                        call=lambda *args: containerd(*args, check=False))
    assert (r.stdout.split(), r.returncode) == (["1000", "1001", "/tmp"], 4)
    assert len(containerd.out("task", "ps", "one").splitlines()) >= 2
    metrics = json.loads(containerd.out("task", "metrics", "--format", "json", "one"))
    assert metrics["pids"]["current"] in (1, 2) and metrics["memory"]["usage"]["usage"] > 4096 and metrics["cpu"]["usage"]["total"] > 1000000 \
        if V1 else metrics["pids"]["current"] in (1, 2)
    pid = containerd.out("task", "ls").split()[-2]
    containerd("task", "pause", "one")
    assert "PAUSED" in containerd.out("task", "ls") and is_frozen(pid)
    containerd("task", "resume", "one")
    assert not is_frozen(pid)
    # It shares its namespaces with another.
    look = "for n in pid ipc uts mnt; do readlink /proc/self/ns/$n; done"
    both = [containerd.exec("one", "sh", "-c", look).stdout.split(),
            containerd.run("two", "sh", "-c", look, options=["--rm", "--with-ns", f"pid:/proc/{pid}/ns/pid", "--with-ns", f"ipc:/proc/{pid}/ns/ipc"]).stdout.split()]
    assert [a == b for a, b in zip(*both)] == [True, True, False, False]
    containerd("task", "kill", "--signal", "TERM", "one")
    wait_for("it has ended", lambda: "STOPPED" in containerd.out("task", "ls"))
    assert "exit code 7" in containerd("task", "delete", "one").stderr
    containerd.run("all", "sh", "-c", "sleep 1000 & sleep 1000 & wait", options=["-d"])
    containerd("task", "kill", "--all", "--signal", "KILL", "all")
    wait_for("it has ended", lambda: "STOPPED" in containerd.out("task", "ls"))


def test_containerd_terminals(containerd):
    t = containerd.run("one", "sh", options=["--tty"], call=containerd.terminal)
    t.expect("# ")
    t.ask("tty", "/dev/pts/0")
    t.resize(33, 99)
    t.ask("stty size", "33 99")
    e = containerd.exec("one", "sh", options=["--tty"], call=containerd.terminal)
    e.expect("# ")
    e.ask("tty", "/dev/pts/1")
    e.type("exit 6\n")
    assert e.end() == 6
    a = containerd.terminal("task", "attach", "one")
    a.ask("echo at''tached", "attached")
    a.type("exit 5\n")
    assert a.end() == 5 and t.end() is not None  # the first to see the end deletes the task
