"""The container is the adversary, its image and its mounts included: one class of attacks on runtimes a test.

tools/run-weakened builds zl-oci without one defence after the other, and expects the test that names it to fail
(tests/system/weakened/<test>.patch).
"""
import copy
import errno
import json
import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import SLOW, wait_for
from test_oci import ZL_OCI, bundle, fields  # noqa: F401  pylint: disable=unused-import

pytestmark = pytest.mark.usefixtures("bundle")
# Without the shared mounts and the private mount namespace a bind below /proc would be one of the machine.
ALONE = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]


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
            for _ in range(40):
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
    bundle.write("say", "it runs", linux={**bundle.config["linux"], "sysctl": {"kernel.shmmni": "777"}})
    for source in (decoy, "/proc/sys/kernel"):  # procfs, too, but over what is meant
        r = alone(bundle, f"mount --bind {source} /proc/sys/kernel")
        assert r.returncode == 1 and "set the sysctl kernel/shmmni" in r.stderr and "it runs" not in r.stdout, r
        assert (decoy / "shmmni").read_text() == "untouched\n"
    bundle.write("say", "it runs", process=process_of(bundle, oomScoreAdj=500))
    r = alone(bundle, "mount -t tmpfs none /proc; mkdir -p /proc/self/fd; echo 0 >/proc/self/oom_score_adj")
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
