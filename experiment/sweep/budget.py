"""What an arm is given: optimiser steps, and rollouts where it makes any. Arms that are given alike can be compared."""

from __future__ import annotations

from collections.abc import Iterable

from configs.build import config_of
from experiment.lineage import steps_of
from experiment.run import assemble
from experiment.sweep.runs import Run
from lightning_modules.distillation_settings import IntegrationSettings
from lightning_modules.layout import layout_of
from lightning_modules.rl_settings import RLSettings


def given(made: Iterable[Run]) -> dict[str, int]:
    """Steps and rollouts of some commands together; what they stand on is not counted."""
    held = list(map(given_to, made))
    return {"optimiser steps": sum(steps for steps, _ in held), "rollouts": sum(rollouts for _, rollouts in held)}


def given_to(run: Run) -> tuple[int, int]:
    """(optimiser steps, rollouts) of all specialties of a command: those of its runs, be it one of each or one for all.

    Left out are further rounds for informative groups, and what teachers answer for a gate.
    """
    experiment, context = run.loaded.experiment, assemble(run.loaded)
    if experiment.module is None:
        return 0, 0
    config, steps, made, written = config_of(experiment.module), steps_of(run.loaded.resolved), len(context.runs), 0
    if isinstance(config, RLSettings):
        size = layout_of(tuple(config.guidelines), config.rollouts_per_guideline, config.neutral_share).size
        batches = -(-steps // (config.minibatches * config.updates_per_rollout))  # one serves so many steps
        written = batches * config.questions_per_step * size
    elif isinstance(config, IntegrationSettings):
        written = steps * config.questions_per_specialty * config.rollouts_per_question * len(context.specialties)
    return made * steps, made * written
