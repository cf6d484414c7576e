"""The memory estimate of a run beside the measured peak, where this commit has an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, util
from types import ModuleType
from typing import Any

from benchmarks import work
from benchmarks.gpu import made
from benchmarks.gpu.lines import SkipError
from benchmarks.gpu.sizes import GIB, Size
from lightning_modules.rollouts import Rollouts

ESTIMATE = "lightning_modules.memory.estimate"


@dataclass(frozen=True)
class Shapes:
    """What one part held at its fullest.

    Attributes:
        peak_gib: as measured.
        checkpoint: whether layers were computed again.
        piece: fields of the estimate's micro-batch.
        decoding: fields of the estimate's rollouts, or None where there were none.
    """

    peak_gib: float
    checkpoint: bool
    piece: Mapping[str, int]
    decoding: Mapping[str, int] | None = None


def estimator() -> ModuleType:
    """The module that estimates.

    Raises:
        SkipError: it is missing.
    """
    package = ESTIMATE.rpartition(".")[0]
    if util.find_spec(package) is None or util.find_spec(ESTIMATE) is None:
        raise SkipError(f"this commit has no {ESTIMATE}")
    return import_module(ESTIMATE)


def piece_of(rollouts: Rollouts, tokens: int) -> dict[str, int]:
    """The largest micro-batch of a step, its questions' rows taken as equally long."""
    pieces = list(rollouts.micro_batches(range(len(rollouts.completions)), tokens))
    rows = max(pieces, key=lambda piece: rollouts.packed_tokens(piece, False))
    shared = rollouts.prompt(rows[0]).shared
    tails = [len(rollouts.prompt(row).ids) - rollouts.prompt(row).shared for row in rows]
    scored = max(len(completion) for completion in rollouts.ids(rows))
    prompts = len({row // rollouts.layout.size for row in rows})
    return {
        "prompts": prompts,
        "prompt": shared,
        "rows": len(rows),
        "row": sum(tails) // len(rows) + scored - 1,
        "scored": scored,
    }


def beside_measured(size: Size, parts: Mapping[str, Shapes], device: str) -> dict[str, Any]:
    """Estimated and measured GiB of each part, and their ratio.

    A processor's peak is that of the whole process, libraries and all that came before: there the ratio says nothing.
    """
    module, found = estimator(), {}
    for name, shapes in parts.items():
        family = made.SizedFamily(made.SizedFamily.Config(size), outline=True)
        model = module.ShapedModel(family, [work.RANK], low=size.dtype == "bfloat16", packed=False)
        held = model.weights + model.adapters
        step = model.moments("adamw") + model.gradients
        step += model.activations(module.Piece(**shapes.piece), checkpoint_layers=shapes.checkpoint)
        writing = model.decoding(module.RolloutShape(**shapes.decoding)) if shapes.decoding else 0
        estimated = (held + max(step, writing)) / GIB
        found[name] = {"estimated_gib": round(estimated, 3), "measured_gib": shapes.peak_gib}
        found[name]["ratio"] = round(estimated / shapes.peak_gib, 4)
    if not found:
        raise SkipError("no step was measured to compare with")
    return {"parts": found, "of_a_card": device == "cuda"}
