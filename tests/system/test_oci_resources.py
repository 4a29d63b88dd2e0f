"""linux.resources: what is asked is in the files of the container's groups, on each layout; what is not there is refused by name."""
import json
import os
import pathlib
import subprocess

import pytest

from conftest import SLOW, wait_for
from test_oci import GROUP, ZL_OCI, bundle  # noqa: F401  (a fixture)

CGROUP = pathlib.Path("/sys/fs/cgroup")
V2 = (CGROUP / "cgroup.controllers").exists()
UNIFIED = CGROUP if V2 else CGROUP / "unified"


def v1(controller):
    return not V2 and (CGROUP / controller / "tasks").exists()


def group(controller):
    return (CGROUP / controller if v1(controller) else UNIFIED) / GROUP


def value(controller, file):
    return (group(controller) / file).read_text().strip()


def disk():
    """The number of a real disk, as device mapper and partitions take no limits."""
    for p in sorted(pathlib.Path("/sys/block").iterdir()):
        if (p / "device").exists():
            return (p / "dev").read_text().strip()
    pytest.skip("there is no disk of its own device to limit")


@pytest.fixture
def made(bundle):  # noqa: F811
    """A running container with these resources."""
    def make(**resources):
        bundle.write("forever", linux={**bundle.config["linux"], "resources": resources})
        pid = bundle.create()
        bundle("start", "c")
        return pid

    bundle.make = make
    yield bundle
    bundle("delete", "--force", "c", check=False)
    for c in ("cpuset", "blkio", "memory", "unified"):
        assert not (CGROUP / c / GROUP).exists()
    assert not (CGROUP / GROUP).exists()


def refused(bundle, why, **resources):  # noqa: F811
    r = bundle.run("say", "it ran", linux={**bundle.config["linux"], "resources": resources})
    assert r.returncode == 1 and why in r.stderr and "it ran" not in r.stdout, (why, r.stdout, r.stderr)


def test_memory(made):
    made.make(memory={"limit": 64 << 20, "swap": 64 << 20, "reservation": 32 << 20, "useHierarchy": True, "disableOOMKiller": False,
                      "kernel": 32 << 20, "kernelTCP": 16 << 20})
    assert value("memory", "memory.soft_limit_in_bytes" if v1("memory") else "memory.low") == str(32 << 20)
    made("update", "--memory-reservation", 16 << 20, "c")
    assert value("memory", "memory.soft_limit_in_bytes" if v1("memory") else "memory.low") == str(16 << 20)
    (made.folder / "r.json").write_text(json.dumps({"memory": {"limit": 4096, "checkBeforeUpdate": True}}))
    r = made("update", "-r", made.folder / "r.json", "c", check=False)
    assert r.returncode == 1 and "is less than the" in r.stderr
    if not v1("memory"):
        refused(made, "memory.swappiness: there is no such control", memory={"swappiness": 10})
        refused(made, "memory.disableOOMKiller: there is no such control", memory={"disableOOMKiller": True})


def test_memory_v1(made):
    if not v1("memory"):
        pytest.skip("cgroup v2 has neither swappiness nor a switch for the OOM killer")
    made.make(memory={"limit": 64 << 20, "swappiness": 17, "disableOOMKiller": True})
    assert value("memory", "memory.swappiness") == "17" and "oom_kill_disable 1" in value("memory", "memory.oom_control")


def test_cpu(made):
    pid = made.make(cpu={"quota": 20000, "period": 50000, "burst": 5000, "shares": 512, "cpus": "0", "mems": "0"})
    if v1("cpu"):
        assert [value("cpu", f"cpu.cfs_{n}_us") for n in ("quota", "period", "burst")] == ["20000", "50000", "5000"]
        assert value("cpu", "cpu.shares") == "512"
    else:
        assert (value("cpu", "cpu.max"), value("cpu", "cpu.max.burst"), value("cpu", "cpu.weight")) == ("20000 50000", "5000", "20")
    assert value("cpuset", "cpuset.cpus") == "0" and os.sched_getaffinity(pid) == {0}
    made("update", "--cpu-period", 100000, "--cpu-burst", "1000", "c")
    if v1("cpu"):
        assert [value("cpu", f"cpu.cfs_{n}_us") for n in ("quota", "period", "burst")] == ["20000", "100000", "1000"]
    else:
        assert (value("cpu", "cpu.max"), value("cpu", "cpu.max.burst")) == ("20000 100000", "1000")
    last = os.cpu_count() - 1
    made("update", "--cpuset-cpus", f"0-{last}", "c")
    assert len(os.sched_getaffinity(pid)) == last + 1
    r = made("update", "--cpuset-cpus", "9999", "c", check=False)
    assert r.returncode == 1 and "linux.resources.cpu.cpus: write '9999'" in r.stderr


def test_cpu_idle(made):
    made.make(cpu={"idle": 1})
    assert value("cpu", "cpu.idle") == "1"
    made("update", "--cpu-idle", "0", "c")
    assert value("cpu", "cpu.idle") == "0"


def test_real_time(made):
    if not (CGROUP / "cpu/cpu.rt_runtime_us").exists():
        refused(made, "cpu.realtimeRuntime: there is no such control", cpu={"realtimeRuntime": 1000})
        return
    r = made.run("say", "it ran", linux={**made.config["linux"], "resources": {"cpu": {"realtimePeriod": 500000, "realtimeRuntime": 1000}}})
    # The groups above may have given all there is.
    assert (r.returncode == 0 and r.stdout == "it ran\n") or "linux.resources.cpu.realtimeRuntime: write" in r.stderr


def test_a_group_that_comes_later(made):
    """A hierarchy of v1 in which the container had none, and its processes with it."""
    pid = made.make(pids={"limit": 50})
    child = json.loads(made("ps", "-f", "json", "c").stdout)
    assert not v1("cpuset") or not group("cpuset").exists()
    made("update", "--cpuset-cpus", "0", "c")
    assert value("cpuset", "cpuset.cpus") == "0" and os.sched_getaffinity(pid) == {0}
    assert {int(p) for p in value("cpuset", "cgroup.procs").split()} == set(child)
    assert made("exec", "c", "/workload", "exit", "3", check=False).returncode == 3
    assert "Cpus_allowed_list:\t0\n" in made("exec", "c", "/workload", "cat", "/proc/self/status").stdout


def test_pids(made):
    made.make(pids={"limit": 40})
    assert value("pids", "pids.max") == "40"
    made("update", "--pids-limit", "-1", "c")
    assert value("pids", "pids.max") == "max"


def test_block_io(made):
    device = disk()
    major, minor = map(int, device.split(":"))
    lists = {f"throttle{kind}Device": [{"major": major, "minor": minor, "rate": 1000 * (i + 1)}]
             for i, kind in enumerate(("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS"))}
    made.make(blockIO={"weight": 0, **lists})
    if v1("blkio"):
        seen = [value("blkio", f"blkio.throttle.{n}_device") for n in ("read_bps", "write_bps", "read_iops", "write_iops")]
        assert seen == [f"{device} {1000 * (i + 1)}" for i in range(4)]
    else:
        assert value("io", "io.max") == f"{device} rbps=1000 wbps=2000 riops=3000 wiops=4000"
    bad = [{"major": 4095, "minor": 4095, "rate": 1}]
    refused(made, "blockIO.throttleReadBpsDevice: write '4095:4095 1'", blockIO={"throttleReadBpsDevice": bad})


def test_block_io_weights(made):
    files = [f for f in ("blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight")]
    root = CGROUP / "blkio" if v1("blkio") else UNIFIED
    made.make(pids={"limit": 50}, **({"blockIO": {"throttleReadBpsDevice": []}}))
    made("delete", "--force", "c")
    config = {"blockIO": {"weight": 500, "weightDevice": []}}
    r = made.run("say", "it ran", linux={**made.config["linux"], "resources": config})
    if r.returncode:  # weights are those of a scheduler that may not be there
        assert "blockIO.weight: there is no such control" in r.stderr and not any((root / f).exists() for f in files)
    else:
        made.make(**config)
        assert any((group("blkio" if v1("blkio") else "io") / f).exists() for f in files)
    refused(made, "blockIO.leafWeight: there is no such control", blockIO={"leafWeight": 10})
    refused(made, "blockIO.weightDevice", blockIO={"weightDevice": [{"major": 4095, "minor": 4095, "weight": 100}]})
    refused(made, "blockIO.weightDevice[].leafWeight", blockIO={"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 100}]})


def test_huge_pages(made):
    has = any(UNIFIED.glob("*hugetlb*")) or "hugetlb" in (UNIFIED / "cgroup.controllers").read_text().split() or v1("hugetlb")
    if has and pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB").exists():
        made.make(hugepageLimits=[{"pageSize": "2MB", "limit": 4 << 20}])
        assert value("hugetlb", "hugetlb.2MB.limit_in_bytes" if v1("hugetlb") else "hugetlb.2MB.max") == str(4 << 20)
        made("delete", "--force", "c")
    refused(made, "hugepageLimits[0]: there is no such control", hugepageLimits=[{"pageSize": "3MB", "limit": 1}])
    refused(made, "'2XB' is no size as 2MB", hugepageLimits=[{"pageSize": "2XB", "limit": 1}])


def test_network_classes(made):
    for controller, resources, why in (("net_cls", {"classID": 1048577}, "network.classID"),
                                       ("net_prio", {"priorities": [{"name": "lo", "priority": 5}]}, "network.priorities")):
        if not v1(controller):
            refused(made, f"{why}: there is no such control", network=resources)
            continue
        made.make(network=resources)
        assert value(controller, "net_cls.classid" if controller == "net_cls" else "net_prio.ifpriomap") == "1048577" or "lo 5" in \
            value(controller, "net_prio.ifpriomap")
        made("delete", "--force", "c")


def test_rdma(made):
    refused(made, "linux.resources.rdma.none0", rdma={"none0": {"hcaHandles": 3, "hcaObjects": 10}})


def test_unified(made):
    made.make(unified={"cgroup.max.descendants": "7", **({"pids.max": "77"} if V2 else {})})
    assert (UNIFIED / GROUP / "cgroup.max.descendants").read_text() == "7\n"
    assert not V2 or value("pids", "pids.max") == "77"
    made("delete", "--force", "c")
    for name in ("../cgroup.max.depth", "memory/max", "procs", ".x"):
        refused(made, "is no name of a cgroup file", unified={name: "1"})
    refused(made, "unified.none.such: there is no such control", unified={"none.such": "1"})
    refused(made, "unified.cgroup.max.depth: write 'many'", unified={"cgroup.max.depth": "many"})


@pytest.mark.parametrize("resources, why", [
    ({"memory": {"limit": "much"}}, "memory.limit"), ({"memory": {"swappiness": 101}}, "memory.swappiness"),
    ({"memory": {"reservation": -2}}, "memory.reservation"), ({"cpu": {"period": -1}}, "cpu.period"), ({"cpu": {"period": 5}}, "out of range"),
    ({"cpu": {"idle": 2}}, "cpu.idle"), ({"cpu": {"burst": -1}}, "cpu.burst"), ({"pids": {"limit": 1.5}}, "pids.limit"),
    ({"blockIO": {"weight": 1001}}, "blockIO.weight"), ({"blockIO": {"throttleReadBpsDevice": [{"major": 1}]}}, "needs the key"),
    ({"blockIO": {"throttleReadIOPSDevice": {}}}, "throttleReadIOPSDevice"), ({"hugepageLimits": [{"limit": 1}]}, "needs the key 'pageSize'"),
    ({"network": {"classID": -1}}, "classID"), ({"network": {"priorities": [{"name": "lo"}]}}, "needs the key 'priority'"),
    ({"rdma": []}, "map of devices"), ({"rdma": {"a": {"hcaHandles": -2}}}, "hcaHandles"), ({"unified": {"a.b": 1}}, "expects a string"),
    ({"memory": {"limit": 2 << 20, "swap": 1 << 20}}, "swap")])
def test_bad_ones(bundle, resources, why):  # noqa: F811
    refused(bundle, why, **resources)
    assert os.listdir(bundle.state) == []


def test_an_update_that_fails_changes_nothing(made):
    """The file that refuses comes last; what was written before it is written back."""
    made.make(memory={"limit": 64 << 20, "swap": 64 << 20}, cpu={"quota": 50000, "period": 100000, "shares": 512}, pids={"limit": 30})
    files = [("memory", "memory.limit_in_bytes"), ("memory", "memory.memsw.limit_in_bytes"), ("cpu", "cpu.cfs_quota_us"),
             ("cpu", "cpu.cfs_period_us"), ("cpu", "cpu.shares"), ("pids", "pids.max"), ("memory", "memory.soft_limit_in_bytes")] \
        if v1("memory") else [("memory", "memory.max"), ("memory", "memory.swap.max"), ("cpu", "cpu.max"), ("cpu", "cpu.weight"),
                              ("pids", "pids.max"), ("memory", "memory.low")]

    def seen():
        return {f: value(c, f) for c, f in files if (group(c) / f).exists()}

    before = seen()
    r = made("update", "--memory", 96 << 20, "--memory-swap", 128 << 20, "--memory-reservation", 8 << 20, "--cpu-quota", "20000",
             "--cpu-period", "50000", "--cpu-share", "100", "--pids-limit", "5", "--cpuset-cpus", "9999", "c", check=False)
    assert r.returncode == 1 and "linux.resources.cpu.cpus: write '9999'" in r.stderr and seen() == before
    # A burst over the quota is refused, by name.
    r = made("update", "--pids-limit", "7", "--cpu-burst", "60000", "c", check=False)
    assert r.returncode == 1 and "linux.resources.cpu.burst: write '60000'" in r.stderr and seen() == before
    # A quota below the kernel's least.
    r = made("update", "--memory", 96 << 20, "--memory-swap", 128 << 20, "--cpu-quota", "5", "c", check=False)
    assert r.returncode == 1 and f"write {'cpu.cfs_quota_us' if v1('cpu') else 'cpu.max'}" in r.stderr and seen() == before


def test_swap_changes_alone(made):
    made.make(memory={"limit": 32 << 20, "swap": 64 << 20})
    file = group("memory") / ("memory.memsw.limit_in_bytes" if v1("memory") else "memory.swap.max")
    if not file.exists():
        pytest.skip("the kernel does not count swap")
    r = made("update", "--memory-swap", 128 << 20, "c", check=False)
    if v1("memory"):
        assert r.returncode == 0 and file.read_text() == f"{128 << 20}\n"
    else:
        assert r.returncode == 1 and "memory.swap without memory.limit" in r.stderr and file.read_text() == f"{32 << 20}\n"
    made("update", "--memory-swap", "-1", "c")
    assert file.read_text() == "max\n" or int(file.read_text()) > 1 << 60


def test_statistics(made):
    """What `runc events --stats` says, from the same files."""
    device = {"throttleReadBpsDevice": []}
    made.make(memory={"limit": 64 << 20, "swap": 64 << 20}, cpu={"quota": 50000, "period": 100000}, pids={"limit": 30}, blockIO=device,
              **({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]} if any(UNIFIED.glob("*hugetlb*")) else {}))
    said = json.loads(made("events", "--stats", "c").stdout)
    assert (said["type"], said["id"]) == ("stats", "c")
    data = said["data"]
    assert set(data) == {"cpu", "memory", "pids", "blkio", "hugetlb", "network_interfaces"} and data["network_interfaces"] is None
    usage = data["cpu"]["usage"]
    tick = 10_000_000  # what the kernel counts some of them by
    assert usage["total"] > 0 and abs(usage["kernel"] + usage["user"] - usage["total"]) <= tick
    assert len(usage["percpu"]) == len(usage["percpu_user"]) == os.cpu_count() if v1("cpuacct") else "percpu" not in usage
    assert not v1("cpuacct") or abs(sum(usage["percpu"]) - usage["total"]) <= tick
    assert set(data["cpu"]["throttling"]) == {"periods", "throttledPeriods", "throttledTime"}
    memory = data["memory"]
    assert memory["usage"]["limit"] == 64 << 20 and 0 < memory["usage"]["usage"] <= 64 << 20 and memory["usage"]["failcnt"] == 0
    stat = dict(line.split() for line in value("memory", "memory.stat").splitlines())
    assert set(memory["raw"]) == set(stat) and memory["cache"] == memory["raw"]["cache" if v1("memory") else "file"]
    if not v1("memory") or (group("memory") / "memory.memsw.limit_in_bytes").exists():
        assert memory["swap"]["limit"] == 64 << 20
    assert data["pids"] == {"current": 1, "limit": 30}
    assert set(data["blkio"]) == {"ioServiceBytesRecursive", "ioServicedRecursive"}
    for entry in data["blkio"]["ioServiceBytesRecursive"]:
        assert set(entry) == {"major", "minor", "op", "value"}
    made("update", "--pids-limit", "-1", "--memory", "-1", "--memory-swap", "-1", "c")
    data = json.loads(made("events", "--stats", "c").stdout)["data"]
    assert data["pids"]["limit"] == 0 and data["memory"]["usage"]["limit"] > 1 << 60


def test_throttling_is_counted(made):
    made.make(cpu={"quota": 2000, "period": 10000})
    made("exec", "c", "/workload", "burn", "100")
    wait_for("throttled time", lambda: json.loads(made("events", "--stats", "c").stdout)["data"]["cpu"]["throttling"]["throttledTime"] > 0)
    throttling = json.loads(made("events", "--stats", "c").stdout)["data"]["cpu"]["throttling"]
    assert throttling["periods"] >= throttling["throttledPeriods"] > 0


def test_events_go_on_until_the_end(made):
    """Statistics each interval, a line when memory runs out, and an end with the container's."""
    made.make(memory={"limit": 32 << 20, "swap": 32 << 20})
    with subprocess.Popen([ZL_OCI, "--root", made.state, "events", "--interval", "100ms", "c"], stdout=subprocess.PIPE, text=True) as p:
        try:
            lines = [json.loads(p.stdout.readline()) for _ in range(3)]
            assert [line["type"] for line in lines] == ["stats"] * 3
            assert made("exec", "c", "/workload", "alloc", "64", check=False).returncode == 137
            while json.loads(p.stdout.readline()) != {"type": "oom", "id": "c"}:
                pass
            made("kill", "c", "KILL")
            assert p.wait(30 * SLOW) == 0
        finally:
            p.kill()
    r = made("events", "c", check=False)
    assert r.returncode == 1 and "container not running: c" in r.stderr
