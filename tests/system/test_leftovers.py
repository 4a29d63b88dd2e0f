"""The snapshot sees each kind of leftover: in a network and mount namespace of its own, one of each is made."""
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent("""
    import os, pathlib, subprocess, sys, tempfile
    sys.path.insert(0, sys.argv[1])
    import leftovers
    run = lambda *a: subprocess.run(a, check=True)
    top = sys.argv[2]
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("0")  # a new namespace takes the machine's over
    before = leftovers.snapshot(folders=[top], pids=[os.getpid()])
    assert leftovers.diff(before, leftovers.snapshot(folders=[top], pids=[os.getpid()])) == []

    pathlib.Path(top, "file").write_text("x")
    held = open(top + "/file")
    pathlib.Path(top, "pin").touch()
    run("mount", "--bind", "/proc/self/ns/uts", top + "/pin")
    run("ip", "link", "add", "zl-test", "type", "veth", "peer", "name", "zl-peer")
    run("ip", "addr", "add", "192.0.2.9/24", "dev", "zl-test")
    run("ip", "link", "set", "zl-test", "up")
    run("ip", "link", "set", "zl-peer", "up")
    run("nft", "add table inet zlayer_test; add chain inet zlayer_test c; add rule inet zlayer_test c accept")
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    child = subprocess.Popen(["sleep", "60"])
    after = leftovers.snapshot(folders=[top], pids=[os.getpid()], processes=lambda pid: pid == child.pid)
    child.kill()
    lines = leftovers.diff(before, after)
    for want in ("files: came: %s/file" % top, "descriptors: came: %d %s/file" % (os.getpid(), top),
                 "mounts: came: %s/pin (nsfs)" % top, "namespaces: came: uts:", "links: came: zl-test up 192.0.2.9/24",
                 "routes: came: unicast 192.0.2.0/24", "rules: came: table inet zlayer_test > chain c > accept",
                 "sysctls: changed: net/ipv4/ip_forward: 0", "processes: came: %d started" % child.pid):
        assert any(line.startswith(want) for line in lines), (want, lines)
    held.close()
    run("umount", top + "/pin")
    os.unlink(top + "/pin"); os.unlink(top + "/file")
    run("ip", "link", "del", "zl-test")
    run("nft", "delete table inet zlayer_test")
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    child.wait()
    leftovers.expect_none(before)
    print("ok")
""")


def test_sees_each_kind(tmp_path):
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "nft"))):
        pytest.skip("needs root, unshare, ip and nft")
    r = subprocess.run(["unshare", "-m", "-n", sys.executable, "-c", SCRIPT, os.path.dirname(__file__), str(tmp_path)],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
    assert r.stdout.strip() == "ok", r.stdout
