"""A registry that does what a test tells it: it fails, lies, cuts off, redirects, and wants to know who asks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

Fault = Callable[["Handler"], bool]
"""Answers a request in its own way (true), or leaves it to the registry."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients hang up; that is what is tested."""


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    authorization: str | None
    range: str | None


@dataclass
class Hostile:
    """What it has, and how it behaves; tests change both while it runs."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    """By digest."""
    manifests: dict[str, bytes] = field(default_factory=dict)
    """By tag and by digest."""
    requests: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    token: str = ""
    """What it wants to see, and gives to who shows `login`."""
    login: str = ""
    """The Authorization header that its token server wants."""
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    server: ThreadingHTTPServer | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def oci(self, name: str = "team/sdxl:1") -> str:
        return f"oci://{self.host}/{name}"

    def start(self) -> None:
        """Listen; on the port of before, if there was one."""

        class Bound(Handler):
            registry = self

        self.server = _Server(("127.0.0.1", self.port), Bound)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,)).start()

    def stop(self) -> None:
        """Listen no more, and hang up on who is connected at his next request."""
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def put(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def asked(self, method: str, part: str = "") -> list[Asked]:
        return [each for each in self.requests if each.method == method and part in each.path]


@contextlib.contextmanager
def hostile() -> Iterator[Hostile]:
    state = Hostile()
    state.start()
    try:
        yield state
    finally:
        state.stop()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Hostile

    def log_message(self, *_: object) -> None: ...

    def reply(self, status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> None:
        """An answer; with a length that is not the body's, the connection ends behind it."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                self.wfile.write(body)
        self.close_connection = self.close_connection or length not in (None, len(body))

    def answer(self) -> None:
        if self.registry.server is not self.server:
            self.close_connection = True
            return
        shown = self.headers["Authorization"]
        with self.registry.lock:
            self.registry.requests.append(Asked(self.command, self.path, shown, self.headers["Range"]))
            faults = list(self.registry.faults)
        for fault in faults:
            if fault(self):
                return
        url = urlsplit(self.path)
        if url.path == "/token":
            self.give_token(shown)
        elif self.registry.token and shown != f"Bearer {self.registry.token}":
            self.body()
            realm = f'Bearer realm="http://{self.registry.host}/token",service="test",scope="repository:x:pull"'
            self.reply(401, WWW_Authenticate=realm)
        else:
            self.registry_answer(url.path, parse_qs(url.query))

    do_GET = do_HEAD = do_PUT = do_POST = answer  # noqa: N815

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def give_token(self, shown: str | None) -> None:
        if self.registry.login and shown != self.registry.login:
            self.reply(401)
        else:
            self.reply(200, json.dumps({"token": self.registry.token}).encode())

    def registry_answer(self, path: str, query: dict[str, list[str]]) -> None:
        if path == "/v2/":
            self.reply(200, b"{}")
        elif path.endswith("/blobs/uploads/"):
            self.body()
            self.reply(202, Location="/v2/upload/1")
        elif path == "/v2/upload/1":
            self.store(self.body(), query["digest"][0])
        elif match := re.fullmatch(r"/v2/(.+)/(blobs|manifests)/([^/]+)", path):
            self.content(match[2], match[3])
        else:
            self.reply(404)

    def store(self, data: bytes, digest: str) -> None:
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            self.reply(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        else:
            self.registry.blobs[digest] = data
            self.reply(201)

    def content(self, kind: str, name: str) -> None:
        known = getattr(self.registry, kind)
        if self.command == "PUT":
            data = self.body()
            known[name] = known[f"sha256:{hashlib.sha256(data).hexdigest()}"] = data
            self.reply(201)
        elif name not in known:
            self.reply(404, b'{"errors":[{"code":"UNKNOWN"}]}')
        else:
            self.part(known[name])

    def part(self, data: bytes) -> None:
        """The content, or what a Range header asks of it."""
        ranged = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        self.reply(206, data[int(ranged[1]) :]) if ranged else self.reply(200, data)


def times(number: int, fault: Fault) -> Fault:
    """A fault that happens so often and then no more, whichever thread it meets."""
    lock, left = threading.Lock(), [number]

    def limited(handler: Handler) -> bool:
        with lock:
            if not left[0]:
                return False
            happened = fault(handler)
            left[0] -= happened
            return happened

    return limited


def on(method: str, part: str, answer: Callable[[Handler], object]) -> Fault:
    """An answer to requests of a method for paths that hold a text."""

    def fault(handler: Handler) -> bool:
        if handler.command != method or part not in handler.path:
            return False
        handler.body()
        answer(handler)
        return True

    return fault


def cut(at: int) -> Callable[[Handler], None]:
    """The right bytes, up to one; then the connection breaks."""

    def answer(handler: Handler) -> None:
        data = handler.registry.blobs[handler.path.rpartition("/")[2]]
        ranged = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
        data = data[int(ranged[1]) :] if ranged else data
        handler.reply(206 if ranged else 200, data[:at], length=len(data))

    return answer
