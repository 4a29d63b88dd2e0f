"""The API as another program sees it: HTTP/1.1 and JSON over the agent's unix socket."""
import http.client
import json
import os
import signal
import socket
import subprocess
import time

import pytest

from conftest import SLOW, free_port, wait_for
from test_spine import containers, fetch, import_workload, spec

OWNERS = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"]


class Api:
    """One connection a request, as the command line does it; `raw` gives the socket itself."""

    def __init__(self, node):
        self.path = str(node.data / "run" / "zlayer.sock")

    def raw(self, timeout=20):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(timeout * SLOW)
        s.connect(self.path)
        return s

    def connection(self):
        c = http.client.HTTPConnection("localhost")
        c.sock = self.raw()
        return c

    def __call__(self, method, path, body=None, raw=None):
        c = self.connection()
        try:
            c.request(method, path, raw if raw is not None else None if body is None else json.dumps(body))
            r = c.getresponse()
            text = r.read()
            return r.status, json.loads(text) if text else None, r.headers
        finally:
            c.close()


@pytest.fixture
def api(node):
    agent = node.start("serve", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("the agent listens", lambda: (node.data / "run" / "zlayer.sock").exists(), 20)
    yield Api(node)
    agent.terminate()
    agent.wait(30 * SLOW)


def deployed(node, tmp_path, replicas=1):
    tag = import_workload(node, tmp_path, ["serve", "8080"])
    port = free_port()
    return port, spec(port, tag, replicas)


def test_a_document_that_is_put_again_changes_nothing(node, api, tmp_path):
    port, text = deployed(node, tmp_path)
    status, first, _ = api("POST", "/api/v1/deployments", {"spec": text})
    assert status == 201 and first["created"] is True
    wait_for("it runs", lambda: len(containers(node)) == 1, 20)
    before = containers(node)
    status, second, _ = api("POST", "/api/v1/deployments", {"spec": text})
    assert status == 200 and second["created"] is False
    assert second["deployment"]["generation"] == first["deployment"]["generation"]
    node.run("up", "-b", node.write_spec(text))
    assert [(c["id"], c["pid"]) for c in containers(node)] == [(c["id"], c["pid"]) for c in before]
    _, shown, _ = api("GET", "/api/v1/deployments/spine")
    assert shown["generation"] == first["deployment"]["generation"]
    status, changed, _ = api("POST", "/api/v1/deployments", {"spec": text.replace("replicas: 1", "replicas: 2")})
    assert status == 200 and changed["deployment"]["generation"] > first["deployment"]["generation"]
    assert fetch(port)[0] == 200


BAD = [
    ("POST", "/api/v1/deployments", b"{", 400, "no JSON"),
    ("POST", "/api/v1/deployments", b"", 400, "needs the key 'spec'"),
    ("POST", "/api/v1/deployments", b'{"spec":"","pull":"sometimes"}', 400, "one of if_not_present"),
    ("POST", "/api/v1/deployments", b'{"spec":"","owner":"me"}', 400, "32 hex digits"),
    ("POST", "/api/v1/deployments/x/stop", b'{"timeout_s":99999999999999}', 400, "from 0 to 86400"),
    ("POST", "/api/v1/deployments/x/exec", b'{"command":[{}]}', 400, "expects strings"),
    ("POST", "/api/v1/deployments/x/exec", b'{"command":["a",null]}', 400, "expects strings"),
    ("POST", "/api/v1/images/pull", b'{"reference":"a","policy":1}', 400, "one of"),
    ("POST", "/api/v1/images/pull", b'{"reference":"a","verb":"remove"}', 400, "unknown key 'verb'"),
    ("POST", "/api/v1/images/import", b'{"reference":"a","source":"/r","ports":[{}]}', 400, "expects strings"),
    ("POST", "/api/v1/images/import", b'{"reference":"a","source":"relative"}', 400, "absolute path"),
    ("DELETE", "/api/v1/deployments/x", b"{}", 400, "takes no body"),
    ("DELETE", "/api/v1/deployments/x?timeout_s=-1", b"", 400, "0 to 86400"),
    ("GET", "/api/v1/deployments/%zz", b"", 400, "percent-encoded"),
    ("GET", "/api/v2/status", b"", 404, "no such path"),
    ("PUT", "/api/v1/deployments", b"", 405, "no such method"),
]


def test_a_bad_request_has_its_reason(node, api):
    for method, path, body, wanted, why in BAD:
        status, reply, headers = api(method, path, raw=body)
        assert status == wanted and why in reply["error"], (method, path, body, status, reply)
        assert headers.get("Allow") == ("GET, POST" if status == 405 else None)
    assert api("POST", "/api/v1/deployments/x/stop", {"timout_s": 1})[1]["hint"] == "did you mean 'timeout_s'?"
    assert api("GET", "/health/live")[0] == 200


def test_a_command_is_not_run_twice(node, tmp_path):
    """The agent dies in the middle of an exec: the client does not send it to the next one."""
    _, text = deployed(node, tmp_path)
    document = node.write_spec(text)
    node.run("up", "-b", document)
    exec_job = node.start("exec", "web", "--", "/workload", "sleep", "1500", "exit", "7")
    container = containers(node)[0]

    def children():
        ns = os.readlink(f"/proc/{container['pid']}/ns/pid")
        return [p for p in os.listdir("/proc") if p.isdigit() and same_namespace(p, ns)]

    wait_for("the command runs", lambda: len(children()) == 2, 20)
    os.kill(node.agent_pid(), signal.SIGKILL)
    out, err = exec_job.communicate(timeout=30 * SLOW)
    assert exec_job.returncode == 1 and "not known" in err, (exec_job.returncode, out, err)
    node.run("up", "-b", document)
    wait_for("the first one has ended, and there is no second", lambda: len(children()) == 1, 20)
    again = node.run("exec", "web", "--", "/workload", "exit", "7", check=False)
    assert again.returncode == 7


def same_namespace(pid, ns):
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == ns
    except OSError:
        return False


def lease(api, owner):
    s = api.raw()
    s.sendall(f"GET /api/v1/deployments/spine/lease?owner={owner} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return s, s.recv(4096)


def test_a_lease_counts_for_the_owner_that_the_store_names(node, api, tmp_path):
    _, text = deployed(node, tmp_path)
    assert api("POST", "/api/v1/deployments", {"spec": text, "owner": OWNERS[0]})[0] == 201
    first, head = lease(api, OWNERS[0])
    assert b"200 OK" in head
    assert api("POST", "/api/v1/deployments", {"spec": text, "owner": OWNERS[1]})[0] == 200
    second, head = lease(api, OWNERS[1])
    assert b"200 OK" in head
    refused, head = lease(api, OWNERS[0])
    assert b"409" in head
    refused.close()
    first.close()  # the one that was replaced goes: nothing happens, not even after the time that an owner has
    ended = time.monotonic() + 31
    while time.monotonic() < ended:
        assert len(api("GET", "/api/v1/deployments")[1]) == 1
        time.sleep(0.5)
    assert [c["state"] for c in containers(node)] == ["running"]
    second.close()
    wait_for("what nobody owns is stopped", lambda: not api("GET", "/api/v1/deployments")[1], 60)
