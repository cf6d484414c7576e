"""Qwen2.5-VL (and its descendants: Lingshu and others) behind the family interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from typing_extensions import override

from datamodules.batch import PictureError
from lightning_modules.families.base import ImageInput, head_logits
from lightning_modules.families.chatml import END, START, ChatMLFamily
from lightning_modules.families.nf4 import Quantise
from lightning_modules.packing import ATTENTION, Attention

CONTROL_TOKENS = (START, END, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

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


class Qwen2_5_VL(ChatMLFamily):
    """A Qwen2.5-VL checkpoint in the hub's file layout."""

    lora_targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

    @dataclass(frozen=True)
    class Config:
        """Which checkpoint, in what precision, at what picture size."""

        path: str = "Qwen/Qwen2.5-VL-3B-Instruct"
        """Local folder or hub id."""
        revision: str = "main"
        """Commit of the hub repository; pin it for work that is published."""
        dtype: Literal["float32", "bfloat16"] = "float32"
        """Precision of the frozen weights; adapters are float32 always."""
        quantize: Quantise = "none"
        """`nf4` holds the language model's linear layers in four bits, and asks for weights in bf16."""
        min_pixels: int = 3136
        """Smallest picture area after resizing, in pixels."""
        max_pixels: int = 1_003_520
        """Largest picture area after resizing, in pixels; 784 pixels are one language token."""
        system: str = "You are a helpful assistant."
        """System prompt; empty leaves the system turn out."""

    def __init__(self, config: Config | None = None, *, weights: Path | None = None, outline: bool = False) -> None:
        """Load tokenizer, image processor and model.

        Args:
            config: see `Config`.
            weights: folder of a base that this code base trained; its parameters replace the loaded ones.
            outline: leave the weights out, for who only writes prompts and preprocesses pictures.
        """
        super().__init__()
        self.config = config if config is not None else self.Config()
        self.weights = weights
        self._build(weights, outline)
        self.to_input = QwenPictures(self.image_processor)
        ids = self.tokenizer.convert_tokens_to_ids
        self.image_token_id = ids("<|image_pad|>")
        self.vision_start_id, self.vision_end_id = ids("<|vision_start|>"), ids("<|vision_end|>")
        special = set(self.tokenizer.all_special_ids) | {ids(token) for token in CONTROL_TOKENS}
        self.banned_token_ids = tuple(sorted(special - {self.eos_token_id}))
        self.hidden_size = self.model.config.text_config.hidden_size
        self.model.set_attn_implementation({"text_config": ATTENTION})
        if weights is not None and not outline:
            self.load_weights(weights)

    def _build(self, weights: Path | None, outline: bool) -> None:
        """Set `tokenizer`, `image_processor` and `model`."""
        source = {"pretrained_model_name_or_path": self.config.path, "revision": self.config.revision}
        self.tokenizer = AutoTokenizer.from_pretrained(**source)
        self.image_processor = Qwen2VLImageProcessorPil(
            min_pixels=self.config.min_pixels, max_pixels=self.config.max_pixels
        )
        if outline:
            with torch.device("meta"):
                self.model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(**source))
            return
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            **source, dtype=getattr(torch, self.config.dtype), use_safetensors=True
        )

    @override
    def picture_ids(self, image_tokens: Sequence[int]) -> list[int]:
        start, end, place = self.vision_start_id, self.vision_end_id, self.image_token_id
        return [token for count in image_tokens for token in (start, *[place] * count, end)]

    @override
    def encode_images(self, inputs: Sequence[ImageInput]) -> list[Tensor]:
        pixels = torch.cat([item.pixels for item in inputs]).to(self.model.device)
        grids = torch.tensor([item.grid for item in inputs], device=self.model.device)
        return list(self.model.model.get_image_features(pixels, grids).pooler_output)

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
    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(input_ids)

    @override
    def hidden_states(self, inputs_embeds: Tensor, position_ids: Tensor, attention: Attention) -> Tensor:
        out = self.model.model.language_model(
            inputs_embeds=inputs_embeds[None], position_ids=position_ids[:, None], use_cache=False, packing=attention
        )
        return out.last_hidden_state[0]

    @override
    def logits(self, hidden: Tensor) -> Tensor:
        return head_logits(self.model.lm_head, hidden)

    @override
    def vision_parameters(self) -> list[nn.Parameter]:
        merger = {id(p) for p in self.model.model.visual.merger.parameters()}
        return [p for p in self.model.model.visual.parameters() if id(p) not in merger]

    @override
    def projector_parameters(self) -> list[nn.Parameter]:
        return list(self.model.model.visual.merger.parameters())
