"""Registries as they are met: real ones plain, with TLS, certificates, passwords and tokens, and behind a proxy that has bad
days; mirrors, platforms, artifacts; login and logout. What others wrote is read, what was written others read."""
import base64
import concurrent.futures
import json
import os
import pathlib
import pty
import random
import select
import shutil
import signal
import stat
import subprocess
import tempfile
import time

import check_store
import engines
import faultproxy
import lying
import oci
import pytest
import test_images
import tokens
from conftest import SANITIZED, Node, Registry, free_port, need_root, program, wait_for
from test_images import LAYERS, Store, put_image

BIG = os.urandom(400000)


@pytest.fixture
def proxy(registry):
    p = faultproxy.Proxy(registry.host)
    yield p
    p.close()


@pytest.fixture
def config(tmp_path):
    """A configuration folder; call it to write registries.yml, its value is the environment."""
    folder = tmp_path / "config"
    folder.mkdir()

    def write(settings=None):
        if settings is not None:
            (folder / "registries.yml").write_text(json.dumps({"version": "v1", "registries": settings}))
        return {"ZLAYER_CONFIG_DIR": str(folder)}
    write.folder = folder
    return write


@pytest.fixture
def served(tmp_path):
    """Starts real registries: served(tls=…, auth=…)."""
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed (tools/setup test)")
    started = []

    def start(**kw):
        folder = tmp_path / f"registry{len(started)}"
        folder.mkdir()
        started.append(Registry(folder, **kw))
        return started[-1]
    yield start
    for r in started:
        r.close()


@pytest.fixture
def token_service(tmp_path):
    folder = tmp_path / "tokens"
    folder.mkdir()
    t = tokens.Tokens(folder)
    yield t
    t.close()


def skopeo(*args, check=True):
    return subprocess.run(["skopeo", "--insecure-policy", *map(str, args)], check=check, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)


def raw(reference, *options):
    """A manifest as an independent reader gets it."""
    return skopeo("inspect", "--raw", *(options or ["--tls-verify=false"]), f"docker://{reference}").stdout


def raw_in(registry, name):
    """The same, in the registry's network namespace."""
    return subprocess.run([*registry.enter, "skopeo", "--insecure-policy", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/{name}"],
                          check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60).stdout


def pushed(store, reference, destination=None, env=None, **more):
    event, code = store.job(env, verb="push", reference=reference, **({"destination": destination} if destination else {}), **more)
    assert (event["event"], code) == ("done", 0), event
    return event


def refused(store, reference, code, *words, env=None, verb="push", **more):
    event, exit_code = store.job(env, verb=verb, reference=reference, **more)
    assert exit_code not in (0, -9) and event["event"] == "error" and event["code"] == code, event
    for word in words:
        assert word in event["message"] + event["hint"], (word, event)
    return event


def pulled(store, reference, env=None, **more):
    event, code = store.job(env, verb="pull", reference=reference, policy=more.pop("policy", "always"), **more)
    assert (event["event"], code) == ("done", 0), event
    return store.record(event["reference"])


@pytest.fixture
def image(store, liar, tmp_path):
    """An image in the store, and its reference there."""
    oci.layout(tmp_path / "layout", [*LAYERS, {"big": BIG}], {"Cmd": ["/bin/app"]})
    liar.load(tmp_path / "layout")
    store.pulled(f"{liar.host}/t/x:v1")
    return f"{liar.host}/t/x:v1"


def login_file(folder, host, user="me", password="sesame", name="config.json", **more):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode(), **more}}}))


# --- writers and readers that are not ours

@pytest.mark.parametrize("form", ["oci", "v2s2"])
@pytest.mark.parametrize("compress", ["gzip", "zstd", "uncompressed"])
def test_what_skopeo_wrote_goes_round(store, registry, tmp_path, form, compress):
    if form == "v2s2" and compress == "zstd":
        pytest.skip("Docker's schema 2 has no zstd")
    oci.layout(tmp_path / "l", LAYERS, {"Cmd": ["/bin/app"]})
    options = ["--format", form, *(["--dest-compress-format", compress] if compress != "uncompressed" else [])]
    if compress == "uncompressed":
        options += ["--dest-decompress"]
        skopeo("copy", "--format", form, *options[2:], f"oci:{tmp_path}/l:latest", f"dir:{tmp_path}/d")
        skopeo("copy", "--dest-tls-verify=false", f"dir:{tmp_path}/d", f"docker://{registry.host}/a/first:1")
    else:
        skopeo("copy", "--dest-tls-verify=false", *options, f"oci:{tmp_path}/l:latest", f"docker://{registry.host}/a/first:1")
    record = store.pulled(f"{registry.host}/a/first:1")
    assert store.root(record)["data/big"][0].read_bytes() == LAYERS[1]["data/big"]
    event = pushed(store, f"{registry.host}/a/first:1", f"localhost:{registry.port}/b/second:2")
    assert event["digest"] == record["digest"] and event["blobs"]["sent"] == len(record["layers"]) + 1
    assert raw(f"{registry.host}/b/second:2") == raw(f"{registry.host}/a/first:1")
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/b/second:2", f"oci:{tmp_path}/back:x")
    # And again: nothing is sent, or it is mounted.
    assert pushed(store, f"{registry.host}/a/first:1", f"localhost:{registry.port}/b/second:2")["blobs"]["there"] == len(record["layers"]) + 1
    assert pushed(store, f"{registry.host}/a/first:1", f"{registry.host}/c/third")["blobs"]["mounted"] == len(record["layers"]) + 1
    assert raw(f"{registry.host}/c/third:latest") == raw(f"{registry.host}/a/first:1")


def run_here(node, reference, *command):
    """What the command prints in a service of the image that is in the node's store."""
    spec = node.write_spec(f"""version: v1
deployment: pushed
services:
  web:
    image: {{name: "{reference}", pull_policy: never}}
    command: {{args: [/workload, until-term, "0"]}}
""")
    node.run("up", "-b", spec, timeout=120)
    try:
        return node.run("exec", "web", "--", *command, timeout=120).stdout
    finally:
        node.run("down", "pushed")


def test_podman_runs_what_was_pushed(store, registry, tmp_path, node):
    need_root()
    if not shutil.which("busybox") or not shutil.which("podman"):
        pytest.skip("podman or busybox is not installed (tools/setup test)")
    archive = engines.image(tmp_path)
    skopeo("copy", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{registry.host}/e/in:1")
    store.pulled(f"{registry.host}/e/in:1")
    pushed(store, f"{registry.host}/e/in:1", f"localhost:{registry.port}/e/out:1")
    where = pathlib.Path(tempfile.mkdtemp(prefix="zl-", dir="/tmp"))  # podman takes no long paths
    podman = engines.Podman(where, archive)
    podman.run_options += ("--cgroups=no-conmon",)  # of which it leaves something where not all hierarchies are mounted
    try:
        podman("pull", "--quiet", "--tls-verify=false", f"{registry.host}/e/out:1")
        assert podman.out("run", "--rm", f"{registry.host}/e/out:1", "cat", "/data/in-image") == "from the image"
        # The other way round: what podman commits and pushes is pulled here.
        podman("create", "--name", "c", f"{registry.host}/e/out:1", "true")
        podman("commit", "--quiet", "c", f"{registry.host}/e/podman:1")
        podman("push", "--quiet", "--tls-verify=false", f"{registry.host}/e/podman:1")
        podman("rm", "c")
        ours = Store(node.data)
        record = ours.pulled(f"{registry.host}/e/podman:1")
        assert ours.root(record)["data/in-image"][0].read_text() == "from the image\n"
        assert run_here(node, f"{registry.host}/e/podman:1", "cat", "/data/in-image") == "from the image\n"
        theirs = raw(f"{registry.host}/e/podman:1")
        assert theirs == (ours.images / "blobs/sha256" / record["digest"][7:]).read_bytes()
        pushed(ours, f"{registry.host}/e/podman:1", f"localhost:{registry.port}/e/again:1")
        assert raw(f"{registry.host}/e/again:1") == theirs
    finally:
        podman.clear()
        podman.stop()
        shutil.rmtree(where)


def test_docker_runs_what_was_pushed(tmp_path, node):
    """The daemon, its registry and the job meet in the daemon's own network namespace."""
    need_root()
    if not shutil.which("busybox") or not os.path.exists("/usr/sbin/dockerd") or not shutil.which("docker-registry"):
        pytest.skip("dockerd, docker-registry or busybox is not installed (tools/setup test)")
    archive = engines.image(tmp_path)
    where = pathlib.Path(tempfile.mkdtemp(prefix="zl-", dir="/tmp"))
    docker = engines.Docker(where, archive)
    try:
        folder = tmp_path / "registry"
        folder.mkdir()
        registry = Registry(folder, inside=docker.daemon.pid)
        try:
            docker("tag", engines.IMAGE, f"{registry.host}/e/in:1")
            docker("push", "--quiet", f"{registry.host}/e/in:1")
            docker("rmi", f"{registry.host}/e/in:1", engines.IMAGE)
            store = Store(node.data, registry.enter)
            record = store.pulled(f"{registry.host}/e/in:1")
            assert store.root(record)["data/in-image"][0].read_text() == "from the image\n"
            pushed(store, f"{registry.host}/e/in:1", f"localhost:{registry.port}/e/out:1")
            assert f"@{record['digest']}" in docker.out("pull", "--quiet", f"{registry.host}/e/out@{record['digest']}")
            docker("pull", "--quiet", f"{registry.host}/e/out:1")
            assert docker.out("run", "--rm", f"{registry.host}/e/out:1", "cat", "/data/in-image") == "from the image"
            # What docker pushed runs here, too, and the manifest is everywhere the same, byte for byte.
            assert run_here(node, f"{registry.host}/e/in:1", "cat", "/data/in-image") == "from the image\n"
            theirs = raw_in(registry, "e/in:1")
            assert theirs == raw_in(registry, "e/out:1") == (store.images / "blobs/sha256" / record["digest"][7:]).read_bytes()
        finally:
            registry.close()
    finally:
        docker.clear()
        docker.stop()
        shutil.rmtree(where)


# --- TLS

@pytest.fixture
def certificates(tmp_path):
    folder = tmp_path / "certificates"
    folder.mkdir()
    tokens.authority(folder)
    tokens.authority(folder, "other")
    tokens.certificate(folder, "server")
    tokens.certificate(folder, "client")
    tokens.certificate(folder, "stranger", "other")
    return folder


def test_a_clock_that_is_wrong(store, served, certificates, config, image):
    """Or a certificate that is old: nobody can tell from here."""
    tokens.certificate(certificates, "yesterday", days=-1)
    r = served(tls={"certificate": str(certificates / "yesterday.crt"), "key": str(certificates / "yesterday.key")})
    env = config({r.host: {"ca": str(certificates / "ca.crt")}})
    refused(store, image, "pull_failed", r.host, "expired", "clock", destination=f"{r.host}/t/app:1", env=env)
    refused(store, f"{r.host}/t/app:1", "pull_failed", r.host, "expired", "clock", env=env, verb="pull")


def test_a_registry_with_its_own_authority(store, served, certificates, config, image):
    r = served(tls={"certificate": str(certificates / "server.crt"), "key": str(certificates / "server.key")})
    to = f"{r.host}/t/app:1"
    env = config({r.host: {"tls": "verify"}})
    refused(store, image, "pull_failed", to, "certificate", "`ca`", env=env, destination=to)
    env = config({r.host: {"ca": str(certificates / "other.crt")}})
    refused(store, image, "pull_failed", "certificate", env=env, destination=to)
    env = config({r.host: {"ca": str(certificates / "ca.crt")}})
    digest = pushed(store, image, to, env=env)["digest"]
    shutil.copytree(certificates, certificates / "for-skopeo", ignore=lambda *a: {"other.crt", "client.crt", "stranger.crt", "server.crt", "for-skopeo",
                                                                                 "client.key", "server.key", "ca.key", "other.key", "stranger.key"})
    assert oci.digest(raw(to, f"--cert-dir={certificates}/for-skopeo")) == digest
    assert pulled(store, to, env=env)["digest"] == digest
    pulled(store, to, env=config({r.host: {"tls": "unverified"}}))
    refused(store, to, "registry_error", r.host, "400", "`tls: verify`", env=config({r.host: {"tls": "none"}}), verb="pull")
    refused(store, to, "registry_error", r.host, "400", "`ca`", env=config({}), verb="pull")  # on loopback


def test_connections_are_used_again(store, served, liar, certificates, config, image):
    """One a thread, whatever the number of requests; with TLS it is HTTP/2."""
    assert len(liar.requests) >= 5 and len(liar.connections) <= 4
    r = served(tls={"certificate": str(certificates / "server.crt"), "key": str(certificates / "server.key")})
    pushed(store, image, f"{r.host}/t/app:1", env=config({r.host: {"ca": str(certificates / "ca.crt")}}))
    wait_for("the log tells of the push", lambda: "PUT /v2/t/app/manifests" in r.log.read_text())
    assert "HTTP/2.0" in r.log.read_text() and "HTTP/1" not in r.log.read_text()


def test_a_registry_that_wants_certificates(store, served, certificates, config, image):
    r = served(tls={"certificate": str(certificates / "server.crt"), "key": str(certificates / "server.key"),
                    "clientcas": [str(certificates / "ca.crt")]})
    to = f"{r.host}/t/app:1"
    ca = {"ca": str(certificates / "ca.crt")}
    refused(store, image, "pull_failed", to, env=config({r.host: ca}), destination=to)
    stranger = {**ca, "client_certificate": str(certificates / "stranger.crt"), "client_key": str(certificates / "stranger.key")}
    refused(store, image, "pull_failed", to, env=config({r.host: stranger}), destination=to)
    ours = {**ca, "client_certificate": str(certificates / "client.crt"), "client_key": str(certificates / "client.key")}
    env = config({r.host: ours})
    assert pushed(store, image, to, env=env)["digest"] == pulled(store, to, env=env)["digest"]


def test_the_folders_of_docker_and_podman(served, certificates, config, tmp_path, liar):
    """certs.d, in a copy of /etc that only the job sees: authorities and client certificates, podman's folder first, our file before."""
    need_root()
    etc = tmp_path / "etc"
    subprocess.run(["cp", "-a", "/etc", etc], check=True)
    for folder in ("docker", "containers"):
        shutil.rmtree(etc / folder / "certs.d", ignore_errors=True)
    enter = ["unshare", "--mount", "sh", "-c", f'mount --bind "{etc}" /etc && exec "$@"', "sh"]
    if subprocess.run([*enter, "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    store = Store(tmp_path / "entered", enter)
    r = served(tls={"certificate": str(certificates / "server.crt"), "key": str(certificates / "server.key"),
                    "clientcas": [str(certificates / "ca.crt")]})
    oci.layout(tmp_path / "l", LAYERS)
    liar.load(tmp_path / "l")
    image = f"{liar.host}/t/x:v1"
    store.pulled(image)
    to = f"{r.host}/t/app:1"

    def put(engine, **files):
        folder = etc / engine / "certs.d" / r.host
        shutil.rmtree(folder, ignore_errors=True)
        if files:
            folder.mkdir(parents=True)
        for name, source in files.items():
            shutil.copy(certificates / source, folder / name.replace("_", "."))

    def fails(code, *words, env=None):
        refused(store, image, code, *words, destination=to, env=env or config())
    fails("registry_error", "400")  # loopback, and nothing is said: plain HTTP
    put("docker", ca_crt="ca.crt")
    fails("pull_failed", r.host)  # that needs a certificate
    put("docker", ca_crt="ca.crt", client_cert="client.crt", client_key="client.key", a_key="stranger.key")
    digest = pushed(store, image, to, env=config())["digest"]
    assert pulled(store, to, env=config())["digest"] == digest
    put("docker", ca_crt="ca.crt", client_cert="client.crt", other_key="client.key")
    fails("ENOENT", "client.key", r.host)
    # What podman's folder says counts, and only what it lacks is docker's to say.
    put("docker", ca_crt="other.crt", client_cert="client.crt", client_key="client.key")
    fails("pull_failed", "certificate")
    put("containers", ours_crt="ca.crt")
    assert pulled(store, to, env=config())["digest"] == digest
    put("containers", ours_crt="ca.crt", x_cert="stranger.crt", x_key="stranger.key")
    fails("pull_failed", r.host)
    put("containers", a_crt="other.crt")
    fails("pull_failed", "certificate")
    put("containers", a_crt="other.crt", b_crt="ca.crt")  # each is an authority
    assert pulled(store, to, env=config())["digest"] == digest
    (etc / "containers/certs.d" / r.host / "c.crt").write_text("nothing\n")
    fails("invalid_argument", "c.crt", "PEM")
    # registries.yml goes before both.
    assert pulled(store, to, env=config({r.host: {"ca": str(certificates / "ca.crt")}}))["digest"] == digest
    put("containers", ca_crt="ca.crt")
    fails("pull_failed", "certificate", env=config({r.host: {"ca": str(certificates / "other.crt")}}))
    fails("registry_error", "400", env=config({r.host: {"tls": "none"}}))
    other = {"ca": str(certificates / "ca.crt")}
    put("containers")
    put("docker")
    fails("pull_failed", r.host, env=config({r.host: other}))  # the server hangs up, with an alert or before it is read


def test_files_that_are_wrong(store, image, config, tmp_path):
    (config.folder / "registries.yml").write_text("version: v1\nregistries:\n  a.b:\n    mirors: [c.d]\n")
    refused(store, "a.b/x", "invalid_argument", f"{config.folder}/registries.yml:4:5", "mirrors", env=config(), verb="pull")
    refused(store, "a.b/x", "ENOENT", "/no/ca.pem", "a.b", env=config({"a.b": {"ca": "/no/ca.pem"}}), verb="pull")
    (tmp_path / "empty.pem").write_text("nothing\n")
    refused(store, "a.b/x", "invalid_argument", "PEM", env=config({"a.b": {"ca": str(tmp_path / "empty.pem")}}), verb="pull")


# --- who may

def test_passwords(store, served, tmp_path, config, image):
    (tmp_path / "htpasswd").write_text(tokens.HTPASSWD)
    r = served(auth={"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}})
    to = f"{r.host}/t/app:1"
    refused(store, image, "unauthorized", to, "zlayer login", r.host, destination=to, env=config())
    refused(store, image, "unauthorized", "'me'", destination=to, env=config(), username="me", password="wrong")
    assert not (tmp_path / "registry0/data/docker/registry/v2/repositories/t").exists()
    pushed(store, image, to, env=config(), username="me", password="sesame")
    for folder, name, env in (("docker", "config.json", {"DOCKER_CONFIG": str(tmp_path / "docker")}),
                              ("config", "auth.json", {}),
                              ("podman", "auth.json", {"REGISTRY_AUTH_FILE": str(tmp_path / "podman/auth.json")})):
        refused(store, to, "unauthorized", to, env=config(), verb="pull")
        login_file(tmp_path / folder, r.host, name=name)
        assert pulled(store, to, env={**config(), **env})
        (tmp_path / folder / name).unlink()
    # A helper is a program, run before the job confines itself.
    helper = tmp_path / "bin/docker-credential-ours"
    helper.parent.mkdir()
    helper.write_text('#!/bin/sh\nread -r host; [ "$1" = get ] && echo "{\\"ServerURL\\":\\"$host\\",\\"Username\\":\\"me\\",\\"Secret\\":\\"sesame\\"}"\n')
    helper.chmod(0o755)
    (config.folder / "auth.json").write_text(json.dumps({"credHelpers": {r.host: "ours"}}))
    assert pulled(store, to, env={**config(), "PATH": f"{helper.parent}:{os.environ['PATH']}"})
    event = refused(store, to, "unauthorized", "docker-credential-ours", env=config(), verb="pull")
    assert "sesame" not in json.dumps(event)


def test_tokens_of_a_real_registry(store, served, token_service, config, image, tmp_path):
    r = served(auth=token_service.config())
    to = f"{r.host}/private/app:1"
    refused(store, image, "unauthorized", to, destination=to, env=config())
    refused(store, image, "unauthorized", "incorrect username or password", token_service.realm, destination=to, env=config(), username="me", password="no")
    login_file(config.folder, r.host, name="auth.json")
    token_service.requests.clear()
    token_service.faults += [503, 500]
    pushed(store, image, to, env=config())
    assert [q[1] for q in token_service.requests if q[2]][-1] == ["repository:private/app:pull,push"]
    assert len(token_service.requests) == 3  # two bad days, one token for all that was pushed
    # A mount needs to read the other repository, too.
    pulled(store, to, env=config())
    token_service.requests.clear()
    event = pushed(store, to, f"{r.host}/private/copy:1", env=config())
    assert event["blobs"]["mounted"] == 4 and set(token_service.requests[-1][1]) == {"repository:private/copy:pull,push", "repository:private/app:pull"}
    # Everybody reads public/; an identity token does not need a password.
    pushed(store, image, f"{r.host}/public/app:1", env=config())
    (config.folder / "auth.json").unlink()
    token_service.requests.clear()
    pulled(store, f"{r.host}/public/app:1", env=config())
    assert token_service.requests == [("GET", ["repository:public/app:pull"], None)]
    refused(store, to, "unauthorized", to, env=config(), verb="pull")
    login_file(config.folder, r.host, "", "", name="auth.json", identitytoken="identity")
    pulled(store, to, env=config())
    assert token_service.requests[-1] == ("POST", ["repository:private/app:pull"], "refresh_token")


def changing_tokens(liar, expires_in, valid):
    """The n-th token is "t<n>"; valid(n): whether the registry takes it."""
    given = []

    def gate(handler):
        auth = handler.headers.get("Authorization") or ""
        if auth.startswith("Bearer t") and valid(int(auth.removeprefix("Bearer t")), given):
            return False
        handler.reply(401, b"{}", {"WWW-Authenticate": f'Bearer realm="http://{liar.host}/token",service="s",scope="repository:t/x:pull"'})
        return True

    def token(handler):
        given.append(time.monotonic())
        handler.reply(200, json.dumps({"token": f"t{len(given)}", "expires_in": expires_in}).encode())
    liar.on("/v2/", gate)
    liar.on("/token", token)
    return given


def test_a_token_is_renewed_before_it_expires(store, liar, tmp_path):
    put_image(liar, [(oci.tar_of({f"f{i}": b"x"}), "application/vnd.oci.image.layer.v1.tar", oci.digest(oci.tar_of({f"f{i}": b"x"}))) for i in range(20)])
    given = changing_tokens(liar, 1, lambda n, all_given: time.monotonic() - all_given[n - 1] < 1.5)
    liar.on("/blobs/", lying.slowly(0.5))
    store.pulled(f"{liar.host}/t/x:v1")
    assert len(given) >= 2
    unasked = [r for r in liar.requests if r[1].startswith("/v2/") and not r[2]]
    assert len(unasked) == 1  # only the first request was refused


def test_a_token_is_refused_in_the_middle(store, liar, tmp_path):
    oci.layout(tmp_path / "l", LAYERS)
    manifest = liar.load(tmp_path / "l")
    first_blob = manifest["config"]["digest"]
    given = changing_tokens(liar, 300, lambda n, all_given: n == len(all_given) and (n > 1 or not any(first_blob in r[1] for r in liar.requests)))
    store.pulled(f"{liar.host}/t/x:v1")
    assert len(given) == 2


@pytest.mark.parametrize("status", [503, 401, "gone"])
def test_a_token_that_is_not_renewed(store, liar, status):
    """The old one is used as long as the registry takes it; a bad day of the token server is waited out."""
    put_image(liar, [(oci.tar_of({f"f{i}": b"x"}), "application/vnd.oci.image.layer.v1.tar", oci.digest(oci.tar_of({f"f{i}": b"x"}))) for i in range(40)])
    answers = []

    def token(handler):
        answers.append(200 if not answers or (status == 503 and 503 in answers) else status)
        if answers[-1] == "gone":
            handler.close_connection = True
            handler.connection.shutdown(2)
            return True
        return handler.reply(answers[-1], b'{"token":"t1","expires_in":1}' if answers[-1] == 200 else b"{}")
    liar.on("/token", token)
    changing_tokens(liar, 1, lambda n, all_given: True)
    liar.on("/blobs/", lying.slowly(0.4))
    store.pulled(f"{liar.host}/t/x:v1")
    assert status in answers and (answers[-1] == 200 if status == 503 else len(answers) <= 11)  # libcurl asks twice where a kept connection ends


def test_who_a_registry_leads_to_gets_no_token(liar, image, tmp_path):
    """A storage service that answers 401 with a challenge of its own is not given the registry's password, nor believed (CVE-2020-15157)."""
    other = lying.Registry("127.0.0.2")
    try:
        lying.need_token(liar, user="me:secret")
        liar.on("/blobs/", lambda h: h.reply(307, b"", {"Location": f"http://{other.host}{h.path}"}))
        other.on("/token", lambda h: h.reply(200, b'{"token":"evil"}'))
        other.on("/blobs/", lambda h: h.reply(401, b"{}", {"WWW-Authenticate": f'Bearer realm="http://{other.host}/token",service="x"'}))
        event = refused(Store(tmp_path / "fresh"), image, "unauthorized", f"{other.host}, where the registry leads to, refuses access", verb="pull", policy="always",
                        username="me", password="secret", env={"ZLAYER_AUTH_FILE": ""})
        assert "login" not in event["hint"]
        assert other.requests and all("/blobs/" in r[1] and r[2] is None for r in other.requests)
        assert not any(r[2] == "Bearer evil" for r in liar.requests)
    finally:
        other.close()


def test_an_identity_token_goes_nowhere_else(store, liar, config):
    other = lying.Registry("127.0.0.2")
    try:
        lying.need_token(liar)
        liar.behaviours.insert(0, ("/token", lambda h: h.reply(307, b"", {"Location": f"http://{other.host}/token"})))
        login_file(config.folder, liar.host, "", "", name="auth.json", identitytoken="identity")
        refused(store, f"{liar.host}/t/x:v1", "registry_error", "127.0.0.2", "not to get", verb="pull", env=config())
        assert [r[0] for r in liar.requests if r[1] == "/token"] == ["POST"] and other.requests == []
    finally:
        other.close()


def test_a_connection_that_breaks_in_the_handshake(store, liar, image, config, certificates):
    """Which is a bad day as any other."""
    import socket
    import ssl
    import struct
    secure = lying.Registry()
    secure.blobs, secure.manifests = liar.blobs, liar.manifests
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    left = [2]

    def accept():
        connection, address = secure.http.socket.accept()
        if left[0] == 0:
            return context.wrap_socket(connection, server_side=True), address
        left[0] -= 1
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        raise OSError("reset")
    secure.http.get_request = accept
    try:
        pulled(store, f"{secure.host}/t/x:v1", env=config({secure.host: {"ca": str(certificates / "ca.crt")}}))
        assert left == [0]
    finally:
        secure.close()


def test_a_token_server_without_tls(store, liar, image, config, certificates):
    """The password goes to no plain HTTP that a registry with TLS points to."""
    import ssl
    secure = lying.Registry()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    secure.http.socket = context.wrap_socket(secure.http.socket, server_side=True)
    try:
        lying.need_token(secure, realm_host=liar.host)
        liar.requests.clear()
        refused(store, f"{secure.host}/t/x:v1", "registry_error", "from HTTPS", "plain HTTP", verb="pull", username="me", password="secret",
                env=config({secure.host: {"ca": str(certificates / "ca.crt")}}))
        assert not liar.requests
        secure.behaviours.clear()
        secure.on("/v2/", lambda h: h.reply(307, b"", {"Location": f"http://{liar.host}{h.path}"}))
        refused(store, f"{secure.host}/t/x:v1", "registry_error", "from HTTPS", verb="pull", env=config())
        assert not liar.requests
    finally:
        secure.close()


# --- login

@pytest.fixture
def user(tmp_path, config):
    n = Node(tmp_path / "data")
    n.env.update(HOME=str(tmp_path / "home"), **config())
    (tmp_path / "home").mkdir()
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        n.env.pop(name, None)
    yield n
    n.close()


def test_login_and_logout(user, served, tmp_path, config):
    (tmp_path / "htpasswd").write_text(tokens.HTPASSWD)
    r = served(auth={"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}})
    file = config.folder / "auth.json"
    bad = user.run("login", "-u", "me", "--password-stdin", r.host, stdin="wrong\n", check=False)
    assert bad.returncode == 5 and "refuses access" in bad.stderr and "user name or password is wrong" in bad.stderr and r.host in bad.stderr and not file.exists()
    good = user.run("login", "-u", "me", "--password-stdin", r.host, stdin="sesame\n")
    assert "keeps others" not in bad.stderr
    assert str(file) in good.stderr and "sesame" not in good.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    oci.layout(tmp_path / "l", LAYERS)
    skopeo("copy", "--authfile", file, "--dest-tls-verify=false", f"oci:{tmp_path}/l:latest", f"docker://{r.host}/t/x:1")  # others read the file
    assert user.json("pull", f"{r.host}/t/x:1")[0]["digest"]
    user.run("logout", r.host)
    assert r.host not in file.read_text()
    assert user.run("pull", f"{r.host}/t/x:1", check=False).returncode == 5
    assert "no credentials" in user.run("logout", r.host).stderr
    # The other way round: what others have kept counts, and logout says that it does.
    login_file(tmp_path / "home/.docker", r.host)
    user.run("pull", f"{r.host}/t/x:1")
    assert "another file" in user.run("logout", r.host).stderr
    own = tmp_path / "mine.json"
    user.run("login", "-u", "me", "--password-stdin", "--authfile", own, r.host, stdin="sesame")
    assert r.host in own.read_text() and r.host not in file.read_text()


def test_nobody_looks_into_what_holds_passwords(liar, tmp_path):
    """Of an ordinary user: what is dumpable belongs to the user in /proc, what is not to root."""
    need_root()
    if not os.access(program("zlayer"), os.X_OK) or any(not p.stat().st_mode & 1 for p in program("zlayer").resolve().parents):
        pytest.skip("another user can't reach the build")
    nobody = 65534
    home = pathlib.Path(tempfile.mkdtemp(prefix="zl-"))
    try:
        home.chmod(0o777)
        liar.on("", lying.slowly(5))
        p = subprocess.Popen([program("zlayer"), "login", "-u", "me", "--password-stdin", liar.host], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, user=nobody, group=nobody, extra_groups=[], cwd="/",
                             env={"HOME": str(home), "PATH": os.environ["PATH"], "ZLAYER_CONFIG_DIR": str(home)})
        try:
            p.stdin.write(b"sesame")
            p.stdin.close()
            wait_for("a request", lambda: liar.requests or p.poll() is not None, 20)
            children = pathlib.Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split()
            assert len(children) == 1, (children, p.poll())
            for pid in (p.pid, *children):
                limits = [line.split() for line in pathlib.Path(f"/proc/{pid}/limits").read_text().splitlines()]
                assert ["Max", "core", "file", "size", "0", "0", "bytes"] in limits
                assert SANITIZED or os.stat(f"/proc/{pid}/environ").st_uid == 0  # a leak checker needs to look
        finally:
            p.kill()
            p.stderr.close()
            p.wait(30)
    finally:
        shutil.rmtree(home)


def test_the_variable_for_the_file_is_absolute(user, served, tmp_path):
    (tmp_path / "htpasswd").write_text(tokens.HTPASSWD)
    r = served(auth={"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}})
    user.env["ZLAYER_AUTH_FILE"] = "rel.json"
    for words in (["login", "-u", "me", "--password-stdin"], ["logout"]):
        bad = subprocess.run([user.cli, *words, r.host], input="sesame\n", env=user.env, cwd=tmp_path, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, check=False, timeout=30)
        assert bad.returncode == 2 and "ZLAYER_AUTH_FILE is 'rel.json', not an absolute path" in bad.stderr
    # An option is for this once, and read from here.
    subprocess.run([user.cli, "login", "-u", "me", "--password-stdin", "--authfile", "here.json", r.host], input="sesame\n", env=user.env, cwd=tmp_path,
                   stderr=subprocess.PIPE, text=True, check=True, timeout=30)
    assert not (tmp_path / "rel.json").exists() and r.host in (tmp_path / "here.json").read_text()
    user.env["ZLAYER_AUTH_FILE"] = str(tmp_path / "abs.json")
    user.run("login", "-u", "me", "--password-stdin", r.host, stdin="sesame\n")
    assert r.host in (tmp_path / "abs.json").read_text()


def test_login_says_what_is_wrong(user, liar, config):
    def wrong(*args, stdin=None, code=2):
        r = user.run("login", *args, check=False, stdin=stdin)
        assert r.returncode == code, r.stderr
        return r.stderr
    assert "--password-stdin" in wrong(liar.host)
    assert "needs --username" in wrong("--password-stdin", liar.host, stdin="x")
    assert "no ':'" in wrong("-u", "a:b", "--password-stdin", liar.host, stdin="x")
    assert "empty" in wrong("-u", "a", "--password-stdin", liar.host, stdin="\n")
    assert "https://" in wrong("-u", "a", "--password-stdin", f"https://{liar.host}", stdin="x")
    assert "no registry" in wrong("-u", "a", "--password-stdin", liar.host, stdin="x", code=1)
    assert "is a registry running" in wrong("-u", "a", "--password-stdin", f"127.0.0.1:{free_port()}", stdin="x", code=1)
    assert not (config.folder / "auth.json").exists()


def test_login_on_a_terminal(user, served, tmp_path, config):
    (tmp_path / "htpasswd").write_text(tokens.HTPASSWD)
    r = served(auth={"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}})
    master, slave = pty.openpty()
    p = subprocess.Popen([user.cli, "login", r.host], stdin=slave, stdout=slave, stderr=slave, env=user.env, start_new_session=True)
    os.close(slave)
    shown = b""

    def until(text):
        nonlocal shown
        deadline = time.monotonic() + 20
        while text not in shown:
            ready = select.select([master], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, shown
            shown += os.read(master, 4096)
    until(b"User name")
    os.write(master, b"me\n")
    until(b"Password of me: ")
    os.write(master, b"sesame\n")
    until(b"logged in")
    assert p.wait(20) == 0 and b"sesame" not in shown
    os.close(master)
    assert r.host in (config.folder / "auth.json").read_text()


# --- mirrors

def test_mirrors_are_asked_first_and_in_order(store, registry, liar, config, tmp_path):
    digest = oci.layout(tmp_path / "l", LAYERS)
    oci.push(tmp_path / "l", f"{registry.host}/hub/library/app:1")
    liar.load(tmp_path / "l")
    liar.behaviours = [("/manifests/", lambda h: h.reply(200, b'{"schemaVersion":2}', {"Content-Type": lying.MANIFEST, "Docker-Content-Digest": digest}))]
    away = f"127.0.0.1:{free_port()}"
    env = config({"docker.io": {"mirrors": [away, liar.host, f"{registry.host}/hub"]}})
    record = pulled(store, "app:1", env=env)
    assert record["digest"] == digest and record["reference"] == "docker.io/library/app:1"
    assert {r[1] for r in liar.requests} > {"/v2/library/app/manifests/1"}  # it was asked, and its lie was not believed
    assert pulled(store, f"app@{digest}", env=env)["digest"] == digest


def test_the_registry_itself_is_the_last(store, liar, config, tmp_path, image):
    mirror = lying.Registry()
    try:
        manifest = mirror.load(tmp_path / "layout")
        env = config({liar.host: {"mirrors": [mirror.host]}})
        big = manifest["layers"][2]["digest"]
        data = mirror.blobs[big]
        fresh = Store(tmp_path / "fresh")
        liar.requests.clear()
        pulled(fresh, f"{liar.host}/t/x:v1", env=env)
        assert liar.requests == []
        # A blob goes on at the registry where the mirror stopped, and one that the mirror made up is fetched again.
        mirror.on(big, lambda h: h.cut(data, 100000) if not h.headers.get("Range") else h.reply(500, b"{}"))
        other = Store(tmp_path / "other")
        pulled(other, f"{liar.host}/t/x:v1", env=env)
        assert [r[3] for r in liar.requests if big in r[1]] == ["bytes=100000-"]
        mirror.behaviours = [(big, lambda h: h.cut(b"y" * len(data), 100000) if not h.headers.get("Range") else h.reply(500, b"{}"))]
        third = Store(tmp_path / "third")
        liar.requests.clear()
        pulled(third, f"{liar.host}/t/x:v1", env=env)
        assert [r[3] for r in liar.requests if big in r[1]] == ["bytes=100000-", None]
        third.check()
        # Neither has it: both are named.
        event = refused(Store(tmp_path / "none"), f"{liar.host}/t/x:nope", "image_not_found", liar.host, f"mirror {mirror.host}", env=env, verb="pull")
        assert "pushed" in event["hint"]
    finally:
        mirror.close()


def test_a_mirror_whose_token_server_is_away(store, liar, config, tmp_path, image):
    """It is asked once, not for each blob again."""
    mirror = lying.Registry()
    try:
        mirror.load(tmp_path / "layout")
        lying.need_token(mirror, realm_host=f"127.0.0.1:{free_port()}")
        pulled(Store(tmp_path / "fresh"), image, env=config({liar.host: {"mirrors": [mirror.host]}}))
        assert len(mirror.requests) == 1
    finally:
        mirror.close()


def test_a_push_goes_past_the_mirror(store, registry, liar, config, image):
    liar.requests.clear()
    pushed(store, image, f"{registry.host}/t/x:1", env=config({registry.host: {"tls": "none", "mirrors": [liar.host]}}))
    assert liar.requests == []


# --- pushes on bad days

def push_through(store, proxy, image, **more):
    return pushed(store, image, f"{proxy.host}/t/app:1", **more)


def whole(registry, store, name="t/app:1"):
    """Everything arrived: skopeo copies it, and checks each digest while it does."""
    folder = store.data.parent / f"check{time.monotonic_ns()}"
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/{name}", f"oci:{folder}:x")


def test_a_push_waits_bad_days_out(store, registry, proxy, image):
    proxy.fault("HEAD", "/blobs/", lambda h: h.refuse(503), 1)
    proxy.fault("POST", "/uploads/", lambda h: h.refuse(429, {"Retry-After": "1"}), 1)
    proxy.fault("PUT", "/uploads/", lambda h: h.refuse(502), 2)
    proxy.fault("PUT", "/manifests/", lambda h: h.refuse(500), 1)
    began = time.monotonic()
    push_through(store, proxy, image)
    assert time.monotonic() - began >= 1
    whole(registry, store)


def test_a_retry_after_that_is_a_date(store, liar, image):
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3))
    liar.times(1, "/manifests/", lambda h: h.reply(429, b"{}", {"Retry-After": later}))
    began = time.monotonic()
    store.pulled(image)
    assert time.monotonic() - began >= 1
    liar.on("/manifests/", lambda h: h.reply(429, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}', {"Retry-After": "4000"}))
    began = time.monotonic()
    refused(store, image, "rate_limited", "no more requests", "4000 s", verb="pull", policy="always")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("chunk", [50000, 1 << 26])
def test_a_cut_upload_goes_on(store, registry, proxy, image, chunk):
    proxy.fault("PATCH PUT", "/uploads/", lambda h: h.cut_request(20000) if int(h.headers.get("Content-Length") or 0) > 40000 else False, 2)
    push_through(store, proxy, image, chunk_bytes=chunk)
    whole(registry, store)


def test_an_upload_in_pieces(store, registry, proxy, image):
    push_through(store, proxy, image, chunk_bytes=100000)
    pieces = [r for r in proxy.requests if r[0] == "PATCH"]
    assert len(pieces) >= 8  # two blobs of 300 and 400 KB
    whole(registry, store)
    # A registry that wants larger ones gets them.
    proxy.requests.clear()
    proxy.fault("POST", "/uploads/", lambda h: h.forward(headers={"OCI-Chunk-Min-Length": "250000"}))
    pushed(store, image, f"{proxy.host}/t/larger:1", chunk_bytes=100000)
    assert len([r for r in proxy.requests if r[0] == "PATCH"]) <= 4
    whole(registry, store, "t/larger:1")


def test_a_registry_without_pieces(store, registry, proxy, image):
    proxy.fault("PATCH", "/uploads/", lambda h: h.refuse(405))
    push_through(store, proxy, image, chunk_bytes=100000)
    whole(registry, store)
    # One that breaks off begins again as a whole, even where a part of it is said to be there.
    proxy.fault("PUT", "/uploads/", lambda h: h.cut_request(20000) if int(h.headers.get("Content-Length") or 0) > 40000 else False, 1)
    proxy.fault("GET", "/uploads/", lambda h: h.forward(headers={"Range": "0-19999"}))
    pushed(store, image, f"{proxy.host}/t/cut:1", chunk_bytes=100000)
    whole(registry, store, "t/cut:1")


def test_lost_replies(store, registry, proxy, image):
    proxy.fault("PUT", "/uploads/", lambda h: h.lose_reply(), 1)
    proxy.fault("PATCH", "/uploads/", lambda h: h.lose_reply(), 1)
    proxy.fault("PUT", "/manifests/", lambda h: h.lose_reply(), 1)
    push_through(store, proxy, image, chunk_bytes=150000)
    whole(registry, store)


def test_a_session_that_is_forgotten(store, registry, proxy, image):
    proxy.fault("PATCH", "/uploads/", lambda h: h.refuse(404), 1)
    proxy.fault("PATCH", "/uploads/", lambda h: h.refuse(416), 1)
    push_through(store, proxy, image, chunk_bytes=100000)
    whole(registry, store)


def test_a_mount_that_is_refused(store, registry, proxy, image):
    push_through(store, proxy, image)
    pulled(store, f"{proxy.host}/t/app:1")
    proxy.fault("POST", "mount=", lambda h: (setattr(h, "path", h.path.split("?")[0]), h.forward())[1])
    assert pushed(store, f"{proxy.host}/t/app:1", f"{proxy.host}/t/again:1")["blobs"]["sent"] == 4
    whole(registry, store, "t/again:1")
    # Who may not read the other repository, or asks a registry that knows no mounts, sends the bytes.
    for n, refusal in enumerate(((401, {"WWW-Authenticate": 'Basic realm="x"'}), (403, {}), (404, {}), (405, {}))):
        proxy.behaviours.clear()
        proxy.fault("POST", "mount=", lambda h, refusal=refusal: h.refuse(*refusal))
        assert pushed(store, f"{proxy.host}/t/app:1", f"{proxy.host}/t/more{n}:1")["blobs"]["sent"] == 4
        whole(registry, store, f"t/more{n}:1")


def test_lies_about_uploads(store, registry, proxy, image, tmp_path):
    to = f"{proxy.host}/t/app:1"
    for methods, match, fault, code, words in (
            ("POST", "/uploads/", lambda h: h.forward(without=("location",)), "registry_error", ["where the upload goes"]),
            ("POST", "/uploads/", lambda h: h.forward(headers={"Location": "file:///etc/passwd"}), "registry_error", ["where the upload goes"]),
            ("PUT", "/uploads/", lambda h: h.forward(headers={"Docker-Content-Digest": oci.digest(b"else")}), "digest_mismatch", ["it got"]),
            ("PATCH", "/uploads/", lambda h: h.forward(headers={"Range": "0-99999999"}), "registry_error", ["bytes of an upload"]),
            ("PATCH", "/uploads/", lambda h: h.forward(headers={"Range": "0-0"}), "registry_error", ["takes no bytes"]),
            ("PUT", "/manifests/", lambda h: h.forward(headers={"Docker-Content-Digest": oci.digest(b"else")}), "digest_mismatch", ["sent was"]),
            ("PUT", "/manifests/", lambda h: h.refuse(413), "registry_error", ["413", "a fault of the test"]),
            ("POST", "/uploads/", lambda h: h.refuse(403), "unauthorized", ["refuses access"])):
        proxy.behaviours.clear()
        proxy.fault(methods, match, fault)
        event = refused(store, image, code, to, *words, destination=to, chunk_bytes=100000)
        assert "sha256:" in event["message"]
        shutil.rmtree(tmp_path / "data/docker", ignore_errors=True)  # what the registry has


def test_an_upload_elsewhere_gets_no_credentials(store, registry, proxy, image):
    """The place of an upload may be another host's: a storage service with its own signature in the address."""
    other = faultproxy.Proxy(registry.host)
    try:
        proxy.fault("POST", "/uploads/", lambda h: h.forward(headers={"Location": f"http://{other.host}/v2/t/app/blobs/uploads/x?_state=y"}))
        other.fault("PUT PATCH GET", "/uploads/", lambda h: h.refuse(403))
        lying_token = {"username": "me", "password": "secret"}
        proxy.fault("HEAD", "/blobs/", lambda h: False if h.headers.get("Authorization") else h.refuse(401, {"WWW-Authenticate": "Basic realm=x"}))
        refused(store, image, "unauthorized", destination=f"{proxy.host}/t/app:1", **lying_token)
        assert other.requests and all(r[2] is None for r in other.requests)
        assert any(r[2] for r in proxy.requests)
    finally:
        other.close()


def test_a_blob_that_rotted_here(store, registry, image):
    record = store.record(image)
    blob = store.images / "blobs/sha256" / record["layers"][2][7:]
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(store, image, "bad_image", "stored blob is damaged", "pull", destination=f"{registry.host}/t/app:1")
    blob.write_bytes(data[:-1])
    refused(store, image, "bad_image", "not whole", destination=f"{registry.host}/t/app:1")
    blob.unlink()
    refused(store, image, "bad_image", record["layers"][2][:19], destination=f"{registry.host}/t/app:1")
    assert skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/t/app:1", check=False).returncode != 0


def test_a_killed_push_leaves_the_store_whole(store, registry, proxy, image):
    for n in (1, 3, 6, 9):
        proxy.behaviours.clear()
        proxy.requests.clear()
        proxy.on("", lying.slowly(0.05))
        p = store.start(verb="push", reference=image, destination=f"{proxy.host}/t/app:1", chunk_bytes=50000)
        wait_for("the push is under way", lambda n=n: len(proxy.requests) >= n)
        p.kill()
        p.communicate()
        store.check()
    proxy.behaviours.clear()
    push_through(store, proxy, image)
    whole(registry, store)
    assert not list((store.images / "staging").iterdir())


def test_pushes_killed_at_random(store, registry, tmp_path):
    """kill -9 at any moment of a push: the store is whole, a name that the registry has by then is a whole image, and pushing again
    completes: every byte arrives."""
    oci.layout(tmp_path / "l", [*LAYERS, *[{f"big{i}": os.urandom(700000)} for i in range(4)]], {"Cmd": ["/bin/app"]})
    oci.push(tmp_path / "l", f"{registry.host}/t/x:1")
    image = f"{registry.host}/t/x:1"
    digest = store.pulled(image)["digest"]
    rng = random.Random(7)
    took, killed = 0.5, 0
    for round_ in range(200 if os.environ.get("ZLAYER_LONG") else 20):
        name = f"t/r{round_}:1"  # a repository in which nothing is yet; under another host's name, so that nothing is mounted
        request = {"verb": "push", "reference": image, "destination": f"localhost:{registry.port}/{name}", "chunk_bytes": rng.choice((50000, 1 << 20))}
        p = store.start(**request)
        try:
            p.communicate(timeout=rng.uniform(0, took))
            took = max(0.05, took * 0.8)
        except subprocess.TimeoutExpired:
            p.kill()
            p.communicate(timeout=60)
            took = min(10.0, took * 1.2)
            killed += 1
        assert check_store.faults(store.data, files=False) == [], round_
        there = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/{name}", check=False)
        if there.returncode == 0:
            whole(registry, store, name)
        event, code = store.job(**request)
        assert code == 0 and event["digest"] == digest, (round_, event)
        whole(registry, store, name)
        assert oci.digest(raw(f"{registry.host}/{name}")) == digest
        assert not list((store.images / "staging").iterdir()), round_
    assert killed >= 5, killed


# --- pulls on bad days, behind the same proxy

def test_pulls_through_faults(store, registry, proxy, tmp_path):
    oci.layout(tmp_path / "l", [*LAYERS, {"big": BIG}])
    oci.push(tmp_path / "l", f"{registry.host}/t/x:1")
    name = f"{proxy.host}/t/x:1"
    for i, fault in enumerate((lambda h: h.cut_reply(70000), lambda h: h.refuse(503, {"Retry-After": "0"}), lambda h: h.lose_reply(),
                               lambda h: h.forward(drop=("range",)))):
        proxy.behaviours.clear()
        proxy.fault("GET", "/blobs/", fault, 3)
        fresh = Store(tmp_path / f"fresh{i}")
        fresh.pulled(name)
        fresh.check()
    for fault, code in ((lambda h: h.forward(change=faultproxy.corrupted), "digest_mismatch"),
                        (lambda h: h.forward(change=lambda d: d[:-1]), "digest_mismatch"),
                        (lambda h: h.forward(change=lambda d: d + b"x"), "digest_mismatch"),
                        (lambda h: h.refuse(404), "registry_error")):
        proxy.behaviours.clear()
        proxy.fault("GET", "/blobs/", fault)
        Store(tmp_path / f"lied{time.monotonic_ns()}").failed(name, code, name, "sha256:")


def test_a_slow_link_that_lives(store, registry, proxy, tmp_path):
    """Far slower than what a stalled link is broken off for, and yet it comes."""
    oci.layout(tmp_path / "l", [{"a": b"x"}])
    oci.push(tmp_path / "l", f"{registry.host}/t/x:1")
    proxy.fault("GET", "/blobs/", lambda h: h.drip(20, 0.35))
    store.pulled(f"{proxy.host}/t/x:1", stall_s=2)


def test_a_resume_that_does_not_fit_starts_again(store, registry, proxy, tmp_path):
    """The bytes after the break are of another file: the digest tells, and all of it is fetched once more."""
    oci.layout(tmp_path / "l", [{"big": BIG}])
    oci.push(tmp_path / "l", f"{registry.host}/t/x:1")
    proxy.fault("GET", "/blobs/", lambda h: h.cut_reply(100000) if not h.headers.get("Range") else False, 1)
    proxy.fault("GET", "/blobs/", lambda h: h.forward(change=faultproxy.corrupted) if h.headers.get("Range") else False, 1)
    store.pulled(f"{proxy.host}/t/x:1")
    store.check()


# --- platforms, artifacts

def put_index(liar, tag, entries):
    """entries: (platform, content) each; every content becomes an image of one layer for that platform."""
    manifests = []
    for platform, content in entries:
        tar = oci.tar_of({"which": content})
        config = json.dumps({"os": platform["os"], "architecture": platform["architecture"], **({"variant": platform["variant"]} if "variant" in platform else {}),
                             "config": {}, "rootfs": {"type": "layers", "diff_ids": [oci.digest(tar)]}}).encode()
        liar.blobs[oci.digest(config)], liar.blobs[oci.digest(tar)] = config, tar
        data = json.dumps({"schemaVersion": 2, "mediaType": lying.MANIFEST,
                           "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": oci.digest(config), "size": len(config)},
                           "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": oci.digest(tar), "size": len(tar)}]}).encode()
        liar.put_manifest(f"{tag}-{len(manifests)}", data)
        manifests.append({"mediaType": lying.MANIFEST, "digest": oci.digest(data), "size": len(data), "platform": platform})
    index = json.dumps({"schemaVersion": 2, "mediaType": lying.INDEX, "manifests": manifests}).encode()
    liar.put_manifest(tag, index, lying.INDEX)
    return index


def test_platforms(store, liar):
    arm = {"os": "linux", "architecture": "arm"}
    put_index(liar, "multi", [({"os": "linux", "architecture": oci.ARCH}, b"mine"), ({**arm, "variant": "v5"}, b"five"), ({**arm, "variant": "v6"}, b"six"),
                              ({**arm, "variant": "v7"}, b"seven"), ({"os": "windows", "architecture": "amd64", "os.version": "10.0.17763.1"}, b"old"),
                              ({"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.9", "os.features": ["win32k"]}, b"new")])
    name = f"{liar.host}/t/x:multi"

    def which(platform):
        return store.root(pulled(store, name, platform=platform))["which"][0].read_bytes()
    assert store.root(store.pulled(name))["which"][0].read_bytes() == b"mine"
    assert which("linux/arm/v6") == b"six" and which("linux/arm") == b"seven" and which("linux/arm/v5") == b"five"
    record = store.record(name)
    assert (record["os"], record["architecture"], record["variant"]) == ("linux", "arm", "v5")
    assert which("windows(10.0.17763)/amd64") == b"old" and which("windows(10.0.20348+win32k)/amd64") == b"new"
    # What is here for one platform is not what another wants.
    refused(store, name, "image_not_found", "never", verb="pull", policy="never", platform="linux/s390x")
    assert which(f"linux/{oci.ARCH}") == b"mine"
    refused(store, name, "bad_image", "linux/s390x", "linux/arm/v7", verb="pull", platform="linux/s390x")
    refused(store, name, "bad_image", "windows", verb="pull", platform="windows(10.0.20348)/amd64")
    refused(store, name, "invalid_argument", "linux/arm64", verb="pull", platform="linux//")
    refused(store, f"{liar.host}/t/x:multi-1", "bad_image", "it is for linux/arm/v5", verb="pull")


def index_of(liar, tag, *entries):
    """An index of what stands at other tags: (tag, platform or None) each."""
    manifests = []
    for name, platform in entries:
        data, media = liar.manifests[name]
        manifests.append({"mediaType": media, "digest": oci.digest(data), "size": len(data), **({"platform": platform} if platform else {})})
    index = json.dumps({"schemaVersion": 2, "mediaType": lying.INDEX, "manifests": manifests}).encode()
    liar.put_manifest(tag, index, lying.INDEX)
    return index


def test_an_index_that_says_no_platform(store, liar, registry):
    """Which the image-spec leaves open: the config tells, or the index in it."""
    mine, mips = {"os": "linux", "architecture": oci.ARCH}, {"os": "linux", "architecture": "mips"}
    put_index(liar, "some", [(mine, b"mine"), (mips, b"other")])
    index_of(liar, "bare", ("some-0", None))
    assert store.root(store.pulled(f"{liar.host}/t/x:bare"))["which"][0].read_bytes() == b"mine"
    index_of(liar, "wrong", ("some-1", None))
    refused(store, f"{liar.host}/t/x:wrong", "bad_image", "linux/mips", verb="pull")
    index_of(liar, "mixed", ("some-1", mips), ("some-0", None))  # its author knows how to say it
    refused(store, f"{liar.host}/t/x:mixed", "bad_image", "only for: linux/mips", verb="pull")
    # An index in an index has no platform of its own; the image that was chosen in there is pushed alone, as not all is here.
    index_of(liar, "nested", ("some", None))
    record = store.pulled(f"{liar.host}/t/x:nested")
    assert store.root(record)["which"][0].read_bytes() == b"mine"
    event = pushed(store, f"{liar.host}/t/x:nested", f"{registry.host}/t/x:nested")
    assert event["digest"] == record["manifest"] == oci.digest(raw(f"{registry.host}/t/x:nested")) and "alone" in event["warning"]


def test_an_index_is_pushed_whole_or_says_so(store, liar, registry):
    mine = {"os": "linux", "architecture": oci.ARCH}
    index = put_index(liar, "one", [(mine, b"mine")])
    store.pulled(f"{liar.host}/t/x:one")
    event = pushed(store, f"{liar.host}/t/x:one", f"{registry.host}/t/x:one")
    assert event["digest"] == oci.digest(index) and "warning" not in event and raw(f"{registry.host}/t/x:one") == index
    index = put_index(liar, "two", [(mine, b"mine"), ({"os": "linux", "architecture": "mips"}, b"other")])
    record = store.pulled(f"{liar.host}/t/x:two")
    event = pushed(store, f"{liar.host}/t/x:two", f"{registry.host}/t/x:two")
    assert event["digest"] == record["manifest"] and "alone" in event["warning"]
    assert oci.digest(raw(f"{registry.host}/t/x:two")) == record["manifest"]
    # Of several that are here the one goes that was chosen, wherever it stands.
    put_index(liar, "three", [(mine, b"mine 3"), ({"os": "linux", "architecture": "mips"}, b"mips 3"), ({"os": "linux", "architecture": "s390x"}, b"s390x 3")])
    pulled(store, f"{liar.host}/t/x:three", platform="linux/mips")
    record = pulled(store, f"{liar.host}/t/x:three", platform=f"linux/{oci.ARCH}")
    event = pushed(store, f"{liar.host}/t/x:three", f"{registry.host}/t/x:three")
    assert event["digest"] == record["manifest"] == oci.digest(raw(f"{registry.host}/t/x:three")) and f"linux/{oci.ARCH}" in event["warning"]
    # When the rest is there already, so is the index.
    index = liar.manifests["two"][0]
    pulled(store, f"{liar.host}/t/x:two-1", platform="linux/mips")
    pushed(store, f"{liar.host}/t/x:two-1", f"{registry.host}/t/x:mips")
    assert store.job(verb="remove", reference=f"{liar.host}/t/x:two-1")[1] == 0
    event = pushed(store, f"{liar.host}/t/x:two", f"{registry.host}/t/x:two")
    assert event["digest"] == oci.digest(index) and raw(f"{registry.host}/t/x:two") == index


def put_artifact(liar, tag, subject=None):
    blob = b"an sbom of any form"
    liar.blobs[oci.digest(b"{}")], liar.blobs[oci.digest(blob)] = b"{}", blob
    manifest = {"schemaVersion": 2, "mediaType": lying.MANIFEST, "artifactType": "application/vnd.example.sbom",
                "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": oci.digest(b"{}"), "size": 2},
                "layers": [{"mediaType": "text/made-up", "digest": oci.digest(blob), "size": len(blob)}],
                "annotations": {"made": "up"}, "unknown": {"field": [1, None]}}
    if subject:
        manifest["subject"] = {"mediaType": lying.MANIFEST, "digest": oci.digest(subject), "size": len(subject)}
    data = json.dumps(manifest).encode()
    liar.put_manifest(tag, data)
    return data


def test_artifacts_are_kept_and_pushed(store, liar, registry, image):
    artifact = put_artifact(liar, "sbom")
    record = store.pulled(f"{liar.host}/t/x:sbom")
    assert record["artifact_type"] == "application/vnd.example.sbom" and record["chain_ids"] == []
    assert (store.images / "blobs/sha256" / record["layers"][0][7:]).read_bytes() == b"an sbom of any form"
    pushed(store, f"{liar.host}/t/x:sbom", f"{registry.host}/t/x:sbom")
    assert raw(f"{registry.host}/t/x:sbom") == artifact
    (store.images / "blobs/sha256" / record["layers"][0][7:]).write_bytes(b"rotten")
    liar.put_manifest("sbom2", artifact.replace(b'"up"', b'"again"'))
    store.pulled(f"{liar.host}/t/x:sbom2")
    assert (store.images / "blobs/sha256" / record["layers"][0][7:]).read_bytes() == b"an sbom of any form"
    liar.on(record["layers"][0], lambda h: h.reply(200, b"x" * 19))
    Store(store.data.parent / "other").failed(f"{liar.host}/t/x:sbom", "digest_mismatch", record["layers"][0][:19])


def test_referrers(store, liar, registry, image, user):
    """Debian's registry keeps no referrers, so the client does, at a tag; one that does says so."""
    subject = liar.manifests["v1"][0]
    first, second = put_artifact(liar, "s1", subject), put_artifact(liar, "s2", subject).replace(b'"up"', b'"down"')
    liar.put_manifest("s2", second)
    pushed(store, image, f"{registry.host}/t/x:1")
    for tag in ("s1", "s2", "s1"):
        store.pulled(f"{liar.host}/t/x:{tag}")
        pushed(store, f"{liar.host}/t/x:{tag}", f"{registry.host}/t/x:{tag}")
    index = json.loads(raw(f"{registry.host}/t/x:{oci.digest(subject).replace(':', '-')}"))
    assert index["mediaType"] == lying.INDEX
    assert [(m["digest"], m["artifactType"], m["annotations"]) for m in index["manifests"]] == [
        (oci.digest(first), "application/vnd.example.sbom", {"made": "up"}), (oci.digest(second), "application/vnd.example.sbom", {"made": "down"})]
    rows = user.json("image", "referrers", f"{registry.host}/t/x:1")
    assert rows == [{"digest": oci.digest(d), "artifactType": "application/vnd.example.sbom", "mediaType": lying.MANIFEST, "size": len(d),
                     "annotations": {"made": word}} for d, word in ((first, "up"), (second, "down"))]
    assert "application/vnd.example.sbom" in user.run("image", "referrers", f"{registry.host}/t/x@{oci.digest(subject)}").stdout
    assert user.json("image", "referrers", f"{registry.host}/t/x:s1") == []
    proxy = faultproxy.Proxy(registry.host)
    try:
        proxy.fault("PUT", "/manifests/", lambda h: h.forward(headers={"OCI-Subject": oci.digest(subject)}))
        pushed(store, f"{liar.host}/t/x:s1", f"{proxy.host}/other/x:s1")
        assert not [p for _, p in proxy.of("GET", "PUT") if "/manifests/sha256-" in p]
    finally:
        proxy.close()


def test_a_registry_that_lists_referrers(user, liar, tmp_path):
    """In pages, as it likes; and what it lists may be nonsense."""
    oci.layout(tmp_path / "l", LAYERS)
    liar.load(tmp_path / "l")
    digest = oci.digest(liar.manifests["v1"][0])

    def page(*names, link=None):
        body = json.dumps({"schemaVersion": 2, "mediaType": lying.INDEX, "manifests": [
            {"mediaType": lying.MANIFEST, "digest": oci.digest(n.encode()), "size": 5, "artifactType": n} for n in names]}).encode()
        return lambda h: h.reply(200, body, {"Content-Type": lying.INDEX, **({"Link": f'<{link}>; rel="next"'} if link else {})})
    name = f"{liar.host}/t/x:v1"
    liar.on(f"/v2/t/x/referrers/{digest}?last=a", page("c"))
    liar.on(f"/v2/t/x/referrers/{digest}", page("a", "b\033[31m", link=f"/v2/t/x/referrers/{digest}?last=a"))
    assert [r["artifactType"] for r in user.json("image", "referrers", name)] == ["a", "b\033[31m", "c"]
    many = [f"{i:04}" + "x" * 1200 for i in range(1000)]
    liar.behaviours.insert(0, ("/referrers/", page(*many)))
    assert [r["artifactType"] for r in user.json("image", "referrers", name)] == many  # in one page of over 1 MiB
    del liar.behaviours[0]
    shown = user.run("image", "referrers", name).stdout
    assert "b?[31m" in shown and "\033" not in shown
    for behaviour, word in ((lambda h: h.reply(200, b"<html>"), "no JSON"), (lambda h: h.reply(200, b'{"manifests":{}}'), "no index"),
                            (lambda h: h.reply(200, b'{"manifests":[{"digest":"../x"}]}'), "no digest"), (lambda h: h.endless(), "larger than"),
                            (page("a", link=f"/v2/t/x/referrers/{digest}"), "pages"), (lambda h: h.reply(403, b"{}"), "refuses access")):
        liar.behaviours = [("/referrers/", behaviour)]
        r = user.run("image", "referrers", name, check=False)
        assert r.returncode != 0 and word in r.stderr and name in r.stderr, r.stderr


def test_what_a_registry_wants_to_be_read(store, liar, image):
    data, media = liar.manifests["v1"]
    liar.put_manifest("old", data.replace(b"2,", b"2 ,", 1))
    data = liar.manifests["old"][0]
    liar.on("/manifests/old", lambda h: h.reply(200, data, {"Content-Type": media, "Warning": '299 - "this goes away \tsoon"'}))
    event, code = store.pull(f"{liar.host}/t/x:old")
    assert code == 0 and event["warning"] == "this goes away ?soon"


# --- the command line

def test_a_history_does_not_steer_the_terminal(user, liar):
    tar = oci.tar_of({"f": b"x"})
    by = ["RUN \u009b2J\u202e\n\033[31m", "ä" * 100, "x" + "ä" * 100]
    config = json.dumps({"os": "linux", "architecture": oci.ARCH, "config": {}, "rootfs": {"type": "layers", "diff_ids": [oci.digest(tar)]},
                         "history": [{"created_by": b, "empty_layer": True} for b in by]}).encode()
    liar.blobs[oci.digest(config)], liar.blobs[oci.digest(tar)] = config, tar
    liar.put_manifest("v1", json.dumps({"schemaVersion": 2, "mediaType": lying.MANIFEST, "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": oci.digest(config), "size": len(config)}, "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": oci.digest(tar), "size": len(tar)}]}).encode())
    user.run("pull", f"{liar.host}/t/x:v1")
    for more in ((), ("--no-trunc",)):
        said = user.run("image", "history", *more, f"{liar.host}/t/x:v1").stdout  # which is good UTF-8
        assert not {"\u009b", "\u202e", "\033"} & set(said) and "RUN" in said
    assert [r.get("created_by") for r in user.json("image", "history", f"{liar.host}/t/x:v1")][:3] == by


def test_pull_of_a_document(user, liar, tmp_path):
    oci.layout(tmp_path / "layout", LAYERS)
    liar.load(tmp_path / "layout")
    liar.put_manifest("v2", liar.manifests["v1"][0])
    services = "".join(f"  {n}:\n    image: {{name: '{liar.host}/t/x:{t}'}}\n    scale: {{mode: fixed, replicas: 1}}\n"
                       for n, t in (("a", "v1"), ("b", "v2"), ("c", "v1")))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".zlayer.yml").write_text(f"version: v1\ndeployment: doc\nservices:\n{services}")
    rows = json.loads(user.run("pull", "-o", "json", cwd=folder).stdout)
    assert [r["reference"] for r in rows] == [f"{liar.host}/t/x:v1", f"{liar.host}/t/x:v2"]
    liar.requests.clear()
    for policy in ("never", "if_not_present"):
        user.run("pull", "--policy", policy, cwd=folder)
    assert liar.requests == []
    user.run("pull", cwd=folder)
    assert [r[0] for r in liar.requests] == ["HEAD", "HEAD"]
    liar.on("/v2/", lambda h: h.reply(500, b"{}"))
    r = user.run("pull", "--policy", "newer", "-o", "json", cwd=folder)
    assert "newest is not known" in r.stderr and all(row["stale"] for row in json.loads(r.stdout))
    assert user.run("pull", cwd=folder, check=False).returncode == 1
    liar.behaviours = [("/v2/", lambda h: h.reply(403, b"{}"))]
    assert user.run("pull", "--policy", "newer", cwd=folder, check=False).returncode == 5  # refused is not away
    assert user.run("pull", "--policy", "sometimes", check=False).returncode == 2
    assert user.run("pull", cwd=tmp_path / "home", check=False).returncode == 3


def test_progress_on_a_terminal(user, registry, proxy, tmp_path):
    """A bar a layer, with its rate and the time that is left; it goes away when all is done."""
    oci.layout(tmp_path / "layout", [{"big": BIG}])
    oci.push(tmp_path / "layout", f"{registry.host}/t/x:1")
    layer = json.loads(raw(f"{registry.host}/t/x:1"))["layers"][0]["digest"]
    proxy.fault("GET", layer, lambda h: h.drip(40000, 0.2))
    master, slave = pty.openpty()
    p = subprocess.Popen([user.cli, "pull", f"{proxy.host}/t/x:1"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                         env={**user.env, "TERM": "xterm", "LANG": "C.UTF-8"})
    os.close(slave)
    shown = b""
    while True:
        try:
            block = os.read(master, 4096)
        except OSError:
            break
        if not block:
            break
        shown += block
    os.close(master)
    assert p.wait(20) == 0
    text = shown.decode(errors="replace")
    assert layer[7:19] in text and "KiB/s, " in text and "s left" in text and "sha256:" in text.rstrip().splitlines()[-1]


def test_push_and_plain_progress(user, liar, registry, tmp_path):
    oci.layout(tmp_path / "layout", LAYERS)
    liar.load(tmp_path / "layout")
    r = user.run("pull", f"{liar.host}/t/x:v1")
    assert "\033" not in r.stderr and "done, " in r.stderr and r.stdout.splitlines()[0].startswith("REFERENCE")
    r = user.run("push", f"{liar.host}/t/x:v1", f"{registry.host}/t/x:v1")
    assert r.stdout.startswith(f"{registry.host}/t/x:v1 sha256:") and "done, " in r.stderr
    assert user.json("push", f"{liar.host}/t/x:v1", f"{registry.host}/t/x:v1")["blobs"] == {"there": 3, "mounted": 0, "sent": 0}
    r = user.run("push", "not/here", check=False)
    assert r.returncode == 3 and "not/here" in r.stderr


def test_by_the_agent(node, liar, served, tmp_path, config):
    """The agent's job gets the credentials of who asks it, not only those of the agent's own user."""
    (tmp_path / "htpasswd").write_text(tokens.HTPASSWD)
    r = served(auth={"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}})
    oci.layout(tmp_path / "layout", LAYERS)
    liar.load(tmp_path / "layout")
    node.env.update(HOME=str(tmp_path), ZLAYER_CONFIG_DIR=str(tmp_path / "nothing"))
    agent = node.start("serve")
    try:
        wait_for("the agent answers", lambda: node.run("status", check=False).returncode == 0 and node.agent_pid())
        node.run("pull", f"{liar.host}/t/x:v1")
        to = f"{r.host}/t/x:1"
        denied = node.run("push", f"{liar.host}/t/x:v1", to, check=False)
        assert denied.returncode == 5 and "zlayer login" in denied.stderr
        login_file(config.folder, r.host, name="auth.json")
        node.run("push", f"{liar.host}/t/x:v1", to, env=config())
        node.run("image", "rm", f"{liar.host}/t/x:v1")
        assert node.run("pull", to, check=False).returncode == 5
        node.run("pull", to, env=config())
        # What can't be read of his is told when it would have been needed; who asks no registry asks no helper.
        (tmp_path / "bin").mkdir()
        helper = tmp_path / "bin/docker-credential-marking"
        helper.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\necho the vault is shut\nexit 1\n")
        helper.chmod(0o755)
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken/config.json").write_text('{"credsStore": "marking"}')
        broken = {"DOCKER_CONFIG": str(tmp_path / "broken"), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        node.run("pull", "--policy", "never", to, env=broken)
        assert not (tmp_path / "asked").exists()
        denied = node.run("pull", to, env=broken, check=False)
        assert denied.returncode == 5 and "credentials could not be read" in denied.stderr and "marking" in denied.stderr, denied.stderr
        assert (tmp_path / "asked").exists()
        # A job that is killed is no success.
        liar.on("/manifests/", lambda h: liar.stop.wait(30) and False)
        pull = node.start("pull", f"{liar.host}/t/x:v1", stderr=subprocess.PIPE)

        def jobs():
            children = pathlib.Path(f"/proc/{node.agent_pid()}/task").glob("*/children")
            pids = [int(pid) for c in children for pid in c.read_text().split()]
            return [pid for pid in pids if pathlib.Path(f"/proc/{pid}/comm").read_text() == "zl-image\n"]
        wait_for("the job runs", lambda: liar.requests and jobs())
        for pid in jobs():
            os.kill(pid, signal.SIGKILL)
        _, said = pull.communicate(timeout=60)
        assert pull.returncode != 0 and "the image job was killed" in said, said
        assert "sesame" not in node.agent_log()
    finally:
        agent.terminate()
        agent.communicate(timeout=20)


def test_an_ordinary_user(served, tmp_path):
    """His job takes itself for root in a namespace of its own, and still finds what he has kept."""
    need_root()
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed (tools/setup test)")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="zl-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "htpasswd").write_text(tokens.HTPASSWD)
    r = served(auth={"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}})
    oci.layout(folder / "l", LAYERS)
    skopeo("copy", "--dest-creds", "me:sesame", "--dest-tls-verify=false", f"oci:{folder}/l:latest", f"docker://{r.host}/t/x:1")
    home = folder / "home"
    home.mkdir()
    os.chown(home, 54321, 54321)

    def zlayer(*args, stdin=""):
        return subprocess.run(["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", program("zlayer"), *args], cwd=home, input=stdin, text=True,
                              env={"HOME": str(home), "PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False)
    if "zl-inside" in zlayer("pull", f"{r.host}/t/x:1").stderr:
        pytest.skip("an ordinary user can't have a user namespace here")
    assert zlayer("login", "-u", "me", "--password-stdin", r.host, stdin="sesame").returncode == 0
    assert (home / ".config/zlayer/auth.json").stat().st_uid == 54321
    got = zlayer("pull", f"{r.host}/t/x:1")
    assert got.returncode == 0, got.stderr
    shutil.rmtree(folder)


def test_references_mean_what_docker_means(store, config):
    """Nothing answers, and the error names the canonical form."""
    away = f"127.0.0.1:{free_port()}"
    env = config({"docker.io": {"mirrors": []}})
    port = away.split(":")[1]
    forms = {f"{away}/a/b": f"{away}/a/b:latest", f"{away}/a/b:t@sha256:{'a' * 64}": f"{away}/a/b:t@sha256:{'a' * 64}",
             f"LOCALHOST:{port}/a": f"localhost:{port}/a:latest", f"[::1]:{port}/a": f"[::1]:{port}/a:latest"}
    with concurrent.futures.ThreadPoolExecutor(len(forms)) as pool:  # each is tried for seconds
        list(pool.map(lambda form: refused(store, form[0], "pull_failed", form[1], env=env, verb="pull"), forms.items()))
    for text, word in (("UPPER/x", "upper-case"), ("a b", "lower-case"), ("a:b:c/d", "host name"), ("https://a.b/c", "without https://"),
                       ("x@sha256:1", "sha256:"), ("x:.t", "tag"), ("f" * 64, "@sha256:"), ("-a.b/c", "host name")):
        event, code = store.job(env, verb="pull", reference=text)
        assert code == 1 and event["code"] == "invalid_argument" and word in event["message"], (text, event)


def test_the_job_has_no_helpers_left(store, liar, image):
    """Once it speaks to a registry the job runs no program: its filter forbids it."""
    assert test_images.program is program
    liar.on("/manifests/", lying.slowly(1.0))
    p = store.start(verb="push", reference=image, destination=f"{liar.host}/t/y:1")
    try:
        wait_for("the job speaks", lambda: [r for r in liar.requests if r[0] == "HEAD"])
        status = pathlib.Path(f"/proc/{p.pid}/status").read_text()
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    finally:
        p.communicate(timeout=60)
