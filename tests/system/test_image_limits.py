"""Images at the edge of what is taken: large configs, bombs. What is taken can be read again; what is not is refused before it costs."""
import gzip
import json
import subprocess
import tarfile

import check_store
import oci
import pytest
from conftest import Node
from test_images import put_image


@pytest.fixture
def user(tmp_path):
    n = Node(tmp_path / "data")
    n.env.update(HOME=str(tmp_path), ZLAYER_CONFIG_DIR=str(tmp_path))
    yield n
    n.close()


# --- large configs

DEL = "\x7f"  # one byte in a config, six in a record
LARGE = {"labels": {"Labels": {f"k{i}": "x" * 1000 for i in range(1500)}},
         "env": {"Env": [f"K{i}=" + "y" * 5000 for i in range(300)]},
         "many": {"Labels": {f"k{i}": "" for i in range(99000)}},
         "escapes": {"Labels": {"k": DEL * 4_000_000}},
         "quotes": {"Cmd": ["\\\"" * 1_000_000]}}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_config_is_an_image(store, liar, user, tmp_path, kind):
    oci.layout(tmp_path / "large", [{"a": b"1"}], LARGE[kind])
    path = next(p for p in (tmp_path / "large/blobs/sha256").iterdir() if b"rootfs" in p.read_bytes()[-500:])
    assert 1 << 20 < path.stat().st_size <= 4 << 20
    config = json.loads(path.read_text())["config"]
    liar.load(tmp_path / "large")
    name = f"{liar.host}/t/x:v1"
    record = store.pulled(name)
    wanted = [f"{k}={v}" for k, v in config.get("Labels", {}).items()]
    assert (record.get("labels", []), record["env"], record["cmd"]) == (wanted, config.get("Env", []), config.get("Cmd", []))
    assert [r["reference"] for r in user.json("image", "ls")] == [name]
    assert user.json("image", "inspect", name)["digest"] == record["digest"]
    event, code = store.job(verb="prune")
    assert code == 0 and event["freed_bytes"] == 0, event
    event, code = store.job(verb="fsck")
    assert (code, event["images"], event["found"]) == (0, 1, 0), event
    event, code = store.job(verb="tag", reference=name, target="other:1")
    assert code == 0, event
    assert store.record("docker.io/library/other:1")["config"] == record["config"]
    assert not check_store.faults(store.data)


def test_a_config_over_the_limit_fetches_no_layer(store, liar, tmp_path):
    for kind, config in {"bytes": {"Labels": {"k": "x" * (4 << 20)}}, "values": {"Labels": {f"k{i}": "" for i in range(100001)}}}.items():
        oci.layout(tmp_path / kind, [{"a": b"1"}], config)
        layer = liar.load(tmp_path / kind)["layers"][0]["digest"]
        liar.requests.clear()
        store.failed(f"{liar.host}/t/x:v1", "bad_image")
        assert not [r for r in liar.requests if layer in r[1]]


# --- bombs

def zstd(data):
    return subprocess.run(["zstd", "-19", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


COMPRESSIONS = {"gzip": lambda data: gzip.compress(data, 9), "zstd": zstd}
LAYER = "application/vnd.oci.image.layer.v1.tar"


def header(size):
    info = tarfile.TarInfo("zeros")
    info.size, info.mtime = size, 1
    return info.tobuf()


@pytest.mark.parametrize("place", ["in a file", "behind the end"])
@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_bombs(store, liar, kind, place):
    """Zeros by the terabyte in a few MiB: refused past the first GiB, whether they are a file's or nobody's, and nothing of it stays."""
    compress = COMPRESSIONS[kind]
    begin = compress(header(1 << 34) if place == "in a file" else bytes(1024))
    part = compress(bytes(64 << 20))  # members and frames follow each other
    assert len(part) < (64 << 20) // 1000
    put_image(liar, [(begin + part * 256, f"{LAYER}+{kind}", oci.digest(b"never asked"))])
    event = store.failed(f"{liar.host}/t/x:v1", "limit_exceeded", "200 times")
    assert "1 GiB" in event["message"]
    assert sum(f.stat().st_size for f in store.images.rglob("*") if f.is_file()) < 100 << 20
    assert not list((store.images / "layers").iterdir())


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_zeros_that_are_no_bomb(store, liar, kind):
    """A database's file of zeros, at whatever ratio."""
    size = 100 << 20
    tar = header(size) + bytes(size) + bytes(1024)
    put_image(liar, [(COMPRESSIONS[kind](tar), f"{LAYER}+{kind}", oci.digest(tar))])
    record = store.pulled(f"{liar.host}/t/x:v1")
    assert store.root(record)["zeros"][1].st_size == size
