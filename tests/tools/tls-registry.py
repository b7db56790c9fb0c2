"""A registry of one repository over TLS, read from an OCI layout; for checks of the static binary.

It stands where an Artifactory has the registry API of its key "local": crowsnest speaks plain HTTP with a host of
this machine, unless a URL says https, and only Artifactory has a URL.

    python3 tls-registry.py LAYOUT CERTIFICATE KEY PORT_FILE

Listens on a free port of 127.0.0.1, writes its number to PORT_FILE, and answers what a client that only reads
asks for: the catalog, tags, manifests and blobs. AQL is refused. Ends when it is killed.
"""

import http.server
import json
import os
import ssl
import sys

LAYOUT, CERTIFICATE, KEY, PORT_FILE = sys.argv[1:]
BASE = "/artifactory/api/docker/local/v2/"
NAME = os.path.basename(os.path.normpath(LAYOUT))
with open(f"{LAYOUT}/index.json", encoding="utf-8") as file:
    LISTED = json.load(file)["manifests"]
TAGS = {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in LISTED}


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        if not path.startswith(BASE):
            return self.send_error(404)
        path = path.removeprefix(BASE)
        if path == "":
            return self.reply(b"{}")
        if path == "_catalog":
            return self.reply(json.dumps({"repositories": [NAME]}).encode())
        if path == f"{NAME}/tags/list":
            return self.reply(json.dumps({"name": NAME, "tags": sorted(TAGS)}).encode())
        if path.startswith((f"{NAME}/manifests/", f"{NAME}/blobs/")):
            return self.blob(path.rsplit("/", 1)[1])
        return self.send_error(404)

    do_HEAD = do_GET

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_error(403)

    def blob(self, name):
        digest = TAGS.get(name, name)
        file = f"{LAYOUT}/blobs/{digest.replace(':', '/')}"
        if not os.path.isfile(file):
            return self.send_error(404)
        with open(file, "rb") as stream:
            body = stream.read()
        kind = "application/octet-stream"
        if len(body) < 100_000 and body.startswith(b"{"):
            kind = json.loads(body).get("mediaType", kind)
        return self.reply(body, kind, digest)

    def reply(self, body, kind="application/json", digest=None):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(PORT_FILE + ".part", "w", encoding="utf-8") as file:
    file.write(str(server.server_port))
os.rename(PORT_FILE + ".part", PORT_FILE)
server.serve_forever()
