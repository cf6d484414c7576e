"""What an experiment's model can take of its data, known before any weights load; see `datamodules.sight`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from artifacts.base_files import is_base_complete
from callbacks.experiment_callback import ExperimentCallback
from configs.build import build, config_of, import_class
from datamodules.loading import Demand
from datamodules.sight import Sight
from lightning_modules.families.base import VisionLanguageFamily

if TYPE_CHECKING:
    from experiment.context import ExperimentContext

_outlines: dict[str, VisionLanguageFamily] = {}
"""The newest outline by its model's settings; experiments of a lineage share it."""


def sight_of(context: ExperimentContext) -> Sight:
    """The experiment's model, and how the questions of each split are put to it."""
    return Sight(partial(outline, context), demands(context))


def outline(context: ExperimentContext) -> VisionLanguageFamily:
    """The model without its weights: enough to write prompts and to know which pictures it takes."""
    base = context.base_folder
    trained = base if base is not None and is_base_complete(base) else None
    key = f"{json.dumps(context.resolved['model'], sort_keys=True)} {trained}"
    if key not in _outlines:
        _outlines.clear()
        _outlines[key] = build(context.experiment.model, weights=trained, outline=True)
    return _outlines[key]


def demands(context: ExperimentContext) -> Mapping[str, Demand]:
    """Split -> all that the experiment does with its questions: training, validation, and what callbacks ask."""
    experiment, found = context.experiment, {}
    if experiment.module is not None:
        train = import_class(experiment.module.class_path).demand(config_of(experiment.module))
        found = {"train": train, "val": Demand(("",), experiment.fit.val_max_new_tokens, train.traces)}
    for callback in context.callbacks():
        for split, demand in callback.demands().items() if isinstance(callback, ExperimentCallback) else ():
            found[split] = found[split].joined(demand) if split in found else demand
    return found
