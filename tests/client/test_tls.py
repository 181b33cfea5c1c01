"""Certificates are checked: by this host's authorities, or by those that are given."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sdxl_trt.client import Client
from sdxl_trt.errors import Unreachable, UsageError

Ask = Callable[..., Any]


class Ready(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


class Quiet(HTTPServer):
    def handle_error(self, *_: object) -> None:
        """Handshakes fail; that is what is tested."""


def certify(folder: Path) -> Path:
    """A certificate of 127.0.0.1 and its key in one file, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "certificate.pem"
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certify(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def port(certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Quiet(("127.0.0.1", 0), Ready)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_who_is_not_vouched_for_is_not_asked(ask: Ask, port: int) -> None:
    with pytest.raises(Unreachable, match=r"does not trust[\s\S]*SSL_CERT_FILE"):
        ask(f"https://127.0.0.1:{port}", "ready", options={"api_key": "secret"})


def test_who_is_vouched_for_by_what_is_given(ask: Ask, port: int, certificate: Path) -> None:
    assert ask(f"https://127.0.0.1:{port}", "ready", options={"ca": certificate})


def test_another_name_is_not_vouched_for(ask: Ask, port: int, certificate: Path) -> None:
    with pytest.raises(Unreachable, match="does not trust"):
        ask(f"https://localhost:{port}", "ready", options={"ca": certificate})


@pytest.mark.parametrize("content", [None, "garbage"])
def test_authorities_that_cannot_be_used(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match="authorities in"):
        Client("https://127.0.0.1", ca=file)
