"""The questions of several specialties as one set: a step takes as many of each, or one comes after another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import accumulate, chain
from typing import Any

from typing_extensions import override

from datamodules.base import Once, VQADataModule
from datamodules.batch import SPECIALTY, BadExampleError, Example
from datamodules.loading import WHOLE, Feed, Share, TrainingBatches, TrainingSteps, collate_questions, collate_rows
from datamodules.order import InTurn, OneAfterAnother
from datamodules.picked import Picked


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
            split: joined({name: held[split] for name, held in found.items()}) for split in ("train", "val", "test")
        }

    @override
    def require_training(self) -> None:
        for member in self.members.values():
            member.require_training()

    @override
    def val_examples(self) -> Picked[Example]:
        return joined({name: member.val_examples() for name, member in self.members.items()})

    @override
    def rows(self, guidelines: Collection[str] | None = None) -> Sequence[tuple[Example, str, str]]:
        return MixedRows({name: member.rows(guidelines) for name, member in self.members.items()})

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
        items, collate = (MixedRows(parts), collate_rows) if rows else (self.splits["train"], collate_questions)
        steps = TrainingSteps(items, collate, order, share, feed.ahead)
        return TrainingBatches(steps, n_steps, read_picture=feed.read_picture, num_workers=self.config.num_workers)


class Joined:
    """The examples of several specialties by number, counted through all of them."""

    def __init__(self, parts: Mapping[str, Sequence[Example]]) -> None:
        """Keep them, by specialty."""
        self.names, self.parts = list(parts), list(parts.values())
        self.starts = [0, *accumulate(map(len, self.parts))]

    def __call__(self, number: int) -> Example:
        """The example of a number, told from those of the other specialties."""
        place = bisect_right(self.starts, number) - 1
        return told(self.names[place], self.parts[place][number - self.starts[place]])


class MixedRows(Sequence[tuple[Example, str, str]]):
    """Rows of several specialties, one specialty after the other, each told from the others'."""

    def __init__(self, parts: Mapping[str, Sequence[tuple[Example, str, str]]]) -> None:
        """Keep them, by specialty."""
        self.names, self.parts = list(parts), list(parts.values())
        self.ends = list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        part = bisect_right(self.ends, at)
        example, guideline, text = self.parts[part][at - self.ends[part]]
        return told(self.names[part], example), guideline, text


def told(specialty: str, example: Example) -> Example:
    """An example, told from those of other specialties."""
    question_id = f"{specialty}/{example.question_id}"
    return replace(example, question_id=question_id, tags={**example.tags, SPECIALTY: specialty})


def joined(parts: Mapping[str, Sequence[Example]]) -> Picked[Example]:
    """The examples of several specialties, one specialty after the other."""
    give = Joined(parts)
    return Picked(give, range(give.starts[-1]))
