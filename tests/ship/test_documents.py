"""Documents of the image specification: the same bytes for the same content, and our errors for garbage."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_trt.errors import TransferError
from sdxl_trt.ship import oci
from sdxl_trt.ship.oci import Descriptor, ImageManifest, Index

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
LAYER = Descriptor.of(b"data", oci.WEIGHTS, annotations={oci.TITLE: "a"})
MANIFEST = ImageManifest(artifactType=oci.BUNDLE, config=Descriptor.of(b"{}", oci.TARGET), layers=(LAYER, LAYER))
INDEX = Index(artifactType=oci.BUNDLE, manifests=(Descriptor.of(oci.dump(MANIFEST), oci.MANIFEST),))


@pytest.mark.parametrize("document", [MANIFEST, INDEX])
def test_there_and_back(document: Index | ImageManifest) -> None:
    data = oci.dump(document)
    assert oci.parse(type(document), data, "here") == document
    assert oci.dump(oci.parse(type(document), data, "here")) == data
    assert b'""' not in data
    assert b"{}" not in data


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from([Index, ImageManifest]), value=JSON)
def test_any_json(kind: type[Any], value: object) -> None:
    with contextlib.suppress(TransferError):
        oci.parse(kind, json.dumps(value).encode(), "here")
    with contextlib.suppress(TransferError):
        oci.media_type(json.dumps(value).encode(), "here")


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(TransferError):
        oci.parse(Index, data, "here")
    with pytest.raises(TransferError):
        oci.media_type(data, "here")


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from([MANIFEST, INDEX]), data=st.data())
def test_any_part_of_it_altered(kind: Index | ImageManifest, data: st.DataObject) -> None:
    value = json.loads(oci.dump(kind))
    place: Any = value
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    with contextlib.suppress(TransferError):
        oci.parse(type(kind), json.dumps(value).encode(), "here")
