"""What a LoRA configuration says of each module, and the plain form of one, which names every module exactly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from artifacts.adapter_checks import AdapterError

PATTERN_KEY = re.compile(r"[\w.\\^$*+?\[\]()|:-]{1,512}")
"""Keys of rank and alpha patterns that are evaluated."""


MOST = 1e300
"""Alphas beyond it count as infinite; an integer of hundreds of digits is no float."""


def pattern_values(pattern: Mapping[str, Any] | None, module: str, default: Any) -> list[Any]:
    """What a rank or alpha pattern says about a module: the values of all keys that match the end of its name.

    Choice: as PEFT does, keys are regular expressions that match whole trailing components of the name. PEFT takes the
        first that matches, but saves them sorted, so that which one came first in training is not known any more.

    Raises:
        AdapterError: a key is no regular expression, or one that could take forever.
    """
    if not isinstance(pattern or {}, Mapping):
        raise AdapterError(f"rank_pattern/alpha_pattern: {pattern!r:.200} is no mapping")
    found = []
    for key, value in (pattern or {}).items():
        if not is_quick(key):
            raise AdapterError(
                f"rank_pattern/alpha_pattern: {key!r:.200} is refused: up to 512 letters, digits and . _ - ^ $ [ ] | "
                "\\, at most three of * + ?, and one group that is not repeated; other expressions can take forever. "
                "Write one key per module instead"
            )
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                found.append(value)
        except re.error as error:
            raise AdapterError(f"rank_pattern/alpha_pattern: {key!r} is not a regular expression: {error}") from error
    return found or [default]


def is_quick(key: str) -> bool:
    """Whether matching an expression takes polynomial time: nothing that is repeated repeats within."""
    plain = key.replace("(?:", "(")
    repeats, groups = len(re.findall(r"(?<!\\)[*+?]", plain)), len(re.findall(r"(?<!\\)\(", plain))
    return bool(PATTERN_KEY.fullmatch(key)) and repeats <= 3 and groups <= 1 and not re.search(r"\)[*+?]|\(\?", plain)


def alpha_of(config: Mapping[str, Any], names: Sequence[str], rank: int, place: str) -> float:
    """The alpha of a module whose factors have a rank.

    Args:
        config: the content of adapter_config.json.
        names: the module's name as the configuration's patterns may mean it, without PEFT's prefix.
        rank: of its factors.
        place: the adapter's folder, for the message.

    Raises:
        AdapterError: the configured rank is another one, or alpha is not known, or no finite number.
    """
    configured = {name: pattern_values(config.get("rank_pattern"), name, config.get("r")) for name in names}
    fitting = [name for name, ranks in configured.items() if rank in ranks]
    if not fitting:
        raise AdapterError(
            f"{place}: {names[0]}: the configuration says rank {configured[names[0]][0]!r}, the factors have {rank}; "
            "the scale alpha / r would be wrong. Do config and weights belong together?"
        )
    alphas = [
        a for name in fitting for a in pattern_values(config.get("alpha_pattern"), name, config.get("lora_alpha"))
    ]
    if strange := [a for a in alphas if not isinstance(a, int | float) or isinstance(a, bool) or not -MOST < a < MOST]:
        raise AdapterError(f"{place}: {names[0]}: lora_alpha is {strange[0]!r:.50}, expected a finite number")
    if len(set(alphas)) > 1:
        raise AdapterError(
            f"{place}: {names[0]}: alpha_pattern gives it {sorted(set(alphas))}; PEFT takes the first key that "
            "matches, but saves them sorted, so that the one in force is not known. Leave one key for each module in "
            "the file"
        )
    return alphas[0]


def exact_config(ranks: Mapping[str, int], alphas: Mapping[str, float], kept: Mapping[str, Any]) -> dict[str, Any]:
    """The PEFT configuration of a plain LoRA on exactly these modules.

    Args:
        ranks: module -> r.
        alphas: module -> alpha.
        kept: settings beside them: base_model_name_or_path, task_type, use_rslora, fan_in_fan_out.

    Returns:
        Every module by its whole name; the commonest rank and alpha as the default, others in patterns.
    """
    return {
        "base_model_name_or_path": None,
        "task_type": None,
        "use_rslora": False,
        **kept,
        "peft_type": "LORA",
        "r": commonest(ranks),
        "lora_alpha": commonest(alphas),
        "rank_pattern": others(ranks),
        "alpha_pattern": others(alphas),
        "target_modules": sorted(ranks),
        "fan_in_fan_out": bool(kept.get("fan_in_fan_out")),
        "use_dora": False,
        "bias": "none",
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
    }


def commonest(values: Mapping[str, float]) -> float:
    """The commonest value; among equals the smallest, so that the choice does not depend on order."""
    return min(Counter(values.values()).items(), key=lambda item: (-item[1], item[0]))[0]


def others(values: Mapping[str, float]) -> dict[str, float]:
    """The modules whose value is not the commonest, as PEFT's patterns name one module each."""
    default = commonest(values)
    return {f"^{re.escape(module)}": value for module, value in values.items() if value != default}
