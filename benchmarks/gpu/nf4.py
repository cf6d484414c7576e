"""A step on four-bit weights, where bitsandbytes is there and this commit can pack them."""

from __future__ import annotations

from importlib import import_module, util
from types import ModuleType
from typing import Any

from benchmarks.gpu.lines import SkipError, release
from benchmarks.gpu.sizes import GIB, Size
from benchmarks.gpu.training import sft
from lightning_modules.policy import Policy

PACKER = "lightning_modules.families.nf4"
"""What packs a model's weights."""


def packer() -> ModuleType:
    """The module that packs.

    Raises:
        SkipError: it, or bitsandbytes, is missing.
    """
    if util.find_spec("bitsandbytes") is None:
        raise SkipError("bitsandbytes is not installed here; carry its wheel")
    if util.find_spec(PACKER) is None:
        raise SkipError(f"this commit has no {PACKER}")
    return import_module(PACKER)


def step(policy: Policy, size: Size, device: str) -> dict[str, Any]:
    """Pack the language model's linear layers for good, then take SFT's steps with layers checkpointed."""
    family, module = policy.family, packer()
    layers = module.pack(family.model, family.lora_targets)
    release(device)  # the peak is to be that of the step, not of the packing
    held = sum(parameter.nbytes for parameter in family.model.parameters())
    return {**sft(policy, size, device, checkpoint=True), "packed_layers": layers, "weights_gib": round(held / GIB, 3)}
