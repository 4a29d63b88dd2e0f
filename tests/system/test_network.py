"""The network as containers see it: names, their own deployment, other deployments, the world outside."""
import http.server
import os
import re
import threading

import leftovers
import pytest
from conftest import BUILD, free_port, wait_for

SPEC = """\
version: v1
deployment: {name}
services:
  web:
    image: {{name: workload, pull_policy: never}}
    command: {{args: [serve, "8080"]}}
    endpoints:
      - {{name: site, protocol: http, port: {public}, target_port: 8080, expose: public}}
      - {{name: inner, protocol: tcp, port: 5432, target_port: 8080, expose: internal}}
    scale: {{mode: fixed, replicas: 2}}
    health: {{interval: 1s, check: {{type: tcp, port: 8080}}}}
"""


@pytest.fixture
def two(node, tmp_path):
    """Deployments `one` and `two` of the same document, up."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "workload").write_bytes((BUILD / "tests/programs/workload").read_bytes())
    (root / "workload").chmod(0o755)
    node.run("image", "import", root, "-t", "workload", "--entrypoint", "/workload")
    for name in ("one", "two"):
        node.run("up", "-b", node.write_spec(SPEC.format(name=name, public=free_port()), f"{name}.yml"))
    yield node
    for name in ("one", "two"):
        node.run("down", name)
    tag = tag_of(node.data)
    for category in ("links", "rules", "cgroups", "mounts"):
        wait_for(f"no {category} of the node are left",
                 lambda c=category: not [k for k in leftovers.snapshot()[c] if tag in k or str(node.data) in k])


def tag_of(folder):
    """The low 24 bits of FNV-1a 64 of the data dir's real path, as in every host-wide name of that node."""
    h = 0xcbf29ce484222325
    for byte in os.fsencode(os.path.realpath(folder)):
        h = (h ^ byte) * 0x100000001b3 % (1 << 64)
    return f"{h & 0xffffff:06x}"


def service(node, deployment):
    (found,) = node.json("status", deployment)["services"]
    return found["address"]


def replicas(node, deployment):
    listed = node.json("ps", "-d", deployment, "-c")["containers"]
    return sorted(c["address"] for c in listed if c["state"] == "running")


def ask(node, deployment, *targets):
    """What the first replica of a deployment gets from each target."""
    words = [w for t in targets for w in ("get", t)]
    out = node.run("exec", "-d", deployment, "web", "--", "/workload", *words).stdout
    return dict(line.split(": ", 1) for line in out.splitlines())


def test_deployments_and_the_world(two):
    class Reply(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = f"from {self.client_address[0]}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    mine, other = replicas(two, "one"), replicas(two, "two")
    assert len(mine) == len(other) == 2 and not set(mine) & set(other)
    outside = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Reply)
    threading.Thread(target=outside.serve_forever, daemon=True).start()
    # The host's end of the uplink is the way out of every container.
    host = leftovers.snapshot()["links"]["zl-" + tag_of(two.data)]
    host = re.search(r"(\d+\.\d+\.\d+\.\d+)/30", host)[1]
    try:
        got = ask(two, "one", f"{mine[1]}:8080", f"{service(two, 'one')}:5432", f"{other[0]}:8080",
                  f"{service(two, 'two')}:5432", f"{host}:{outside.server_port}")
    finally:
        outside.shutdown()
    assert re.fullmatch(r"web-[12] \d+", got[f"{mine[1]}:8080"])
    assert re.fullmatch(r"web-[12] \d+", got[f"{service(two, 'one')}:5432"])
    assert got[f"{other[0]}:8080"] == "ECONNREFUSED"
    assert got[f"{service(two, 'two')}:5432"] == "ECONNREFUSED"
    # Masqueraded: the host sees the namespace's end of the uplink, never a replica.
    last = int(host.rsplit(".", 1)[1]) + 1
    assert got[f"{host}:{outside.server_port}"] == f"from {host.rsplit('.', 1)[0]}.{last}"


def test_names(two):
    hosts = two.run("exec", "-d", "one", "web", "--", "/workload", "cat", "/etc/hosts").stdout
    names = {}
    for line in hosts.splitlines():
        address, *words = line.split()
        for word in words:
            names.setdefault(word, address)
    assert names["localhost"] == "127.0.0.1"
    assert names["web"] == names["web.one"] == service(two, "one")
    assert names["web-1"] in replicas(two, "one")
