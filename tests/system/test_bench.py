"""That the measurements of bench/ which no other test drives still run: one tiny round. Their goals are not looked at."""
import json
import os
import pathlib
import shutil
import subprocess
import sys

from conftest import BUILD, SLOW, TOP, need_root

GROUPS = pathlib.Path("/sys/fs/cgroup")


def groups():
    return {str(p) for pattern in ("zlayer-bench-*", "*/zlayer-bench-*") for p in GROUPS.glob(pattern)}


def test_oci(tmp_path):
    """bench/oci/run: every row, also of a runtime beside zl-oci (runc comes with docker). Without crun, for whose sake it would mount
    a cgroup hierarchy."""
    need_root()
    peer = shutil.which("runc")
    rows, before = tmp_path / "rows", groups()
    command = [sys.executable, "-B", TOP / "bench/oci/run", "--no-peer", "--rounds", "2", "--runs", "2", "--alive", "3", "--peer-alive", "2",
               "--json", rows, *(["--peer", f"other={peer}"] if peer else [])]
    r = subprocess.run(command, env={**os.environ, "ZLAYER_BUILD": str(BUILD), "TMPDIR": str(tmp_path)}, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120 * SLOW, check=False)
    assert r.returncode in (0, 1) and not r.stderr, r.stderr  # 1: a goal was missed
    found = {}
    for row in map(json.loads, rows.read_text().splitlines()):
        assert row["min"] > 0 and row["n"] > 0, row
        found.setdefault(row["system"], {})[row["case"]] = row["n"]
    timed = {"run to exit": 4, "run to exit, as the floor": 4, "run to exit, with an engine's filter": 4, "create, start, delete": 4, "exec": 4,
             "run to exit: processor time": 4, "exec: processor time": 4}
    assert set(found) == {"zlayer", "floor", "floor, no cgroups"} | ({"other"} if peer else set())
    assert found["floor"] == found["floor, no cgroups"] == {"run to exit": 4, "run to exit: processor time": 4}
    ours = found["zlayer"]
    assert {case: ours[case] for case in timed} == timed
    assert ours["run to exit: of the floor's"] == 2
    assert ours["3 alive at once, run -d: made"] == ours["3 alive at once, run -d: removed"] == 1
    assert ours["3 shims alive at once: made"] == 1 and ours["3 shims alive at once: memory of one"] == 3
    if peer:
        assert {case: found["other"][case] for case in timed} == timed
        assert found["other"]["2 alive at once, run -d: made"] == 1
    assert groups() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows"]


def test_images(tmp_path):
    """bench/images/run: zlayer's rows and the floor's, without peers."""
    need_root()
    rows = tmp_path / "rows"
    r = subprocess.run([sys.executable, "-B", TOP / "bench/images/run", "--no-peer", "--rounds", "1", "--mib", "2", "--images", "many,large",
                        "--json", rows],
                       env={**os.environ, "ZLAYER_BUILD": str(BUILD)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True, timeout=300 * SLOW, check=False)
    assert r.returncode in (0, 1), r.stderr  # 1: a goal was missed
    found = {(row["system"], row["case"]) for row in map(json.loads, rows.read_text().splitlines())}
    for case in [f"pull {name}, {form}" for name in ("many", "large") for form in ("gzip", "zstd")]:
        assert {("zlayer", case), ("floor, with the writing to the disk", case)} <= found
    assert {("zlayer", "pull of an image that is there"), ("zlayer", "greatest memory of a pull")} <= found
