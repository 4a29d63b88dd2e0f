"""The runtime where openat2, clone3, close_range and the mount API are gone (ENOSYS: an older kernel) or forbidden (EPERM: a
filter around it): its own suites, so that what is done in their place stays alive."""
import os
import pathlib
import subprocess
import sys

import pytest

from conftest import BUILD, SLOW, need_root

HERE = pathlib.Path(__file__).parent
WITHOUT = BUILD / "tests/programs/without"
LONG = bool(os.environ.get("ZLAYER_LONG"))
OWN = {"ENOSYS": ["test_oci.py", "test_oci_members.py", "test_oci_resources.py", "test_oci_cli.py", "test_oci_safety.py"]}
OWN["EPERM"] = OWN["ENOSYS"] if LONG else ["test_oci.py"]
WORKLOAD, PROBE, SHIM = (BUILD / p for p in ("tests/programs/workload", "tests/programs/probe", "src/shim/zl-shim"))
CONTRACT = {"runtime": ["native", WORKLOAD], "native": [WORKLOAD, PROBE], "session": [WORKLOAD], "attach": [WORKLOAD], "supervisor": [WORKLOAD]}


def suites(files, before=(), deselect="", **env):
    need_root()
    r = subprocess.run([*before, sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-k", deselect,
                        *(HERE / f for f in files)], env={**os.environ, **env}, text=True, timeout=240 * SLOW, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert r.returncode == 0, r.stdout[-6000:]


@pytest.mark.parametrize("error", OWN)
def test_own_suites(tmp_path, error):
    """A sealed copy of the program refuses the write, not the opening, of which test_own_program is; flags without the mount API: docs/THREATS.md.
    test_looked_into waits for a filter, and here is one already."""
    wrap = tmp_path / "zl-oci-without"
    wrap.write_text(f'#!/bin/sh\nexec {WITHOUT} {error} {BUILD}/src/ocirun/zl-oci "$@"\n')
    wrap.chmod(0o755)
    suites(OWN[error], deselect="not own_program and not flags_are_raced and not looked_into", ZL_OCI_WRAP=str(wrap))


def test_by_an_ordinary_user():
    """The filter is around the tests themselves: only root may load it without no_new_privs, which newuidmap can't do with."""
    suites(["test_oci_rootless.py"], before=[WITHOUT, "ENOSYS"])


@pytest.mark.parametrize("suite,error", [(s, e) for s in CONTRACT for e in OWN if e == "ENOSYS" or LONG or s in ("runtime", "native")])
def test_supervisor(tmp_path, suite, error):
    """The contract suites; the shim is run from a descriptor, by a program that says by its own last line what it stands for."""
    need_root()
    shim = tmp_path / "zl-shim"
    shim.write_bytes(WITHOUT.read_bytes() + f"\nwithout {error} {SHIM}\n".encode())
    shim.chmod(0o755)
    r = subprocess.run([BUILD / f"tests/contract/runtime/test_{suite}", *CONTRACT[suite], shim], text=True, timeout=120 * SLOW, cwd=tmp_path,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert r.returncode == 0, r.stdout[-6000:]
