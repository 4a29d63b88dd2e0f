"""docs/OCI.md against the specification's JSON schema, and the output of `features` against its own."""
import copy
import fnmatch
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from test_oci import bundle  # noqa: F401  (a fixture)

ROOT = pathlib.Path(__file__).parents[2]
MODULE = "github.com/opencontainers/runtime-spec@v1.3.0"
OTHER_SYSTEMS = ("solaris", "windows", "vm", "zos")


class Schema:
    def __init__(self, folder):
        self.folder, self.files = folder, {}

    def resolve(self, node, base):
        """The node itself, whatever the number of references that lead to it."""
        while "$ref" in node:
            name, _, place = node["$ref"].partition("#")
            base = name or base
            node = self.file(base)
            for part in place.strip("/").split("/"):
                node = node[part] if part else node
        return node, base

    def file(self, name):
        if name not in self.files:
            self.files[name] = json.loads((self.folder / name).read_text())
        return self.files[name]

    def inline(self, node, base):
        """The same without references."""
        if isinstance(node, list):
            return [self.inline(n, base) for n in node]
        if not isinstance(node, dict):
            return node
        node, base = self.resolve(node, base)
        return {k: self.inline(v, base) for k, v in node.items() if k not in ("id", "definitions")}

    def members(self, node, path=""):
        for part in (p for k in ("allOf", "anyOf", "oneOf") for p in node.get(k, [])):
            yield from self.members(part, path)
        for name, below in node.get("properties", {}).items():
            at = f"{path}.{name}" if path else name
            yield at
            yield from self.members(below, at)
        if isinstance(node.get("items"), dict):
            yield from self.members(node["items"], path + "[]")
        for below in [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]:
            if isinstance(below, dict):
                yield from self.members(below, path + ".*")


@pytest.fixture(scope="module")
def schema():
    if not shutil.which("go"):
        pytest.skip("no go, with whose module of the specification the schema comes")
    r = subprocess.run(["go", "mod", "download", "-json", MODULE], cwd="/tmp", capture_output=True, text=True, timeout=120, check=False)
    if r.returncode:
        pytest.skip(f"the specification's module can't be fetched: {r.stderr.strip() or r.stdout.strip()[-200:]}")
    return Schema(pathlib.Path(json.loads(r.stdout)["Dir"]) / "schema")


def table():
    """(patterns, test) of each row."""
    for line in (ROOT / "docs/OCI.md").read_text().splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and "::" in cells[2]:
            yield [p.strip() for p in cells[0].split(",")], cells[2]


def matches(member, pattern):
    return fnmatch.fnmatchcase(member.replace("[]", "()"), pattern.replace("[]", "()"))


def test_every_member_has_a_test(schema):
    members = {m for m in schema.members(schema.inline(schema.file("config-schema.json"), "config-schema.json"))
               if m.split(".")[0] not in OTHER_SYSTEMS}
    rows = list(table())
    assert len(members) > 200 and len(rows) > 40
    patterns = [p for row, _ in rows for p in row]
    assert not [m for m in sorted(members) if not any(matches(m, p) for p in patterns)]
    assert not [p for p in patterns if not any(matches(m, p) or matches(m + ".any", p) for m in members)]
    for _, test in rows:
        name, function = test.split("::")
        assert re.search(rf"^def {function}\(", (ROOT / "tests/system" / name).read_text(), re.M), test


def is_little(arch):
    return not re.match("SCMP_ARCH_(MIPS(64|64N32)?|PPC(64)?|S390X?|PARISC.*)$", arch)


def test_features_are_valid(bundle, schema):  # noqa: F811
    jsonschema = pytest.importorskip("jsonschema", reason="python3-jsonschema is not installed (tools/setup test)")
    features = json.loads(bundle("features").stdout)
    jsonschema.Draft4Validator(schema.inline(schema.file("features-schema.json"), "features-schema.json")).validate(features)
    config = json.loads((bundle.folder / "config.json").read_text())
    jsonschema.Draft4Validator(schema.inline(schema.file("config-schema.json"), "config-schema.json")).validate(config)
    assert features["linux"]["intelRdt"] == {"enabled": True, "schemata": True, "monitoring": True} and features["potentiallyUnsafeConfigAnnotations"] == ["org.systemd.property."]
    # The machine's kernel knows the flags that are said to be supported, and each name is one of the specification's.
    names = schema.file("defs-linux.json")["definitions"]
    seccomp = features["linux"]["seccomp"]
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"]) == set(names["SeccompFlag"]["enum"])
    assert set(seccomp["actions"]) == set(names["SeccompAction"]["enum"]) and set(seccomp["operators"]) == set(names["SeccompOperators"]["enum"])
    assert {"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64", "SCMP_ARCH_S390", "SCMP_ARCH_MIPSEL64N32"} <= set(seccomp["archs"])
    policy = features["linux"]["memoryPolicy"]
    assert set(policy["modes"]) == set(names["MemoryPolicyMode"]["enum"]) and set(policy["flags"]) == set(names["MemoryPolicyFlag"]["enum"])
    for arch in seccomp["archs"]:  # they are taken, whether this machine's calls are of them or not
        r = bundle.run("exit", "3", linux={**bundle.config["linux"], "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [arch], "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}})
        assert r.returncode == 3 or (r.returncode == 1 and "another byte order" in r.stderr and not is_little(arch)), (arch, r)


def test_versions(bundle):  # noqa: F811
    for version, code in (("1.0.0", 5), ("1.0.2-dev", 5), ("1.1.0", 5), ("1.2.1", 5), ("1.3.0", 5), ("2.0.0", 1), ("0.9", 1), ("", 1)):
        assert bundle.run("exit", 5, ociVersion=version).returncode == code, version


def test_members_of_other_systems(bundle):  # noqa: F811
    process = {**bundle.config["process"], "commandLine": "x", "user": {"uid": 0, "gid": 0, "username": "x"}}
    r = bundle.run("say", "fine", process=process, freebsd={"jail": {"vnet": "new"}}, windows={"layerFolders": ["x"]}, unknown={"a": [1]})
    assert r.returncode == 0 and r.stdout == "fine\n"


def test_refused_members(bundle):  # noqa: F811
    if "resctrl" in pathlib.Path("/proc/mounts").read_text():
        pytest.skip("here linux.intelRdt would be done; tests/unit/ocirun/test_rdt.c is about that")
    for linux, why in (({"intelRdt": {"closID": "a"}}, "linux.intelRdt: this machine has no resctrl mounted"),
                       ({"intelRdt": {}}, "linux.intelRdt: this machine has no resctrl mounted"),
                       ({"intelRdt": {"closID": "a/b"}}, "'a/b' is no name of a class"),
                       ({"intelRdt": {"memBwSchema": "L3:0=f"}}, "linux.intelRdt.memBwSchema: 'L3:0=f' is no line that begins with 'MB:'"),
                       ({"intelRdt": {"l3CacheSchema": 1}}, "linux.intelRdt.l3CacheSchema"),
                       ({"personality": {"domain": "LINUX", "flags": ["x"]}}, "'flags' is not supported")):
        r = bundle.run("say", "it ran", linux={**copy.deepcopy(bundle.config["linux"]), **linux})
        assert r.returncode == 1 and why in r.stderr and "it ran" not in r.stdout
    assert os.listdir(bundle.state) == []
