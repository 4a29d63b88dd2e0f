"""How images are called: long names, and names by digest."""
import check_store
import oci
import pytest
from conftest import Node
from test_images import LAYERS


@pytest.fixture
def user(tmp_path):
    n = Node(tmp_path / "data")
    n.env.update(HOME=str(tmp_path), ZLAYER_CONFIG_DIR=str(tmp_path))
    yield n
    n.close()


def names(user):
    return {r["reference"] for r in user.json("image", "ls")}


def test_long_names(store, liar, user, tmp_path):
    """A name that is too long for a file, with all that is done to names."""
    digest = oci.layout(tmp_path / "l", LAYERS, {"Cmd": ["/bin/app"]})
    liar.load(tmp_path / "l")
    long = f"{liar.host}/" + "/".join(["a" * 60] * 3)
    name, twin = f"{long}:v1@{digest}", f"{long}:v2@{digest}"
    record = store.pulled(name)
    assert record["reference"] == name and len(name) > 255 and names(user) == {name}
    liar.requests.clear()
    store.pulled(name, policy="if_not_present")
    assert liar.requests == []
    store.pulled(twin)
    other = f"{long}/{'b' * 63}:{'t' * 120}"
    user.run("image", "tag", name, other)
    assert names(user) == {name, twin, other} and not check_store.faults(store.data)
    assert user.json("image", "inspect", other)["digest"] == digest
    user.run("image", "save", "-o", tmp_path / "a.tar", other)
    for gone, left in ((name, {twin, other}), (twin, {other})):
        user.run("image", "rm", gone)
        assert names(user) == left and not check_store.faults(store.data)
        assert user.run("image", "rm", gone, check=False).returncode == 3
    assert user.run("image", "prune").returncode == 0 and names(user) == {other}
    user.run("image", "fsck")
    user.run("image", "prune", "--all")
    assert names(user) == set() and not list((store.images / "layers").iterdir())
    user.run("image", "load", tmp_path / "a.tar")
    assert names(user) == {other} and not check_store.faults(store.data)
    store.pulled(f"{liar.host}/short:v1")
    assert any(p.name.endswith("%2Fshort%3Av1") for p in (store.images / "refs").iterdir())  # as ever


def test_a_hash_is_no_name(store, liar, user, tmp_path):
    """Two names of one hash are two images: the second is refused, and never taken for the first."""
    digest = oci.layout(tmp_path / "l", LAYERS)
    liar.load(tmp_path / "l")
    long = f"{liar.host}/" + "/".join(["a" * 60] * 3)
    store.pulled(f"{long}:v1@{digest}")
    (record,) = (store.images / "refs").iterdir()
    other = f"{long}:v2@{digest}"
    (store.images / "refs" / check_store.file_name(other)).write_bytes(record.read_bytes())
    assert user.run("image", "inspect", other, check=False).returncode == 3
    event, code = store.pull(other)
    assert code != 0 and event["code"] == "conflict", event
    assert any("another name" in f for f in check_store.faults(store.data))


def test_removal_by_digest(store, liar, user, tmp_path):
    digest = oci.layout(tmp_path / "l", LAYERS, {"Cmd": ["/bin/app"]})
    liar.load(tmp_path / "l")
    other = oci.layout(tmp_path / "m", [{"other": b"image"}])
    a, b, c = f"{liar.host}/t/a", f"{liar.host}/t/b", f"{liar.host}/t/c"

    def filled(*references):
        store.job(verb="prune", all=True)
        liar.load(tmp_path / "m")
        store.pulled(f"{c}:v1")
        liar.load(tmp_path / "l")
        for reference in references:
            store.pulled(f"{a}:v1")
            if reference != f"{a}:v1":
                user.run("image", "tag", f"{a}:v1", reference)
        if f"{a}:v1" not in references:
            user.run("image", "rm", f"{a}:v1")
        assert names(user) == {f"{c}:v1", *references}

    def rm(*args, code=0, says=""):
        r = user.run("image", "rm", *args, check=False)
        assert r.returncode == code and says in r.stderr, r
    for form in (digest, digest[7:], digest[7:19], "sha256:" + digest[7:30], f"{a}@{digest}"):
        filled(f"{a}:v1")
        rm(form)
        assert names(user) == {f"{c}:v1"}, form
        rm(form, code=3, says="no image")
    for form in (digest, digest[7:19], f"{a}@{digest}"):
        filled(f"{a}:v1", f"{a}:v2", f"{b}:v1")
        rm(form, code=1, says="--force")
        rm(form, code=1, says=f"{a}:v1, {a}:v2")
        assert len(names(user)) == 4 and not check_store.faults(store.data)
        rm("--force", form)
        assert names(user) == ({f"{c}:v1", f"{b}:v1"} if "@" in form else {f"{c}:v1"})
    filled(f"{a}:v1", f"{b}:v1")
    rm(f"{b}@{digest}")  # the only one of its repository
    assert names(user) == {f"{c}:v1", f"{a}:v1"}
    rm(f"{b}@{digest}", code=3)
    for form in (digest[7:18], other[7:18], digest[7:19].upper(), "f" * 12, f"{a}@{other}", "sha256:" + "0" * 64):
        rm(form, code=1 if form[0] in "ABCDEF0123456789" and form != form.lower() else 3)
    assert names(user) == {f"{c}:v1", f"{a}:v1"}
    store.pulled(f"{a}@{digest}")  # a reference as others are
    rm(f"{a}@{digest}")
    assert names(user) == {f"{c}:v1", f"{a}:v1"}
    user.run("image", "tag", f"{c}:v1", digest[7:19])  # a name that looks like a digest is a name first
    rm(digest[7:19])
    assert names(user) == {f"{c}:v1", f"{a}:v1"} and not check_store.faults(store.data)


def test_a_digest_in_use_is_not_removed(store, liar, user, tmp_path):
    digest = oci.layout(tmp_path / "l", LAYERS)
    liar.load(tmp_path / "l")
    record = store.pulled(f"{liar.host}/t/a:v1")
    (store.images / "leases" / "container").write_text("".join(f"{chain}\n" for chain in record["chain_ids"]))
    r = user.run("image", "rm", digest, check=False)
    assert r.returncode == 1 and "a container uses" in r.stderr and len(names(user)) == 1
    user.run("image", "rm", "--force", digest)
    assert names(user) == set() and len(list((store.images / "layers").iterdir())) == 2
