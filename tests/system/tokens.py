"""A small token service (Docker's token protocol) that signs for a real docker-registry, and the certificates of tests."""
import base64
import http.server
import json
import subprocess
import threading
import time
import urllib.parse

# bcrypt of "sesame", as htpasswd writes it for a registry
HTPASSWD = "me:$2b$04$KPc3LDklmDMghP0mXNm5b.pOrlA3p8WcN6UxXxPLlHm0lUNuS9EaG\n"


def openssl(*args, stdin=None):
    return subprocess.run(["openssl", *map(str, args)], check=True, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout


def authority(folder, name="ca"):
    """A certificate authority: folder/name.crt and .key."""
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN=test {name}", "-keyout", folder / f"{name}.key",
            "-out", folder / f"{name}.crt")


def certificate(folder, name, ca="ca", names="IP:127.0.0.1,DNS:localhost", days=2):
    """A certificate for 127.0.0.1 and localhost, or other names, for servers and clients; with days=-1 one of yesterday."""
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")
    (folder / f"{name}.ext").write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("x509", "-req", "-in", folder / f"{name}.csr", "-CA", folder / f"{ca}.crt", "-CAkey", folder / f"{ca}.key", "-days", str(days),
            "-set_serial", str(time.time_ns()), "-extfile", folder / f"{name}.ext", "-out", folder / f"{name}.crt")


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        owner = self.server.owner
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        user, auth = "", self.headers.get("Authorization")
        owner.requests.append(("GET", query.get("scope", []), auth))
        if owner.faults:
            self.answer(owner.faults.pop(0), {"details": "the token service has a bad day"})
            return
        if auth:
            user, _, password = base64.b64decode(auth.removeprefix("Basic ")).decode().partition(":")
            if owner.users.get(user) != password:
                self.answer(401, {"details": "incorrect username or password"})
                return
        self.answer(200, {"token": owner.sign(user, query.get("scope", [])), "expires_in": owner.expires_in})

    def do_POST(self):
        owner = self.server.owner
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        scopes = form.get("scope", [""])[0].split()
        owner.requests.append(("POST", scopes, form.get("grant_type", [""])[0]))
        if form.get("grant_type") != ["refresh_token"] or form.get("refresh_token") != ["identity"]:
            self.answer(401, {"details": "no such identity"})
            return
        self.answer(200, {"access_token": owner.sign("me", scopes), "expires_in": owner.expires_in})


class Tokens:
    """Everybody may pull from public/; `users` may do all."""

    def __init__(self, folder):
        self.folder = folder
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.owner = self
        self.realm = f"http://127.0.0.1:{self.http.server_port}/token"
        self.users, self.requests, self.faults = {"me": "sesame"}, [], []
        self.expires_in = 300
        authority(folder, "tokens")
        self.x5c = base64.b64encode(openssl("x509", "-in", folder / "tokens.crt", "-outform", "DER")).decode()
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def config(self):
        """`auth` of the registry's configuration."""
        return {"token": {"realm": self.realm, "service": "test", "issuer": "zlayer tests", "rootcertbundle": str(self.folder / "tokens.crt")}}

    def sign(self, user, scopes):
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = [a for a in actions.split(",") if user or (a == "pull" and name.startswith("public/"))]
            if kind == "repository" and allowed:
                access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {"iss": "zlayer tests", "sub": user, "aud": "test", "exp": now + 300, "nbf": now - 10, "iat": now, "jti": str(time.time_ns()),
                  "access": access}
        text = b64(json.dumps({"typ": "JWT", "alg": "RS256", "x5c": [self.x5c]}).encode()) + "." + b64(json.dumps(claims).encode())
        return text + "." + b64(openssl("dgst", "-sha256", "-sign", self.folder / "tokens.key", stdin=text.encode()))

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join(10)
