"""The questions of several specialties as one set: a training step takes as many of each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import accumulate, chain

from typing_extensions import override

from datamodules.base import Once, VQADataModule
from datamodules.batch import SPECIALTY, BadExampleError, Example
from datamodules.loading import WHOLE, Feed, Share, TrainingBatches, TrainingSteps, collate_questions
from datamodules.order import InTurn
from datamodules.picked import Picked


class Mixture(VQADataModule):
    """Several specialties' questions, each with its specialty as a tag and in its id.

    Their splits, options and what the model can take of them are the specialties' own.
    """

    def __init__(self, members: Mapping[str, VQADataModule], *, specialty: str, seed: int) -> None:
        """Keep the sets.

        Args:
            members: by specialty, at least one; what they share is taken from the first.
            specialty: the name under which the experiment knows the mixture.
            seed: orders the training questions.
        """
        shared = next(iter(members.values())).config
        options = {field.name: getattr(shared, field.name) for field in fields(VQADataModule.Config)}
        super().__init__(VQADataModule.Config(**options | {"root": ""}), specialty=specialty, seed=seed)
        self.members = dict(members)
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
    def training_batches(self, feed: Feed, n_steps: int | None = None, share: Share = WHOLE) -> TrainingBatches:
        """As of any set; a step has `feed.size` questions, a whole number of each specialty.

        Raises:
            BadExampleError: a set is test-only, or a specialty has fewer questions than a step takes of it.
            ValueError: rows are asked for, chosen questions, spare ones, or a number that cannot be shared out.
        """
        if feed.kind != "questions" or feed.spare or feed.questions is not None or feed.size % len(self.members):
            raise ValueError(
                f"several specialties are mixed as whole questions, as many of each: got {feed.size} {feed.kind} for "
                f"{len(self.members)} specialties, {feed.spare} spare"
            )
        self.require_training()
        sizes, each = {name: len(m.splits["train"]) for name, m in self.members.items()}, feed.size // len(self.members)
        short = [name for name, size in sizes.items() if size < each]
        if short:
            raise BadExampleError(
                f"specialty {short[0]!r}: a step takes {each} questions of each specialty, and the training split has "
                f"{sizes[short[0]]}; nothing comes twice in a step, so take fewer per step"
            )
        if feed.size < share.ranks:
            raise ValueError(f"a step takes {feed.size} questions, and there are {share.ranks} devices; take more")
        order = InTurn(sizes, each, self.seed)
        steps = TrainingSteps(self.splits["train"], collate_questions, order, share, feed.ahead)
        n_steps = -(-max(sizes.values()) // each) if n_steps is None else n_steps
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
        specialty, example = self.names[place], self.parts[place][number - self.starts[place]]
        question_id = f"{specialty}/{example.question_id}"
        return replace(example, question_id=question_id, tags={**example.tags, SPECIALTY: specialty})


def joined(parts: Mapping[str, Sequence[Example]]) -> Picked[Example]:
    """The examples of several specialties, one specialty after the other."""
    give = Joined(parts)
    return Picked(give, range(give.starts[-1]))
