"""InternVL (2.5 and 3, in the layout of transformers: the `-hf` repositories) behind the family interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import GotOcr2ImageProcessorPil, InternVLForConditionalGeneration
from typing_extensions import override

from guards.ranges import at_least
from lightning_modules.families.base import ImageInput
from lightning_modules.families.chat_template import ChatTemplate
from lightning_modules.families.published import PublishedFamily


@dataclass(frozen=True)
class Tiles:
    """A picture cut into square tiles, and the whole of it after them; see `VisionLanguageFamily.to_input`."""

    image_processor: GotOcr2ImageProcessorPil
    per_tile: int
    """Placeholder tokens of one tile."""

    def __call__(self, image: Image.Image) -> ImageInput:
        """Pixels are (tiles, 3, S, S)."""
        out = self.image_processor(images=[image], crop_to_patches=True, return_tensors="pt")
        return ImageInput(out["pixel_values"], self.per_tile * len(out["pixel_values"]))

    def tokens(self, width: int, height: int) -> int:
        """Tiles in the grid whose aspect is nearest, and one for the whole picture unless that is the only one."""
        return self.per_tile * self.image_processor.get_number_of_image_patches(
            height, width, {"crop_to_patches": True}
        )

    @property
    def most_tokens(self) -> int:
        """The tokens of a picture with as many tiles as there may be."""
        most = self.image_processor.max_patches
        return self.per_tile * (most + 1 if most > 1 else 1)


class InternVL(PublishedFamily):
    """An InternVL checkpoint: InternViT on tiles, a projector, and Qwen2 or Llama.

    Source: InternVL3, arXiv:2504.10479; dynamic tiles, arXiv:2404.16821, section 3.3.
    """

    model_types = ("internvl",)
    model_class = InternVLForConditionalGeneration
    lora_targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    place = "<IMG_CONTEXT>"

    @dataclass(frozen=True)
    class Config(PublishedFamily.Config):
        """Which checkpoint, in what precision, at what picture size."""

        max_patches: Annotated[int | None, at_least(1)] = None
        """Tiles of a picture at most, besides the whole of it; null is the checkpoint's own, which may be 12."""

    @override
    def _picture_settings(self) -> dict[str, Any]:
        return {} if self.config.max_patches is None else {"max_patches": self.config.max_patches}

    @override
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self.template, self.place, picture=self._written)

    def _written(self, n_tokens: int) -> str:
        """A picture in a prompt, as the released processor writes it."""
        return f"<img>{self.place * n_tokens}</img>"

    @override
    def _picture_input(self) -> Tiles:
        return Tiles(self.image_processor, self.model.config.image_seq_length)

    @override
    def encode_images(self, inputs: Sequence[ImageInput]) -> list[Tensor]:
        pixels = torch.cat([item.pixels for item in inputs]).to(self.model.device)
        features = self.model.model.get_image_features(pixels).pooler_output  # (tiles, tokens of one, H)
        return [tiles.flatten(0, 1) for tiles in features.split([len(item.pixels) for item in inputs])]

    @override
    def vision_parameters(self) -> list[nn.Parameter]:
        return list(self.model.model.vision_tower.parameters())

    @override
    def projector_parameters(self) -> list[nn.Parameter]:
        return list(self.model.model.multi_modal_projector.parameters())
