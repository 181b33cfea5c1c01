"""The server against its own description: whatever that allows, and much that it does not, is answered as it says.

Cases are drawn from /openapi.json, the same ones every time. What could make a picture is given a size and one step, so
that some do.
"""

from __future__ import annotations

import base64
import gc
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from PIL import Image
from running import Running, running
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from served import Counting, open_service

from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.serve.http.app import create_app
from sdxl_trt.runtime.serve.http.context import Context, Settings
from sdxl_trt.runtime.serve.limits import Limits
from sdxl_trt.runtime.serve.service import Service, Setup

EXAMPLES = 12
"""Of each operation."""
LATE = 504
"""Where a deadline passes: no failure of the server's."""
OPENAI, A1111 = "/v1", "/sdapi"


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    return file.getvalue()


SMALL: dict[str, dict[str, Any]] = {
    "/v1/images/generations": {"size": "64x64", "steps": 1},
    "/v1/images/edits": {"size": "64x64", "steps": 4, "image": _picture()},
    "/sdapi/v1/txt2img": {"width": 64, "height": 64, "steps": 1},
    "/sdapi/v1/img2img": {
        "width": 64,
        "height": 64,
        "steps": 2,
        "init_images": [base64.b64encode(_picture()).decode()],
    },
}
"""What makes a request for pictures a quick one."""
LIKELY = (
    *("prompt", "negative_prompt", "seed", "n", "stream", "partial_images", "output_format", "user", "priority"),
    *("guidance", "cfg_scale"),
)
"""Fields whose values mostly mean something; of every second request only these are kept."""
PLENTY = 40
"""Examples of operations that make pictures."""


def operations() -> list[tuple[str, str]]:
    """All that the description has; it needs no bundle."""
    service = Service(Setup(open=Pipeline.load, devices=("cpu",)), Limits(), Counting())
    paths = create_app(Context(service=service, settings=Settings())).openapi()["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods]


OPERATIONS = operations()


@pytest.fixture(scope="module")
def described(wide_bundle: Path) -> Iterator[Running]:
    service = open_service(wide_bundle, limits=Limits(steps=4, images=2))
    with running(Context(service=service, settings=Settings(body_seconds=2.0))) as one:
        yield one
    assert service.drain(20)


@pytest.fixture(scope="module")
def description(described: Running) -> Any:
    return schemathesis.openapi.from_url(f"{described.base_url}/openapi.json")


def quick(path: str, body: Any) -> Any:
    """A body that may make a picture, and soon."""
    if path not in SMALL or not isinstance(body, dict):
        return body
    likely = {name: value for name, value in body.items() if name in LIKELY or len(body) % 2 == 0}
    streams = {"stream": True} if path.startswith(OPENAI) and len(body) % 3 == 0 else {}
    return SMALL[path] | {name: value for name, value in likely.items() if value is not None} | streams


@pytest.fixture(scope="module")
def answered() -> Counter[tuple[str, int]]:
    """Answers by path and status."""
    return Counter()


@pytest.fixture
def no_collections() -> Iterator[None]:
    """CPython before 3.11.8 ends ast.parse, by which Hypothesis describes cases, with "SystemError: AST constructor
    recursion depth mismatch" where a collection lets something else parse meanwhile.

    github.com/python/cpython/issues/106905
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collections")
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "not allowed"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_the_description_says(
    description: Any, answered: Counter[tuple[str, int]], method: str, path: str, mode: GenerationMode
) -> None:
    """But that what it allows may be refused: it cannot say which sizes, samplers and models a bundle has.

    And A1111's numbers are read from text and truth values too, as they are there.
    """

    allowed = mode is GenerationMode.POSITIVE

    @settings(
        max_examples=PLENTY if path in SMALL else EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=description[path][method].as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        if allowed:
            case.body = quick(path, case.body)
        response = case.call(timeout=60)
        answered[path, response.status_code] += 1
        others = [not_a_server_error] if response.status_code == LATE else []
        others += [negative_data_rejection] if allowed or path.startswith(A1111) else []
        case.validate_response(response, excluded_checks=[positive_data_acceptance, *others])

    try:
        ask()
    except Unsatisfiable:
        pytest.skip("the description allows everything here")


def test_some_of_them_made_pictures_and_some_were_refused(answered: Counter[tuple[str, int]]) -> None:
    made = {path: count for (path, status), count in answered.items() if status == 200 and path in SMALL}
    assert set(made) == set(SMALL)
    assert min(made.values()) >= 5, made
    assert {400, 404, 422} <= {status for _, status in answered}
