"""Bad input: every member of config.json wrong in type, range and size, documents that are bombs, calls out of turn.

What is wrong is said in one line that names it, with exit code 1, and nothing is left.
"""
import copy
import json
import os
import subprocess

import pytest

from conftest import SANITIZED, SLOW, wait_for
from test_oci import ZL_OCI, bundle  # noqa: F401  pylint: disable=unused-import
from test_oci_schema import OTHER_SYSTEMS, schema  # noqa: F401

# Passed over, as the specification demands it of what another system has.
NOT_OURS = {"process.commandLine", "process.user.username"}
WRONG = {"string": [7, ["x"]], "integer": ["much", 1.5, 2**70], "number": ["much"], "boolean": ["yes", 1], "array": ["x", {"x": "y"}],
         "object": ["x", ["x"]]}


def kind_of(node):
    """The JSON type that the schema wants; of alternatives the first that has one."""
    for part in (p for k in ("allOf", "anyOf", "oneOf") for p in node.get(k, [])):
        node = {**part, **node}
    kind = node.get("type")
    return kind[0] if isinstance(kind, list) else kind or ("object" if "properties" in node or "patternProperties" in node else "string")


def example(node):
    """The least that is valid, of what is required."""
    for part in (p for k in ("allOf", "anyOf", "oneOf") for p in node.get(k, [])[:1]):
        node = {**part, **node}
    kind = kind_of(node)
    if "cbup" in node.get("pattern", ""):
        return "c"
    if kind == "object":
        return {k: example(v) for k, v in node.get("properties", {}).items() if k in node.get("required", [])}
    if kind == "integer":
        return max(node.get("minimum", 0), 0)
    if "enum" in node:
        return node["enum"][0]
    return {"array": [], "boolean": False, "number": 0}.get(kind, "/x")


def members(node, path=()):
    """(path, its schema): "*" is any name, 0 an item."""
    for part in (p for k in ("allOf", "anyOf", "oneOf") for p in node.get(k, [])):
        yield from members(part, path)
    for name, below in node.get("properties", {}).items():
        yield (*path, name), below
        yield from members(below, (*path, name))
    if isinstance(node.get("items"), dict):
        yield (*path, 0), node["items"]
        yield from members(node["items"], (*path, 0))
    for below in [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]:
        if isinstance(below, dict):
            yield (*path, "any"), below
            yield from members(below, (*path, "any"))


def put(config, top, path, value):
    """The value at its place, and above it what the schema requires there."""
    at, node = config, top
    for i, step in enumerate(path):
        parts = [node, *(p for k in ("allOf", "anyOf", "oneOf") for p in node.get(k, []))]
        node = next((below for p in parts for below in [p.get("items") if step == 0 else p.get("properties", {}).get(step) or
                     next(iter(p.get("patternProperties", {}).values()), None) or p.get("additionalProperties")] if isinstance(below, dict)), {})
        new = value if i == len(path) - 1 else None
        if isinstance(at, list):
            if new is not None or not at:
                at[:] = [new if new is not None else example(node)]
            at = at[0]
        else:
            if new is not None or step not in at:
                at[step] = new if new is not None else example(node)
            at = at[step]


def wrong_values(node):
    kind = kind_of(node)
    yield from WRONG[kind]
    if "minimum" in node and kind == "integer":
        yield node["minimum"] - 1
    if "maximum" in node and kind == "integer" and node["maximum"] != 511:  # engines write a file's type, too
        yield node["maximum"] + 1


def refused(bundle, text, name, *args):  # noqa: F811
    (bundle.folder / "config.json").write_text(text) if isinstance(text, str) else (bundle.folder / "config.json").write_bytes(text)
    r = bundle(*(args or ("run", "one")), check=False)
    lines = [line for line in r.stderr.splitlines() if not line.startswith("hint: ")]
    why = []
    if r.returncode != 1 or len(lines) != 1 or not lines[0].startswith("zl-oci: "):
        why.append((r.returncode, r.stderr, r.stdout))
    elif name not in lines[0]:
        why.append(lines[0])
    if bundle.state.exists() and [p for p in bundle.state.iterdir() if p.name != ".seccomp"]:
        why.append("something is left")
        bundle("delete", "--force", "one", check=False)
    return why


def test_each_member_is_wrong(bundle, schema):  # noqa: F811
    """Of another type, out of its range; the line says where."""
    top = schema.inline(schema.file("config-schema.json"), "config-schema.json")
    bad, tried = [], 0
    base = copy.deepcopy(bundle.config)
    base["process"]["args"] = ["/workload", "exit", "0"]
    base["linux"].update(cgroupsPath="/" + bundle.folder.name.replace("zl-oci-", "zl-bad-"), memoryPolicy={"mode": "MPOL_DEFAULT"})
    for path, node in members(top):
        shown = ".".join("*" if p == "any" else "[]" if p == 0 else p for p in path).replace(".[]", "[]")
        if path[0] in OTHER_SYSTEMS or path[0] == "freebsd" or shown in NOT_OURS:
            continue
        name = "intelRdt" if "intelRdt" in path else next((p for p in reversed(path) if p not in (0, "any")), "")
        for value in wrong_values(node):
            config = copy.deepcopy(base)
            put(config, top, path, value)
            tried += 1
            why = refused(bundle, json.dumps(config), name)
            if why:
                bad.append((shown, value, why))
    assert not bad, "\n".join(map(str, bad))
    assert tried > 500


def whole(bundle, **members):  # noqa: F811
    config = copy.deepcopy(bundle.config)
    config["process"]["args"] = ["/workload", "say", "it ran"]
    config["linux"]["cgroupsPath"] = "/" + bundle.folder.name.replace("zl-oci-", "zl-bad-")
    return {**config, **members}


def lists(depth):
    return "[" * depth + "]" * depth


BOMBS = [
    ("", "config.json"), ("null", "map"), ("[]", "map"), ("{", "line 1"), ('{"a" 1}', "line 1"), ("\0", "config.json"),
    ('{"ociVersion": "1.2.0", "x": ' + lists(100000) + "}", "config.json"),
    ('{"ociVersion": "1.2.0", "x": ' + '{"a":' * 5000 + "1" + "}" * 5000 + "}", "config.json"),
    ('{"ociVersion": "1.2.0", "x": [' + "1," * 1000000 + "1]}", "config.json"),
    ('{"ociVersion": "1.2.0", "ociVersion": "1.1.0"}', "config.json"),
    (b'{"ociVersion": "1.2.0", "hostname": "\xff\xfe"}', "config.json"),
    (b'{"ociVersion": "1.2.0", "hostname": "\xed\xa0\x80"}', "config.json"),
    (b'{"ociVersion": "1.2.0", "hostname": "a\0b"}', "config.json"),
    ('{"ociVersion": "1.2.0", "hostname": "' + "9" * 30 + '\\', "config.json"),
    ('{"ociVersion": 1e999}', "config.json"), ('{"ociVersion": -}', "config.json"), ("{" + " " * (5 << 20) + "}", "config.json"),
]


@pytest.mark.parametrize("number", range(len(BOMBS)))
def test_documents_that_are_none(bundle, number):  # noqa: F811
    text, why = BOMBS[number]
    assert not refused(bundle, text, why)


def test_a_hundred_megabytes(bundle):  # noqa: F811
    """Are not read."""
    limit = "" if SANITIZED else "ulimit -v 60000; "  # a sanitizer takes terabytes of addresses
    with open(bundle.folder / "config.json", "w") as f:
        f.truncate(100 << 20)
    r = subprocess.run(["sh", "-c", limit + 'exec "$@"', "sh", ZL_OCI, "--root", bundle.state, "run", "one"], cwd=bundle.folder, text=True,
                       capture_output=True, stdin=subprocess.DEVNULL, timeout=20 * SLOW, check=False)
    assert r.returncode == 1 and r.stderr.count("\n") == 1 and "config.json" in r.stderr, r


SIZES = [
    (lambda c: c["process"].update(args=["/workload"] * 200001), "config.json"),
    (lambda c: c["process"].update(env=["A=b" + "x" * 100000] * 30), "execute"),
    (lambda c: c["process"].update(cwd="/" + "x" * 5000), "working folder"),
    (lambda c: c["process"]["user"].update(additionalGids=list(range(100))), "100 groups"),
    (lambda c: c.update(hostname="h" * 65), "host name"),
    (lambda c: c.update(domainname="h" * 65), "domain name"),
    (lambda c: c["root"].update(path="/" + "x" * 5000), "root.path"),
    (lambda c: c["linux"].update(cgroupsPath="/" + "x" * 300), "cgroup"),
    (lambda c: c["linux"].update(maskedPaths=["/" + "x" * 300]), "mask"),
    (lambda c: c["linux"].update(sysctl={"net." + "x" * 300: "1"}), "sysctl"),
    (lambda c: c["mounts"].append({"destination": "/" + "x/" * 200, "type": "tmpfs", "source": "x"}), "mount"),
    (lambda c: c["mounts"].append({"destination": "/t", "type": "tmpfs", "source": "x", "options": ["size=1m"] * 1000}), "mount /t"),
    (lambda c: c["linux"].update(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["uname"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": i, "op": "SCMP_CMP_EQ"}]} for i in range(20000)]}), "seccomp"),
    (lambda c: c["linux"].update(uidMappings=[{"containerID": i, "hostID": i, "size": 1} for i in range(400)],
                                 gidMappings=[{"containerID": 0, "hostID": 0, "size": 1}],
                                 namespaces=[*c["linux"]["namespaces"], {"type": "user"}]), "user"),
    (lambda c: c["process"].update(oomScoreAdj=1001), "oomScoreAdj"),
    (lambda c: c["process"].update(args=["/workload", "a\0b"]), "config.json"),
    (lambda c: c.update(hostname="a\0b"), "config.json"),
]


def test_a_long_environment(bundle):  # noqa: F811
    """Arrives whole."""
    config = whole(bundle)
    config["process"].update(args=["/workload", "cat", "/proc/self/environ"], env=[f"V{i}=x" for i in range(6000)])
    (bundle.folder / "config.json").write_text(json.dumps(config))
    assert bundle("run", "one").stdout.count("=x\0") == 6000


def test_what_is_too_long(bundle):  # noqa: F811
    bad = []
    for change, name in SIZES:
        config = whole(bundle)
        change(config)
        why = refused(bundle, json.dumps(config), name)
        bad += [(name, why)] if why else []
    assert not bad, "\n".join(map(str, bad))


def without_namespace(kind):
    return lambda c: c["linux"].update(namespaces=[n for n in c["linux"]["namespaces"] if n["type"] != kind])


MAP = [{"containerID": 0, "hostID": 100000, "size": 1000}]
COMBINATIONS = [
    (lambda c: c["linux"].update(uidMappings=MAP), "uidMappings"),
    (lambda c: c["linux"].update(timeOffsets={"boottime": {"secs": 5}}), "time"),
    (lambda c: (c["linux"]["namespaces"].append({"type": "user", "path": "/proc/self/ns/user"}), c["linux"].update(uidMappings=MAP, gidMappings=MAP)), "user"),
    (lambda c: c["linux"]["namespaces"].append({"type": "pid"}), "twice"),
    (without_namespace("uts"), "uts"),
    (without_namespace("mount"), "mount namespace"),
    (lambda c: (without_namespace("network")(c), c["linux"].update(netDevices={"eth77": {"name": "x"}})), "netDevices"),
    (lambda c: (without_namespace("ipc")(c), c["linux"].update(sysctl={"kernel.shmmni": "5"})), "sysctl"),
    (lambda c: (without_namespace("network")(c), c["linux"].update(sysctl={"net.ipv4.ip_forward": "1"})), "sysctl"),
    (lambda c: c["linux"].update(rootfsPropagation="up"), "rootfsPropagation"),
    (lambda c: c["process"].update(scheduler={"policy": "SCHED_OTHER", "priority": 5}), "scheduler.priority"),
    (lambda c: c["process"].update(scheduler={"policy": "SCHED_FIFO", "runtime": 5}), "scheduler"),
    (lambda c: c["process"].update(rlimits=[{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]), "rlimits"),
    (lambda c: c["linux"].update(resources={"memory": {"limit": 4 << 20, "swap": 1 << 20}}), "swap"),
    (lambda c: c["linux"].update(seccomp={"defaultAction": "SCMP_ACT_NOTIFY"}), "NOTIFY"),
    (lambda c: c["linux"].update(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}), "listenerPath"),
    (lambda c: c["linux"].update(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]}), "PDP11"),
    (lambda c: c["linux"].update(devices=[{"type": "c", "path": "dev/x", "major": 1, "minor": 3}]), "path"),
    (lambda c: c["process"].update(terminal=True, consoleSize={"height": 70000, "width": 1}), "height"),
]


def test_what_does_not_go_together(bundle):  # noqa: F811
    bad = []
    for change, name in COMBINATIONS:
        config = whole(bundle)
        change(config)
        why = refused(bundle, json.dumps(config), name)
        bad += [(name, why)] if why else []
    assert not bad, "\n".join(map(str, bad))


def test_a_bundle_that_is_none(bundle):  # noqa: F811
    """Without a document, with one that is a folder, a pipe that nobody writes to, a link to nothing; without a root."""
    config = bundle.folder / "config.json"
    config.unlink()
    assert not refused_as_it_is(bundle, "config.json")
    config.mkdir()
    assert not refused_as_it_is(bundle, "config.json")
    config.rmdir()
    os.mkfifo(config)
    assert not refused_as_it_is(bundle, "config.json")
    config.unlink()
    config.symlink_to("nowhere")
    assert not refused_as_it_is(bundle, "config.json")
    config.unlink()
    assert not refused(bundle, json.dumps(whole(bundle, root={"path": "none"})), "root.path")
    assert not refused(bundle, json.dumps(whole(bundle, root={"path": "config.json"})), "root.path")
    assert not refused(bundle, json.dumps(whole(bundle)), "bundle", "run", "-b", "/nowhere", "one")
    (bundle.folder / "real.json").write_text(json.dumps(whole(bundle)))
    config.unlink()
    config.symlink_to("real.json")  # is as good as the file
    assert bundle("run", "one").stdout == "it ran\n"


def refused_as_it_is(bundle, name):  # noqa: F811
    r = bundle("run", "one", check=False)
    left = bundle.state.exists() and [p for p in bundle.state.iterdir() if p.name != ".seccomp"]
    return [] if r.returncode == 1 and r.stderr.count("\n") == 1 and name in r.stderr and not left else [r, left]


IDS = ["", ".", "..", "a/b", "/a", "../a", "a\nb", "-a", ".a", "a b", "x" * 129, "\u00e4", "a\\b", "a%b"]


def test_ids(bundle):  # noqa: F811
    (bundle.folder / "config.json").write_text(json.dumps(whole(bundle)))
    for verb in ("create", "run", "start", "state", "delete", "kill", "pause", "resume", "update", "ps", "events"):
        for name in IDS if verb in ("create", "run") else IDS[:4]:
            r = bundle(verb, "--", name, check=False)
            assert r.returncode == 1 and r.stderr.startswith("zl-oci: ") and "id" in r.stderr, (verb, name, r)
    assert not bundle.state.exists() or not os.listdir(bundle.state)
    assert bundle("run", "x" * 128).stdout == "it ran\n"


def test_calls_out_of_turn(bundle):  # noqa: F811
    """One that exists, of one that does not run, twice, too early: an error, and nothing has changed."""
    config = whole(bundle)
    config["process"]["args"] = ["/workload", "forever"]
    (bundle.folder / "config.json").write_text(json.dumps(config))

    def no(status, *args):
        r = bundle(*args, check=False)
        assert r.returncode == 1 and r.stderr.count("\n") == 1 and r.stderr.startswith("zl-oci: "), (args, r)
        found = bundle("state", "c", check=False)
        assert (json.loads(found.stdout)["status"] if found.returncode == 0 else None) == status, (args, found)

    for verb in ("start", "state", "delete", "kill", "pause", "resume", "ps"):
        no(None, verb, "c")
    no(None, "exec", "c", "/workload")
    no(None, "update", "--pids-limit", "5", "c")
    bundle.ids.append("c")
    with open(bundle.folder / "c.out", "w") as out:
        subprocess.run([ZL_OCI, "--root", bundle.state, "create", "c"], cwd=bundle.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True,
                       timeout=30 * SLOW)
    for args in (["create", "c"], ["run", "c"], ["delete", "c"], ["exec", "c", "/workload"], ["resume", "c"], ["kill", "c", "NONE"]):
        no("created", *args)
    bundle("start", "c")
    for args in (["start", "c"], ["create", "c"], ["delete", "c"], ["resume", "c"], ["kill", "c", "99"], ["exec", "c"], ["exec", "--process", "/none", "c"],
                 ["exec", "--user", "root", "c", "/workload"], ["exec", "--cap", "CAP_NONE", "c", "/workload"], ["update", "c", "--memory", "x"]):
        no("running", *args)
    bundle("pause", "c")
    for args in (["pause", "c"], ["exec", "c", "/workload"], ["start", "c"], ["delete", "c"], ["create", "c"]):
        no("paused", *args)
    bundle("resume", "c")
    bundle("kill", "c", "KILL")
    wait_for("it has ended", lambda: bundle.status() == "stopped")
    for args in (["kill", "c"], ["start", "c"], ["exec", "c", "/workload"], ["pause", "c"], ["resume", "c"], ["create", "c"]):
        no("stopped", *args)
    bundle("delete", "c")
    no(None, "delete", "c")
