"""Rows of the matrix that stand for a router over an experiment's experts: each question has one expert's answer.

All experts answer all questions for their own rows, so that a router asks nothing more: `oracle` takes the answers of
the question's own specialty, which is what choosing the right expert gives; `learned` those of the specialty that
`answering.routing` names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Literal

from answering.live_model import LiveModel
from answering.routing import Router
from artifacts.manifest import get_text, put_text
from datamodules.batch import Example
from datamodules.hashes import data_sha256 as train_sha256
from datamodules.prompts import VERSION
from evaluation.predictions import Prediction
from evaluation.routes import SENT_TO
from evaluation.variants import Variant

if TYPE_CHECKING:
    from pathlib import Path

    from experiment.context import ExperimentContext

RouterName = Literal["oracle", "learned"]
Route = Callable[[str, Variant, str], str]
"""(specialty, variant, question's id) -> the specialty whose expert answers."""
Asked = Mapping[tuple[str, Variant], Sequence[Example]]
"""(specialty, variant) -> questions as it puts them."""
Blocks = Mapping[tuple[Variant, str, str], Sequence[Prediction]]
"""(variant, model, specialty) -> predictions."""


def routed(
    groups: Mapping[str, Mapping[str, str]], routes: Mapping[str, Route], blocks: Blocks, variants: Sequence[Variant]
) -> list[Prediction]:
    """The rows of all routers, the main way first, in the order of every row.

    Args:
        groups: experiment -> specialty -> its expert's row.
        routes: router -> what it does.
        blocks: every expert's answers, by question.
        variants: all of them, the main way first.
    """
    found: list[Prediction] = []
    for variant, (experiment, group), (name, route) in product(variants, groups.items(), routes.items()):
        for specialty in sorted(group):
            own = [
                replace(item, model=f"{experiment}/router/{name}", tags={**item.tags, SENT_TO: expert})
                for expert, row in group.items()
                for item in blocks.get((variant, row, specialty), ())
                if route(specialty, variant, item.question_id) == expert
            ]
            found += sorted(own, key=lambda item: item.question_id)
    return found


def oracle(specialty: str, variant: Variant, question_id: str) -> str:
    """The question's own specialty."""
    return specialty


def learned(
    experiment: ExperimentContext, rows: int, asked: Asked, data_sha256: Callable[[str], str], file: Path
) -> Route:
    """A router by the probe, fitted anew unless `file` holds what this one would choose.

    Args:
        experiment: knows base and data.
        rows: training questions of each specialty, the first in hash order.
        asked: all questions as they are put, which is what the probe sees.
        data_sha256: of the questions of a specialty.
        file: keeps the choices.

    Raises:
        ValueError: a specialty has no training question.
        DamagedError: the file is not as it was written.
    """
    data = {name: experiment.data(name) for name in sorted({name for name, _ in asked})}
    training = {name: one.splits.get("train", ())[:rows] for name, one in data.items()}
    if empty := [name for name, held in training.items() if not held]:
        raise ValueError(
            f"routers: {empty[0]!r} has no training question to fit the learned router on; leave `learned` out"
        )
    made_from = {
        "base": experiment.base_key,
        "prompts": VERSION,
        "rows": {name: len(held) for name, held in training.items()},
        "train": {name: train_sha256(one, "train") for name, one in data.items()},
        "asked": {name: data_sha256(name) for name in data},
        "ways": {key(*way): len(held) for way, held in asked.items()},
    }
    found = json.loads(get_text(file)) if file.exists() else {}
    if found.get("made_from") != made_from:
        with LiveModel(experiment).attached(()) as policy:
            router = Router.fitted(policy, training)
            sent = {
                key(*way): dict(zip((e.question_id for e in held), router.choose(policy, held), strict=True))
                for way, held in asked.items()
            }
        found = {"made_from": made_from, "sent_to": sent}
        put_text(file, json.dumps(found, indent=1) + "\n")
    return lambda specialty, variant, question_id: found["sent_to"][key(specialty, variant)][question_id]


def key(specialty: str, variant: Variant) -> str:
    """Of the questions of a specialty, as a variant puts them."""
    return " ".join([specialty, *(f"{name}={value}" for name, value in variant.protocol.items())])
