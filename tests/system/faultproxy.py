"""A proxy in front of a real registry that does to requests and replies what a test tells it to: cuts, delays, corrupts,
truncates, refuses, redirects, forgets headers and lies. What it is told nothing about it passes on as it is."""
import http.client
import time

import lying


class Handler(lying.Handler):
    def do_POST(self):
        self.answer(True)

    do_PATCH = do_PUT = do_DELETE = do_POST

    def serve(self, with_body):
        self.forward()

    def ask(self, send=None, drop=()):
        """The real registry's reply; `send`: only so many bytes of the body, then the connection to it ends."""
        upstream = http.client.HTTPConnection(self.server.owner.upstream, timeout=30)
        length = int(self.headers.get("Content-Length") or 0)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in drop:
                upstream.putheader(name, value)
        upstream.endheaders()
        left = length if send is None else min(send, length)
        while left:
            block = self.rfile.read(min(left, 65536))
            if not block:
                break
            left -= len(block)
            upstream.send(block)
        if send is not None:
            upstream.close()
            return None
        reply = upstream.getresponse()
        data = reply.read()
        upstream.close()
        return reply.status, [(n, v) for n, v in reply.getheaders() if n.lower() not in ("content-length", "date", "connection")], data, \
            reply.getheader("Content-Length")

    def forward(self, change=None, headers=None, without=(), drop=()):
        """Passes on; change: a function of the body; headers: replaced ones; without: headers of the reply that go; drop: of the request."""
        status, own, data, length = self.ask(drop=drop)
        data = change(data) if change else data
        own = [(n, v) for n, v in own if n.lower() not in without and n not in (headers or {})]
        self.send_response(status)
        for name, value in own + list((headers or {}).items()):
            self.send_header(name, value)
        if self.command == "HEAD" and length:
            self.send_header("Content-Length", length)
        elif status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def cut_reply(self, after):
        """Says the whole length, sends a part, and hangs up."""
        status, own, data, _ = self.ask()
        self.send_response(status)
        for name, value in own:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:after])
        self.wfile.flush()
        self.close_connection = True

    def cut_request(self, after):
        """Takes a part of what is sent to the registry, and hangs up on both."""
        self.ask(send=after)
        self.close_connection = True
        self.connection.close()

    def lose_reply(self):
        """The registry has done it, and nobody hears of it."""
        self.ask()
        self.close_connection = True
        self.connection.close()

    def drip(self, block, seconds):
        """A link that is slow, and lives."""
        status, own, data, _ = self.ask()
        self.send_response(status)
        for name, value in own:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for at in range(0, len(data), block):
            self.wfile.write(data[at:at + block])
            self.wfile.flush()
            time.sleep(seconds)

    def refuse(self, status, headers=None):
        """Reads what was sent, and says no."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.reply(status, b'{"errors":[{"code":"FAULT","message":"a fault of the test"}]}', headers)


class Proxy(lying.Registry):
    def __init__(self, upstream):
        super().__init__(handler=Handler)
        self.upstream = upstream

    def of(self, *methods):
        """The requests of these methods so far: (method, path)."""
        return [(r[0], r[1]) for r in self.requests if r[0] in methods]

    def fault(self, methods, match, behaviour, times=None):
        """Of requests with one of the methods ("GET PUT") and the text in their path, the first `times`; None: all."""
        left = [times]

        def limited(handler):
            if handler.command not in methods.split() or left[0] == 0:
                return False
            if left[0] is not None:
                left[0] -= 1
            return behaviour(handler)
        self.on(match, limited)


def corrupted(data):
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data
