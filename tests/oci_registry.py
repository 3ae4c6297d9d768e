"""A registry of OCI images on loopback, as much of it as a pull needs."""

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

_UNKNOWN = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Registry:
    """What it has, and what it was asked for."""

    port: int = 0
    blobs: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tag: str = ""
    """Digest of the image that was pushed last."""
    asked: list[str] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)
    """Layers are given once this is set."""

    def push(self, sandbox: Path) -> None:
        """Take in an image, made of a root file system."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            tar.add(sandbox, arcname=".")
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin", "FROM_IMAGE=yes"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer.getvalue())]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._keep(CONFIG, json.dumps(config).encode()),
            "layers": [self._keep(LAYER, layer.getvalue())],
        }
        self.tag = self._keep(MANIFEST, json.dumps(manifest).encode())["digest"]

    def _keep(self, kind: str, content: bytes) -> dict[str, Any]:
        digest = digest_of(content)
        self.blobs[digest] = kind, content
        return {"mediaType": kind, "digest": digest, "size": len(content)}


class _Server(ThreadingHTTPServer):
    def __init__(self, registry: Registry) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.registry = registry


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        registry = self.server.registry
        registry.asked.append(self.path)
        if self.path == "/v2/":
            self._answer(200, "application/json", b"{}")
            return
        kind, content = registry.blobs.get(self.path.rpartition("/")[2], ("", b""))
        if not content:
            self._answer(404, "application/json", _UNKNOWN)
            return
        if kind == LAYER:
            registry.open.wait(60)
        self._answer(200, kind, content)

    def _answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", digest_of(content))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def registry() -> Iterator[Registry]:
    """A registry that is up."""
    found = Registry()
    found.open.set()
    server = _Server(found)
    found.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        found.open.set()
        server.shutdown()
        thread.join()
        server.server_close()
