"""What `--policy newer` takes for an absent registry, how often is tried, and how requests go out: through proxies, with tokens and
headers that a docker config names."""
import json
import ssl

import lying
import oci
import pytest
import tokens
from test_images import LAYERS, Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "data")


@pytest.fixture
def liar():
    r = lying.Registry()
    yield r
    r.close()


@pytest.fixture
def image(tmp_path, liar):
    oci.layout(tmp_path / "layout", LAYERS, {"Cmd": ["/bin/app"]})
    return liar.load(tmp_path / "layout")


@pytest.fixture
def config(tmp_path):
    """Writes registries.yml; returns the environment that names it."""
    folder = tmp_path / "config"
    folder.mkdir()

    def write(settings):
        (folder / "registries.yml").write_text(json.dumps({"version": "v1", "registries": settings}))
        return {"ZLAYER_CONFIG_DIR": str(folder)}
    return write


@pytest.fixture
def certificates(tmp_path):
    folder = tmp_path / "certificates"
    folder.mkdir()
    tokens.authority(folder)
    tokens.certificate(folder, "server")
    return folder


def test_newer_is_stale_only_when_the_registry_is_away(store, liar, image):
    """What a registry says counts, whatever it is; an image that is here stands in only for what it can't say."""
    name = f"{liar.host}/t/x:v1"
    record = store.pulled(name)
    for status in (500, 501, 502, 503, 504, 507, 408, 429):
        liar.behaviours = [("/v2/", lambda h, s=status: h.reply(s, b"{}", {"Retry-After": "100"}))]
        event, code = store.pull(name, policy="newer")
        assert (code, event.get("stale"), event.get("digest")) == (0, True, record["digest"]), (status, event)
    for status, says in ((400, "registry_error"), (401, "unauthorized"), (403, "unauthorized"), (404, "image_not_found"), (405, "registry_error"),
                         (410, "registry_error"), (418, "registry_error"), (302, "registry_error")):
        liar.behaviours = [("/v2/", lambda h, s=status: h.reply(s, b"{}"))]
        event, code = store.pull(name, policy="newer")
        assert code != 0 and event["code"] == says, (status, event)
    liar.behaviours = [("/manifests/", lambda h: h.reply(200, b"{}", {"Content-Type": lying.MANIFEST}))]
    event, code = store.pull(name, policy="newer")
    assert code != 0 and event["code"] == "bad_image", event


def test_newer_and_the_token_server(store, liar, image):
    name = f"{liar.host}/t/x:v1"
    store.pulled(name)
    lying.need_token(liar)
    token = [b for b in liar.behaviours if b[0] == "/token"]
    for status, away in ((503, True), (400, False)):
        liar.behaviours = [b for b in liar.behaviours if b[0] != "/token"]
        liar.on("/token", lambda h, s=status: h.reply(s, b"{}", {"Retry-After": "100"}))
        event, code = store.pull(name, policy="newer")
        assert (code == 0, event.get("stale", False)) == (away, away), event
    liar.behaviours = [b for b in liar.behaviours if b[0] != "/token"] + token
    event, code = store.pull(name, policy="newer")
    assert code == 0 and "stale" not in event, event


def test_newer_and_who_is_not_the_registry(store, liar, image, certificates, config):
    """Somebody else's certificate, and no TLS at all, are no absence; nobody there is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    other = lying.Registry()
    other.http.socket = context.wrap_socket(other.http.socket, server_side=True)
    try:
        other.blobs, other.manifests = liar.blobs, liar.manifests
        name = f"{other.host}/t/x:v1"
        store.pulled(name, env=config({other.host: {"ca": str(certificates / "ca.crt")}}))
        event, code = store.pull(name, policy="newer", env=config({other.host: {"tls": "verify"}}))
        assert code != 0 and event["code"] == "pull_failed" and "certificate" in event["message"], event
        store.pulled(f"{liar.host}/t/x:v1")
        event, code = store.pull(f"{liar.host}/t/x:v1", policy="newer", env=config({liar.host: {"tls": "verify"}}))
        assert code != 0 and event["code"] == "pull_failed" and "HTTPS" in event["hint"], event
    finally:
        other.close()
    event, code = store.pull(name, policy="newer", env=config({other.host: {"ca": str(certificates / "ca.crt")}}))
    assert code == 0 and event["stale"], event


def test_five_tries(store, liar, image):
    """Of each kind of request, on the fourth bad answer it is not over, on the fifth it is."""
    name = f"{liar.host}/t/x:v1"
    layer = image["layers"][0]["digest"]
    lying.need_token(liar)
    honest = liar.behaviours
    for match, bad in (("/manifests/", 5), ("/token", 5), (layer, 4)):
        liar.requests.clear()
        liar.behaviours = [] if match == "/token" else list(honest)
        liar.times(bad, match, lambda h: h.reply(502, b"{}"))
        liar.behaviours += honest
        if bad == 4:
            store.pulled(name)
        else:
            store.failed(name, "registry_error", "502")
        asked = [r for r in liar.requests if match in r[1] and (match == "/token" or r[2])]
        assert len(asked) == 5, (match, bad, asked)


# --- what requests carry, and which way they go

def docker_config(tmp_path, **content):
    folder = tmp_path / "docker"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    return {"DOCKER_CONFIG": str(folder)}


def seen_headers(registry):
    """Every request that comes is written down with its headers: [(path, {name: value})]."""
    seen = []

    def note(handler):
        seen.append((handler.path, dict(handler.headers.items())))
        return False
    registry.on("", note)
    return seen


def test_headers_of_docker(store, liar, image, tmp_path):
    other = lying.Registry("127.0.0.2")
    other.blobs = liar.blobs
    to_registry, to_other = seen_headers(liar), seen_headers(other)
    layer = image["layers"][1]["digest"]
    liar.on(layer, lambda h: h.reply(307, b"", {"Location": f"http://{other.host}/v2/t/x/blobs/{layer}"}))
    lying.need_token(liar, realm_host=other.host)
    other.behaviours += [b for b in liar.behaviours if b[0] == "/token"]
    env = docker_config(tmp_path, HttpHeaders={"X-Team": "blue sky", "Authorization": "Basic no", "range": "bytes=0-1", "X-Bad": "a\r\nX-Evil: 1",
                                               "X Space": "1", "X-Number": 7, "X-Empty": ""})
    try:
        store.pulled(f"{liar.host}/t/x:v1", env=env)
    finally:
        other.close()
    assert len(to_registry) >= 4 and {h.get("X-Team") for _, h in to_registry} == {"blue sky"}
    assert any("/token" in p for p, _ in to_other) and any(layer in p for p, _ in to_other)
    for _, headers in to_registry + to_other:
        assert not {"X-Bad", "X-Evil", "X-Number", "X-Empty", "X Space", "range", "Range"} & headers.keys(), headers
        assert "Basic no" not in headers.values()
    assert not [h for _, h in to_other if "X-Team" in h]
