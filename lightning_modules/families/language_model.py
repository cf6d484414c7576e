"""Language models that read no pictures: teachers that write data, and judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from PIL import Image
from torch import Tensor
from transformers import LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM
from typing_extensions import override

from datamodules.batch import PictureError
from lightning_modules.families.base import ImageInput
from lightning_modules.families.published import PublishedFamily


@dataclass(frozen=True)
class NoPictures:
    """Refuses every picture; see `VisionLanguageFamily.to_input`."""

    path: str
    """Of the checkpoint, for messages."""
    most_tokens: int = 0

    def __call__(self, image: Image.Image) -> NoReturn:
        """No picture has an input; raises as `tokens`."""
        self.tokens(*image.size)

    def tokens(self, width: int, height: int) -> NoReturn:
        """No picture has tokens.

        Raises:
            PictureError: always.
        """
        raise PictureError(
            "over_limits",
            f"{self.path} is a language model and reads no pictures; ask it without them, or take a vision-language "
            "model",
        )


class LanguageModel(PublishedFamily):
    """A checkpoint of a decoder that is built as Llama's."""

    lora_targets = r".*layers\.\d+\.(self_attn|mlp)\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

    @override
    def _picture_input(self) -> NoPictures:
        return NoPictures(self.config.path)

    @override
    def encode_images(self, inputs: Sequence[ImageInput]) -> list[Tensor]:
        raise ValueError(f"{self.config.path} is a language model and reads no pictures, got {len(inputs)}")


class Qwen2(LanguageModel):
    """A Qwen2 or Qwen2.5 checkpoint."""

    model_types = ("qwen2",)
    model_class = Qwen2ForCausalLM


class Qwen3(LanguageModel):
    """A Qwen3 checkpoint."""

    model_types = ("qwen3",)
    model_class = Qwen3ForCausalLM


class Llama(LanguageModel):
    """A Llama checkpoint, and what has its shape."""

    model_types = ("llama",)
    model_class = LlamaForCausalLM
