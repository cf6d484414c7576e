"""Guidelines as data: an instruction for the prompt and the criteria by which a reasoning is held to follow it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "guidelines"

NEUTRAL = "neutral"

KINDS: dict[str, tuple[str, ...]] = {
    "patterns": ("phrases", "at_least"),
    "candidates": ("at_least",),
    "rejected_with_reason": ("at_least",),
    "causal_links": ("at_least",),
    "percentages": ("at_least",),
    "consistent_update": (),
    "direct": ("at_least",),
    "max_words": ("at_most",),
    "min_words": ("at_least",),
    "grounded": ("at_least", "share"),
}
"""Kind of criterion -> the settings it takes besides name, kind and weight; `adherence.py` says what each measures."""
CONDITION = "grounded"
"""The kind that is no summand of adherence but a condition of the rest: it has a share instead of a weight."""


@dataclass(frozen=True)
class Criterion:
    """One thing that a reasoning does or does not do.

    Attributes:
        name: unique within its guideline.
        kind: one of `KINDS`.
        weight: points for meeting it; negative for a pitfall; never 0.
        at_least: occurrences for full credit, fewer give a share of it; words for `min_words`
            and `direct`; findings of the example for `grounded`; at least 1.
        at_most: words, for `max_words`; at least 1.
        phrases: for `patterns`: lower-case phrases, matched as whole words; `*` at the end of one matches any ending.
        share: for `grounded`: how much of the adherence hangs on it, in (0, 1].
    """

    name: str
    kind: str
    weight: float = 1.0
    at_least: int = 1
    at_most: int = 0
    phrases: tuple[str, ...] = ()
    share: float = 0.0

    def __post_init__(self) -> None:
        where = f"criterion {self.name!r}"
        if self.kind not in KINDS:
            raise ValueError(f"{where}: unknown kind {self.kind!r}{_hint(self.kind, KINDS)}; known: {', '.join(KINDS)}")
        if not math.isfinite(self.weight) or self.weight == 0:
            raise ValueError(f"{where}: weight must be finite and not 0, got {self.weight}")
        if self.at_least < 1:
            raise ValueError(f"{where}: at_least must be at least 1, got {self.at_least}")
        if (self.kind == "max_words") != (self.at_most >= 1):
            raise ValueError(f"{where}: at_most must be at least 1 for max_words and absent otherwise")
        if (self.kind == CONDITION) != (0 < self.share <= 1):
            raise ValueError(f"{where}: share must lie in (0, 1] for {CONDITION} and be absent otherwise")
        if (self.kind == "patterns") != bool(self.phrases):
            raise ValueError(f"{where}: phrases must be given for patterns and absent otherwise")
        if self.kind == "patterns" and self.at_least > len(self.phrases):
            raise ValueError(f"{where}: at_least is {self.at_least}, but there are only {len(self.phrases)} phrases")
        bad = [phrase for phrase in self.phrases if not re.fullmatch(r"\w[^*]*\*?", phrase)]
        if bad:
            raise ValueError(
                f"{where}: a phrase starts with a letter or digit and has `*` only at its end, got {bad[0]!r}"
            )


@dataclass(frozen=True)
class Guideline:
    """A clinical reasoning perspective.

    Attributes:
        name: as configurations and logs spell it.
        source: where the strategy is described.
        instruction: one sentence that ends the prompt; empty for `neutral`.
        criteria: of adherence; none for `neutral`.
        prior: π, its weight before anything was rolled out; above 0.
    """

    name: str
    source: str
    instruction: str
    criteria: tuple[Criterion, ...]
    prior: float = 1.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"name must be letters, digits, '_' and '-', got {self.name!r}")
        if not math.isfinite(self.prior) or self.prior <= 0:
            raise ValueError(f"prior must be finite and above 0, got {self.prior}")
        if self.name == NEUTRAL:
            if self.instruction or self.criteria:
                raise ValueError("neutral is the prompt without an instruction: it has no file and no criteria")
            return
        if not self.instruction.strip() or "\n" in self.instruction.strip():
            raise ValueError(f"instruction must be one line of text, got {self.instruction!r}")
        names = [criterion.name for criterion in self.criteria]
        if len(set(names)) != len(names):
            raise ValueError(f"criteria names repeat: {names}")
        if not any(criterion.weight > 0 for criterion in self.criteria if criterion.kind != CONDITION):
            raise ValueError("criteria must hold at least one with a positive weight")


def load_guidelines(names_or_paths: Sequence[str | Path], folder: str | Path = FOLDER) -> dict[str, Guideline]:
    """Read guidelines, in this order.

    Args:
        names_or_paths: names of files in `folder` without their ending, paths that end in .yaml, or "neutral".
        folder: where names are looked up.

    Returns:
        Name -> guideline.

    Raises:
        ValueError: a name is unknown, a file is missing, a key or value is wrong, or two guidelines share a name.
    """
    found: dict[str, Guideline] = {}
    for item in names_or_paths:
        guideline = Guideline(NEUTRAL, "", "", ()) if str(item) == NEUTRAL else _read(_path(str(item), Path(folder)))
        if guideline.name in found:
            raise ValueError(f"the guideline {guideline.name!r} is named twice in {[str(i) for i in names_or_paths]}")
        found[guideline.name] = guideline
    return found


def guideline_faults(names: Sequence[str]) -> list[str]:
    """All that keeps guidelines from being read, each alone and then together: one may be named twice."""
    faults = []
    for part in [*([name] for name in names), names]:
        try:
            load_guidelines(part)
        except (OSError, ValueError) as error:
            faults.append(str(error))
    return list(dict.fromkeys(faults))


def _path(item: str, folder: Path) -> Path:
    """A path as given, or a name's file; a name cannot leave the folder."""
    if item.endswith((".yaml", ".yml")):
        path = Path(item)
        if not path.is_file():
            raise ValueError(f"no such file of a guideline: {path}")
        return path
    known = [*sorted(path.stem for path in folder.glob("*.yaml")), NEUTRAL]
    if item not in known:
        raise ValueError(
            f"unknown name {item!r} among guidelines{_hint(item, known)}; known: {', '.join(known)}; "
            f"add your own as {folder.name}/<name>.yaml or give the path of a .yaml file"
        )
    return folder / f"{item}.yaml"


def _read(path: Path) -> Guideline:
    """Parse one file; every error names it."""
    try:
        row = yaml.safe_load(path.read_text(encoding="utf-8"))
        _check_keys(row, {item.name for item in fields(Guideline)}, {"name", "source", "instruction", "criteria"})
        if row["name"] != path.stem:
            raise ValueError(f"name is {row['name']!r}, expected the file's name {path.stem!r}")
        if not isinstance(row["criteria"], list) or not isinstance(row["instruction"], str):
            raise ValueError("criteria must be a list and instruction a text")
        criteria = tuple(map(_criterion, row["criteria"]))
        prior = _number(row.get("prior", 1.0), "prior")
        return Guideline(str(row["name"]), str(row["source"]), row["instruction"].strip(), criteria, prior)
    except (ValueError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _criterion(row: Any) -> Criterion:
    if not isinstance(row, Mapping) or not {"name", "kind"} <= set(row):
        raise ValueError(f"a criterion is a mapping with name and kind, got {row!r}")
    kind = row["kind"]
    if kind in KINDS:
        summand = set() if kind == CONDITION else {"weight"}
        allowed = {"name", "kind", *summand, *KINDS[kind]}
        _check_keys(row, allowed, {"name", "kind"}, f"criterion {row['name']!r}: ")
    values = dict(row)
    for name in {"weight", "share"} & set(row):
        values[name] = _number(row[name], name)
    for name in {"at_least", "at_most"} & set(row):
        if type(row[name]) is not int:
            raise ValueError(f"criterion {row['name']!r}: {name} must be a whole number, got {row[name]!r}")
    if "phrases" in row:
        if not isinstance(row["phrases"], list) or not all(isinstance(phrase, str) for phrase in row["phrases"]):
            raise ValueError(f"criterion {row['name']!r}: phrases must be a list of texts (quote yes, no and numbers)")
        values["phrases"] = tuple(phrase.casefold() for phrase in row["phrases"])
    return Criterion(**values)


def _check_keys(row: Any, allowed: set[str], needed: set[str], where: str = "") -> None:
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}expected a mapping with the keys {sorted(allowed)}, got {type(row).__name__}")
    for key in row:
        if key not in allowed:
            raise ValueError(
                f"{where}unknown key {key!r}{_hint(str(key), allowed)}; allowed: {', '.join(sorted(allowed))}"
            )
    if needed - set(row):
        raise ValueError(f"{where}missing key {sorted(needed - set(row))[0]!r}")


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return float(value)


def _hint(given: str, known: Any) -> str:
    close = difflib.get_close_matches(str(given), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
