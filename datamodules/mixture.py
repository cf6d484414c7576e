"""The questions of several specialties as one set: a step takes as many of each, or one comes after another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import chain

from typing_extensions import override

from datamodules.base import Once, VQADataModule
from datamodules.batch import SPECIALTY, BadExampleError, Example
from datamodules.loading import WHOLE, Feed, Share, TrainingBatches, TrainingSteps, collate_questions, collate_rows
from datamodules.order import InTurn, OneAfterAnother
from datamodules.picked import Item, Picked, joined


class Mixture(VQADataModule):
    """Several specialties' questions, each with its specialty as a tag and in its id.

    Their splits, options and what the model can take of them are the specialties' own.
    """

    def __init__(self, members: Mapping[str, VQADataModule], *, specialty: str, seed: int, sequence: int = 0) -> None:
        """Keep the sets.

        Args:
            members: by specialty, at least one; what they share is taken from the first.
            specialty: the name under which the experiment knows the mixture.
            seed: orders the training questions.
            sequence: steps in which training takes one specialty after the other; 0 mixes them.
        """
        shared = next(iter(members.values())).config
        options = {field.name: getattr(shared, field.name) for field in fields(VQADataModule.Config)}
        super().__init__(VQADataModule.Config(**options | {"root": ""}), specialty=specialty, seed=seed)
        self.members, self.sequence = dict(members), sequence
        self.memory = next(iter(members.values())).memory

    @override
    def examples(self) -> Iterator[Example]:
        yield from chain.from_iterable(self.splits.values())

    @Once
    def splits(self) -> dict[str, Picked[Example]]:
        """Split name -> examples of all specialties, one specialty after the other."""
        found = {name: member.splits for name, member in self.members.items()}
        return {
            split: mixed({name: held[split] for name, held in found.items()}, told)
            for split in ("train", "val", "test")
        }

    @override
    def require_training(self) -> None:
        for member in self.members.values():
            member.require_training()

    @override
    def val_examples(self) -> Picked[Example]:
        return mixed({name: member.val_examples() for name, member in self.members.items()}, told)

    @override
    def rows(self, guidelines: Collection[str] | None = None) -> Sequence[tuple[Example, str, str]]:
        return mixed({name: member.rows(guidelines) for name, member in self.members.items()}, told_row)

    @override
    def plainly(self, example: Example, guideline: str) -> bool:
        name = example.tags[SPECIALTY]
        own = replace(example, question_id=example.question_id.removeprefix(f"{name}/"))
        return self.members[name].plainly(own, guideline)

    def require_mixing(self, feed: Feed, ranks: int = 1) -> int:
        """What a step takes of each specialty that is in it.

        Raises:
            BadExampleError: a set is test-only, or a specialty has fewer items than a step takes of it.
            ValueError: chosen or spare items are asked for, or a number that cannot be shared out; or specialties
                whose answers are written in different ways.
        """
        if feed.spare or feed.questions is not None:
            raise ValueError(
                "where one run is over several specialties, no questions are chosen by pass rate or asked in place of "
                "others; leave pass_rate, curriculum and dynamic_share as they are by default"
            )
        size, sets = feed.size or self.config.batch_size, 1 if self.sequence else len(self.members)
        if size % sets:
            key = "data.batch_size" if feed.kind == "rows" else "questions per step"
            raise ValueError(f"a step takes as many {feed.kind} of each of {sets} specialties: {key} is {size}")
        if size < ranks:
            raise ValueError(f"a step takes {size} {feed.kind}, and there are {ranks} devices; take more")
        ways = {name: member.config.answer_with for name, member in self.members.items()}
        if feed.kind == "rows" and len(set(ways.values())) > 1:
            raise ValueError(f"one run teaches one way to answer; data.answer_with differs: {ways}")
        self.require_training()
        return size // sets

    @override
    def training_batches(self, feed: Feed, n_steps: int | None = None, share: Share = WHOLE) -> TrainingBatches:
        """As of any set; errors also of `require_mixing`."""
        each, rows = self.require_mixing(feed, share.ranks), feed.kind == "rows"
        parts = {
            name: member.rows(feed.guidelines) if rows else member.splits["train"]
            for name, member in self.members.items()
        }
        sizes = {name: len(part) for name, part in parts.items()}
        if short := [name for name, size in sizes.items() if size < each]:
            raise BadExampleError(
                f"specialty {short[0]!r}: a step takes {each} {feed.kind} of each specialty, and the training "
                f"split has {sizes[short[0]]}; nothing comes twice in a step, so take fewer per step"
            )
        if self.sequence:
            order: InTurn | OneAfterAnother = OneAfterAnother(sizes, each, self.seed, self.sequence)
            n_steps = self.sequence if n_steps is None else n_steps
        else:
            order = InTurn(sizes, each, self.seed)
            n_steps = -(-max(sizes.values()) // each) if n_steps is None else n_steps
        items, collate = (mixed(parts, told_row), collate_rows) if rows else (self.splits["train"], collate_questions)
        steps = TrainingSteps(items, collate, order, share, feed.ahead)
        return TrainingBatches(steps, n_steps, read_picture=feed.read_picture, num_workers=self.config.num_workers)


def told(specialty: str, example: Example) -> Example:
    """An example, told from those of other specialties."""
    question_id = f"{specialty}/{example.question_id}"
    return replace(example, question_id=question_id, tags={**example.tags, SPECIALTY: specialty})


def told_row(specialty: str, row: tuple[Example, str, str]) -> tuple[Example, str, str]:
    """A row, told from those of other specialties."""
    example, guideline, text = row
    return told(specialty, example), guideline, text


def mixed(parts: Mapping[str, Sequence[Item]], telling: Callable[[str, Item], Item]) -> Picked[Item]:
    """The items of several specialties, one specialty after the other, each told from the others' when asked for."""
    return joined([Picked(partial(at, part, partial(telling, name)), range(len(part))) for name, part in parts.items()])


def at(items: Sequence[Item], telling: Callable[[Item], Item], number: int) -> Item:
    """The item of a number, told."""
    return telling(items[number])
