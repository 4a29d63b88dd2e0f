"""The real zl-proxy on real sockets, driven through net/proxy/control.h by tests/programs/proxy_driver.c."""
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import BUILD, SLOW, alive, free_port, program, wait_for

TIMEOUT = 10 * SLOW


class Driver:
    """The agent's end. Leaving it without quit() is an agent that ends."""

    def __init__(self, folder):
        env = {k: v for k, v in os.environ.items() if k == "ZLAYER_LOG" or k.endswith("SAN_OPTIONS")}
        self.process = subprocess.Popen([BUILD / "tests/programs/proxy-driver", program("zl-proxy"), folder],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=env)
        self.how = self.process.stdout.readline().strip()
        assert self.how in ("started", "adopted"), self.how
        self.gone = False

    def __call__(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert not answer.startswith("error"), f"{words}: {answer}"
        return answer

    def publish(self, listeners, services):
        """listeners: (id, protocol, [(service, host, path)], [(address, prefix)]); services: (id, name, probe, backends)"""
        for sid, name, probe, backends in services:
            self("service", sid, name, *probe)
            for b in backends:
                self("backend", *b)
        for lid, protocol, routes, *allows in listeners:
            self("listener", lid, protocol)
            for r in routes:
                self("route", *r)
            for a in allows:
                self("allow", *a)
        number = self("publish").split()[1]
        wait_for("all threads apply", lambda: self("applied", number) == "yes")
        return number

    def kill(self):
        """The agent dies."""
        self.process.kill()
        self.process.wait()
        self.gone = True

    def quit(self):
        if not self.gone:
            self("quit")
            self.process.communicate(timeout=TIMEOUT)
            self.gone = True

    def health(self, backend):
        return self("state", backend).split()


class Origin:
    """A backend whose behaviour the path asks for; it answers with its name and what it saw."""

    def __init__(self, name, port=0, raw=None):
        self.name, self.raw = name, raw
        self.requests, self.connections = [], 0
        self.hold = threading.Event()
        self.open = []
        self.listen = socket.create_server(("127.0.0.1", port), backlog=512, reuse_port=False)
        self.port = self.listen.getsockname()[1]
        self.stopping = False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                s, _ = self.listen.accept()
            except OSError:
                return
            self.open.append(s)
            self.connections += 1
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        try:
            if self.raw:
                self.raw(s)
            else:
                f = s.makefile("rb")
                while self.request(s, f):
                    pass
        except (OSError, ValueError):
            pass
        finally:
            s.close()

    def request(self, s, f):
        line = f.readline()
        if not line:
            return False
        method, path, version = line.decode().split()
        headers = {}
        while (h := f.readline().strip()):
            k, v = h.decode("latin-1").split(":", 1)
            headers[k.lower()] = v.strip()
        if headers.get("expect"):
            s.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        if path == "/early":
            s.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
            return False
        if headers.get("transfer-encoding"):
            while (n := int(f.readline().split(b";")[0], 16)):
                body += f.read(n)
                f.readline()
            f.readline()
        elif headers.get("content-length"):
            body = f.read(int(headers["content-length"]))
        self.requests.append((method, path, headers, body))
        if path == "/die":
            return False
        if path == "/hold":
            self.hold.wait(TIMEOUT)
        if path == "/chunked":
            s.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in range(50):
                s.sendall(b"%x\r\n%s\r\n" % (1000, bytes([97 + i % 26]) * 1000))
            s.sendall(b"0\r\nDigest: x\r\n\r\n")
            return True
        if path == "/until-close":
            s.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")
            return False
        if path == "/truncated":
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
            return False
        if path == "/bad":
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n")
            return True
        if path == "/nothing":
            s.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            return True
        if path == "/upgrade":
            s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\nX-Key: abc\r\n\r\nhello ")
            while (b := f.read1(4096)):
                s.sendall(b)
            return False
        if path.startswith("/big/"):
            size = int(path[5:])
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            block = bytes(range(256)) * 256
            while size > 0:
                s.sendall(block[:size])
                size -= len(block)
            return True
        text = json.dumps({"name": self.name, "path": path, "method": method, "version": version, "headers": headers,
                           "length": len(body), "sum": sum(body)}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Origin: %s\r\nKeep-Alive: timeout=5\r\n\r\n" % (
            len(text), self.name.encode())
        s.sendall(head + (b"" if method == "HEAD" else text))
        return headers.get("connection") != "close"

    def stop(self):
        """As a killed program: nothing listens, open connections are reset."""
        try:
            self.listen.shutdown(socket.SHUT_RDWR)  # also ends the accept that waits on it
        except OSError:
            pass
        self.listen.close()
        for s in list(self.open):
            try:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Client:
    """One connection, by hand."""

    def __init__(self, port, family=socket.AF_INET, address="127.0.0.1"):
        self.s = socket.create_connection((address, port), timeout=TIMEOUT)
        self.f = self.s.makefile("rb")

    def send(self, data):
        self.s.sendall(data)

    def reply(self, head_only=False):
        line = self.f.readline()
        if not line:
            return None
        status = int(line.split()[1])
        headers = {}
        while (h := self.f.readline().strip()):
            k, v = h.decode().split(":", 1)
            headers[k.lower()] = v.strip()
        if head_only or status in (204, 304) or status < 200:
            return status, headers, b""
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b""
            while (n := int(self.f.readline(), 16)):
                body += self.f.read(n)
                self.f.readline()
            while self.f.readline().strip():
                pass
        elif "content-length" in headers:
            body = self.f.read(int(headers["content-length"]))
        else:
            body = self.f.read()
        return status, headers, body

    def get(self, path="/", method="GET", headers="", body=b"", version="1.1", host="test.local"):
        self.send(f"{method} {path} HTTP/{version}\r\nHost: {host}\r\n{headers}\r\n".encode() + body)
        return self.reply(head_only=method == "HEAD")

    def close(self):
        self.f.close()
        self.s.close()


def get(port, path="/", **k):
    c = Client(port)
    try:
        return c.get(path, **k)
    finally:
        c.close()


NO_PROBE = ("none", 0, 0, 0, 0)
FAST = ("tcp", 50, 200, 2, 0)


@pytest.fixture
def proxy(tmp_path):
    d = Driver(tmp_path)
    yield d
    if d.gone:
        d = Driver(tmp_path)  # an agent after the one that the test ended
    pid = int(d("pid"))
    d.quit()
    wait_for("the proxy ends", lambda: not alive(pid))


@pytest.fixture
def origins():
    made = []

    def make(name, **k):
        made.append(Origin(name, **k))
        return made[-1]
    yield make
    for o in made:
        o.hold.set()
        o.stop()


@pytest.fixture
def web(proxy, origins):
    """One http listener before two origins."""
    a, b = origins("a"), origins("b")
    port = free_port()
    proxy("listen", 1, "127.0.0.1", port)
    proxy.publish([(1, "http", [(0,)])], [(7, "shop.web.http", NO_PROBE, [(11, "127.0.0.1", a.port), (12, "127.0.0.1", b.port)])])
    return proxy, port, a, b


def test_requests_are_spread_and_headers_are_forwarded(web):
    _, port, a, b = web
    c = Client(port)
    names = []
    for i in range(10):
        status, headers, body = c.get(f"/x?{i}", headers="X-Forwarded-For: 6.6.6.6\r\nConnection: x-secret\r\nX-Secret: 1\r\n"
                                                         "X-Keep: 2\r\nTE: trailers\r\nProxy-Authorization: p\r\n")
        assert status == 200
        seen = json.loads(body)
        names.append(seen["name"])
        assert seen["path"] == f"/x?{i}"
        h = seen["headers"]
        assert h["x-forwarded-for"] == "127.0.0.1"
        assert h["x-forwarded-proto"] == "http"
        assert h["x-forwarded-host"] == h["host"] == "test.local"
        assert h["x-keep"] == "2"
        assert not {"connection", "x-secret", "te", "proxy-authorization"} & set(h)
        assert "keep-alive" not in headers and "connection" not in headers
        assert headers["x-origin"] == seen["name"]
    assert names.count("a") == names.count("b") == 5
    assert a.connections == b.connections == 1, "connections to backends are kept"


SMUGGLING = [
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX\0Y: v\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e1\r\n\r\n",
    b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("one_byte", [False, True])
def test_ambiguous_requests_are_refused(web, one_byte):
    _, port, a, b = web
    for bad in SMUGGLING:
        c = Client(port)
        if one_byte:
            c.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(bad)):
                try:
                    c.send(bad[i:i + 1])
                except OSError:
                    break
        else:
            c.send(bad)
        status, headers, body = c.reply()
        assert status in (400, 501), bad
        assert headers["connection"] == "close"
        assert json.loads(body)["code"] == "bad_request"
        assert c.reply() is None
        c.close()
    assert not a.requests and not b.requests


def test_bad_chunk_in_a_body(web):
    _, port, a, b = web
    c = Client(port)
    c.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\nabc\r\n0\r\n\r\n")
    assert c.reply()[0] == 400
    assert not a.requests and not b.requests
    c.close()


def test_bodies_both_ways(web):
    _, port, *_ = web
    c = Client(port)
    data = os.urandom(300_000)
    for how in ("length", "chunked"):
        if how == "length":
            body, header = data, f"Content-Length: {len(data)}\r\n"
        else:
            body = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(data[i:i + 7000]), data[i:i + 7000])
                            for i in range(0, len(data), 7000)) + b"0\r\n\r\n"
            header = "Transfer-Encoding: chunked\r\n"
        status, _, reply = c.get("/echo", "POST", header, body)
        seen = json.loads(reply)
        assert (status, seen["length"], seen["sum"]) == (200, len(data), sum(data))
    status, _, reply = c.get("/chunked")
    assert status == 200 and len(reply) == 50_000
    status, _, reply = c.get("/big/5000000")
    assert status == 200 and len(reply) == 5_000_000 and reply[:256] == bytes(range(256))
    assert c.get("/nothing")[0] == 204
    status, headers, _ = c.get("/", "HEAD")
    assert status == 200 and int(headers["content-length"]) > 10
    status, headers, reply = c.get("/until-close")
    assert (status, reply, headers["connection"]) == (200, b"all of it", "close")
    assert c.reply() is None
    c.close()


def test_expect_continue_and_early_reply(web):
    _, port, *_ = web
    c = Client(port)
    c.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert c.reply()[0] == 100
    c.send(b"hello")
    assert c.reply()[0] == 200
    c.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100000)
    status, headers, body = c.reply()
    assert (status, body, headers["connection"]) == (413, b"large", "close")
    c.close()


def test_http10_and_pipelining(web):
    _, port, *_ = web
    status, headers, body = get(port, version="1.0")
    assert status == 200 and headers["connection"] == "close"
    assert json.loads(body)["version"] == "HTTP/1.0"
    c = Client(port)
    assert c.get(version="1.0", headers="Connection: keep-alive\r\n")[1]["connection"] == "keep-alive"
    assert c.get(version="1.0", headers="Connection: keep-alive\r\n")[0] == 200
    c.close()
    c = Client(port)
    c.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(40)))
    for i in range(40):
        assert json.loads(c.reply()[2])["path"] == f"/{i}"
    c.close()


def test_upgrade_is_a_tunnel(web):
    _, port, *_ = web
    c = Client(port)
    c.send(b"GET /upgrade HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\nSec-Key: k\r\n\r\n")
    status, headers, _ = c.reply()
    assert status == 101 and headers["upgrade"] == "echo" and headers["x-key"] == "abc"
    assert c.f.read(6) == b"hello "
    c.send(b"world")
    assert c.f.read(5) == b"world"
    c.s.shutdown(socket.SHUT_WR)
    assert c.f.read() == b""
    c.close()


def test_bad_and_truncated_replies(web):
    _, port, *_ = web
    c = Client(port)
    status, _, body = c.get("/bad")
    assert status == 502 and json.loads(body)["code"] == "bad_gateway"
    assert c.get("/")[0] == 200, "a refusal that is whole keeps the connection"
    c.send(b"GET /truncated HTTP/1.1\r\nHost: a\r\n\r\n")
    assert c.f.readline().split()[1] == b"200"
    rest = c.f.read()
    assert rest.endswith(b"part"), "the connection ends where the body does"
    c.close()


def test_a_request_without_a_reply(web):
    _, port, a, b = web
    status, _, body = get(port, "/die")
    assert status == 502, "every replica died on it"
    assert len(a.requests) + len(b.requests) >= 2, "an idempotent one is tried elsewhere"
    a.requests.clear(), b.requests.clear()
    status, _, _ = get(port, "/die", method="POST", headers="Content-Length: 3\r\n", body=b"abc")
    assert status == 502
    assert len(a.requests) + len(b.requests) == 1, "one that is not is tried once"


def test_client_gone_closes_the_backend(web):
    _, port, a, b = web
    c = Client(port)
    c.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
    wait_for("the request", lambda: a.requests or b.requests)
    origin = a if a.requests else b
    c.close()
    s = origin.open[-1]
    s.settimeout(TIMEOUT)
    assert wait_for("the end", lambda: s.recv(1, socket.MSG_PEEK) == b"")


def test_slow_client_and_slow_bytes(web):
    _, port, *_ = web
    c = Client(port)
    for byte in b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n":
        c.send(bytes([byte]))
        time.sleep(0.001)
    assert c.reply()[0] == 200
    c.send(b"GET /big/20000000 HTTP/1.1\r\nHost: a\r\n\r\n")
    time.sleep(0.2)  # the reply backs up through the proxy
    status, _, body = c.reply()
    assert status == 200 and len(body) == 20_000_000
    c.close()


def test_large_head_and_limits(web):
    _, port, *_ = web
    status, _, body = get(port, headers=f"X-Large: {'x' * 60000}\r\n")
    assert status == 200 and len(json.loads(body)["headers"]["x-large"]) == 60000
    assert get(port, headers=f"X-Large: {'x' * 70000}\r\n")[0] == 431
    assert get(port, headers="".join(f"H{i}: v\r\n" for i in range(100)))[0] == 431


def test_routes_by_host_and_path(proxy, origins):
    a, b, c = origins("a"), origins("b"), origins("c")
    port = free_port()
    proxy("listen", 1, "127.0.0.1", port)
    services = [(i + 1, o.name, NO_PROBE, [(10 + i, "127.0.0.1", o.port)]) for i, o in enumerate((a, b, c))]
    proxy.publish([(1, "http", [(0, "shop.test", "-"), (1, "shop.test", "/api"), (2, "*.wild.test", "-")])], services)
    name = lambda **k: json.loads(get(port, **k)[2]).get("name")
    assert name(host="shop.test") == "a"
    assert name(host="SHOP.test:80", path="/apix") == "a"
    assert name(host="shop.test", path="/api") == "b"
    assert name(host="shop.test", path="/api/x?y") == "b"
    assert name(host="x.y.wild.test") == "c"
    assert name(host="other", path="http://shop.test/api") == "b", "an absolute target names the host"
    assert get(port, host="wild.test")[0] == 404
    assert get(port, host="nobody")[0] == 404


def test_no_backend(proxy):
    port = free_port()
    proxy("listen", 1, "127.0.0.1", port)
    proxy.publish([(1, "http", [(0,)])], [(7, "shop.web.http", NO_PROBE, [])])
    c = Client(port)
    status, _, body = c.get()
    assert status == 503 and json.loads(body) == {"error": "no replica is ready for: shop.web.http",
                                                  "code": "no_healthy_backend"}
    assert c.get()[0] == 503
    c.close()


def test_probes_eject_and_readmit(proxy, origins):
    a, b = origins("a"), origins("b")
    port = free_port()
    proxy("listen", 1, "127.0.0.1", port)
    proxy.publish([(1, "http", [(0,)])], [(7, "s", FAST, [(11, "127.0.0.1", a.port), (12, "127.0.0.1", b.port)])])
    wait_for("both healthy", lambda: proxy.health(11)[3] == proxy.health(12)[3] == "1")
    b_port = b.port
    b.stop()
    for _ in range(20):
        assert json.loads(get(port)[2])["name"] == "a"
    wait_for("ejected", lambda: proxy.health(12)[3] == "2")
    again = origins("b2", port=b_port)
    wait_for("healthy again", lambda: proxy.health(12)[3] == "1")
    wait_for("served again", lambda: json.loads(get(port)[2])["name"] == again.name)


def test_http_probe(proxy, origins):
    answers = {"status": b"503"}

    def raw(s):
        s.recv(4096)
        s.sendall(b"HTTP/1.1 %s X\r\nContent-Length: 0\r\n\r\n" % answers["status"])
    a = origins("a", raw=raw)
    port = free_port()
    proxy("listen", 1, "127.0.0.1", port)
    proxy.publish([(1, "http", [(0,)])], [(7, "s", ("http", 50, 500, 2, 0, "/health"), [(11, "127.0.0.1", a.port)])])
    wait_for("bad", lambda: proxy.health(11)[3] == "2")
    assert get(port)[0] == 503
    answers["status"] = b"204"
    wait_for("good", lambda: proxy.health(11)[3] == "1")


def test_failed_connect_goes_elsewhere(proxy, origins):
    a = origins("a")
    dead = free_port()
    port = free_port()
    proxy("listen", 1, "127.0.0.1", port)
    proxy.publish([(1, "http", [(0,)])], [(7, "s", NO_PROBE, [(11, "127.0.0.1", dead), (12, "127.0.0.1", a.port)])])
    c = Client(port)
    for i in range(20):
        assert c.get()[0] == 200
        assert c.get("/p", "POST", "Content-Length: 3\r\n", b"abc")[0] == 200
    c.close()
    assert int(proxy.health(11)[1]) >= 1


def test_drain(proxy, origins):
    a, b = origins("a"), origins("b")
    port = free_port()
    proxy("listen", 1, "127.0.0.1", port)
    service = lambda *backends: [(7, "s", NO_PROBE, backends)]
    A, B = (11, "127.0.0.1", a.port), (12, "127.0.0.1", b.port)
    proxy.publish([(1, "http", [(0,)])], service(A, B))
    held = [Client(port) for _ in range(2)]
    for c in held:
        c.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
    wait_for("held", lambda: len(a.requests) == len(b.requests) == 1)
    assert proxy("drained", 12) == "no"
    proxy.publish([(1, "http", [(0,)])], service(A, (*B, "draining")))
    for _ in range(10):
        assert json.loads(get(port)[2])["name"] == "a"
    assert proxy("drained", 12) == "no", "its request is in flight"
    before = int(proxy("events"))
    a.hold.set(), b.hold.set()
    assert sorted(json.loads(c.reply()[2])["name"] for c in held) == ["a", "b"]
    wait_for("drained", lambda: proxy("drained", 12) == "yes")
    wait_for("told", lambda: int(proxy("events")) > before)
    proxy.publish([(1, "http", [(0,)])], service(A))
    assert proxy("drained", 12) == "yes"
    # Its slot is free for another now.
    proxy.publish([(1, "http", [(0,)])], service(A, (13, "127.0.0.1", b.port)))
    assert proxy.health(13)[0] == "0"
    for c in held:
        c.close()


class Load:
    """Constant requests on several kept connections, reconnecting only when told to close; counts what fails."""

    def __init__(self, port, threads=4):
        self.port, self.stop, self.good, self.bad = port, False, 0, []
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]
        for t in self.threads:
            t.start()

    def run(self):
        c = Client(self.port)
        while not self.stop:
            try:
                r = c.get()
            except OSError as e:
                r = e
            if isinstance(r, tuple) and r[0] == 200:
                self.good += 1
            else:
                self.bad.append(r)
                c.close()
                c = Client(self.port)
        c.close()

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join(TIMEOUT)


def test_nothing_fails_under_swaps_and_drains(proxy, origins):
    names = [origins(n) for n in "abc"]
    port = free_port()
    proxy("listen", 1, "127.0.0.1", port)

    def publish(*backends):
        proxy.publish([(1, "http", [(0,)])], [(7, "s", NO_PROBE, backends)])
    publish(*[(i + 1, "127.0.0.1", o.port) for i, o in enumerate(names)])
    load = Load(port)
    ident = 10
    for round_ in range(10):
        new = origins(f"n{round_}")
        ident += 1
        gone = names.pop(0)
        gone_id = next(i for i in range(1, 100) if i == (round_ + 1 if round_ < 3 else ident - 3))
        ids = [i for i in range(gone_id + 1, 4)] + [i for i in range(max(11, gone_id + 1), ident)]
        current = list(zip(ids, names))
        publish(*[(i, "127.0.0.1", o.port) for i, o in current], (ident, "127.0.0.1", new.port),
                (gone_id, "127.0.0.1", gone.port, "draining"))
        names.append(new)
        wait_for("drained", lambda: proxy("drained", gone_id) == "yes")
        gone.stop()
        publish(*[(i, "127.0.0.1", o.port) for i, o in current], (ident, "127.0.0.1", new.port))
    load.end()
    assert not load.bad and load.good > 50


def test_a_killed_backend_fails_no_request(proxy, origins):
    a, b = origins("a"), origins("b")
    port = free_port()
    proxy("listen", 1, "127.0.0.1", port)
    proxy.publish([(1, "http", [(0,)])], [(7, "s", FAST, [(11, "127.0.0.1", a.port), (12, "127.0.0.1", b.port)])])
    wait_for("both healthy", lambda: proxy.health(11)[3] == proxy.health(12)[3] == "1")
    load = Load(port)
    wait_for("load", lambda: load.good > 100)
    b.stop()
    wait_for("ejected", lambda: proxy.health(12)[3] == "2")
    seen = load.good
    wait_for("more", lambda: load.good > seen + 50)
    load.end()
    assert not load.bad


def test_the_agent_dies_and_another_adopts(proxy, origins, tmp_path):
    a, b = origins("a"), origins("b")
    port = free_port()
    proxy("listen", 1, "127.0.0.1", port)
    proxy.publish([(1, "http", [(0,)])], [(7, "s", FAST, [(11, "127.0.0.1", a.port), (12, "127.0.0.1", b.port)])])
    pid = int(proxy("pid"))
    wait_for("healthy", lambda: proxy.health(11)[3] == proxy.health(12)[3] == "1")
    load = Load(port)
    wait_for("load", lambda: load.good > 20)
    proxy.kill()
    b.stop()  # probes go on without an agent
    good = load.good
    wait_for("requests go on", lambda: load.good > good + 50)
    again = Driver(tmp_path)
    assert again.how == "adopted" and int(again("pid")) == pid
    assert again("listeners") == "1"
    wait_for("ejected meanwhile", lambda: again.health(12)[3] == "2")
    again.publish([(1, "http", [(0,)])], [(7, "s", FAST, [(11, "127.0.0.1", a.port)])])
    assert again("drained", 12) == "yes"
    load.end()
    assert not load.bad
    again.kill()  # the fixture takes over


def test_a_killed_proxy_means_waiting_not_refusal(web):
    proxy, port, a, b = web
    assert get(port)[0] == 200
    pid = int(proxy("pid"))
    os.kill(pid, signal.SIGSTOP)  # connections queue up in the listener
    wait_for("every thread stops", lambda: all(
        (t / "stat").read_text().rsplit(")", 1)[1].split()[0] == "T" for t in pathlib.Path(f"/proc/{pid}/task").iterdir()))
    queued = [Client(port) for _ in range(20)]
    for c in queued:
        c.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    os.kill(pid, signal.SIGKILL)
    assert {c.reply()[0] for c in queued} == {200}
    for c in queued:
        c.close()
    assert int(proxy("pid")) not in (0, pid)
    for _ in range(3):  # again and again
        last = int(proxy("pid"))
        os.kill(last, signal.SIGKILL)
        wait_for("its end", lambda: not alive(last))  # until then it may still accept
        assert get(port)[0] == 200
        wait_for("a new one", lambda: int(proxy("pid")) != 0)


def test_tcp_half_close_and_bulk(proxy, origins):
    def echo(s):
        while (b := s.recv(65536)):
            s.sendall(b)
        s.sendall(b"END")
        s.shutdown(socket.SHUT_WR)
    a = origins("a", raw=echo)
    port, dead = free_port(), free_port()
    proxy("listen", 2, "127.0.0.1", port)
    proxy.publish([(2, "tcp", [(0,)])], [(7, "db", NO_PROBE, [(11, "127.0.0.1", dead), (12, "127.0.0.1", a.port)])])
    data = os.urandom(3_000_000)
    for _ in range(4):
        c = Client(port)
        t = threading.Thread(target=lambda: (c.send(data), c.s.shutdown(socket.SHUT_WR)))
        t.start()
        assert c.f.read() == data + b"END"
        t.join()
        c.close()
    wait_for("nothing in flight", lambda: proxy.health(12)[2] == "0")


def test_tcp_server_speaks_first_and_resets(proxy, origins):
    def greet(s):
        s.sendall(b"220 hello\r\n")
        s.recv(10)
    a = origins("a", raw=greet)
    port = free_port()
    proxy("listen", 2, "127.0.0.1", port)
    proxy.publish([(2, "tcp", [(0,)])], [(7, "db", NO_PROBE, [(11, "127.0.0.1", a.port)])])
    c = Client(port)
    assert c.f.readline() == b"220 hello\r\n"
    c.send(b"x")
    assert c.f.read() == b""
    c.close()
    wait_for("closed", lambda: proxy.health(11)[2] == "0")


def test_sources_are_checked(web):
    proxy, port, a, b = web
    services = [(7, "s", NO_PROBE, [(11, "127.0.0.1", a.port)])]
    proxy.publish([(1, "http", [(0,)], ("10.9.0.0", 16))], services)
    c = Client(port)
    try:
        c.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert c.reply() is None
    except ConnectionError:
        pass
    proxy.publish([(1, "http", [(0,)], ("10.9.0.0", 16), ("127.0.0.0", 8))], services)
    assert get(port)[0] == 200


def test_a_dropped_listener_refuses(web):
    proxy, port, a, _ = web
    kept = Client(port)
    assert kept.get()[0] == 200
    proxy.publish([], [(7, "s", NO_PROBE, [(11, "127.0.0.1", a.port)])])
    proxy("unlisten", 1)

    def refused():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return False
        except ConnectionRefusedError:
            return True
        except (ConnectionResetError, TimeoutError):
            return False  # it came into the queue just when the listener was closed

    wait_for("refused", refused)
    assert kept.f.read() == b"", "an idle connection of it ends"


def test_public_listener_is_dual_stack(proxy, origins):
    a = origins("a")
    port = free_port()
    proxy("listen", 1, "public", port)
    proxy.publish([(1, "http", [(0,)])], [(7, "s", NO_PROBE, [(11, "127.0.0.1", a.port)])])
    assert json.loads(get(port)[2])["headers"]["x-forwarded-for"] == "127.0.0.1"
    c = Client(port, address="::1")
    assert json.loads(c.get()[2])["headers"]["x-forwarded-for"] == "::1"
    c.close()


def test_confined_small_and_quiet(web):
    proxy, port, *_ = web
    pid = int(proxy("pid"))
    for _ in range(50):
        assert get(port)[0] == 200
    status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    if os.geteuid() == 0:
        assert set(status["Uid"].split()) == {"65534"} and set(status["Gid"].split()) == {"65534"}
        assert int(status["CapBnd"], 16) == 0
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    if SLOW == 1:
        assert int(status["VmRSS"].split()[0]) <= 6 * 1024
    idle = Client(port)
    assert idle.get()[0] == 200

    def switches():
        total = 0
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
        return total
    time.sleep(0.1)
    before = switches()
    time.sleep(1)
    if SLOW == 1:  # a sanitizer has a thread of its own
        assert switches() - before <= 1, "no probe, no wake-up"
    idle.close()
