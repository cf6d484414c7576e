"""Further loggers of a run, by Lightning's interface: CSV files, Weights & Biases, MLflow, or any other."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import Logger

from artifacts.ranks import is_first
from configs.build import build, import_class
from configs.problems import ConfigError, Problem
from configs.schema import Component
from experiment.context import ExperimentContext

FOLDER = "logger"
"""Of a run, for what loggers write on this machine."""


def check_loggers(context: ExperimentContext) -> None:
    """Refuse loggers that cannot be built, such as those of a package that is not installed, before anything trains.

    Raises:
        ConfigError: names each.
    """
    problems = []
    for number, component in enumerate(context.experiment.logger):
        try:
            build(component, **told(component, context, context.runs[0]))
        except Exception as error:  # of packages that are not ours, with errors of their own
            key = f"logger[{number}].class_path"
            message = f"cannot be used: {error}; install what it needs, or leave it out"
            problems.append(Problem(str(context.path), key, component.class_path, message))
    if problems:
        raise ConfigError(problems)


@contextmanager
def further_loggers(context: ExperimentContext, specialty: str) -> Iterator[Sequence[Logger]]:
    """The loggers that the settings name besides TensorBoard, which get the settings once and are closed in the end.

    Args:
        context: of the experiment.
        specialty: the run.
    """
    made = [build(one, **told(one, context, specialty)) for one in context.experiment.logger]
    try:
        for one in made:
            one.log_hyperparams(context.resolved)
        yield made
    finally:
        for one in made if is_first() else ():
            # A run of W&B stays open, and takes in the next one of the same process, until it is finished.
            finish = getattr(one.experiment, "finish", None)
            if callable(finish):
                finish()


def told(component: Component, context: ExperimentContext, specialty: str) -> dict[str, Any]:
    """Names and a folder of the run, as far as the logger asks for them and the settings do not say them."""
    name = context.experiment.name
    known = {
        "save_dir": str(context.folder.run(specialty).path / FOLDER),
        "name": f"{name}.{specialty}",
        "run_name": f"{name}.{specialty}",
        "experiment_name": name,
    }
    taken = inspect.signature(import_class(component.class_path)).parameters
    return {key: value for key, value in known.items() if key in taken and key not in component.init_args}
