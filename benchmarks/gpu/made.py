"""A Qwen2.5-VL of a published shape with random weights, made where it is used, and questions with noise to look at."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from typing_extensions import override

from benchmarks import made_model, work
from benchmarks.gpu.sizes import Shape, Size
from datamodules.batch import Example
from lightning_modules.families.qwen2_5_vl import Qwen2_5_VL
from lightning_modules.families.tiny import TEMPLATE
from lightning_modules.policy import Policy


class SizedFamily(Qwen2_5_VL):
    """The family's own code around random weights; no file is read."""

    @dataclass(frozen=True)
    class Config:
        """Which shape, where."""

        size: Size
        device: str = "cpu"
        system: str = ""
        """The made chat frame has no system turn."""

    @override
    def _build(self, weights: Path | None, outline: bool, blocks_in_files: bool) -> None:
        self.tokenizer = made_tokenizer()
        self.template = TEMPLATE
        self.image_processor = Qwen2VLImageProcessorPil(min_pixels=work.MIN_PIXELS, max_pixels=2**24)
        size, before = self.config.size, torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, size.dtype))
        try:
            with torch.device("meta" if outline else self.config.device):
                self.model = Qwen2_5_VLForConditionalGeneration(config_of(size.shape, self.tokenizer))
        finally:
            torch.set_default_dtype(before)


@lru_cache(maxsize=1)
def made_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer of all sizes, trained once per process; a larger vocabulary has ids that it does not know."""
    with tempfile.TemporaryDirectory() as folder:
        return made_model.tokenizer("5m", Path(folder))


def config_of(shape: Shape, tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """The model's shape, with the made tokenizer's control tokens."""
    ids = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": shape.vocabulary,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": 128_000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(shape.mrope)},
            "tie_word_embeddings": shape.tied,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_hidden,
            "intermediate_size": shape.vision_intermediate,
            "num_heads": shape.vision_heads,
            "out_hidden_size": shape.hidden,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": list(shape.vision_full),
        },
        image_token_id=ids(made_model.IMAGE),
        video_token_id=ids(made_model.VIDEO),
        vision_start_token_id=ids(made_model.VISION_START),
        vision_end_token_id=ids(made_model.VISION_END),
        tie_word_embeddings=shape.tied,
    )


def policy_of(size: Size, device: str) -> Policy:
    """The random model behind the policy interface; the same weights for the same torch and device."""
    torch.manual_seed(0)
    return Policy(SizedFamily(SizedFamily.Config(size, device))).to(device)


@contextmanager
def endless(policy: Policy) -> Iterator[None]:
    """Ban the end token for a while: completions run to their limit, and are scored as they were sampled."""
    before = policy.banned
    policy.banned = torch.cat([before, before.new_tensor([policy.family.eos_token_id])])
    try:
        yield
    finally:
        policy.banned = before


def questions(size: Size, count: int, first: int = 0) -> list[Example]:
    """Questions with one noise picture each, none of them twice.

    Args:
        size: of picture and text.
        count: how many.
        first: number of the first; others have other pictures.
    """
    found = []
    for number in range(first, first + count):
        rng, noise = random.Random(number), np.random.RandomState(number)
        image = Image.fromarray(noise.randint(0, 255, (size.side, size.side, 3), dtype=np.uint8))
        options = tuple(made_model.words(rng, 2))
        stem = " ".join(made_model.words(rng, size.question_words))
        found.append(Example(f"p{number}", (image,), stem, options, options[0], f"q{number}"))
    return found


def answers(size: Size, count: int, first: int = 0) -> list[str]:
    """Answers to imitate, of made words."""
    numbers = range(first, first + count)
    return [" ".join(made_model.words(random.Random(-1 - number), size.answer_words)) for number in numbers]
