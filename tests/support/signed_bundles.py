"""Keys as openssl makes them, and bundles of a toy model with TensorRT plans that a recording library reads."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from manifests import make_manifest, make_target
from recording_driver import RecordingDriver
from recording_tensorrt import FakeTensorRT, make_plan

from sdxl_trt.bundle import MANIFEST_NAME, BlobStore, EngineEntry, Manifest, Target, write_manifest
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.loading import load
from sdxl_trt.spec import ModelSpec, TensorSpec, graph_spec
from sdxl_trt.trust import SIGNATURE_NAME, read_private_key, sign

VERSION = "1.2.3.4"
GRAPHS = ("step", "vae_decoder", "vae_encoder")
CREATED = "2026-01-02T03:04:05+00:00"


@dataclass(frozen=True, kw_only=True)
class Keys:
    """PEM files of two owners."""

    private: Path
    public: Path
    other_private: Path
    other_public: Path


def make_keys(folder: Path) -> Keys:
    paths = [write_pair(folder / name) for name in ("release", "other")]
    return Keys(private=paths[0][0], public=paths[0][1], other_private=paths[1][0], other_public=paths[1][1])


def write_pair(path: Path, curve: ec.EllipticCurve | None = None, password: str = "") -> tuple[Path, Path]:
    """A private key's file and a public key's."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = path.with_suffix(".pem"), path.with_suffix(".pub")
    lock = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
    return private, public


def write_bundle(folder: Path, *, name: str = "one", created: str = CREATED, chunked: bool = False) -> Manifest:
    """A bundle of plans, of which each differs by `name`; its step is in chunks if asked."""
    store = BlobStore(folder, average=2**12)
    model = make_manifest().model
    with store.lock():
        entries = {graph: _entry(store, model, graph, name, chunked=chunked and graph == "step") for graph in GRAPHS}
        licence = store.put_bytes(b"do as you like")
    target = make_target(
        "gpu",
        flavour="tensorrt",
        flavour_version=VERSION,
        sms=(89,),
        processor=platform.machine(),
        precision="float16",
        engines=entries,
    )
    manifest = dataclasses.replace(
        make_manifest(target, dataclasses.replace(target, name="second", sms=(120,))),
        created=created,
        files={"licence/LICENSE.md": licence},
    )
    write_manifest(folder, manifest)
    return manifest


def _entry(store: BlobStore, model: ModelSpec, graph: str, name: str, *, chunked: bool) -> EngineEntry:
    spec = graph_spec(graph, model, "float16")
    tensors = {tensor.name: _tensor(tensor) | {"profile": []} for tensor in spec.inputs}
    tensors |= {tensor.name: _tensor(tensor) for tensor in spec.outputs}
    plan = make_plan(tensors) + np.random.default_rng([*f"{graph} of {name}".encode()]).bytes(50_000)
    if chunked:
        with store.chunk_writer() as writer:
            writer.write(plan)
        return EngineEntry(key="0" * 64, file=writer.blob(), inputs=spec.inputs, outputs=spec.outputs)
    return EngineEntry(key="0" * 64, file=store.put_bytes(plan), inputs=spec.inputs, outputs=spec.outputs)


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    dtype = {"float32": "FLOAT", "float16": "HALF", "int32": "INT32"}[tensor.dtype]
    return {"dtype": dtype, "shape": [size if isinstance(size, int) else -1 for size in tensor.shape]}


def sign_bundle(folder: Path, private: Path) -> None:
    """As `ship sign`, without reading the blobs."""
    text = (folder / MANIFEST_NAME).read_bytes()
    signature = sign(folder / MANIFEST_NAME, text, read_private_key(private, lambda: None))
    (folder / SIGNATURE_NAME).write_bytes(signature)


def copy_bundle(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


class Reader:
    """A host with a GPU, whose engine library keeps every byte that it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.driver = RecordingDriver()
        self.trt = Recorder(self.driver)
        monkeypatch.setitem(sys.modules, "tensorrt", self.trt)

    def open(self, bundle: Path) -> Target:
        """Open a bundle as `Pipeline.load` does."""
        with CudaDevice(driver=self.driver) as device:
            loaded = load(bundle, device=device)
            loaded.open_encoder().close()
            for engine in (loaded.step, loaded.decoder):
                engine.close()
            return loaded.target

    @property
    def deserialised(self) -> int:
        """Engines that were begun."""
        return self.trt.calls.count("deserialize_cuda_engine")


class Recorder(FakeTensorRT):
    """Reads plans to their end, as TensorRT does."""

    def __init__(self, driver: RecordingDriver) -> None:
        super().__init__("tensorrt", VERSION, driver)
        self.read = list[bytes]()

    def Runtime(self, log: Any) -> Any:  # noqa: N802
        runtime, read = super().Runtime(log), self.read
        deserialise = runtime.deserialize_cuda_engine

        def recording(reader: Any) -> Any:
            inner = reader.read

            def noted(size: int, stream: int) -> bytes:
                data: bytes = inner(size, stream)
                read.append(data)
                return data

            reader.read = noted
            engine = deserialise(reader)
            while reader.read(2**20, 0):
                pass
            return engine

        runtime.deserialize_cuda_engine = recording
        return runtime
