"""What `--policy newer` takes for an absent registry, how often is tried, and how requests go out: through proxies, with tokens and
headers that a docker config names."""
import base64
import json
import select
import socket
import ssl
import urllib.parse

import lying
import oci
import pytest
import tokens
from test_images import LAYERS


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


class WayOut(lying.Handler):
    """A proxy: it alone knows where registry.test is (owner.behind, owner.tls)."""

    def answer(self, with_body):
        to = urllib.parse.urlsplit(self.path)
        self.server.owner.asked.append((self.command, f"{to.scheme}://{to.netloc}", dict(self.headers.items())))
        self.path = to.path
        self.server.owner.manifests, self.server.owner.blobs = self.server.owner.behind.manifests, self.server.owner.behind.blobs
        self.serve(with_body)

    def do_CONNECT(self):
        self.server.owner.asked.append((self.command, self.path, dict(self.headers.items())))
        with socket.create_connection(("127.0.0.1", self.server.owner.tls.http.server_port), 10) as there:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            ends = {self.connection: there, there: self.connection}
            open_ = True
            while open_:
                for end in select.select(list(ends), [], [], 10)[0]:
                    data = end.recv(65536)
                    open_ = open_ and bool(data)
                    ends[end].sendall(data)
        self.close_connection = True


@pytest.fixture
def way_out(liar, tmp_path):
    folder = tmp_path / "tls"
    folder.mkdir()
    tokens.authority(folder)
    tokens.certificate(folder, "server", names="DNS:registry.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    tls, proxy = lying.Registry(), lying.Registry(handler=WayOut)
    tls.http.socket = context.wrap_socket(tls.http.socket, server_side=True)
    tls.manifests, tls.blobs = liar.manifests, liar.blobs
    proxy.behind, proxy.tls, proxy.asked, proxy.ca = liar, tls, [], str(folder / "ca.crt")
    yield proxy
    proxy.close()
    tls.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxies(store, liar, image, way_out, config, scheme):
    """What only a proxy can reach is pulled through it: named by the proxy, with the proxy's password, which the registry never sees."""
    settings = {"ca": way_out.ca} if scheme == "https" else {"tls": "none"}
    env = {f"{scheme}_proxy": f"http://me:sesame@{way_out.host}", **config({"registry.test": settings})}
    record = store.pulled("registry.test/t/x:v1", env=env)
    assert record["digest"] == oci.digest(liar.manifests["v1"][0])
    to = "http://registry.test" if scheme == "http" else "registry.test:443"
    assert way_out.asked and {(m == "CONNECT", where) for m, where, _ in way_out.asked} == {(scheme == "https", to)}
    password = "Basic " + base64.b64encode(b"me:sesame").decode()
    assert {h.get("Proxy-Authorization") for _, _, h in way_out.asked} == {password}
    assert not [r for r in way_out.tls.requests if r[2]] and not liar.requests
    if scheme == "https":
        assert len(way_out.tls.requests) >= 4


def test_what_goes_past_a_proxy(store, liar, image, way_out, config):
    env = {"http_proxy": f"http://{way_out.host}", "https_proxy": f"http://{way_out.host}", "no_proxy": "other.test,registry.test"}
    for tls in ("none", "verify"):  # looked up here, where nobody knows it
        event, code = store.pull("registry.test/t/x:v1", env={**env, **config({"registry.test": {"tls": tls}})})
        assert code != 0 and event["code"] == "pull_failed" and "resolve" in event["message"], event
    store.pulled(f"{liar.host}/t/x:v1", env=env)  # loopback never does
    assert way_out.asked == []
    env["no_proxy"] = "other.test"
    store.pulled("registry.test/t/x:v1", env={**env, **config({"registry.test": {"tls": "none"}})})
    assert way_out.asked


def test_a_proxy_that_is_away(store, config):
    env = {"http_proxy": "http://127.0.0.1:9", **config({"registry.test": {"tls": "none"}})}
    store.failed("registry.test/t/x:v1", "pull_failed", env=env)


def test_registry_tokens(store, liar, image, tmp_path):
    """registrytoken is sent as it is, wherever the challenge points; the token server is never asked."""
    lying.need_token(liar, user="me:sesame")
    name = f"{liar.host}/t/x:v1"
    store.failed(name, "unauthorized")
    liar.requests.clear()
    env = docker_config(tmp_path, auths={liar.host: {"registrytoken": "sesame"}})
    store.pulled(name, env=env)
    assert not [r for r in liar.requests if "/token" in r[1]]
    assert {r[2] for r in liar.requests} == {None, "Bearer sesame"} and [r[2] for r in liar.requests].count(None) == 1
    store.pulled(name, registry_token="sesame")
    assert store.job(verb="remove", reference=name)[1] == 0
    liar.requests.clear()
    event = store.failed(name, "unauthorized", env=docker_config(tmp_path, auths={liar.host: {"registrytoken": "wrong"}}))
    assert "token" in event["hint"] and not [r for r in liar.requests if "/token" in r[1]]
