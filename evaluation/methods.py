"""Methods: one model over several seeds, read from one experiment per seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

from evaluation.systems import System, answer_alike


@dataclass(frozen=True)
class Method:
    """One model over several seeds: the same row of each experiment.

    Attributes:
        name: unique in a comparison.
        model: row name in each experiment.
        runs: one per seed, at least one.
    """

    name: str
    model: str
    runs: tuple[System, ...]


def methods_of(systems: Sequence[System], paths: Sequence[Path], label: str) -> list[Method]:
    """Put the same model of all experiments together.

    Args:
        systems: of the experiments of one method, as of `evaluation.systems.load_systems`.
        paths: of the experiments.
        label: put before the model's name, such as that of the experiments; empty for none.

    Raises:
        ValueError: a model is missing in an experiment.
    """
    found: dict[str, list[System]] = {}
    for system in systems:
        found.setdefault(system.model, []).append(system)
    for model, runs in found.items():
        if missing := [str(path) for i, path in enumerate(paths) if i not in {run.folder for run in runs}]:
            raise ValueError(
                f"model {model!r} is missing in {', '.join(missing)}, and there in {len(runs)} of {len(paths)}; "
                "evaluate it everywhere, or leave it out by --models"
            )
    return [Method(f"{label}:{model}" if label else model, model, tuple(runs)) for model, runs in found.items()]


def labels_of(first: Sequence[Path], second: Sequence[Path]) -> tuple[str, str]:
    """Short names for two methods: what the paths of each have in common, its end or its folder."""
    for name in (_last, _shared):
        labels = name(first), name(second)
        if all(labels) and labels[0] != labels[1]:
            return labels
    return "first", "second"


def _last(paths: Sequence[Path]) -> str:
    names = {path.name for path in paths if path.name != "evaluation"}
    return names.pop() if len(names) == 1 else ""


def _shared(paths: Sequence[Path]) -> str:
    return Path(commonpath([path.absolute() for path in paths])).name


def method_pairs(
    first: Sequence[Method], second: Sequence[Method], baseline: str | None = None
) -> list[tuple[Method, Method]]:
    """Which method is compared with which: a model with its namesake, the only with the only, or all with a baseline.

    Raises:
        ValueError: nothing is left to compare.
    """
    if baseline is not None:
        chosen = next((m for m in first if baseline in (m.name, m.model)), None)
        pairs = [(chosen, other) for other in second if other.name != chosen.name] if chosen else []
    elif len(first) == len(second) == 1:
        pairs = [(first[0], second[0])]
    else:
        by_model = {method.model: method for method in first}
        pairs = [(by_model[other.model], other) for other in second if other.model in by_model]
    if not pairs:
        among = ", ".join(dict.fromkeys(method.name for method in (*first, *second)))
        wanted = f"with baseline {baseline!r} " if baseline is not None else ""
        raise ValueError(f"nothing to compare {wanted}among {among}; choose by --models and --baseline")
    return pairs


def same_answers(first: Method, second: Method) -> bool:
    """Whether two methods gave the very same completions, seed by seed: a stage that both share."""
    pairs = zip(first.runs, second.runs, strict=False)
    return len(first.runs) == len(second.runs) and all(answer_alike(*pair) for pair in pairs)
