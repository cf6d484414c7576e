"""What the base model of the real-input experiment learns from: findings in pictures, and reading options."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from typing_extensions import override

from datamodules.base import VQADataModule
from datamodules.batch import Example
from datamodules.dermatology import DermoscopyPairs
from datamodules.neuroradiology import BrainSlices
from datamodules.ophthalmology import FundusRegions
from datamodules.pathology import HistologyWindows
from datamodules.prompts import NEUTRAL
from guards.ranges import between

SETS = (DermoscopyPairs, BrainSlices, HistologyWindows, FundusRegions)


class RealPerceptionMixture(VQADataModule):
    """Perception and language without diagnosis, over all four real sets.

    A picture comes twice: with the question what kind of picture it is, where the reasoning states the finding ("a
    dark red band with edges") that no option gives away, and with a choice among findings; never with the diagnosis
    that the specialty asks for ("vessel"). Rows without a picture ask which option says a given text, which teaches
    the way from a conclusion to its shuffled letter. Pictures keep their patients and the sets' own split function, so
    that training sees no test patient of any specialty.
    """

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """Keep `val_fraction`, `test_fraction` and `split_seed` as the specialties have them."""

        root: str = "assets"
        """Folder that `python -m datamodules.assets` filled."""
        text_share: Annotated[float, between(0, 1, open_high=True)] = 0.4
        """Share of the rows that have no picture, in [0, 1)."""
        most_options: Annotated[int, between(2, 10)] = 4
        """Options per row, drawn from 2 to this; 2 to 10."""

    @override
    def examples(self) -> Iterator[Example]:
        pictured = [example for kind in SETS for example in kind(kind.Config(root=self.config.root)).examples()]
        findings = defaultdict(set)
        for example in pictured:
            findings[example.tags["question_type"]].add(example.tags["finding"])
        kinds = tuple(sorted({example.tags["modality"] for example in pictured}))
        every = sorted(set().union(*findings.values()))
        for example in pictured:
            own = sorted(findings[example.tags["question_type"]])
            yield self.caption_row(example, kinds)
            yield self.finding_row(example, own, every)
        words = sorted(set(every).union(*(example.options for example in pictured)))
        share = self.config.text_share
        for index in range(round(2 * len(pictured) * share / (1 - share))):
            yield self.text_row(f"says-{index:05}", words)

    def caption_row(self, example: Example, kinds: tuple[str, ...]) -> Example:
        """The same picture described: what aligns the projector, since nothing but the picture tells the words."""
        modality = example.tags["modality"]
        return replace(
            example,
            question="What kind of picture is this?",
            options=kinds,
            answer=modality,
            question_id=f"caption-{example.question_id}",
            reasoning={NEUTRAL: f"{example.tags['finding']}. It is {modality}."},
            tags={"question_type": "caption", "modality": modality},
        )

    def finding_row(self, example: Example, own: Sequence[str], every: Sequence[str]) -> Example:
        """The same picture with a choice among findings: its own, another of its kind, some of any kind."""
        draw = random.Random(f"finding:{example.question_id}")
        finding = example.tags["finding"]
        rival = draw.choice([other for other in own if other != finding])
        others = [other for other in every if other not in (finding, rival)]
        options = (finding, rival, *draw.sample(others, draw.randint(2, self.config.most_options) - 2))
        return replace(
            example,
            question="What does the picture show?",
            options=options,
            answer=finding,
            question_id=f"finding-{example.question_id}",
            reasoning={NEUTRAL: f"{finding}."},
            tags={"question_type": "finding", "modality": example.tags["modality"]},
        )

    def text_row(self, key: str, words: Sequence[str]) -> Example:
        """A question that only needs reading."""
        draw = random.Random(key)
        options = tuple(draw.sample(words, draw.randint(2, self.config.most_options)))
        return Example(
            patient_id=key,
            images=(),
            question=f"Which option says {options[0]}?",
            options=options,
            answer=options[0],
            question_id=key,
            reasoning={NEUTRAL: f"it says {options[0]}."},
            tags={"question_type": "says", "modality": "text"},
        )
