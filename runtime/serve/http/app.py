"""The application: the APIs behind one door."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from sdxl_trt.errors import SdxlTrtError
from sdxl_trt.runtime.serve.http import a1111, openai, ops
from sdxl_trt.runtime.serve.http.arrivals import Arrivals
from sdxl_trt.runtime.serve.http.auth import Gate
from sdxl_trt.runtime.serve.http.bodies import Bodies
from sdxl_trt.runtime.serve.http.context import Context
from sdxl_trt.runtime.serve.http.documented import A1111Error, OpenAIError, OperationsError, documented
from sdxl_trt.runtime.serve.http.keys import Keys
from sdxl_trt.runtime.serve.http.loader import Loader
from sdxl_trt.runtime.serve.http.shapes import answer, http_fault, refusal
from sdxl_trt.runtime.serve.http.tracing import Tracing, open_tracing
from sdxl_trt.version import __version__

THREADS = 8
"""Pictures that are opened or encoded at a time: one may take a quarter of a gigabyte meanwhile."""


def create_app(context: Context) -> FastAPI:
    """All APIs over one service.

    Args:
        context: of the application.

    Raises:
        KeyFileError: the file of API keys cannot be used.
        FlavourUnavailable: traces are wanted, and what sends them is not installed.
    """
    settings = context.settings
    keys, tracing = Keys(settings.keys) if settings.keys else None, open_tracing(settings.otlp)

    app = FastAPI(title="sdxl-trt", version=__version__, lifespan=_lifespan(tracing), docs_url=None, redoc_url=None)
    app.state.context = context
    app.state.loader = Loader(context.load or (lambda _: context.service.load(context.service.room.bundle)))
    context.metrics.watch(context.service)
    for module, shape in ((openai, OpenAIError), (a1111, A1111Error), (ops, OperationsError)):
        app.include_router(module.router, responses=documented(shape))
    app.add_exception_handler(SdxlTrtError, _tell)
    app.add_exception_handler(RequestValidationError, _tell)
    app.add_exception_handler(HTTPException, _tell)
    # The last is the outermost.
    app.add_middleware(Bodies, settings=settings)
    app.add_middleware(Gate, keys=keys)
    app.add_middleware(Arrivals, context=context, tracing=tracing)
    return app


def _lifespan(tracing: Tracing | None) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        if tracing is not None:
            tracing.close()

    return lifespan


async def _tell(http: Request, error: Exception) -> Response:
    """The answer that tells what went wrong."""
    path, headers = http.url.path, dict[str, str]()
    if isinstance(error, RequestValidationError):
        error = refusal(error, path)
    elif isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        error = http_fault(error)
    http.state.error = error
    response = answer(path, error)
    response.headers.update(headers)
    return response
