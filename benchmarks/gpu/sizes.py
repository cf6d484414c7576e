"""Shapes of the models and sizes of the work, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks import made_model

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """Shape of a Qwen2.5-VL as its published configuration states it."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    mrope: tuple[int, int, int]
    """How half a head's width is split over time, height and width."""
    tied: bool
    """Whether the head has the embedding's weights."""
    vision_layers: int = 32
    vision_hidden: int = 1280
    vision_intermediate: int = 3420
    vision_heads: int = 16
    vision_full: tuple[int, ...] = (7, 15, 23, 31)
    """Vision layers that attend over the whole picture."""


@dataclass(frozen=True)
class Size:
    """A model and what it is given to do."""

    shape: Shape
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the frozen weights; adapters are float32."""
    side: int = 896
    """Of a picture in pixels: 28 x 28 pixels are one token, so 1,024 tokens."""
    question_words: int = 60
    sft_rows: int = 8
    answer_words: int = 200
    sft_micro_tokens: int = 4096
    """Bound on a forward pass of SFT: two rows."""
    sft_steps: int = 2
    """That count, after one of warm-up."""
    questions: int = 8
    rollouts: int = 2
    """Under each of the four guidelines: groups of 8."""
    new_tokens: int = 512
    rl_micro_tokens: int = 16_384
    stock_rows: int = 8
    """Rows of a padded forward pass; TRL's default."""
    decode_rows: tuple[int, ...] = (1, 8, 64)
    decode_tokens: int = 64
    profile_tokens: int = 40
    """The profiler watches so many and twice so many."""
    merge_rank: int = 64
    merge_layers: int = 28
    merge_layers_on_processor: int = 1
    """Layers are alike; a processor does so many of them."""


SIZES = {
    "7b": Size(Shape(152_064, 3584, 18_944, 28, 28, 4, (16, 24, 24), tied=False)),
    "3b": Size(Shape(151_936, 2048, 11_008, 36, 16, 2, (16, 24, 24), tied=True), merge_layers=36),
    "tiny": Size(
        Shape(made_model.SIZES["5m"].vocabulary, 64, 128, 2, 4, 2, (2, 3, 3), True, 2, 32, 64, 2, (1,)),
        side=112,
        question_words=12,
        answer_words=6,
        sft_micro_tokens=256,
        sft_steps=1,
        questions=2,
        new_tokens=8,
        rl_micro_tokens=512,
        decode_rows=(1, 2, 4),
        decode_tokens=6,
        profile_tokens=3,
        merge_rank=4,
        merge_layers=2,
    ),
}
"""The largest first, which is the order of measuring; `tiny` rehearses on any machine."""
