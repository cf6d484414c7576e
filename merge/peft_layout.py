"""Between an adapter as PEFT stores it and a task vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from artifacts.adapter_checks import AdapterError, check_tensors, is_finite
from artifacts.adapter_files import Adapter, StoredAdapter
from artifacts.lora_config import alpha_of, exact_config
from merge.factors import Factors, LazyVector, TaskVector, lora_scale

CARRIED = ("base_model_name_or_path", "task_type", "fan_in_fan_out")
"""Settings of the experts that the merged adapter keeps."""


def factors_of(config: Mapping[str, Any], module: str, A: Tensor, B: Tensor, place: str) -> Factors:
    """Fold alpha and rank of one module into its factors, in fp32.

    Raises:
        AdapterError: the configured rank of the module is not the rank of its factors.
    """
    alpha = alpha_of(config, [module], A.shape[0], place)
    factors = Factors(A.float(), B.float() * lora_scale(config, A.shape[0], alpha))
    if not is_finite(factors.B) or (A.dtype == torch.float64 and not is_finite(factors.A)):
        raise AdapterError(f"{place}: {module}: too large for fp32 with lora_alpha {alpha!r}")
    return factors


def task_vector_of(adapter: Adapter | StoredAdapter, place: str = "adapter") -> TaskVector:
    """The task vector of an adapter: alpha, rank and patterns folded into its factors, in fp32.

    Args:
        adapter: a verified adapter; of a stored one, modules are read when they are asked for.
        place: its folder, for the message.

    Raises:
        AdapterError: the configured rank of a module is not the rank of its factors.
    """
    if isinstance(adapter, StoredAdapter):
        return LazyVector(adapter.shapes, lambda m: factors_of(adapter.config, m, *adapter.pair(m), place))
    pairs = check_tensors(adapter.tensors, place)
    return TaskVector({module: factors_of(adapter.config, module, *pair, place) for module, pair in pairs.items()})


def merged_config(ranks: Mapping[str, int], template: Mapping[str, Any]) -> dict[str, Any]:
    """The PEFT configuration of a merged update, with scale 1.

    Args:
        ranks: module -> rank, as cut.
        template: configuration of one of the experts, for the settings in `CARRIED`.

    Returns:
        alpha = r in every module, modules of another rank listed in rank_pattern.
    """
    return exact_config(ranks, ranks, {key: template.get(key) for key in CARRIED})


def tensor_name(module: str, side: str) -> str:
    """PEFT's name of a factor; `side` is "A" or "B"."""
    return f"base_model.model.{module}.lora_{side}.weight"
