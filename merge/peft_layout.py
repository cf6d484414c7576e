"""Between an adapter as PEFT stores it and a task vector."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from artifacts.adapter_checks import AdapterError, check_tensors, is_finite
from artifacts.adapter_files import Adapter, StoredAdapter
from merge.factors import Factors, LazyVector, TaskVector, lora_scale

CARRIED = ("base_model_name_or_path", "task_type", "fan_in_fan_out")
"""Settings of the experts that the merged adapter keeps."""


PATTERN_KEY = re.compile(r"[\w.\\^$*+?\[\]-]{1,512}")
"""Keys of rank and alpha patterns that are evaluated: without groups, no expression takes exponential time."""


def pattern_value(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """What a rank or alpha pattern says about a module: the first key that matches the end of its name.

    Choice: as PEFT does, keys are regular expressions that match whole trailing components of the name.

    Raises:
        AdapterError: a key is no regular expression.
    """
    if not isinstance(pattern or {}, Mapping):
        raise AdapterError(f"rank_pattern/alpha_pattern: {pattern!r:.200} is no mapping")
    for key, value in (pattern or {}).items():
        if not PATTERN_KEY.fullmatch(key) or len(re.findall(r"(?<!\\)[*+?]", key)) > 3:
            raise AdapterError(
                f"rank_pattern/alpha_pattern: {key!r:.200} is refused: up to 512 letters, digits and . _ - ^ $ [ ] \\, "
                "and at most three of * + ?; other expressions can take forever"
            )
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        except re.error as error:
            raise AdapterError(f"rank_pattern/alpha_pattern: {key!r} is not a regular expression: {error}") from error
    return default


def factors_of(config: Mapping[str, Any], module: str, A: Tensor, B: Tensor, place: str) -> Factors:
    """Fold alpha and rank of one module into its factors, in fp32.

    Raises:
        AdapterError: the configured rank of the module is not the rank of its factors.
    """
    rank = pattern_value(config.get("rank_pattern"), module, config.get("r"))
    alpha = pattern_value(config.get("alpha_pattern"), module, config.get("lora_alpha"))
    if rank != A.shape[0]:
        raise AdapterError(
            f"{place}: {module}: the configuration says rank {rank!r}, the factors have {A.shape[0]}; "
            "the scale alpha / r would be wrong. Do config and weights belong together?"
        )
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise AdapterError(f"{place}: {module}: lora_alpha is {alpha!r}, expected a finite number")
    factors = Factors(A.float(), B.float() * lora_scale(config, rank, alpha))
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
    # The commonest rank is the default; among equals the smallest, so that the choice does not depend on order.
    default = min(Counter(ranks.values()).items(), key=lambda item: (-item[1], item[0]))[0]
    pattern = {f"^{re.escape(module)}": rank for module, rank in ranks.items() if rank != default}
    config = {key: template.get(key) for key in CARRIED} | {
        "peft_type": "LORA",
        "r": default,
        "lora_alpha": default,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": sorted(ranks),
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
    }
    config["fan_in_fan_out"] = bool(config["fan_in_fan_out"])
    return config


def tensor_name(module: str, side: str) -> str:
    """PEFT's name of a factor; `side` is "A" or "B"."""
    return f"base_model.model.{module}.lora_{side}.weight"
