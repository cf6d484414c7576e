"""Which experiments are seeds of one another: those that differ by their seed and by nothing else that counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FREE = (
    *("name", "runs_dir", "overwrite", "description", "only", "workers", "threads", "feature_cache", "continuations"),
    *("logger", "working_folder"),
)
"""Settings that change no result: where, on what machine, in how many pieces."""
MACHINE = ("num_workers", "rows_at_once", "pictures")
"""Options of any part that change no result."""
DEEPEST = 4
"""Folders above an adapter in which its experiment's settings are looked for."""


@dataclass(frozen=True)
class Facts:
    """What an experiment was made with.

    Attributes:
        path: as named on the command line.
        stated: whether it has settings beside its predictions; answers of other programs have none.
        settings: dotted key -> value, seeds and what changes no result left out; hashes of the training rows too.
        seeds: dotted key of every seed -> value.
    """

    path: Path
    stated: bool
    settings: Mapping[str, Any]
    seeds: Mapping[str, Any]


def facts_of(path: Path) -> Facts:
    """Read what an experiment was made with, from experiment.json and the provenance of its runs.

    Args:
        path: the experiment's folder, its `evaluation` folder, or a file of predictions.

    Raises:
        ValueError: a file is damaged; names it.
    """
    folder = path.parent if path.suffix == ".jsonl" else path
    folder = folder.parent if folder.name == "evaluation" else folder
    whole = _whole(folder)
    if whole is None:
        return Facts(path, False, {}, {})
    seeds = {key: value for key, value in whole.items() if is_seed(key)}
    settings = {key: value for key, value in whole.items() if key not in seeds}
    return Facts(path, True, settings, seeds)


def is_seed(key: str) -> bool:
    """Whether a setting is a seed of training; that of the split is none, as it decides who is examined.

    Examples:
        >>> [is_seed(key) for key in ("seed", "required.base.seed", "module.init_args.lora_seed", "data.split_seed")]
        [True, True, True, False]
    """
    last = key.rpartition(".")[2]
    return last == "seed" or (last.endswith("_seed") and last != "split_seed")


def differing(first: Facts, second: Facts) -> dict[str, str]:
    """Settings besides the seed that two experiments do not share: dotted key -> both values, for reading."""
    if first.stated != second.stated:
        return {"experiment.json": "there and not there" if first.stated else "not there and there"}
    absent = "not stated"
    keys = sorted(first.settings.keys() | second.settings.keys())
    both = {key: [side.settings.get(key, absent) for side in (first, second)] for key in keys}
    return {key: " and ".join(map(_short, values)) for key, values in both.items() if values[0] != values[1]}


def refuse_no_seeds(found: Sequence[Facts]) -> str:
    """Make sure that experiments are seeds of one method.

    Args:
        found: of one method, at least one.

    Returns:
        A sentence about what could not be checked; empty where everything was.

    Raises:
        ValueError: something else differs, or two have the same seed; names the keys.
    """
    for other in found[1:]:
        if unlike := differing(found[0], other):
            told = "; ".join(f"{key} {values}" for key, values in unlike.items())
            raise ValueError(f"{found[0].path} and {other.path} are no seeds of one another: they differ by {told}")
    for index, one in enumerate(found):
        if again := next((o for o in found[:index] if o.path.resolve() == one.path.resolve()), None):
            raise ValueError(f"{again.path} is named twice; every seed counts once")
        if again := next((o for o in found[:index] if one.stated and o.seeds == one.seeds), None):
            told = ", ".join(f"{key} {value}" for key, value in one.seeds.items()) or "none"
            raise ValueError(f"{again.path} and {one.path} have the same seed ({told}); every seed counts once")
    if found[0].stated:
        return ""
    return "These experiments state no settings (experiment.json): whether only the seed differs was not checked."


def _whole(folder: Path) -> dict[str, Any] | None:
    """Every setting and every training set's hash, by dotted key; None where there are no settings."""
    settings = _read(folder / "experiment.json")
    if settings is None:
        return None
    found = _flat(
        {key: value for key, value in settings.items() if key not in (*FREE, "required", "adapters", "added")}
    )
    for name, beneath in (settings.get("required") or {}).items():
        found |= {f"required.{name}.{key}": v for key, v in _flat(_counting(beneath)).items()}
    for number, adapter in enumerate(settings.get("adapters") or []):
        found |= {f"adapters[{number}].{key}": value for key, value in _adapter(Path(adapter)).items()}
    for file in sorted(folder.glob("*/provenance.json")):
        found[f"{file.parent.name}.data_sha256"] = (_read(file) or {}).get("data_sha256")
    return found


def _adapter(path: Path) -> dict[str, Any]:
    """What an examined adapter was made with, and where in its experiment it stands; its path where that is unknown."""
    for home in [path, *path.parents][: DEEPEST + 1]:
        if (found := _whole(home)) is not None:
            return found | {"place": path.relative_to(home).as_posix()}
    return {"path": path.as_posix()}


def _counting(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in FREE}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, what only concerns the machine left out; lists and empty mappings are values."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        elif key not in MACHINE:
            found[f"{prefix}{key}"] = value
    return found


def _read(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON ({error}); was the file cut off?") from error
    if not isinstance(held, dict):
        raise ValueError(f"{file}: got a {type(held).__name__}, expected an object of settings")
    return held


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:57]}..."
