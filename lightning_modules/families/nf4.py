"""Frozen weights in four bits: the language model's linear layers, by bitsandbytes.

Source: QLoRA, arXiv:2305.14314: NormalFloat, with the scales of its blocks quantised once more.
Choice: the weights are read in bf16, identified by their fingerprint, and packed in place after that, so that an expert
    is bound to the source weights and merges onto them. The vision tower, the projector, the embeddings and the head
    stay as they are.
"""

from __future__ import annotations

import importlib
import re
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, nn

BLOCK = 64
"""Numbers that share a scale."""

Quantise = Literal["none", "nf4"]
"""What a family's `quantize` may say."""


def pack(model: nn.Module, targets: str) -> int:
    """Replace linear layers by such with weights in NF4, one after the other, and free what they held.

    Args:
        model: its weights are frozen, and in bf16 where they are packed.
        targets: regular expression over the whole names of the layers.

    Returns:
        How many layers were replaced.

    Raises:
        ValueError: a weight is not in bf16, or its rows are no whole blocks, or no linear layer has such a name.
    """
    found = [(name, layer) for name, layer in model.named_modules() if re.fullmatch(targets, name)]
    linears = [(name, layer) for name, layer in found if isinstance(layer, nn.Linear)]
    if not linears:
        raise ValueError(f"quantize: nf4 found no linear layer named like {targets!r}; are they packed already?")
    for name, layer in linears:
        if layer.weight.dtype != torch.bfloat16:
            raise ValueError(
                f"quantize: nf4 packs weights that are in bf16, and {name} is in {layer.weight.dtype}; set the model's "
                "dtype to bfloat16, or precision=bf16"
            )
        if layer.in_features % BLOCK:  # bitsandbytes' kernel for processors would give other numbers than it stored
            raise ValueError(
                f"quantize: nf4 packs rows of whole blocks of {BLOCK} numbers, and {name} takes {layer.in_features}; "
                "set quantize to none"
            )
    bnb = importlib.import_module("bitsandbytes")
    for name, layer in linears:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, packed(layer, bnb))
    model.is_loaded_in_4bit = True  # PEFT asks for it
    return len(linears)


def packed(layer: nn.Linear, bnb: ModuleType) -> nn.Module:
    """The same layer in NF4, on the same device; packed on a card where there is one."""
    out, into = layer.weight.shape
    device = layer.weight.device
    with torch.device("meta"):
        new = bnb.nn.Linear4bit(
            into, out, layer.bias is not None, compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4"
        )
    weight = layer.weight.detach()
    if device.type == "meta":  # the shapes of an outline, without a quantisation state
        new.weight = nn.Parameter(weight.new_empty(-(-weight.numel() // 2), 1, dtype=torch.uint8), requires_grad=False)
    else:
        options = {"requires_grad": False, "compress_statistics": True, "quant_type": "nf4", "module": new}
        fast = torch.device("cuda") if torch.cuda.is_available() else device
        new.weight = bnb.nn.Params4bit(weight, **options).to(fast).to(device)
    if layer.bias is not None:
        new.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    # It would pack the weights anew after a pass without gradient on a processor, and no backward pass reads that form.
    new.support_avx512bf16_for_cpu = False
    new.train(layer.training)
    return new


def is_packed(weight: Tensor) -> bool:
    """Whether a weight is held in four bits."""
    return getattr(weight, "quant_state", None) is not None


def numbers(weight: Tensor) -> int:
    """How many a weight has, packed or not."""
    return weight.quant_state.shape.numel() if is_packed(weight) else weight.numel()


def unpacked(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A packed weight as the (out, in) matrix that it stands for."""
    return importlib.import_module("bitsandbytes.functional").dequantize_4bit(weight.data, weight.quant_state).to(dtype)
