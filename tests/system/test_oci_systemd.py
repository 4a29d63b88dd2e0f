"""zl-oci's systemd driver, where systemd is PID 1 (tools/run-guest-systemd): what systemd shows, what the kernel's files say,
and that neither keeps anything of a container that has gone."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile

import pytest

from conftest import BUILD, SLOW, wait_for
from test_oci import bundle  # noqa: F401  pylint: disable=unused-import

# They change users, policies and units of the machine, so that it has to be the guest's.
if not os.environ.get("ZL_OCI_SYSTEMD") or not pathlib.Path("/run/systemd/system").is_dir():
    pytest.skip("this is not the guest with systemd as PID 1 (tools/run-guest-systemd)", allow_module_level=True)

ZL_OCI = BUILD / "src/ocirun/zl-oci"
CGROUP = pathlib.Path("/sys/fs/cgroup")
V2 = (CGROUP / "cgroup.controllers").exists()
USER = "zltest"
need_v2 = pytest.mark.skipif(not V2, reason="the files are those of cgroup v2")


def systemctl(*args, check=True, user=()):
    r = subprocess.run([*user, "systemctl", *args], text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=60 * SLOW, check=False)
    assert not check or r.returncode == 0, (args, r.stdout, r.stderr)
    return r.stdout


def show(unit, *names, user=()):
    args = ["--user"] if user else []
    lines = systemctl(*args, "show", unit, *(f"-p{n}" for n in names), user=user).splitlines()
    values = dict(line.split("=", 1) for line in lines)
    return [values[n] for n in names] if len(names) > 1 else values[names[0]]


def loaded(unit, user=()):
    args = ["--user"] if user else []
    return unit in systemctl(*args, "list-units", "--all", "--plain", "--no-legend", user=user)


def in_files(unit):
    """Below any hierarchy."""
    return [str(p) for top in ([CGROUP] if V2 else CGROUP.iterdir()) for p in pathlib.Path(top).rglob(unit)]


def nothing_of(unit):
    wait_for(f"{unit} is forgotten", lambda: not loaded(unit))
    assert in_files(unit) == [] and not pathlib.Path("/run/systemd/transient", unit).exists()


@pytest.fixture
def box(bundle):  # noqa: F811
    """A bundle whose containers are systemd's; c is zl-oci-c.scope unless its path says otherwise."""
    def make(*args, unit="zl-oci-c.scope", path="", resources=None, **members):
        bundle.units.append(unit)
        linux = {**bundle.config["linux"], **({"cgroupsPath": path} if path else {}), "resources": resources or {}}
        bundle.write(*(args or ("forever",)), linux=linux, **members)
        bundle.ids.append("c")
        with open(bundle.folder / "c.out", "w") as out:
            r = subprocess.run([ZL_OCI, "--root", bundle.state, "--systemd-cgroup", "run", "-d", "c"], cwd=bundle.folder, stdin=subprocess.DEVNULL,
                               stdout=out, stderr=out, timeout=60 * SLOW, check=False)
        assert r.returncode == 0, bundle.out()
        group = CGROUP if V2 else CGROUP / "memory"
        return group / show(unit, "ControlGroup").lstrip("/")

    bundle.make, bundle.units = make, []
    yield bundle
    for name in set(bundle.ids):
        bundle("delete", "--force", name, check=False)
    for unit in set(bundle.units):
        nothing_of(unit)


ALL = {"memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20}, "pids": {"limit": 33},
       "cpu": {"quota": 30000, "period": 60000, "shares": 512, "cpus": "0", "mems": "0"}}


@need_v2
def test_a_scope(box):
    group = box.make("cat", "/proc/self/cgroup", "cat", "/sys/fs/cgroup/memory.max", "forever", resources=ALL,
                     mounts=[*box.config["mounts"], {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}])
    assert group == CGROUP / "system.slice/zl-oci-c.scope"
    names = ("ActiveState", "Slice", "Delegate", "DefaultDependencies", "Description", "Transient", "MemoryMax", "MemoryLow", "MemorySwapMax",
             "TasksMax", "CPUWeight", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "AllowedCPUs", "AllowedMemoryNodes")
    assert show("zl-oci-c.scope", *names) == ["active", "system.slice", "yes", "no", "zl-oci container c", "yes", str(64 << 20), str(32 << 20),
                                              str(32 << 20), "33", "20", "500ms", "60ms", "0", "0"]
    files = {"memory.max": str(64 << 20), "memory.low": str(32 << 20), "memory.swap.max": str(32 << 20), "pids.max": "33", "cpu.max": "30000 60000",
             "cpu.weight": "20", "cpuset.cpus": "0"}
    assert {f: (group / f).read_text().strip() for f in files} == files
    wait_for("it has looked around", lambda: len(box.out().splitlines()) == 2)
    assert box.out().splitlines() == ["0::/", str(64 << 20)]
    pid = json.loads(box("state", "c").stdout)["pid"]
    assert (group / "cgroup.procs").read_text().split() == [str(pid)]
    # systemd writes its own again, and changes nothing.
    systemctl("daemon-reload")
    assert {f: (group / f).read_text().strip() for f in files} == files
    assert show("zl-oci-c.scope", "MemoryMax", "TasksMax") == [str(64 << 20), "33"]
    box("delete", "--force", "c")
    nothing_of("zl-oci-c.scope")


@need_v2
def test_update(box):
    group = box.make(resources=ALL)
    box("update", "--memory", 80 << 20, "--memory-swap", 80 << 20, "--cpu-quota", 12345, "--pids-limit", -1, "--cpu-share", 2048, "c")
    files = {"memory.max": str(80 << 20), "memory.swap.max": "0", "pids.max": "max", "cpu.weight": "79", "memory.low": str(32 << 20)}
    assert {f: (group / f).read_text().strip() for f in files} == files and (group / "cpu.max").read_text() == "12345 60000\n"
    # systemd has whole percents; it is told the next that is no less.
    names = ("MemoryMax", "MemorySwapMax", "TasksMax", "CPUWeight", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec")
    assert show("zl-oci-c.scope", *names) == [str(80 << 20), "0", "infinity", "79", "210ms", "60ms"]
    systemctl("daemon-reload")
    assert {f: (group / f).read_text().strip() for f in files} == files
    # What is refused is neither in the files nor with systemd.
    before = show("zl-oci-c.scope", *names)
    r = box("update", "--pids-limit", "7", "--cpuset-cpus", "9999", "c", check=False)
    assert r.returncode == 1 and "cpu.cpus" in r.stderr
    assert show("zl-oci-c.scope", *names) == before and (group / "pids.max").read_text() == "max\n"
    r = subprocess.run([ZL_OCI, "--root", box.state, "update", "-r", "-", "c"], text=True, timeout=60 * SLOW, check=False,
                       input=json.dumps({"unified": {"memory.high": str(50 << 20), "pids.max": "44", "cpu.max": "max"}}))
    assert r.returncode == 0 and (group / "memory.high").read_text() == f"{50 << 20}\n" and (group / "cpu.max").read_text().startswith("max ")
    assert show("zl-oci-c.scope", "MemoryHigh", "TasksMax", "CPUQuotaPerSecUSec") == [str(50 << 20), "44", "infinity"]


def test_names_and_slices(box):
    for path, unit, where in (("zla-b.slice:pre:name", "pre-name.scope", "/zla.slice/zla-b.slice/pre-name.scope"),
                              (":pre:name", "pre-name.scope", "/system.slice/pre-name.scope"), ("-:pre:name", "pre-name.scope", "/pre-name.scope"),
                              ("zla.slice::name", "name.scope", "/zla.slice/name.scope"),
                              ("::cpu", "cpu.scope", "/system.slice/_cpu.scope"), ("zla.slice::na_me.scope", "na_me.scope", "/zla.slice/na_me.scope")):
        box.make(unit=unit, path=path)
        assert show(unit, "ControlGroup") == where
        box("delete", "--force", "c")
        nothing_of(unit)
    systemctl("stop", "zla.slice")


def test_properties_of_the_user(box):
    box.make(resources={"pids": {"limit": 10}}, annotations={
        "org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.CollectMode": "'inactive'", "org.systemd.property.TasksMax": "uint64 55",
        "org.systemd.property.Before": "['sysinit.target', \"basic.target\"]", "org.systemd.property.SendSIGHUP": "true", "other": "x"})
    assert show("zl-oci-c.scope", "TimeoutStopUSec", "CollectMode", "TasksMax", "SendSIGHUP") == ["7s", "inactive", "55", "yes"]
    assert {"sysinit.target", "basic.target"} <= set(show("zl-oci-c.scope", "Before").split())


def refused(box, why, **members):
    box.write("say", "it ran", **members)
    r = box("--systemd-cgroup", "run", "c", check=False)
    assert r.returncode == 1 and why in r.stderr and "it ran" not in r.stdout, (why, r.stdout, r.stderr)
    lines = [line for line in r.stderr.splitlines() if not line.startswith("hint: ")]
    assert len(lines) == 1, r.stderr
    assert not box.state.exists() or not any(box.state.iterdir())
    nothing_of("zl-oci-c.scope")


def test_what_systemd_refuses(box):
    refused(box, "NoSuchThing", annotations={"org.systemd.property.NoSuchThing": "true"})
    refused(box, "systemd could not start zl-oci-c.scope", annotations={"org.systemd.property.TasksMax": "'many'"})
    # What fails when the scope is there takes it along.
    refused(box, "cpu.cpus: write '9999'", linux={**box.config["linux"], "resources": {"cpu": {"cpus": "9999"}}})
    refused(box, "/none", process={**box.config["process"], "cwd": "/none"})
    refused(box, "mount /x", mounts=[*box.config["mounts"], {"destination": "/x", "type": "nofs", "source": "x"}])
    # A policy of the bus.
    policy = pathlib.Path("/etc/dbus-1/system.d/zl-test.conf")
    policy.write_text('<busconfig><policy user="root"><deny send_destination="org.freedesktop.systemd1" '
                      'send_interface="org.freedesktop.systemd1.Manager" send_member="StartTransientUnit"/></policy></busconfig>')
    try:
        systemctl("reload", "dbus")
        refused(box, "systemd could not start zl-oci-c.scope")
    finally:
        policy.unlink()
        systemctl("reload", "dbus")


def test_without_a_bus(box):
    """Nothing of /run is seen: neither the bus nor systemd's own socket."""
    box.write("say", "it ran")
    script = f"mount -t tmpfs none /run && exec {ZL_OCI} --root {box.state} --systemd-cgroup run c"
    r = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=box.folder, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=60 * SLOW, check=False)
    assert r.returncode == 1 and "zl-oci: reach systemd over the system bus: " in r.stderr and r.stdout == ""
    assert not any(box.state.iterdir())


def test_a_unit_that_is_there(box):
    box.make()
    pid = json.loads(box("state", "c").stdout)["pid"]
    path = ":zl-oci:c"
    box.write("say", "it ran", linux={**box.config["linux"], "cgroupsPath": path})
    r = box("--systemd-cgroup", "run", "other", check=False)
    assert r.returncode == 1 and "zl-oci-c.scope" in r.stderr and "already" in r.stderr and "it ran" not in r.stdout
    assert json.loads(box("state", "c").stdout)["status"] == "running" and show("zl-oci-c.scope", "ActiveState") == "active"
    assert os.listdir(box.state) == ["c"] and pathlib.Path(f"/proc/{pid}").exists()


def test_its_end(box):
    """The program ends by itself: nothing is left, whether it is deleted or was run to its end."""
    box.write("exit", "3")
    r = box("--systemd-cgroup", "run", "c", check=False)
    assert r.returncode == 3
    nothing_of("zl-oci-c.scope")
    box.write("forever")
    pid = box_create(box)
    box("start", "c")
    os.kill(pid, signal.SIGKILL)
    wait_for("it has stopped", lambda: box.status() == "stopped")
    box("delete", "c")
    nothing_of("zl-oci-c.scope")


def box_create(box, env=None, check=True):
    with open(box.folder / "c.out", "w") as out:
        r = subprocess.run([ZL_OCI, "--root", box.state, "--systemd-cgroup", "create", "--pid-file", box.folder / "c.pid", "c"], cwd=box.folder,
                           stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60 * SLOW, check=False, env={**os.environ, **(env or {})})
    if not check:
        return r.returncode
    assert r.returncode == 0, box.out()
    return int((box.folder / "c.pid").read_text())


@pytest.mark.parametrize("phase", ["oci.unit.planned", "oci.unit.started", "oci.unit.limited", "shim.attached"])
def test_it_is_killed_while_it_creates(box, phase):
    box.write("forever")
    box.ids.append("c")
    assert box_create(box, {"ZLAYER_CRASH_AT": phase}, check=False) == -signal.SIGKILL
    assert box.status() == "stopped"
    box("delete", "--force", "c")
    assert not any(box.state.iterdir())
    nothing_of("zl-oci-c.scope")
    box_create(box)  # and its name is free again
    assert box.status() == "created"


def test_the_other_verbs(box):
    """None is told of the driver again: the state knows."""
    group = box.make(resources={"memory": {"limit": 64 << 20}, "pids": {"limit": 30}})
    r = box("exec", "c", "/workload", "cat", "/proc/self/cgroup", "exit", "7", check=False)
    assert r.returncode == 7 and (r.stdout == "0::/\n" if V2 else "zl-oci-c.scope" not in r.stdout.split("\n")[0])
    subprocess.run([ZL_OCI, "--root", box.state, "exec", "-d", "c", "/workload", "forever"], check=True, timeout=60 * SLOW,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pids = json.loads(box("ps", "-f", "json", "c").stdout)
    assert len(pids) == 2 and sorted(map(int, (group / "cgroup.procs").read_text().split())) == sorted(pids)
    box("pause", "c")
    assert box.status() == "paused"
    box("resume", "c")
    assert box.status() == "running"
    data = json.loads(box("events", "--stats", "c").stdout)["data"]
    assert data["memory"]["usage"]["limit"] == 64 << 20 and data["pids"]["current"] == 2
    box("pause", "c")
    box("delete", "--force", "c")  # what is frozen, too
    nothing_of("zl-oci-c.scope")
    assert not any(pathlib.Path(f"/proc/{p}").exists() for p in pids)


def test_groups_below(box):
    """A container that makes groups of its own, as one with a systemd inside does."""
    if not V2:
        pytest.skip("on v1 a container's groups are not delegated")
    group = box.make()
    (group / "inner/deeper").mkdir(parents=True)
    pid = json.loads(box("state", "c").stdout)["pid"]
    (group / "inner/deeper/cgroup.procs").write_text(str(pid))
    systemctl("daemon-reload")
    assert (group / "inner/deeper/cgroup.procs").read_text().split() == [str(pid)] and box.status() == "running"
    box("delete", "--force", "c")
    nothing_of("zl-oci-c.scope")


def test_devices_stay_closed(box):
    """The rules hold after systemd has written what it knows."""
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}]
    box.make(resources={"devices": rules})
    pid = json.loads(box("state", "c").stdout)["pid"]
    for name, minor in (("fuse", 229), ("tun", 200)):
        os.mknod(f"/proc/{pid}/root/dev/{name}", 0o20666, os.makedev(10, minor))
    for reload in (["daemon-reload"], ["set-property", "--runtime", "zl-oci-c.scope", "TasksMax=77"], []):
        out = box("exec", "c", "/workload", "cat", "/dev/null", "cat", "/dev/fuse", "cat", "/dev/tun", "cat", "/dev/urandom.not").stdout
        assert out == "/dev/tun: Operation not permitted\n/dev/urandom.not: No such file or directory\n", out
        if reload:
            systemctl(*reload)


# --- an ordinary user, with a systemd of the own -----------------------------------------------------------------------------


class Rootless:
    def __init__(self, folder, uid):
        self.folder, self.uid = folder, uid
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_RUNTIME_DIR": f"/run/user/{uid}"}
        self.user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--init-groups", "env", *(f"{k}={v}" for k, v in self.env.items())]
        for name in ("rootfs/proc", "rootfs/dev", "rootfs/sys", "rootfs/tmp"):
            (folder / name).mkdir(parents=True)
        shutil.copy(BUILD / "tests/programs/workload", folder / "rootfs/workload")
        subprocess.run([ZL_OCI, "spec", "--rootless", "-b", folder], check=True, timeout=60 * SLOW)
        self.config = json.loads((folder / "config.json").read_text())
        own = [{"containerID": 0, "hostID": uid, "size": 1}]
        self.config["linux"].update(uidMappings=own, gidMappings=own)
        subprocess.run(["chown", "-R", f"{uid}:{uid}", folder], check=True)

    def __call__(self, *args, check=True, user=None):
        with open(self.folder / "out", "w+") as out:
            r = subprocess.run([*(user or self.user), ZL_OCI, *map(str, args)], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out,
                               stderr=subprocess.STDOUT, timeout=60 * SLOW, check=False)
            out.seek(0)
            r.stdout = out.read()
        assert not check or r.returncode == 0, (args, r.returncode, r.stdout)
        return r

    def write(self, *args, **linux):
        self.config["process"]["args"] = ["/workload", *map(str, args)]
        (self.folder / "config.json").write_text(json.dumps({**self.config, "linux": {**self.config["linux"], **linux}}))


@pytest.fixture
def rootless(tmp_path_factory):
    if not V2:
        pytest.skip("a user's systemd manages cgroups v2 only")
    uid = int(subprocess.run(["id", "-u", USER], check=True, capture_output=True, text=True).stdout)
    wait_for("the user's systemd runs", lambda: pathlib.Path(f"/run/user/{uid}/systemd/private").exists(), 30)
    folder = tmp_path_factory.mktemp("rootless")
    for p in (folder, *list(folder.parents)[:2]):
        p.chmod(0o755)
    r = Rootless(folder, uid)
    yield r
    r("delete", "--force", "c", check=False)
    wait_for("its unit is gone", lambda: not loaded("zl-oci-c.scope", user=r.user))
    assert in_files("zl-oci-c.scope") == []


def test_an_ordinary_user(rootless):
    rootless.write("cat", "/proc/self/cgroup", "forever", resources={"memory": {"limit": 64 << 20}, "pids": {"limit": 33}})
    rootless("--systemd-cgroup", "run", "-d", "c")
    unit = "zl-oci-c.scope"
    assert show(unit, "ActiveState", "Slice", "MemoryMax", "TasksMax", user=rootless.user) == ["active", "user.slice", str(64 << 20), "33"]
    group = CGROUP / show(unit, "ControlGroup", user=rootless.user).lstrip("/")
    assert f"user@{rootless.uid}.service" in str(group)
    assert (group / "memory.max").read_text() == f"{64 << 20}\n" and (group / "pids.max").read_text() == "33\n"
    # The caller is in a group of root's, from which nobody else may move a process: systemd does.
    r = rootless("exec", "c", "/workload", "cat", "/proc/self/cgroup")
    assert r.stdout == "0::/\n"
    rootless("update", "--memory", 80 << 20, "--pids-limit", "44", "c")
    assert show(unit, "MemoryMax", "TasksMax", user=rootless.user) == [str(80 << 20), "44"]
    assert (group / "memory.max").read_text() == f"{80 << 20}\n" and (group / "pids.max").read_text() == "44\n"
    rootless("pause", "c")
    assert json.loads(rootless("state", "c").stdout)["status"] == "paused"
    rootless("resume", "c")
    rootless("delete", "--force", "c")
    assert not group.exists() and not loaded(unit, user=rootless.user)


def test_an_ordinary_user_without_a_systemd(rootless):
    rootless.write("say", "it ran")
    nowhere = [a for a in rootless.user if not a.startswith("XDG_RUNTIME_DIR=")] + [f"XDG_RUNTIME_DIR={rootless.folder}"]
    r = rootless("--systemd-cgroup", "run", "c", check=False, user=nowhere)
    assert r.returncode == 1 and "reach the user's systemd" in r.stdout and "loginctl enable-linger" in r.stdout and "it ran" not in r.stdout
    # A limit whose controller the user was not given.
    if "cpuset" in (CGROUP / f"user.slice/user-{rootless.uid}.slice/user@{rootless.uid}.service/cgroup.controllers").read_text():
        return
    rootless.write("say", "it ran", resources={"cpu": {"cpus": "0"}})
    r = rootless("--systemd-cgroup", "run", "c", check=False)
    assert r.returncode == 1 and "cpu.cpus: there is no such control" in r.stdout and "it ran" not in r.stdout


# --- podman, with its default, --cgroup-manager=systemd ----------------------------------------------------------------------

IMAGE = "localhost/test:1"
APPLETS = ("sh", "cat", "sleep", "echo", "id")


class Podman:
    def __init__(self, user=()):
        self.user = user

    def __call__(self, *args, check=True):
        r = subprocess.run([*self.user, "podman", "--runtime", ZL_OCI, *map(str, args)], text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=120 * SLOW, check=False, cwd="/")
        assert not check or r.returncode == 0, (args, r.stdout, r.stderr)
        return r

    def out(self, *args):
        return self(*args).stdout.strip()


def image(where):
    tar = where / "image.tar"
    with tarfile.open(tar, "w") as t:
        for folder in ("bin", "tmp", "proc", "sys", "dev", "etc"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            t.addfile(info)
        t.add(shutil.which("busybox"), "bin/busybox")
        for name in APPLETS:
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            t.addfile(info)
    return tar


def life(podman, manager):
    assert podman.out("info", "--format", "{{.Host.CgroupManager}}") == "systemd"
    cid = podman.out("run", "-d", "--name", "c", "--network=none", "--memory=64m", "--pids-limit=50", IMAGE, "sh", "-c",
                     "trap 'exit 4' TERM; cat /proc/self/cgroup; while :; do sleep 0.2; done")
    unit = f"libpod-{cid}.scope"
    limits = show(unit, "ActiveState", "MemoryMax" if V2 else "MemoryLimit", "TasksMax", user=manager)
    assert limits == ["active", str(64 << 20), "50"]
    group = show(unit, "ControlGroup", user=manager)
    if V2:
        wait_for("it has looked around", lambda: podman.out("logs", "c"))
        assert podman.out("logs", "c") == "0::/"
        assert (CGROUP / group.lstrip("/") / "memory.max").read_text() == f"{64 << 20}\n"
        assert podman.out("exec", "c", "cat", "/proc/self/cgroup") == "0::/"
        assert podman.out("stats", "--no-stream", "--format", "{{.PIDs}}", "c") != "0"
        podman("pause", "c")
        assert podman.out("inspect", "-f", "{{.State.Status}}", "c") == "paused"
        podman("unpause", "c")
        podman("update", "--memory=96m", "--memory-swap=96m", "c")
        assert show(unit, "MemoryMax", "MemorySwapMax", "TasksMax", user=manager) == [str(96 << 20), "0", "50"]
        assert (CGROUP / group.lstrip("/") / "memory.max").read_text() == f"{96 << 20}\n"
    podman("stop", "-t", "60", "c")
    assert podman.out("inspect", "-f", "{{.State.ExitCode}}", "c") == "4"
    wait_for("its scope has gone", lambda: not loaded(unit, user=manager), 20)
    podman("rm", "c")
    assert in_files(unit) == []
    assert podman.out("ps", "-aq") == ""


def test_podman(tmp_path):
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    podman = Podman()
    podman("import", image(tmp_path), IMAGE)
    life(podman, ())
    assert podman.out("run", "--rm", "--network=none", IMAGE, "echo", "to its end") == "to its end"
    assert not loaded("libpod-")
    podman("rmi", IMAGE)


def test_podman_of_an_ordinary_user(rootless):
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    rootless.folder.chmod(0o755)
    podman = Podman(rootless.user)
    tar = image(rootless.folder)
    podman("import", tar, IMAGE)
    try:
        life(podman, tuple(rootless.user))
    finally:
        podman("system", "migrate")  # ends the process that holds the user's namespaces
