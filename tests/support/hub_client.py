"""A user of the hub in a process of its own: huggingface_hub reads its settings when it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopback_hub import Hub

SHAPES = "someone/sdxl-shapes"
TUNED = "someone/fine-tune"

CLIENT = """
import json, sys
from sdxl_trt.cli.models import model_path
from sdxl_trt.errors import SdxlTrtError

steps = []
try:
    path = model_path(sys.argv[1], lambda *step: steps.append(step))
except SdxlTrtError as error:
    print(json.dumps(error.as_dict()))
else:
    print(json.dumps({"path": str(path), "steps": steps}))
"""

DECOYS = (
    "README.md",
    "sd_xl_base_1.0.safetensors",
    "sd_xl_offset_example-lora_1.0.safetensors",
    "text_encoder/flax_model.msgpack",
    "text_encoder/model.onnx",
    "text_encoder/model.safetensors",
    "text_encoder/openvino_model.bin",
    "text_encoder/pytorch_model.fp16.bin",
    "text_encoder_2/model.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet_lora/pytorch_lora_weights.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "vae_1_0/config.json",
    "vae_1_0/diffusion_pytorch_model.fp16.safetensors",
    "vae_decoder/model.onnx",
)
"""What stabilityai's repositories hold beside what is needed."""


@dataclass(frozen=True)
class Client:
    """A user with a home of its own."""

    hub: Hub
    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        places = {"HOME": str(self.home), "HF_HOME": str(self.home / "hf"), "XDG_CACHE_HOME": str(self.home / "cache")}
        return {**kept, **places, "HF_ENDPOINT": self.hub.endpoint, **more}

    def start(self, model: str, **more: str) -> subprocess.Popen[str]:
        self.hub.requests.clear()
        command = [sys.executable, "-c", CLIENT, model]
        return subprocess.Popen(
            command,
            env=self.environment(**more),
            cwd=self.home,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def call(self, model: str, **more: str) -> dict[str, Any]:
        process = self.start(model, **more)
        out, err = process.communicate()
        assert "Traceback" not in err, err
        assert "%|" not in err, "the library's own progress bars are silent"
        answer: dict[str, Any] = json.loads(out)
        return answer

    def fetch(self, model: str, **more: str) -> Path:
        answer = self.call(model, **more)
        assert "path" in answer, answer
        return Path(answer["path"])

    def refused(self, model: str, kind: str = "CheckpointError", **more: str) -> str:
        """The one message."""
        answer = self.call(model, **more)
        assert answer["error"] == kind, answer
        assert answer["fix"]
        return "\n".join(answer[part] for part in ("what", "got", "expected", "fix"))

    @property
    def partial(self) -> list[Path]:
        return list(self.home.glob("hf/hub/*/blobs/*.incomplete"))


def needed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def same(fetched: Path, published: Path) -> None:
    assert needed(fetched) == needed(published)
    for name in needed(published):
        assert (fetched / name).read_bytes() == (published / name).read_bytes()
