"""The model and tokenizer of the work, made from seeds. Imported by both environments."""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL = (PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO)

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string -%}{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>' if message.role == 'assistant' else '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""
"""Qwen's frame without a system turn. Nothing follows the answer's end token: it is the last token that is trained."""


@dataclass(frozen=True)
class Size:
    """Shape of a Qwen2.5-VL; `mrope` splits half a head's width over time, height and width."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    mrope: tuple[int, int, int]
    vision_hidden: int
    vision_intermediate: int
    vision_layers: int
    vision_heads: int
    vision_full: tuple[int, int]
    kv_heads: int = 2


SIZES = {
    "5m": Size(4096, 192, 768, 6, 6, (4, 6, 6), 128, 256, 4, 4, (1, 3)),
    "100m": Size(32_000, 640, 2048, 12, 10, (8, 12, 12), 384, 1536, 8, 6, (3, 7)),
}


def words(rng: random.Random, count: int) -> list[str]:
    """Made words of one to five syllables."""
    syllables = ("ba", "ce", "dor", "fi", "gan", "hel", "jo", "kra", "lun", "mer", "nos", "pli", "ru", "sten", "vo")
    return ["".join(rng.choices(syllables, k=rng.randint(1, 5))) for _ in range(count)]


def tokenizer(size: str, folder: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on made words; kept in `folder`, so that no worker trains it inside its measurement."""
    path = folder / f"tokenizer_{size}.json"
    if not path.exists():
        rng = random.Random(0)
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=SIZES[size].vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        made.train_from_iterator((" ".join(words(rng, 200)) for _ in range(600)), trainer)
        made.save(str(path))
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[token for token in SPECIAL if token not in (END, PAD)],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def model(size: str, tokens: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """The random model of seed 0, fp32: the same weights in every process of the same torch."""
    s, ids = SIZES[size], dict(zip(SPECIAL, tokens.convert_tokens_to_ids(list(SPECIAL)), strict=True))
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": s.vocabulary,
            "hidden_size": s.hidden,
            "intermediate_size": s.intermediate,
            "num_hidden_layers": s.layers,
            "num_attention_heads": s.heads,
            "num_key_value_heads": s.kv_heads,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(s.mrope)},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": ids[END],
            "pad_token_id": ids[PAD],
        },
        vision_config={
            "depth": s.vision_layers,
            "hidden_size": s.vision_hidden,
            "intermediate_size": s.vision_intermediate,
            "num_heads": s.vision_heads,
            "out_hidden_size": s.hidden,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": list(s.vision_full),
        },
        image_token_id=ids[IMAGE],
        video_token_id=ids[VIDEO],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Qwen2_5_VLForConditionalGeneration(config).float()
    made.generation_config.eos_token_id, made.generation_config.pad_token_id = ids[END], ids[PAD]
    made.config._name_or_path = f"made/{size}"  # TRL reads it for a model card
    return made


def fill_adapter(lora: nn.Module) -> None:
    """Give A and B of every LoRA layer values that depend on the layer's name alone: unit-variance A, a B that acts."""
    for name, parameter in lora.named_parameters():
        if ".lora_" not in name:
            continue
        place = name[name.index("layers.") :].split(".")
        generator = torch.Generator().manual_seed(zlib.crc32(".".join(place[:5]).encode()))  # up to lora_A or lora_B
        values = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            parameter.copy_(values / math.sqrt(parameter.shape[1]) if "lora_A" in place else 0.05 * values)
