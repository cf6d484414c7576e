"""The questions behind the answers of an experiment: its data sets made again from what its folder remembers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from configs.build import build, import_class
from configs.schema import Component
from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError, Example
from evaluation.predictions import Prediction
from evaluation.report.questions import change


def sets_of(experiment: Path, trust: Sequence[str] = ()) -> dict[str, VQADataModule]:
    """The data sets of an experiment by specialty; nothing is read of them yet.

    Args:
        experiment: its folder, its `evaluation` folder, or its file of predictions.
        trust: packages besides this project's whose classes may be named there.

    Raises:
        ValueError: the folder does not say what was asked, or names a class that is not trusted.
    """
    folder = experiment.parent if experiment.suffix == ".jsonl" else experiment
    file = (folder.parent if folder.name == "evaluation" else folder) / "experiment.json"
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        seed = int(held.get("seed", 0))
        components = {name: Component(one["class_path"], one["init_args"]) for name, one in held["specialties"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file}: does not say which data sets were asked ({type(error).__name__}: {error}); name the folder of an "
            "experiment as `train.py` leaves it"
        ) from error
    for name, one in components.items():
        try:
            import_class(one.class_path, trust)
        except ImportError as error:
            raise ValueError(f"{file}: specialties.{name}: {error}") from error
    return {name: build(one, specialty=name, seed=seed) for name, one in components.items()}


def questions_of(data: VQADataModule, answers: Iterable[Prediction]) -> dict[str, Example]:
    """Question id -> the question, of all that are answered.

    Args:
        data: that they were taken from.
        answers: to them.

    Raises:
        BadExampleError: the set lacks a question, or has another in its place.
    """
    told = ("question_id", "options", "answer_letter", "answer", "guideline", "prompt_sha256")
    wanted: Mapping[tuple, Prediction] = {tuple(getattr(item, name) for name in told): item for item in answers}
    ids = {item.question_id for item in wanted.values()}
    found = {one.question_id: one for one in chain.from_iterable(data.splits.values()) if one.question_id in ids}
    for item in wanted.values():
        example = found.get(item.question_id)
        if example is None or (changed := change(example, item)):
            has = "the data set lacks it" if example is None else changed
            raise BadExampleError(
                f"specialty {data.specialty!r}: question {item.question_id!r} is not there as it was answered: {has}; "
                "were the data changed since, or has the set other options (n_patients, data_seed, difficulty, …)?"
            )
    return found
