"""Lessons for a judge that writes its verdicts: the message of a pair, and the right reply beside a wrong one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from typing_extensions import override

from configs.build import build
from configs.schema import Component, Slot
from datamodules.base import VQADataModule, uniform_hash
from datamodules.batch import Example
from datamodules.check.audit import normal_text
from datamodules.graded import DIMENSIONS, Graded, graded
from datamodules.prompts import NEUTRAL, question_text
from judging.cases import SIDES, other
from judging.messages import instruction, message

WRONG = 0.5
"""Share of the verdicts that the wrong reply turns round, at least one."""


class VerdictLessons(VQADataModule):
    """Every pair of a set as the message that `pair` mode shows, in both orders.

    `SFTLoRA` imitates the right reply; `DPO` prefers it to the wrong one. The message is that of `python -m judging`
    without thinking, so that the judge is examined in the words that it learnt, and its reply is read by the same
    readings. On a dimension on which the answers are equal a letter is drawn: no draw is allowed, and either will do.
    Made answers are few in kind, so that two patients may come to one message: such a one is not trained on where it
    is examined.
    """

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """Which pairs."""

        pairs: Annotated[Component, Slot("datamodules.base.VQADataModule")] = field(
            default_factory=lambda: Component("datamodules.phantoms.pairs.PhantomPairs")
        )
        """A set of graded answers, two to each question, with its own options; its splits are kept."""
        shuffle_options: bool = False
        """There are none; those of the question stand in the message."""

    @override
    def examples(self) -> Iterator[Example]:
        for _, example in self.placed():
            yield example

    @override
    def placed(self) -> Iterator[tuple[str, Example]]:
        splits = build(self.config.pairs, specialty=self.specialty).splits
        examined = {
            normal_text(one.question) for split, held in splits.items() if split != "train" for one in lessons(held)
        }
        for split, held in splits.items():
            for one in lessons(held):
                if split != "train" or normal_text(one.question) not in examined:
                    yield split, one

    @override
    def expected_splits(self) -> Collection[str]:
        return ["train"]

    @override
    def rows(self, guidelines: Collection[str] | None = None) -> Sequence[tuple[Example, str, str]]:
        return [(example, NEUTRAL, example.answers[0]) for example in self.splits["train"]]

    @override
    def val_examples(self) -> Sequence[Example]:
        """None: a reply is no answer that the reading of answers knows. `python -m judging` examines the judge."""
        return ()


def lessons(pairs: Iterable[Example]) -> Iterator[Graded]:
    """The lessons of some pairs, in both orders; raises as `datamodules.graded.graded`."""
    for pair in graded(pairs, DIMENSIONS):
        for order, shown in (("given", pair), ("swapped", pair.swapped)):
            yield lesson(shown, order)


def lesson(pair: Graded, order: str) -> Graded:
    """A pair's message with the right reply, and a wrong one that differs in some decided verdicts."""
    winners = {name: pair.winner(name) for name in DIMENSIONS}
    own = f"{pair.question_id} {order}"
    right = {
        name: SIDES[uniform_hash("even", own, name) < 0.5 if winner is None else winner]
        for name, winner in winners.items()
    }
    decided = [name for name, winner in winners.items() if winner is not None] or list(DIMENSIONS)
    ranked = sorted(decided, key=lambda name: uniform_hash("wrong", own, name))
    turned = set(ranked[: max(1, round(WRONG * len(ranked)))])
    wrong = {name: other(side) if name in turned else side for name, side in right.items()}
    replies = tuple(json.dumps(one) for one in (right, wrong))
    return Graded(
        patient_id=pair.patient_id,
        images=pair.images,
        question=message(instruction("pair"), question_text(pair), pair.answers, "pair"),
        options=(),
        answer=replies[0],
        question_id=f"{pair.question_id}/{order}",
        tags=dict(pair.tags),
        answers=replies,
        grades={"overall": (1.0, 0.0)},
    )
