"""What Qwen2-VL, Qwen2.5-VL and Qwen3-VL share: patches of any aspect, positions of three axes, ChatML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from typing_extensions import override

from datamodules.batch import PictureError
from guards.ranges import at_least
from lightning_modules.families.base import ImageInput
from lightning_modules.families.published import PublishedFamily, own_parameters
from lightning_modules.packing import Attention

MOST_ASPECT = 200
"""Longer side over shorter side, above which the released image processor refuses a picture."""


@dataclass(frozen=True)
class QwenPictures:
    """Patches of a picture that was resized to whole patches; see `VisionLanguageFamily.to_input`."""

    image_processor: Qwen2VLImageProcessorPil

    def __call__(self, image: Image.Image) -> ImageInput:
        """Pixels are (patches, values of one), and the grid is given."""
        n_tokens = self.tokens(*image.size)
        out = self.image_processor(images=[image], return_tensors="pt")
        return ImageInput(out["pixel_values"], n_tokens, tuple(out["image_grid_thw"][0].tolist()))

    def tokens(self, width: int, height: int) -> int:
        """One per square of `merge_size` x `merge_size` patches, after resizing."""
        aspect = max(width, height) / min(width, height)
        if aspect > MOST_ASPECT:
            raise PictureError(
                "over_limits",
                f"{width}x{height} pixels: one side is {aspect:.0f} times the other, and the model's image processor "
                f"takes at most {MOST_ASPECT}; cut it, or set it on a background",
            )
        resized = smart_resize(height, width, self._cell, *self._pixels)
        return resized[0] * resized[1] // self._cell**2

    @property
    def most_tokens(self) -> int:
        """Bound of `tokens`: of a strip one cell high at the largest area, or of a small picture that is enlarged."""
        cell, (smallest, largest) = self._cell, self._pixels
        strip = cell * (largest * MOST_ASPECT) ** 0.5
        enlarged = (smallest * MOST_ASPECT) ** 0.5 + smallest**0.5 + cell
        return int(max(largest, strip, smallest + cell * enlarged) // cell**2)

    @property
    def _cell(self) -> int:
        """Side of what becomes one token, in pixels."""
        return self.image_processor.patch_size * self.image_processor.merge_size

    @property
    def _pixels(self) -> tuple[int, int]:
        """Least and largest area after resizing."""
        size = self.image_processor.size
        return size["shortest_edge"], size["longest_edge"]


class QwenVL(PublishedFamily):
    """A checkpoint of the Qwen-VL line."""

    lora_targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    place = "<|image_pad|>"

    @dataclass(frozen=True)
    class Config(PublishedFamily.Config):
        """Which checkpoint, in what precision, at what picture size."""

        min_pixels: Annotated[int | None, at_least(1)] = None
        """Smallest picture area after resizing, in pixels; null is the checkpoint's own."""
        max_pixels: Annotated[int | None, at_least(1)] = None
        """Largest picture area after resizing, in pixels; null is the checkpoint's own, which may be 16,384 tokens."""

    @override
    def _picture_settings(self) -> dict[str, Any]:
        given = {name: getattr(self.config, name, None) for name in ("min_pixels", "max_pixels")}
        return {name: value for name, value in given.items() if value is not None}

    @override
    def _picture_input(self) -> QwenPictures:
        return QwenPictures(self.image_processor)

    @override
    def encode_images(self, inputs: Sequence[ImageInput]) -> list[Tensor]:
        return list(self._vision(inputs).pooler_output)

    def _vision(self, inputs: Sequence[ImageInput]) -> Any:
        """What the tower makes of pictures, split by picture."""
        pixels = torch.cat([item.pixels for item in inputs]).to(self.model.device)
        grids = torch.tensor([item.grid for item in inputs], device=self.model.device)
        return self.model.model.get_image_features(pixels, grids)

    @override
    def position_ids(self, ids: Sequence[int], grids: Sequence[tuple[int, int, int] | None]) -> Tensor:
        line = torch.tensor([ids])
        positions, _ = self.model.model.get_rope_index(
            line,
            mm_token_type_ids=(line == self.image_token_id).int(),
            image_grid_thw=torch.tensor(grids) if grids else None,
        )
        return positions[:, 0]

    @override
    def hidden_states(self, inputs_embeds: Tensor, position_ids: Tensor, attention: Attention) -> Tensor:
        out = self.model.model.language_model(
            inputs_embeds=inputs_embeds[None], position_ids=position_ids[:, None], use_cache=False, packing=attention
        )
        return out.last_hidden_state[0]

    @property
    def _mergers(self) -> list[nn.Module]:
        """The parts of the tower that map to the language model's width."""
        return [self.model.model.visual.merger]

    @override
    def vision_parameters(self) -> list[nn.Parameter]:
        return own_parameters(self.model.model.visual, *self._mergers)

    @override
    def projector_parameters(self) -> list[nn.Parameter]:
        return [parameter for part in self._mergers for parameter in part.parameters()]
