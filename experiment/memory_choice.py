"""Settings under which a run fits its device, chosen before its weights are loaded and kept with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from artifacts.durable import write_text
from artifacts.ranks import is_first
from configs.schema import Component
from experiment.context import ExperimentContext
from experiment.memory_of_run import MemoryOfRun
from experiment.memory_table import can_be_estimated, fitting_here

FILE = "memory.json"
"""In a run's folder: the module's arguments that were chosen; empty where those asked for fit."""


def within_memory(context: ExperimentContext, specialty: str, folder: Path | None = None) -> ExperimentContext:
    """The same experiment, with `fit.memory=auto` under settings that fit.

    Only such are changed as change no result beyond rounding. A run goes on with what it began with, on any device.

    Args:
        context: of the experiment.
        specialty: whose run it is.
        folder: of the run, where the choice is kept; None asks anew and keeps nothing.

    Raises:
        ConfigError: no such setting makes it fit.
    """
    experiment = context.experiment
    if experiment.fit.memory != "auto" or not can_be_estimated(context):
        return context
    if folder is not None and (folder / FILE).exists():
        chosen = json.loads((folder / FILE).read_text())
    else:
        run = MemoryOfRun(context, specialty)
        chosen = run.arguments(fitting_here(run))
        if folder is not None and is_first():
            write_text(folder / FILE, json.dumps(chosen, indent=2) + "\n")
    module = Component(experiment.module.class_path, {**experiment.module.init_args, **chosen})
    return replace(context, experiment=replace(experiment, module=module))
