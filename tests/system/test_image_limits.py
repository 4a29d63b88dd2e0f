"""Images at the edge of what is taken: large configs, bombs. What is taken can be read again; what is not is refused before it costs."""
import json

import check_store
import lying
import oci
import pytest
from conftest import Node
from test_images import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "data")


@pytest.fixture
def liar():
    r = lying.Registry()
    yield r
    r.close()


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
