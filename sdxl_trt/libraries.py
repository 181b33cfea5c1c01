"""Libraries that not every installation has: imported where they are used, asked for by the extra that brings them."""

from __future__ import annotations

import importlib
from typing import Any

from sdxl_trt.errors import FlavourUnavailable

EXTRAS = {
    "onnxruntime": "cpu",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "cuda.bindings.driver": "tensorrt",
    "onnx": "export,build",
    "onnx.reference": "export,build",
    "fastcdc.fastcdc_cy": "build",
    "cryptography.hazmat.primitives.serialization": "ship",
    "cryptography.hazmat.primitives.asymmetric.ec": "ship",
    "model_signing": "ship",
    "httpx2": "ship",
    "fsspec": "ship",
    "fastapi": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "python_multipart": "serve",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter": "serve,otel",
}
"""The extra of this package that brings a module."""


def require(module: str, purpose: str, extra: str = "") -> Any:
    """Import a library that not every installation has.

    Args:
        module: its name.
        purpose: what it is for, as the end of "needed to ...".
        extra: that brings it for this purpose, where that is not the one in `EXTRAS`.

    Raises:
        FlavourUnavailable: it is not installed, or cannot be loaded; says how to get it.
    """
    try:
        found = importlib.import_module(module)
        if getattr(found, "__file__", "") is None:
            raise ImportError(f"of {module} only empty folders are left")
        return found
    except Exception as error:  # an installation that is broken raises what it likes
        raise FlavourUnavailable(
            f"{module} cannot be imported",
            got=str(error),
            expected=f"the Python module {module}, needed to {purpose}",
            fix=f"pip install 'sdxl-trt[{extra or EXTRAS[module]}]'",
        ) from error


def error_log(trt: Any) -> Any:
    """An ILogger of a TensorRT module that keeps errors, in `errors` (list of text), and drops the rest."""

    class ErrorLog(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message.strip())

    return ErrorLog()
