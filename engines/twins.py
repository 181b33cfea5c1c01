"""Whether two exports hold the same network, wherever their checkpoints keep its weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdxl_trt.engines.source import Place, Source
from sdxl_trt.spec import GraphSpec


def same_network(one: Source, other: Source, spec: GraphSpec, precision: str) -> bool:
    """The graphs of both are the same, and every weight has the same bytes.

    Raises:
        ExportError: a graph or weights file is not what it was exported as.
    """
    (graph, places), (other_graph, other_places) = (_apart(source, spec, precision) for source in (one, other))
    if graph != other_graph:
        return False
    return all(
        np.array_equal(_bytes(one, place), _bytes(other, other_place))
        for place, other_place in zip(places, other_places, strict=True)
    )


def _apart(source: Source, spec: GraphSpec, precision: str) -> tuple[bytes, list[Place]]:
    """A graph that does not say where its weights are, and where they are."""
    model = source.graph(spec, precision)
    places = []
    for tensor, place in source.external(model):
        places.append(place)
        del tensor.external_data[:]
    return model.SerializeToString(deterministic=True), places


def _bytes(source: Source, place: Place) -> Any:
    location, offset, length = place
    return source.weights(location)[offset : offset + length]
