"""A registry, as the OCI distribution specification 1.1 has it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self

import httpx2

from sdxl_trt.errors import TransferError, UsageError
from sdxl_trt.ship import oci
from sdxl_trt.ship.http import Http
from sdxl_trt.ship.oci import Descriptor
from sdxl_trt.ship.references import Reference
from sdxl_trt.ship.remote import Source
from sdxl_trt.ship.retrying import Patience, Transient

_DIGEST = "docker-content-digest"
_ACCEPT = {"Accept": f"{oci.INDEX}, {oci.MANIFEST}"}
_BINARY = {"Content-Type": "application/octet-stream"}


class Registry:
    """One repository of a registry; see `Remote`.

    Args:
        reference: which, and the tag or digest in it.
        write: it is to be pushed to.
        plain_http: without TLS, on another machine too.
        patience: with failures that may pass.

    Raises:
        UsageError: to be pushed to, under a digest.
        Unreachable: there is nobody, or nobody to trust.
    """

    parallel = 4

    def __init__(self, reference: Reference, *, write: bool, plain_http: bool, patience: Patience) -> None:
        if write and reference.digest:
            raise UsageError("nothing can be pushed to a digest", got=str(reference), expected="a tag", fix="NAME:TAG")
        self._reference, self._patience = reference, patience
        host = "registry-1.docker.io" if reference.host == "docker.io" else reference.host
        self._http = Http(host, plain=plain_http)
        self._root = self._http.base.join(f"{reference.repository}/")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def cancel(self) -> None:
        """As of `Remote`."""
        self._patience.ended.set()

    def tagged(self) -> str | None:
        """As of `Remote`; None also where the registry does not say."""

        def ask() -> str | None:
            with self._http.open("HEAD", self._named(), headers=_ACCEPT, expected=(200, 404)) as answer:
                return answer.headers.get(_DIGEST) if answer.status_code == 200 else None

        return self._patience.persist(f"asking for {self._reference}", ask)

    def resolve(self) -> bytes:
        """As of `Remote`."""
        data = self._patience.persist(f"fetching {self._reference}", self._read_index)
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if self._reference.digest not in ("", found):
            raise TransferError(
                f"{self._reference.host} gave something else than was asked for; it was thrown away",
                got=f"content with digest {found}",
                expected=self._reference.digest,
                fix="run this again; if it stays so, that registry is not to be trusted",
            )
        return data

    def _named(self) -> httpx2.URL:
        return self._root.join(f"manifests/{self._reference.digest or self._reference.tag}")

    def _read_index(self) -> bytes:
        with self._http.open("GET", self._named(), headers=_ACCEPT, expected=(200, 404)) as answer:
            if answer.status_code == 404:
                raise TransferError(
                    f"there is no {self._reference}",
                    got=f"404 from {self._reference.host}",
                    expected="the repository and the tag of a bundle",
                    fix="check the spelling; or push it: sdxl-trt ship push BUNDLE REFERENCE",
                )
            return self._bounded(answer)

    def _bounded(self, answer: httpx2.Response) -> bytes:
        body = b""
        for block in answer.iter_raw():
            body += block
            if len(body) > oci.MAX_BYTES:
                raise oci.not_ours(str(self._reference), f"a document of more than {oci.MAX_BYTES} bytes")
        return body

    def manifest(self, descriptor: Descriptor) -> Iterator[bytes]:
        """As of `Remote`."""
        return self._read(self._root.join(f"manifests/{descriptor.digest}"), descriptor)

    def fetch(self, descriptor: Descriptor) -> Iterator[bytes]:
        """As of `Remote`. Where the connection breaks, it goes on in another one."""
        return self._read(self._blob(descriptor), descriptor)

    def _read(self, url: httpx2.URL, descriptor: Descriptor) -> Iterator[bytes]:
        given = 0
        for failed in self._patience.attempts(f"fetching {descriptor.digest} from {self._reference.host}"):
            try:
                with contextlib.closing(self._read_from(url, given)) as blocks:
                    for block in blocks:
                        given += len(block)
                        yield block
                return
            except Transient as reason:
                failed(reason)

    def _read_from(self, url: httpx2.URL, start: int) -> Generator[bytes]:
        """The bytes from one on, whether the registry knows of ranges or not."""
        headers = {**_ACCEPT, **({"Range": f"bytes={start}-"} if start else {})}
        with self._http.open("GET", url, headers=headers, expected=(200, 206)) as answer:
            skip = start if answer.status_code == 200 else 0
            for block in answer.iter_raw(2**20):
                if len(block) > skip:
                    yield block[skip:]
                skip = max(0, skip - len(block))

    def _blob(self, descriptor: Descriptor) -> httpx2.URL:
        return self._root.join(f"blobs/{descriptor.digest}")

    def has(self, descriptor: Descriptor) -> bool:
        """As of `Remote`."""
        return self._patience.persist(f"asking {self._reference.host} for a blob", lambda: self._has(descriptor))

    def _has(self, descriptor: Descriptor) -> bool:
        with self._http.open("HEAD", self._blob(descriptor), expected=(200, 404)) as answer:
            length = answer.headers.get("content-length", str(descriptor.size))
            return answer.status_code == 200 and length == str(descriptor.size)

    def push(self, descriptor: Descriptor, source: Source) -> None:
        """As of `Remote`."""
        for number, failed in enumerate(self._patience.attempts(f"sending a blob to {self._reference.host}")):
            try:
                if not (number and self._has(descriptor)):  # what failed may have been the answer alone
                    self._send(descriptor, source)
                return
            except Transient as reason:
                failed(reason)

    def _send(self, descriptor: Descriptor, source: Source) -> None:
        """In one request: an upload in parts gains nothing where blobs are pieces."""
        with self._http.open("POST", self._root.join("blobs/uploads/"), expected=(201, 202)) as answer:
            place = self._http.join(answer.request.url, answer.headers.get("location", ""))
        headers = {**_BINARY, "Content-Length": str(descriptor.size)}
        url = place.copy_merge_params({"digest": descriptor.digest})
        with self._http.open("PUT", url, headers=headers, content=source, expected=(201,)):
            pass

    def put_manifest(self, descriptor: Descriptor, data: bytes) -> None:
        """As of `Remote`."""
        self._put(self._root.join(f"manifests/{descriptor.digest}"), descriptor, data)

    def put_index(self, descriptor: Descriptor, data: bytes) -> None:
        """As of `Remote`."""
        self._put(self._named(), descriptor, data)

    def _put(self, url: httpx2.URL, descriptor: Descriptor, data: bytes) -> None:
        headers = {"Content-Type": descriptor.mediaType, "Content-Length": str(len(data))}

        def send() -> None:
            with self._http.open("PUT", url, headers=headers, content=lambda: iter([data]), expected=(201, 202)):
                pass

        self._patience.persist(f"sending {self._reference}", send)
