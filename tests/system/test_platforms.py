"""Which image of an index is for this machine, or for what was asked for; and what is here for one is not what another wants."""
import json
import os
import signal

import lying
import oci
import pytest
from conftest import BUILD, free_port, wait_for
from test_registry import pulled, put_index, refused  # noqa: F401  (fixtures)
from test_spine import containers, fetch, spec

OTHER = "mips64le"


def put_workload(liar, tag="multi"):
    """An index whose images run, as far as the machine is the one that they name."""
    manifests = []
    for arch in (OTHER, oci.ARCH):
        tar = oci.tar_of({"workload": (BUILD / "tests/programs/workload").read_bytes(), "arch": arch.encode()})
        config = json.dumps({"os": "linux", "architecture": arch, "config": {"Entrypoint": ["/workload"], "Cmd": ["serve", "8080"]},
                             "rootfs": {"type": "layers", "diff_ids": [oci.digest(tar)]}}).encode()
        liar.blobs[oci.digest(config)], liar.blobs[oci.digest(tar)] = config, tar
        data = json.dumps({"schemaVersion": 2, "mediaType": lying.MANIFEST,
                           "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": oci.digest(config), "size": len(config)},
                           "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": oci.digest(tar), "size": len(tar)}]}).encode()
        liar.put_manifest(f"{tag}-{arch}", data)
        manifests.append({"mediaType": lying.MANIFEST, "digest": oci.digest(data), "size": len(data), "platform": {"os": "linux", "architecture": arch}})
    liar.put_manifest(tag, json.dumps({"schemaVersion": 2, "mediaType": lying.INDEX, "manifests": manifests}).encode(), lying.INDEX)
    return f"{liar.host}/t/x:{tag}"


def arch_of(node, name):
    return node.json("image", "inspect", name)["architecture"]


def test_a_deployment_wants_this_machines_image(node, liar):
    """if_not_present: one that is here for another machine is not present."""
    name, port = put_workload(liar), free_port()
    node.run("pull", "--platform", f"linux/{OTHER}", name)
    assert arch_of(node, name) == OTHER
    document = spec(port, name, 1)
    never = document.replace(f'"{name}"}}', f'"{name}", pull_policy: never}}')
    r = node.run("up", "-b", node.write_spec(never), check=False)
    assert r.returncode != 0 and f"linux/{OTHER}" in r.stderr and f"linux/{oci.ARCH}" in r.stderr, r.stderr
    node.run("down", "spine")
    assert arch_of(node, name) == OTHER
    node.run("up", "-b", node.write_spec(document))
    assert fetch(port)[0] == 200 and arch_of(node, name) == oci.ARCH
    node.run("down", "spine")
    # What is here and fits is used, and nobody is asked.
    liar.requests.clear()
    node.run("up", "-b", node.write_spec(document))
    assert fetch(port)[0] == 200 and liar.requests == []
    node.run("down", "spine")


def test_another_image_comes_under_the_name_of_one_that_runs(node, liar):
    """The replica that runs is left alone; the next one gets what the machine runs, and does not fail on what is there."""
    name, port = put_workload(liar), free_port()
    node.run("up", "-b", node.write_spec(spec(port, name, 1)))
    first = containers(node)[0]
    node.run("pull", "--platform", f"linux/{OTHER}", name)
    assert arch_of(node, name) == OTHER and containers(node)[0]["id"] == first["id"] and fetch(port)[0] == 200
    os.kill(first["pid"], signal.SIGKILL)
    wait_for("another replica runs", lambda: [c for c in containers(node) if c["id"] != first["id"]], 60)
    assert arch_of(node, name) == oci.ARCH
    # The same when it went altogether.
    second = containers(node)[0]
    node.run("image", "rm", "--force", name)
    os.kill(second["pid"], signal.SIGKILL)
    wait_for("a third replica runs", lambda: [c for c in containers(node) if c["id"] not in (first["id"], second["id"])], 60)
    node.run("down", "spine")


def test_versions_and_features_of_a_system(store, liar):
    """None is taken that was not asked for, and none that is here passes for another."""
    windows = {"os": "windows", "architecture": "amd64"}
    put_index(liar, "w", [({"os": "linux", "architecture": oci.ARCH, "os.features": ["fast"]}, b"fast"), ({"os": "linux", "architecture": oci.ARCH,
                           "os.version": "6.1"}, b"versioned"), ({"os": "linux", "architecture": oci.ARCH}, b"plain"),
                          ({**windows, "os.version": "10.0.17763.1"}, b"old"), ({**windows, "os.version": "10.0.20348.9", "os.features": ["win32k"]}, b"new")])
    name = f"{liar.host}/t/x:w"

    def which(platform=None, policy="if_not_present"):
        record = pulled(store, name, policy=policy, **({"platform": platform} if platform else {}))
        return store.root(record)["which"][0].read_bytes(), record.get("os_version"), record.get("os_features")
    assert which() == (b"plain", None, None)
    assert which(f"linux(6)/{oci.ARCH}") == (b"versioned", "6.1", None)
    assert which(f"linux(6+fast)/{oci.ARCH}", "always")[0] == b"versioned"
    assert which() == (b"plain", None, None)
    assert which("windows(10.0.17763)/amd64") == (b"old", "10.0.17763.1", None)
    refused(store, name, "image_not_found", "windows(10.0.17763.1)/amd64", "windows(10.0.20348+win32k)/amd64", "never", verb="pull", policy="never",
            platform="windows(10.0.20348+win32k)/amd64")
    assert which("windows(10.0.20348+win32k)/amd64") == (b"new", "10.0.20348.9", ["win32k"])
    refused(store, name, "image_not_found", "never", verb="pull", policy="never", platform="windows(10.0.20348)/amd64")
    liar.requests.clear()
    assert which("windows(10.0+win32k+more)/amd64", "never")[0] == b"new" and liar.requests == []
    refused(store, name, "bad_image", "windows(10.0.20348.9+win32k)/amd64", verb="pull", policy="if_not_present", platform="windows/amd64")
    refused(store, name, "bad_image", verb="pull", policy="if_not_present", platform="windows(10.0.2034)/amd64")


@pytest.mark.parametrize("depth, fine", [(1, True), (2, False)])
def test_an_index_in_an_index(store, liar, depth, fine):
    name = "x0"
    index = put_index(liar, name, [({"os": "linux", "architecture": "s390x"}, b"no"), ({"os": "linux", "architecture": oci.ARCH}, b"yes")])
    for i in range(depth):
        name = f"x{i + 1}"
        index = json.dumps({"schemaVersion": 2, "mediaType": lying.INDEX, "manifests": [
            {"mediaType": lying.INDEX, "digest": oci.digest(index), "size": len(index), "platform": {"os": "linux", "architecture": oci.ARCH}}]}).encode()
        liar.put_manifest(name, index, lying.INDEX)
    if fine:
        assert store.root(pulled(store, f"{liar.host}/t/x:{name}"))["which"][0].read_bytes() == b"yes"
    else:
        refused(store, f"{liar.host}/t/x:{name}", "bad_image", "an index that names an index", verb="pull")
