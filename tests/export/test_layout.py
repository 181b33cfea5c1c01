"""What single files are taken for, and what they say about sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import single_files

from sdxl_trt.errors import CheckpointError
from sdxl_trt.export.checkpoint import open_checkpoint
from sdxl_trt.export.clip_bpe import clip_tokenizer, clip_vocabulary

OTHERS = {
    "a LoRA": "lora_unet_input_blocks_4_1_proj_in.lora_down.weight",
    "a LoRA, PEFT's": "unet.down_blocks.1.attentions.0.proj_in.lora_A.weight",
    "a LoRA, LyCORIS'": "lora_te2_text_model_encoder_layers_0_mlp_fc1.hada_w1_a",
    "a textual inversion embedding": "clip_g",
    "a ControlNet": "control_model.input_blocks.0.0.weight",
    "a ControlNet, diffusers'": "controlnet_cond_embedding.conv_in.weight",
    "an IP-Adapter": "ip_adapter.1.to_k_ip.weight",
    "a Stable Diffusion 3": "model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight",
    "a Flux": "double_blocks.0.img_attn.qkv.weight",
    "a Flux, diffusers'": "single_transformer_blocks.0.attn.to_k.weight",
    "a Stable Diffusion 1 or 2": "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "a UNet alone": "down_blocks.0.resnets.0.conv1.weight",
    "a UNet without text encoders": "model.diffusion_model.input_blocks.0.0.weight",
    "a VAE alone": "first_stage_model.encoder.conv_in.weight",
    "a VAE alone, without prefix": "decoder.conv_in.weight",
    "a text encoder alone": "text_model.encoder.layers.0.mlp.fc1.weight",
    "tensors named something": "something",
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_files_are_refused_by_what_they_are(tmp_path: Path, what: str) -> None:
    import torch

    path = single_files.write_file(tmp_path / "x.safetensors", {OTHERS[what]: torch.zeros(2, 2)})
    with pytest.raises(CheckpointError, match="is not an SDXL checkpoint") as error:
        open_checkpoint(path)
    assert error.value.got.startswith(what.partition(",")[0])
    assert error.value.expected
    assert error.value.fix
    if "VAE" in what:
        assert "--vae" in error.value.fix


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    return single_files.tensors_of(single_files.make("base", "float16"))


def open_with(tmp_path: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> Any:
    return open_checkpoint(single_files.write_file(tmp_path / "x.safetensors", tensors, metadata))


def refused(tmp_path: Path, tensors: dict[str, Any], *parts: str) -> None:
    from sdxl_trt.export.trace import parameter_shapes
    from sdxl_trt.export.weights import match_parameters

    def check() -> None:
        for name, part in open_with(tmp_path, tensors).components.items():
            match_parameters(name, parameter_shapes(part), part.tensors)

    with pytest.raises(CheckpointError) as error:
        check()
    assert all((error.value.got, error.value.expected, error.value.fix))
    for part in parts:
        assert part in str(error.value)


def test_files_that_lack_a_part(tmp_path: Path, tensors: dict[str, Any]) -> None:
    def without(start: str) -> dict[str, Any]:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(start)}

    refused(tmp_path, without("first_stage_model."), "holds no VAE", "--vae PATH")
    refused(tmp_path, without("conditioner.embedders.1"), "a UNet without text encoders", "conditioner.*")
    refused(tmp_path, without("model.diffusion_model."), "a VAE alone")
    refused(tmp_path, without("model.diffusion_model.out.2.weight"), "no out.2.weight")
    refused(tmp_path, without("model.diffusion_model.out.0.bias"), "unet", "lack 1 tensors", "conv_norm_out.bias")
    refused(tmp_path, without("conditioner.embedders.1.model.text_projection"), "text_projection")
    refused(tmp_path, without("model.diffusion_model.label_emb.0.2.weight"), "no label_emb.0.2.weight")
    refused(tmp_path, without("model.diffusion_model.label_emb"), "a UNet without text encoders")


def test_shapes_that_no_sdxl_has(tmp_path: Path, tensors: dict[str, Any]) -> None:
    import torch

    edit = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(64, 8, 3, 3)}  # instruct-pix2pix
    refused(tmp_path, tensors | edit, "in_channels is 8", "4 or 9")
    flat = {"conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight": torch.zeros(384)}
    refused(tmp_path, tensors | flat, "in other shapes than an SDXL")
    wide = {"model.diffusion_model.out.0.bias": torch.zeros(65)}
    refused(tmp_path, tensors | wide, "conv_norm_out.bias does not fit the config", "[65]", "[64]")


def test_files_with_more_than_an_sdxl(tmp_path: Path, tensors: dict[str, Any]) -> None:
    """A block that the network would leave out makes another picture."""
    import torch

    extra = "model.diffusion_model.middle_block.1.transformer_blocks.2.norm1.weight"
    refused(tmp_path, tensors | {extra: torch.zeros(128)}, "unet", "have 1 tensors")
    ninth = "model.diffusion_model.output_blocks.9.0.in_layers.0.weight"
    refused(tmp_path, tensors | {ninth: torch.zeros(128)}, "unet", "have 1 tensors")


def test_eight_bit_weights(tmp_path: Path, tensors: dict[str, Any]) -> None:
    import torch

    name = "model.diffusion_model.out.2.weight"
    refused(tmp_path, tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, "conv_out", "F8_E4M3", "F16, F32, BF16")


def test_damaged_file(tmp_path: Path, tensors: dict[str, Any]) -> None:
    path = single_files.write_file(tmp_path / "x.safetensors", tensors)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        open_checkpoint(path)


BASE = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "epsilon", "timestep_spacing": "leading"}
V = BASE | {"prediction_type": "v_prediction"}
TURBO = {"_class_name": "EulerAncestralDiscreteScheduler", "prediction_type": "epsilon", "timestep_spacing": "trailing"}

SAYINGS: list[tuple[list[str], dict[str, str], dict[str, Any]]] = [
    ([], {}, BASE),
    ([], {"modelspec.architecture": "stable-diffusion-xl-v1-base", "modelspec.prediction_type": "epsilon"}, BASE),
    ([], {"modelspec.architecture": "stable-diffusion-xl-turbo-v1"}, TURBO),
    ([], {"modelspec.prediction_type": "v"}, V),
    ([], {"modelspec.predict_key": "v"}, V),
    (["v_pred"], {}, V),
    (["v_pred", "ztsnr"], {}, V | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
]


@pytest.mark.parametrize(("marks", "metadata", "expected"), SAYINGS)
def test_scheduler_is_what_the_file_says(
    tmp_path: Path, tensors: dict[str, Any], marks: list[str], metadata: dict[str, str], expected: dict[str, Any]
) -> None:
    import torch

    model = open_with(tmp_path, tensors | {mark: torch.zeros(0) for mark in marks}, metadata).model
    assert model.scheduler.items() >= (expected | {"beta_schedule": "scaled_linear", "steps_offset": 1}).items()
    assert model.native_size == ((512, 512) if expected is TURBO else (1024, 1024))
    assert model.content != open_with(tmp_path, tensors | {"another": torch.zeros(1)}).model.content


def test_files_with_continuous_noise_levels(tmp_path: Path, tensors: dict[str, Any]) -> None:
    import torch

    mean, std = [-1.6574, 1.886, -1.383, 2.5155], [8.4927, 5.9022, 6.5498, 5.2299]
    playground = {"edm_mean": torch.tensor(mean).view(1, 4, 1, 1), "edm_std": torch.tensor(std).view(1, 4, 1, 1)}
    model = open_with(tmp_path, tensors | playground).model
    assert model.vae.latents_mean == pytest.approx(mean)
    assert model.vae.latents_std == pytest.approx(std)
    assert (model.vae.scaling_factor, model.scheduler["_class_name"]) == (0.5, "EDMDPMSolverMultistepScheduler")
    cosxl = {"edm_vpred.sigma_max": torch.tensor(120.0), "edm_vpred.sigma_min": torch.tensor(0.002)}
    model = open_with(tmp_path, tensors | cosxl).model
    assert model.scheduler == {
        "_class_name": "EDMEulerScheduler",
        "prediction_type": "v_prediction",
        "sigma_data": 1.0,
        "sigma_max": pytest.approx(120.0),
        "sigma_min": pytest.approx(0.002),
    }
    assert model.vae.scaling_factor == 0.13025


def test_tokens_are_clips(tmp_path: Path) -> None:
    """SDXL's own vocabulary and merges, by their hashes; transformers' reading of a folder of them."""
    from tokenizers import Tokenizer
    from transformers import CLIPTokenizer

    from sdxl_trt.export.tokenizers import canonical_tokenizer
    from sdxl_trt.files import sha256_json

    vocabulary, merges = clip_vocabulary()
    assert len(vocabulary) == 49408
    assert sha256_json(vocabulary) == "66adb65d80004a4c1bac32a87064f2166232c6ed02440db6db9d5619efa8da81"
    assert sha256_json(merges) == "da53975829bf94d79a0156fb5db8a2b2f713f6cd55df3447063bff961ae1cbf5"
    for encoder, pad in (("text_encoder", 49407), ("text_encoder_2", 0)):
        tokenizer = clip_tokenizer(encoder)
        assert (tokenizer.vocabulary, tokenizer.bos, tokenizer.eos, tokenizer.pad) == (49408, 49406, 49407, pad)
        folder = tmp_path / encoder
        single_files.write_tokenizer(folder, encoder)
        assert canonical_tokenizer(folder) == tokenizer
        ours, theirs = Tokenizer.from_str(tokenizer.json.decode()), CLIPTokenizer.from_pretrained(folder)
        assert ours.encode("a photo of a cat").ids[1:-1] == [320, 1125, 539, 320, 2368]
        for text in texts():
            assert ours.encode(text).ids == theirs(text).input_ids, text


def texts() -> list[str]:
    """Words, other scripts, emoji, contractions, special tokens, and characters at random."""
    import random

    random.seed(0)
    letters = "abXYZ 01 '!?.,-_()[]{}|<>&éüßñ漢かт\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467\u200fﬁ½\t\n\xa0"
    known = ["it's they'll I'd", "masterpiece!!! (best:1.2)", "<|endoftext|> x <|STARTOFTEXT|>", "naïve café ½", ""]
    return known + ["".join(random.choices(letters, k=random.randrange(1, 60))) for _ in range(300)]
