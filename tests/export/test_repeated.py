"""Layers that are traced once for many: which count as equal. (That their graphs are right: test_graphs.py.)"""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from sdxl_trt.export.published import published
from sdxl_trt.export.repeated import take_out


def blocks(*settings: dict[str, Any]) -> nn.Module:
    from diffusers.models.attention import BasicTransformerBlock

    common = {"num_attention_heads": 2, "attention_head_dim": 8, "cross_attention_dim": 24}
    return nn.ModuleList(
        BasicTransformerBlock(common["num_attention_heads"] * common["attention_head_dim"], **{**common, **more})
        for more in settings
    )


def test_equal_layers_are_one_kind() -> None:
    module = blocks({}, {}, {})
    (kind,) = take_out(module)
    assert kind.names == {0: "0", 1: "1", 2: "2"}
    assert kind.inputs == (("rows", "pixels", 16), ("rows", "tokens", 24))
    assert not list(module.parameters())


@pytest.mark.parametrize(
    "other",
    [
        {"num_attention_heads": 4, "attention_head_dim": 4},  # the same shapes
        {"activation_fn": "geglu-approximate"},
        {"norm_eps": 1e-6},
        {"upcast_attention": True},
        {"cross_attention_dim": 32},
        {"attention_bias": True},
    ],
)
def test_layers_that_compute_something_else_are_another_kind(other: dict[str, Any]) -> None:
    first, second = take_out(blocks({}, other, {}))
    assert first.names == {0: "0", 2: "2"}
    assert second.names == {1: "1"}


@pytest.mark.parametrize(("model", "layers", "kinds"), [("base", 70, 2), ("refiner", 44, 2)])
def test_sdxl_has_two_kinds_of_transformer_block(model: str, layers: int, kinds: int) -> None:
    import diffusers
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        found = take_out(diffusers.UNet2DConditionModel.from_config(published(model)["unet"]))
    assert len(found) == kinds
    assert sum(len(kind.names) for kind in found) == layers
