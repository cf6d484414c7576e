"""Bytes that memory gives, and takes, for one more token of every row: from shapes alone, whatever the kernels do."""

from __future__ import annotations

from lightning_modules.families.base import VisionLanguageFamily
from lightning_modules.policy import Policy
from lightning_modules.row_cache import ALIGNED

LOGIT_BYTES = 32
"""Per row and entry of the vocabulary: logits, softmax and exponential in fp32, and sums in fp64; read and written."""


def per_token(policy: Policy, rows: int, columns: float) -> dict[str, int]:
    """What a step of the built-in sampler moves.

    Args:
        policy: in float32 or bf16, under the adapters that act.
        rows: written together; all of them share one reading of the weights.
        columns: of each row's cache that a step reads; see `columns_read`.

    Returns:
        `weights`: matrices of the language model and its head; vectors are left out. `factors`: of adapters that are
        not folded into them, as `lora.stacked` holds them. `cache`: keys and values. `logits`: all passes over them.
    """
    family = policy.family
    head = family.model.get_output_embeddings().weight
    named = [(name, p) for block in family.blocks() for name, p in block.named_parameters() if p.dim() == 2]
    frozen = [p for name, p in named if ".lora_" not in name]
    acting = [(name, p) for name, p in named if any(f".{adapter}." in name for adapter in policy.active)]
    low = frozen[0].element_size() < 4
    # A, (R, in), is held in two parts, and B, (out, R), three times in two; in float32 both are folded in.
    factors = sum(2 * p.numel() * (2 if ".lora_A." in name else 6) for name, p in acting) if low else 0
    return {
        "weights": head.nbytes + sum(p.nbytes for p in frozen),
        "factors": factors,
        "cache": round(rows * columns * cache_bytes(family)),
        "logits": rows * head.shape[0] * LOGIT_BYTES,
    }


def cache_bytes(family: VisionLanguageFamily) -> int:
    """Keys and values of one token in all layers."""
    text = family.model.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    each = next(iter(family.block_parameters())).element_size()
    return 2 * text.num_hidden_layers * text.num_key_value_heads * width * each


def columns_read(prompt: int, tokens: int, *, recorded: bool) -> float:
    """Columns of its cache that a row reads per step, on average over all steps.

    Args:
        prompt: tokens of the prompt.
        tokens: written in all.
        recorded: the step has fixed shapes, and reads what is yet to come too.

    Examples:
        >>> columns_read(200, 64, recorded=False), columns_read(200, 64, recorded=True)
        (232.0, 272)
    """
    whole = prompt + tokens - 1
    return whole + -whole % ALIGNED if recorded else prompt + tokens / 2
