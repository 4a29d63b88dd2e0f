"""A small registry that lies on request: it serves one image from memory and changes, cuts, delays or redirects what a
test tells it to. Threads are the server's own; a test closes it."""
import base64
import http.server
import threading
import time

import oci

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(True)

    def answer(self, with_body):
        server = self.server.owner
        server.connections.add(self.client_address)
        server.requests.append((self.command, self.path, self.headers.get("Authorization"), self.headers.get("Range")))
        for match, behaviour in server.behaviours:
            if match in self.path and behaviour(self) is not False:
                return
        self.serve(with_body)

    def serve(self, with_body):
        server = self.server.owner
        if "/manifests/" in self.path:
            name = self.path.rsplit("/", 1)[1]
            data, media = server.manifests.get(name, (None, None))
            if data is None:
                self.reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            else:
                self.reply(200, data, {"Content-Type": media, "Docker-Content-Digest": oci.digest(data)}, with_body)
        elif "/blobs/" in self.path:
            data = server.blobs.get(self.path.rsplit("/", 1)[1])
            if data is None:
                self.reply(404, b"{}")
            else:
                self.blob(data)
        else:
            self.reply(404, b"{}")

    def blob(self, data):
        wanted = self.headers.get("Range")
        if wanted:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.reply(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        else:
            self.reply(200, data)

    def reply(self, status, data, headers=None, with_body=True):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.wfile.write(data)

    def endless(self, status=200):
        """A body without an end, until the client has had enough."""
        self.send_response(status)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        except OSError:
            self.close_connection = True

    def cut(self, data, after):
        """Says the whole length, sends a part, and hangs up."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:after])
        self.wfile.flush()
        self.close_connection = True

    def stall(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.server.owner.stop.wait(30)
        self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is what many tests want


class Registry:
    def __init__(self, address="127.0.0.1", handler=Handler):
        self.http = Server((address, 0), handler)
        self.http.owner = self
        self.host = f"{address}:{self.http.server_port}"
        self.requests = []
        self.connections = set()
        self.behaviours = []  # (part of the path, function of the handler; False: it does not apply)
        self.manifests, self.blobs = {}, {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self):
        self.stop.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join(10)

    def load(self, folder):
        """Takes the image of an OCI layout, as the tag v1."""
        import json
        import pathlib
        folder = pathlib.Path(folder)
        for path in (folder / "blobs" / "sha256").iterdir():
            self.blobs["sha256:" + path.name] = path.read_bytes()
        top = json.loads((folder / "index.json").read_text())["manifests"][0]["digest"]
        self.put_manifest("v1", self.blobs.pop(top))
        return json.loads(self.manifests["v1"][0])

    def put_manifest(self, tag, data, media=MANIFEST):
        self.manifests[tag] = self.manifests[oci.digest(data)] = (data, media)

    def on(self, match, behaviour):
        self.behaviours.append((match, behaviour))

    def times(self, n, match, behaviour):
        """The behaviour applies n times, then the registry is honest."""
        left = [n]

        def limited(handler):
            if left[0] == 0:
                return False
            left[0] -= 1
            return behaviour(handler)
        self.on(match, limited)


def need_token(registry, realm_host=None, user=None):
    """Makes the registry want bearer tokens, which it hands out itself (to `user`: "name:password")."""
    realm = f"http://{realm_host or registry.host}/token"

    def gate(handler):
        if handler.headers.get("Authorization") == "Bearer sesame":
            return False
        handler.reply(401, b"{}", {"WWW-Authenticate": f'Bearer realm="{realm}",service="test",'
                                                       f'scope="repository:t/x:pull"'})
        return True

    def token(handler):
        wanted = "Basic " + base64.b64encode(user.encode()).decode() if user else None
        if user and handler.headers.get("Authorization") != wanted:
            handler.reply(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong \\u001b[31mpassword"}]}')
        else:
            handler.reply(200, b'{"token":"sesame"}')
    registry.on("/v2/", gate)
    registry.on("/token", token)


def slowly(seconds):
    def behave(handler):
        time.sleep(seconds)
        return False
    return behave
