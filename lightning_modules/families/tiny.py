"""The embedded default: the real Qwen2.5-VL classes at 3 M parameters, with a tokenizer trained on the spot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from typing_extensions import override

from configs.build import import_function
from configs.schema import Function
from lightning_modules.families.chatml import END, START, chatml
from lightning_modules.families.nf4 import Quantise
from lightning_modules.families.qwen2_5_vl import Qwen2_5_VL

VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
CONTROL_TOKENS = (START, END, VISION_START, VISION_END, IMAGE, VIDEO)
TEMPLATE = chatml(f"{VISION_START}{IMAGE}{VISION_END}")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


class TinyQwen2_5_VL(Qwen2_5_VL):
    """A randomly initialised Qwen2.5-VL, small enough to be trained from scratch on a laptop."""

    @dataclass(frozen=True)
    class Config:
        """Sizes of the model and the corpus of its tokenizer."""

        corpus: Annotated[str, Function("Iterator[str]")] = "datamodules.phantoms.perception.corpus"
        """Dotted path of a function that yields the texts to train the tokenizer on."""
        vocab_size: int = 1024
        """V, upper bound."""
        hidden: int = 192
        """H, width of the language model; a multiple of `heads`."""
        layers: int = 4
        """Language layers."""
        heads: int = 6
        """Attention heads."""
        intermediate: int = 512
        """Width of the language MLP."""
        vision_hidden: int = 128
        """Width of the vision tower."""
        vision_layers: int = 4
        """Vision layers; the last attends over the whole picture, and so do the others up to 112 pixels."""
        pixels: int = 12_544
        """Picture area after resizing, in pixels; 112 x 112 makes 16 language tokens."""
        init_seed: int = 0
        """Seed of the random weights."""
        system: str = ""
        """System prompt; empty leaves the system turn out."""
        quantize: Quantise = "none"
        """`nf4` holds the language model's linear layers in four bits, and asks for precision=bf16."""

        def __post_init__(self) -> None:
            if self.hidden % self.heads or (self.hidden // self.heads) % 16:
                raise ValueError(f"hidden={self.hidden} must be a multiple of 16 * heads={self.heads}")

    @override
    def _build(self, weights: Path | None, outline: bool, blocks_in_files: bool) -> None:
        config, self.template = self.config, TEMPLATE
        if weights is not None:
            self.tokenizer = PreTrainedTokenizerFast.from_pretrained(weights)
        else:
            self.tokenizer = trained_tokenizer(config.corpus, config.vocab_size)
        self.image_processor = Qwen2VLImageProcessorPil(min_pixels=config.pixels, max_pixels=config.pixels)
        with torch.device("meta" if outline else "cpu"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.init_seed)
            self.model = Qwen2_5_VLForConditionalGeneration(tiny_config(config, self.tokenizer))


def corpus_of(dotted: str) -> Iterator[str]:
    """Call the corpus function at a dotted path."""
    return import_function(dotted)()


@lru_cache(maxsize=4)
def trained_tokenizer(corpus: str, vocab_size: int) -> PreTrainedTokenizerFast:
    """The tokenizer of a corpus function, trained once per process: an outline and its model share it."""
    return train_tokenizer(corpus_of(corpus), vocab_size)


def train_tokenizer(corpus: Iterator[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose digits stand alone, so that a read-off number is always spelt the same way.

    Args:
        corpus: texts to learn merges from.
        vocab_size: upper bound of V.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS),
        special_tokens=["<|endoftext|>", *CONTROL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in CONTROL_TOKENS if token != END],
        clean_up_tokenization_spaces=False,
    )


def tiny_config(config: TinyQwen2_5_VL.Config, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Translate our sizes into transformers' configuration."""
    ids = tokenizer.convert_tokens_to_ids
    half = config.hidden // config.heads // 2
    spatial = 3 * half // 8
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": config.hidden,
            "intermediate_size": config.intermediate,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.heads,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [half - 2 * spatial, spatial, spatial],
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": config.vision_layers,
            "hidden_size": config.vision_hidden,
            "intermediate_size": 2 * config.vision_hidden,
            "num_heads": 4,
            "out_hidden_size": config.hidden,
            "fullatt_block_indexes": list(range(config.vision_layers)),
            "window_size": 112,
        },
        image_token_id=ids(IMAGE),
        video_token_id=ids(VIDEO),
        vision_start_token_id=ids(VISION_START),
        vision_end_token_id=ids(VISION_END),
        tie_word_embeddings=True,
    )
