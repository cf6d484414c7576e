"""What an experiment's model can take of its data, known before any weights load; see `datamodules.sight`."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from artifacts.base_files import is_base_complete
from callbacks.experiment_callback import ExperimentCallback
from configs.build import build, config_of, import_class
from datamodules.batch import AnswerStyle, Example
from datamodules.hashes import contents_key
from datamodules.loading import Demand
from datamodules.memory import recall, remember, stamp
from datamodules.prompts import NEUTRAL
from datamodules.sight import Sight
from lightning_modules.families.base import VisionLanguageFamily

if TYPE_CHECKING:
    from experiment.context import ExperimentContext

_outlines: dict[str, VisionLanguageFamily] = {}
"""The newest outline by its model's settings; experiments of a lineage share it."""


@dataclass(kw_only=True)
class KeptSight(Sight):
    """A sight that does not look again, in whatever process, while model, rows, pictures and code stay the same."""

    memory: Path | None
    """As of `VQADataModule.memory`."""
    named: str
    """Tells the model from others: its settings, its files, and the code that reads them."""

    @override
    def unfit(self, split: str, examples: Sequence[Example], answer_with: AnswerStyle) -> dict[str, str]:
        demand = self.demands.get(split, Demand())
        traces = None if demand.traces is None else sorted(demand.traces)
        about = (self.named, repr((demand.instructions, demand.new_tokens, traces, answer_with)))
        key, changed = contents_key(("sight", *about), examples, missing=True)
        found = recall(self.memory, key)
        if found is None:
            found = super().unfit(split, examples, answer_with)
            remember(self.memory, key, found, changed)
        return found


def sight_of(context: ExperimentContext, memory: Path | None, *, replayed: bool = False) -> Sight:
    """The experiment's model, and how the questions of each split are put to it.

    Args:
        context: of the experiment.
        memory: as of `KeptSight`.
        replayed: of a set of which rows are mixed in, whose neutral traces are learnt too.
    """
    model = context.experiment.model
    code = hashlib.sha256(Path(inspect.getfile(import_class(model.class_path))).read_bytes()).hexdigest()
    named = f"{code} {json.dumps(context.resolved['model'], sort_keys=True)} {model_files(context)}"
    asked = demands(context)
    if replayed and "train" in asked:
        asked = {**asked, "train": asked["train"].joined(Demand(traces=frozenset({NEUTRAL})))}
    return KeptSight(partial(outline, context), asked, memory=memory, named=named)


def model_files(context: ExperimentContext) -> list[bytes]:
    """What tells that the files which the model is read from are the same: another model may lie at the same path."""
    named = [Path(value) for value in context.experiment.model.init_args.values() if isinstance(value, str) and value]
    places = named if context.base_folder is None else [*named, context.base_folder]
    files = [file for place in places for file in (place.iterdir() if place.is_dir() else [place]) if file.is_file()]
    return [stamp(file)[0] for file in sorted(files)]


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
