"""What a run is given: optimiser steps, and rollouts where it makes any. Arms that are given alike can be compared."""

from __future__ import annotations

from collections.abc import Iterable

from configs.build import config_of
from experiment.lineage import steps_of
from experiment.sweep.runs import Run
from lightning_modules.layout import layout_of


def steps(run: Run) -> int:
    """Optimiser steps of each of a run's specialties."""
    return steps_of(run.loaded.resolved) if run.loaded.experiment.module else 0


def rollouts(run: Run) -> int:
    """Rollouts of each of a run's specialties, further rounds for informative groups left out; 0 where none is made."""
    module = run.loaded.experiment.module
    config = None if module is None else config_of(module)
    if not hasattr(config, "rollouts_per_guideline"):
        return 0
    size = layout_of(tuple(config.guidelines), config.rollouts_per_guideline, config.neutral_share).size
    return steps(run) * config.questions_per_step * size


def given(made: Iterable[Run]) -> dict[str, int]:
    """Steps and rollouts of some runs together."""
    held = list(made)
    return {"optimiser steps": sum(map(steps, held)), "rollouts": sum(map(rollouts, held))}
