"""Layers that a registry need not have: they come from the URLs that their descriptors name, with their digest and without credentials,
and are not pushed."""
import gzip
import json
import os
import ssl

import lying
import oci
import pytest
from conftest import free_port
from test_images import Store
from test_registry import certificates, config, pushed, raw, refused, served, skopeo  # noqa: F401  (fixtures)

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
PLAIN = "application/vnd.oci.image.layer.v1.tar+gzip"
BASE = {"base/file": os.urandom(200000)}
LAYER = gzip.compress(oci.tar_of(BASE), mtime=0)


@pytest.fixture
def vendor():
    """Who has the layer, and is no registry."""
    v = lying.Registry()
    v.on("/layer", lambda h: h.blob(LAYER))
    yield v
    v.close()


def put(liar, *urls, media=FOREIGN, tag="v1"):
    """An image whose lower layer the registry does not have; returns its manifest's bytes."""
    own = gzip.compress(oci.tar_of({"own": b"mine"}), mtime=0)
    image = json.dumps({"os": "linux", "architecture": oci.ARCH, "config": {},
                        "rootfs": {"type": "layers", "diff_ids": [oci.digest(gzip.decompress(b)) for b in (LAYER, own)]}}).encode()
    liar.blobs.update({oci.digest(image): image, oci.digest(own): own})
    docker = media == FOREIGN
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json" if docker else lying.MANIFEST,
                "config": {"mediaType": "application/vnd.docker.container.image.v1+json" if docker else "application/vnd.oci.image.config.v1+json",
                           "digest": oci.digest(image), "size": len(image)},
                "layers": [{"mediaType": media, "digest": oci.digest(LAYER), "size": len(LAYER), "urls": list(urls)},
                           {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else PLAIN, "digest": oci.digest(own),
                            "size": len(own)}]}
    data = json.dumps(manifest).encode()
    liar.put_manifest(tag, data, manifest["mediaType"])
    return data


def asked(vendor, what="/layer"):
    return [r for r in vendor.requests if r[1].startswith(what)]


@pytest.mark.parametrize("media", [FOREIGN, NONDISTRIBUTABLE])
def test_it_comes_from_its_url_and_stays_there(store, liar, vendor, served, media):
    registry = served(urls=".*")
    manifest = put(liar, f"http://{vendor.host}/layer", media=media)
    lying.need_token(liar, user="me:secret")
    record = store.pulled(f"{liar.host}/t/x:v1", username="me", password="secret")
    assert store.root(record)["base/file"][0].read_bytes() == BASE["base/file"] and store.root(record)["own"][0].read_bytes() == b"mine"
    assert asked(vendor) == [("GET", "/layer", None, None)] == vendor.requests
    assert [r[2] for r in liar.requests if oci.digest(LAYER) in r[1]] == ["Bearer sesame"]  # the registry was asked, and before
    store.check()
    event = pushed(store, f"{liar.host}/t/x:v1", f"{registry.host}/t/x:1")
    assert event["blobs"] == {"there": 0, "mounted": 0, "sent": 2} and raw(f"{registry.host}/t/x:1") == manifest
    assert not list((store.data.parent / "registry0").rglob(oci.digest(LAYER)[7:]))
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/t/x:1", f"dir:{store.data.parent}/copied")
    assert (store.data.parent / "copied" / oci.digest(LAYER)[7:]).read_bytes() == LAYER
    vendor.requests.clear()
    other = Store(store.data.parent / "other")
    assert other.pulled(f"{registry.host}/t/x:1")["digest"] == oci.digest(manifest) and len(asked(vendor)) == 1


def test_a_registry_that_has_it_is_enough(store, liar, vendor):
    put(liar, f"http://{vendor.host}/layer")
    liar.blobs[oci.digest(LAYER)] = LAYER
    store.pulled(f"{liar.host}/t/x:v1")
    assert vendor.requests == []


def test_urls_of_other_blobs(store, liar, vendor):
    """OCI's descriptors may all name URLs; such a layer is an ordinary one, and pushed."""
    put(liar, f"http://{vendor.host}/layer", media=PLAIN)
    store.pulled(f"{liar.host}/t/x:v1")
    assert len(asked(vendor)) == 1
    other = lying.Registry()
    try:
        event, _ = store.job(verb="push", reference=f"{liar.host}/t/x:v1", destination=f"{other.host}/t/x:1")
        assert event["event"] == "error" and any(r[0] == "HEAD" and oci.digest(LAYER) in r[1] for r in other.requests)
    finally:
        other.close()


def test_each_url_in_turn(store, liar, vendor):
    """What is no http or https, what fails, and what lies is passed over; a part that came is gone on with."""
    vendor.on("/gone", lambda h: h.reply(404, b'{"errors":[{"code":"X","message":"inner words"}]}'))
    vendor.on("/lie", lambda h: h.reply(200, b"x" * len(LAYER)))
    vendor.on("/cut", lambda h: h.cut(LAYER, 100000) if not h.headers.get("Range") else h.reply(500, b""))
    put(liar, "file:///etc/passwd", "ftp://127.0.0.1/layer", "//no.scheme/layer", "", f"http://{vendor.host}/gone", f"http://{vendor.host}/lie",
        f"http://{vendor.host}/cut", f"http://{vendor.host}/layer", f"http://{vendor.host}/never")
    store.pulled(f"{liar.host}/t/x:v1")
    assert asked(vendor) == [("GET", "/layer", None, "bytes=100000-")]
    assert [r[1] for r in vendor.requests if r[1] in ("/gone", "/lie", "/never")] == ["/gone", "/lie"]
    store.check()
    # None is left: the last is named, and not what its server says.
    put(liar, f"http://{vendor.host}/lie", f"http://{vendor.host}/gone")
    event = Store(store.data.parent / "other").failed(f"{liar.host}/t/x:v1", "registry_error", f"http://{vendor.host}/gone", "answered 404",
                                                      f"http://{vendor.host}/lie", oci.digest(LAYER)[:19])
    assert "inner words" not in event["message"]
    put(liar)
    Store(store.data.parent / "none").failed(f"{liar.host}/t/x:v1", "registry_error", "does not have it")
    put(liar, *[f"http://{vendor.host}/gone"] * 8, f"http://{vendor.host}/layer")
    Store(store.data.parent / "many").failed(f"{liar.host}/t/x:v1", "registry_error", "/gone")


@pytest.mark.parametrize("what, code, word", [("lie", "digest_mismatch", "digest"), ("endless", "digest_mismatch", "more than"),
                                              ("file:///etc/hostname", "registry_error", "no http or https")])
def test_a_url_that_lies(store, liar, vendor, what, code, word):
    vendor.on("/lie", lambda h: h.reply(200, LAYER[:-1] + b"?"))
    vendor.on("/endless", lambda h: h.endless())
    put(liar, what if ":" in what else f"http://{vendor.host}/{what}")
    store.failed(f"{liar.host}/t/x:v1", code, word, oci.digest(LAYER)[:19])


def test_a_url_with_a_bad_day(store, liar, vendor):
    vendor.times(2, "/day", lambda h: h.reply(503, b""))
    vendor.on("/day", lambda h: h.blob(LAYER))
    put(liar, f"http://{vendor.host}/day")
    store.pulled(f"{liar.host}/t/x:v1")
    assert len(vendor.requests) == 3


@pytest.mark.parametrize("challenge", ["Basic", "Bearer"])
def test_who_asks_for_credentials_gets_none(store, liar, vendor, challenge):
    """Nor does a token server that it points to (as CVE-2020-15157 had it)."""
    wants = 'Basic realm="x"' if challenge == "Basic" else f'Bearer realm="http://{vendor.host}/token",service="s"'
    vendor.on("/private", lambda h: h.reply(401, b"", {"WWW-Authenticate": wants}))
    put(liar, f"http://{vendor.host}/private")
    lying.need_token(liar, user="me:secret")
    store.failed(f"{liar.host}/t/x:v1", "registry_error", "answered 401", username="me", password="secret")
    assert vendor.requests == [("GET", "/private", None, None)]


def test_a_url_that_leads_to_the_registry(store, liar, vendor):
    """Not even there: the URL may name any path of it."""
    vendor.on("/back", lambda h: h.reply(307, b"", {"Location": f"http://{liar.host}/secret"}))
    put(liar, f"http://{vendor.host}/back", f"http://{liar.host}/secret")
    lying.need_token(liar, user="me:secret")
    liar.on("/secret", lambda h: h.reply(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{liar.host}/token"'}))
    store.failed(f"{liar.host}/t/x:v1", "registry_error", "answered 401", username="me", password="secret")
    assert [r[2] for r in liar.requests if r[1] == "/secret"] == [None, None]


def test_plain_http_is_for_those_that_may_speak_it(store, liar, config):
    """Any other host is not even spoken to: a manifest must not make a node ask its network for things."""
    put(liar, "http://10.255.255.1/layer")
    refused(store, f"{liar.host}/t/x:v1", "registry_error", "10.255.255.1", "plain HTTP", verb="pull", env=config())


def secure(registry, certificates, wants_client=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    if wants_client:
        context.load_verify_locations(certificates / "ca.crt")
        context.verify_mode = ssl.CERT_OPTIONAL
    registry.http.socket = context.wrap_socket(registry.http.socket, server_side=True)
    return registry


def test_https_never_leads_to_plain_http(store, liar, vendor, certificates, config):
    registry = secure(lying.Registry(), certificates)
    hidden = secure(lying.Registry(), certificates)
    try:
        hidden.on("/layer", lambda h: h.reply(302, b"", {"Location": f"http://{vendor.host}/layer"}))
        ca = {"ca": str(certificates / "ca.crt")}
        put(registry, f"http://{vendor.host}/layer", f"https://{hidden.host}/layer")
        event = refused(store, f"{registry.host}/t/x:v1", "registry_error", "from HTTPS", verb="pull", env=config({registry.host: ca, hidden.host: ca}))
        assert vendor.requests == [] and len(asked(hidden)) == 1 and "before that" in event["message"]
        # Nor by way of a URL, when the registry itself speaks plain HTTP.
        put(liar, f"https://{hidden.host}/layer")
        refused(store, f"{liar.host}/t/x:v1", "registry_error", "from HTTPS", verb="pull", env=config({hidden.host: ca}))
        assert vendor.requests == [] and len(asked(hidden)) == 2
    finally:
        registry.close()
        hidden.close()


def test_a_clients_certificate_stays_with_its_registry(store, certificates, config):
    shown = []

    def note(name):
        def behave(handler):
            shown.append((name, bool(handler.connection.getpeercert())))
            return False
        return behave
    registry, vendor = secure(lying.Registry(), certificates, True), secure(lying.Registry(), certificates, True)
    try:
        registry.on("/v2/", note("registry"))
        vendor.on("/layer", note("vendor"))
        vendor.on("/layer", lambda h: h.blob(LAYER))
        put(registry, f"https://{vendor.host}/layer")
        ours = {"ca": str(certificates / "ca.crt"), "client_certificate": str(certificates / "client.crt"), "client_key": str(certificates / "client.key")}
        event, code = store.job(config({registry.host: ours, vendor.host: ours}), verb="pull", reference=f"{registry.host}/t/x:v1", policy="always")
        assert code == 0, event
        assert ("vendor", False) in shown and {s for s in shown if s[0] == "registry"} == {("registry", True)}
    finally:
        registry.close()
        vendor.close()


def test_nobody_at_the_url(store, liar):
    put(liar, f"http://127.0.0.1:{free_port()}/layer")
    store.failed(f"{liar.host}/t/x:v1", "pull_failed", "its URL", "does not have it")


@pytest.mark.parametrize("urls", ['"http://x/"', "[1]", "{}"])
def test_urls_that_are_no_list_of_texts(store, liar, urls):
    data = put(liar).replace(b'"urls": []', b'"urls": ' + urls.encode())
    liar.put_manifest("v1", data, "application/vnd.docker.distribution.manifest.v2+json")
    store.failed(f"{liar.host}/t/x:v1", "bad_image", "'urls'")
