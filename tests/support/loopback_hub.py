"""A Hugging Face hub on this machine, as far as huggingface_hub needs one: repositories are folders.

Large files (by suffix) are answered as the hub answers: a redirect to another server that must not see the token.
https://huggingface.co/docs/hub/api and huggingface_hub's sources say what is asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

LARGE = (".safetensors", ".bin", ".onnx", ".ckpt", ".msgpack")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Hub:
    """What the server has and how it behaves, which tests may change while it runs."""

    root: Path
    """Holds owner/name/…."""
    requests: list[Request] = field(default_factory=list)
    token: str | None = None
    """What every request must show, as for a private repository."""
    down: bool = False
    gated: bool = False
    """Files are refused, while the list of them is shown."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes that the list of files claims, by path."""
    broken: dict[str, int] = field(default_factory=dict)
    """Files of which the connection breaks after so many bytes, once."""
    stalled: dict[str, int] = field(default_factory=dict)
    """Files of which nothing more comes after so many bytes."""
    altered: set[str] = field(default_factory=set)
    """Files that arrive with other bytes than promised."""
    endpoint: str = ""
    store: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def commit(self, repository: str) -> str:
        """Changes when a file comes, goes or changes its size."""
        return hashlib.sha1(json.dumps(self.tree(repository, hashes=False)).encode()).hexdigest()

    def tree(self, repository: str, *, hashes: bool = True) -> list[dict[str, Any]]:
        folder = self.root / repository
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [self._entry(path, str(path.relative_to(folder)), hashes) for path in files]

    def _entry(self, path: Path, name: str, hashes: bool) -> dict[str, Any]:
        size = self.sizes.get(name, path.stat().st_size)
        entry: dict[str, Any] = {"type": "file", "path": name, "size": size}
        if hashes:
            entry["oid"] = hashlib.sha1(path.read_bytes()).hexdigest()
        if hashes and name.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(path.read_bytes()).hexdigest(), "size": size, "pointerSize": 134}
        return entry

    def fetched(self) -> list[str]:
        """Files that were asked for, each once, from either server."""
        found = [re.search(r"/(?:resolve/[^/]+|store)/(.*)", request.path) for request in self.requests]
        return sorted({match[1] for match in found if match})


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Hub]:
    hub = Hub(root)
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (kind,), {"hub": hub})) for kind in (_Api, _Store)]
    hub.endpoint, hub.store = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.closing.set()
        for server in servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.hub.requests.append(
            Request(self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization"))
        )
        self.answer()

    do_HEAD = do_GET  # noqa: N815

    def answer(self) -> None:
        raise NotImplementedError

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def reply_json(self, value: Any) -> None:
        self.reply(200, json.dumps(value).encode(), Content_Type="application/json")

    def reply_part(self, name: str, data: bytes) -> None:
        """A file, or what a Range header asks of it; with the accidents that a test wants."""
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if self.headers["Range"] else 0
        if name in self.hub.altered:
            data = bytes(len(data))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        end = self.hub.broken.pop(name, self.hub.stalled.get(name, len(data)))
        with contextlib.suppress(OSError):  # the client may be gone
            self.wfile.write(data[start:end])
            if name in self.hub.stalled:
                self.hub.closing.wait()
        self.close_connection = end < len(data)


class _Api(_Handler):
    def answer(self) -> None:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/?]+)(?:/(revision|tree)/([^/?]+))?(?:\?.*)?", self.path):
            repository, what, revision = match.groups()
            if self.allowed(repository, revision):
                tree = self.hub.tree(repository)
                self.reply_json(tree if what == "tree" else self.info(repository, tree))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            repository, revision, name = match.groups()
            if self.allowed(repository, revision, files=True):
                self.file(repository, name)
        else:
            self.reply(404)

    def info(self, repository: str, tree: list[dict[str, Any]]) -> dict[str, Any]:
        siblings = [
            {"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]}
            | ({"lfs": {"sha256": entry["lfs"]["oid"], **entry["lfs"]}} if "lfs" in entry else {})
            for entry in tree
        ]
        return {"id": repository, "sha": self.hub.commit(repository), "siblings": siblings}

    def allowed(self, repository: str, revision: str | None, *, files: bool = False) -> bool:
        shown = self.headers["Authorization"]
        if self.hub.down:
            self.reply(503)
        elif not (self.hub.root / repository).is_dir() or (self.hub.token and shown != f"Bearer {self.hub.token}"):
            self.reply(404 if shown else 401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif revision not in (None, "main", self.hub.commit(repository)):
            self.reply(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        elif files and self.hub.gated:
            self.reply(403 if shown else 401, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        else:
            return True
        return False

    def file(self, repository: str, name: str) -> None:
        path = self.hub.root / repository / name
        commit = {"X_Repo_Commit": self.hub.commit(repository)}
        if not path.is_file():
            self.reply(404, X_Error_Code="EntryNotFound", **commit)
            return
        data = path.read_bytes()
        if name.endswith(LARGE):
            linked = {"X_Linked_Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X_Linked_Size": str(len(data))}
            self.reply(302, Location=f"{self.hub.store}/{repository}/store/{name}", **linked, **commit)
        else:
            self.reply(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', **commit)


class _Store(_Handler):
    def answer(self) -> None:
        repository, name = re.fullmatch(r"/([^/]+/[^/]+)/store/(.+)", self.path).groups()
        self.reply_part(name, (self.hub.root / repository / name).read_bytes())
