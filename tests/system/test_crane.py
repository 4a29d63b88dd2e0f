"""crane, which shares no code with skopeo, podman or us, as a writer and a reader: images, indexes, zstd, artifacts, referrers,
credentials. Manifests stay byte for byte, whoever moves them."""
import json
import os
import shutil
import subprocess

import oci
import pytest
import tokens
from conftest import TOP
from test_images import LAYERS, Store
from test_registry import (config, login_file, pulled, pushed, put_artifact, put_index, raw,  # noqa: F401  (fixtures)
                           refused, served, skopeo)


@pytest.fixture
def crane(tmp_path):
    program = TOP / "build/tools/crane"
    program = program if program.exists() else shutil.which("crane")
    if not program:
        pytest.skip("crane is not there (tools/crane builds it, where Go is new enough)")
    (tmp_path / "crane").mkdir()

    def run(*args, docker_config=tmp_path / "crane", fails=False):
        r = subprocess.run([program, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                           env={**os.environ, "HOME": str(tmp_path), "DOCKER_CONFIG": str(docker_config)}, check=False)
        assert (r.returncode != 0) == fails, (args, r.stderr)
        return r.stderr.decode() if fails else r.stdout
    # It digests only layers that are gzip; of others it looks at the documents.
    run.validate = lambda reference, layers=True: run("validate", "--remote", reference, *([] if layers else ["--fast"]))
    return run


def files_of(crane, reference, folder):
    """The image's files as crane flattens them."""
    folder.mkdir()
    (folder / "tar").write_bytes(crane("export", reference, "-"))
    subprocess.run(["tar", "-C", folder, "-xf", folder / "tar"], check=True)
    return folder


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_crane_reads_what_was_pushed(store, registry, crane, tmp_path, compress):
    oci.layout(tmp_path / "l", LAYERS, {"Cmd": ["/bin/app"]})
    skopeo("copy", "--dest-tls-verify=false", "--dest-compress-format", compress, f"oci:{tmp_path}/l:latest", f"docker://{registry.host}/a/in:1")
    record = store.pulled(f"{registry.host}/a/in:1")
    pushed(store, f"{registry.host}/a/in:1", f"localhost:{registry.port}/b/out:1")
    name = f"{registry.host}/b/out:1"
    crane.validate(name, compress == "gzip")
    assert crane("digest", name).decode().strip() == record["digest"]
    manifest = crane("manifest", name)
    assert oci.digest(manifest) == record["digest"] and all(layer["mediaType"].endswith(compress) for layer in json.loads(manifest)["layers"])
    got = files_of(crane, name, tmp_path / "got")
    assert (got / "data/big").read_bytes() == LAYERS[1]["data/big"] and (got / "etc/conf").read_bytes() == b"two"
    crane("pull", "--format", "oci", name, tmp_path / "layout")
    assert json.loads((tmp_path / "layout/index.json").read_text())["manifests"][0]["digest"] == record["digest"]
    # And what it wrote to a folder is loaded here, as the same image.
    event, code = store.job(verb="load", source=str(tmp_path / "layout"), reference="loaded:1")
    assert code == 0 and store.record("docker.io/library/loaded:1")["digest"] == record["digest"], event


def test_what_crane_pushed_is_pulled(store, registry, crane, tmp_path):
    """push of a layout, append and mutate: OCI's and Docker's media types."""
    digest = oci.layout(tmp_path / "l", LAYERS, {"Cmd": ["/bin/app"]})
    name = f"{registry.host}/c/x"
    crane("push", tmp_path / "l", f"{name}:pushed")
    assert pulled(store, f"{name}:pushed")["digest"] == digest
    (tmp_path / "new.tar").write_bytes(oci.tar_of({"added": b"by crane", "etc/conf": b"three"}))
    crane("append", "-b", f"{name}:pushed", "-f", tmp_path / "new.tar", "-t", f"{name}:appended")
    crane("mutate", f"{name}:appended", "-t", f"{name}:mutated", "--cmd", "/new", "--label", "a=b", "--env", "X=y", "--workdir", "/data")
    crane("append", "-f", tmp_path / "new.tar", "-t", f"{name}:docker")
    crane("mutate", f"{name}:docker", "-t", f"{name}:docker", "--set-platform", f"linux/{oci.ARCH}")
    record = pulled(store, f"{name}:mutated")
    assert (record["cmd"], record["labels"], record["workdir"], "X=y" in record["env"]) == (["/new"], ["a=b"], "/data", True)
    root = store.root(record)
    assert root["added"][0].read_bytes() == b"by crane" and root["etc/conf"][0].read_bytes() == b"three" and root["bin/app"]
    for tag in ("appended", "mutated", "docker"):
        record = pulled(store, f"{name}:{tag}")
        assert record["digest"] == crane("digest", f"{name}:{tag}").decode().strip()
        assert pushed(store, f"{name}:{tag}", f"{registry.host}/d/back:{tag}")["digest"] == record["digest"]
        crane.validate(f"{registry.host}/d/back:{tag}")
        assert crane("manifest", f"{registry.host}/d/back:{tag}") == crane("manifest", f"{name}:{tag}") == raw(f"{name}:{tag}")
    store.check()
    crane("copy", f"{registry.host}/d/back:mutated", f"{registry.host}/e/again:1")
    assert pulled(store, f"{registry.host}/e/again:1")["digest"] == crane("digest", f"{name}:mutated").decode().strip()


def test_indexes(store, registry, liar, crane, tmp_path):
    """One that crane wrote, and one that was pushed here; crane chooses as we do."""
    oci.layout(tmp_path / "l", LAYERS)
    name = f"{registry.host}/i/x"
    crane("push", tmp_path / "l", f"{name}:mine")
    crane("mutate", f"{name}:mine", "-t", f"{name}:other", "--set-platform", "linux/s390x")
    crane("index", "append", "-m", f"{name}:other", "-m", f"{name}:mine", "-t", f"{name}:index")
    crane.validate(f"{name}:index")
    record = pulled(store, f"{name}:index")
    assert record["digest"] == crane("digest", f"{name}:index").decode().strip()
    assert record["manifest"] == crane("digest", "--platform", f"linux/{oci.ARCH}", f"{name}:index").decode().strip()
    other = pulled(Store(tmp_path / "other"), f"{name}:index", platform="linux/s390x")
    assert other["manifest"] == crane("digest", "--platform", "linux/s390x", f"{name}:index").decode().strip()
    # The rest of the index is there, so it goes as a whole.
    assert pushed(store, f"{name}:index", f"{name}:again")["digest"] == record["digest"]
    index = put_index(liar, "one", [({"os": "linux", "architecture": oci.ARCH}, b"mine")])
    store.pulled(f"{liar.host}/t/x:one")
    pushed(store, f"{liar.host}/t/x:one", f"{name}:ours")
    crane.validate(f"{name}:ours", False)
    assert crane("manifest", f"{name}:ours").strip() == index


def test_artifacts_and_their_referrers(store, registry, liar, crane, tmp_path):
    """crane has no verb for referrers, and reads the index that stands for them."""
    oci.layout(tmp_path / "l", LAYERS)
    subject = liar.load(tmp_path / "l") and liar.manifests["v1"][0]
    artifact = put_artifact(liar, "sbom", subject)
    for tag in ("v1", "sbom"):
        store.pulled(f"{liar.host}/t/x:{tag}")
        pushed(store, f"{liar.host}/t/x:{tag}", f"{registry.host}/a/x:{tag}")
    name = f"{registry.host}/a/x"
    assert crane("manifest", f"{name}:sbom") == artifact
    blob = json.loads(artifact)["layers"][0]["digest"]
    assert crane("blob", f"{name}@{blob}") == b"an sbom of any form"
    index = json.loads(crane("manifest", f"{name}:{oci.digest(subject).replace(':', '-')}"))
    assert [m["digest"] for m in index["manifests"]] == [oci.digest(artifact)]
    crane("copy", f"{name}:sbom", f"{registry.host}/a/copy:sbom")
    assert pulled(Store(tmp_path / "other"), f"{registry.host}/a/copy:sbom")["digest"] == oci.digest(artifact)


def test_what_crane_logged_in_to(store, served, crane, config, tmp_path):
    (tmp_path / "htpasswd").write_text(tokens.HTPASSWD)
    r = served(auth={"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}})
    digest = oci.layout(tmp_path / "l", LAYERS)
    crane("auth", "login", r.host, "-u", "me", "-p", "sesame")
    crane("push", tmp_path / "l", f"{r.host}/p/x:1")
    refused(store, f"{r.host}/p/x:1", "unauthorized", verb="pull", env=config())
    assert pulled(store, f"{r.host}/p/x:1", env={**config(), "DOCKER_CONFIG": str(tmp_path / "crane")})["digest"] == digest
    # The other way round.
    (tmp_path / "ours").mkdir()
    assert "401" in crane("digest", f"{r.host}/p/x:1", docker_config=tmp_path / "ours", fails=True)
    login_file(tmp_path / "ours", r.host)
    assert crane("digest", f"{r.host}/p/x:1", docker_config=tmp_path / "ours").decode().strip() == digest
