"""Batches for training and for examination, whole or one device's share of them."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, Literal

from datamodules.batch import AnswerStyle, Batch, Example
from datamodules.order import EndlessOrder, InTurn, OneAfterAnother
from datamodules.picked import Picked
from datamodules.picture_workers import ReadPicture, read_ahead
from datamodules.prompts import NEUTRAL


@dataclass(frozen=True)
class Feed:
    """What training takes from a data set."""

    kind: Literal["rows", "questions"]
    """`rows` to imitate, or `questions` to roll out."""
    size: int = 0
    """Items per step over all devices; 0 takes the data set's `batch_size`."""
    guidelines: frozenset[str] | None = None
    """Whose traces make rows; None takes all."""
    spare: int = 0
    """Further distinct questions per step over all devices, for dynamic sampling; at least 0."""
    questions: tuple[str, ...] | None = None
    """Ids of the questions to take; None takes the whole training split. Only for `questions`."""
    in_order: bool = False
    """Take `questions` in the order given, epoch after epoch, instead of a drawn one."""
    ahead: int = 0
    """Steps after a batch's own whose `questions` it shows too, at least 0."""
    read_picture: ReadPicture | None = None
    """Decodes and preprocesses a picture in the loader's workers; without workers nothing is read ahead."""


@dataclass(frozen=True)
class Demand:
    """How the questions of a split are put to a model, as far as lengths go."""

    instructions: tuple[str, ...] = ("",)
    """That may end a prompt; empty for the neutral one."""
    new_tokens: int = 0
    """That may follow a prompt, at most."""
    traces: frozenset[str] | None = frozenset()
    """Guidelines whose traces may follow it instead; None takes all."""

    def joined(self, other: Demand) -> Demand:
        """Of two uses of one split."""
        return Demand(
            tuple(dict.fromkeys((*self.instructions, *other.instructions))),
            max(self.new_tokens, other.new_tokens),
            None if self.traces is None or other.traces is None else self.traces | other.traces,
        )


@dataclass(frozen=True)
class Share:
    """One device's part of what all devices take together."""

    rank: int = 0
    """r, of this device; in [0, ranks)."""
    ranks: int = 1
    """N, devices."""

    def of(self, items: Sequence) -> Sequence:
        """Items r::N: together the shares are the whole, and they differ by one item at most."""
        return items[self.rank :: self.ranks]


WHOLE = Share()
"""All of it: there is one device."""


class Rows(Sequence[tuple[Example, str, str]]):
    """Rows (example, guideline, completion), each written when it is asked for: eight bytes an example are held.

    Every worked trace comes once under its own instruction and once under the neutral one, so that the expert answers
    without an instruction too; a neutral trace comes once. A set may keep traces from the neutral prompt.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        guidelines: Collection[str] | None,
        answer_with: AnswerStyle,
        plainly: Callable[[Example, str], bool],
    ) -> None:
        """Count the rows.

        Args:
            examples: in order.
            guidelines: whose traces are taken; None takes all.
            answer_with: what an answer block holds.
            plainly: whether an example's trace of a guideline also comes under the neutral prompt.
        """
        self.examples, self.guidelines, self.answer_with, self.plainly = examples, guidelines, answer_with, plainly
        self.ends = array("Q", accumulate(len(self.prompts(example)) for example in examples))

    def prompts(self, example: Example) -> list[tuple[str, str]]:
        """(instruction, guideline of the trace) of each row that an example makes."""
        found = []
        for name in example.reasoning:
            if self.guidelines is None or name in self.guidelines:
                found += [(name, name)] if name != NEUTRAL else []
                found += [(NEUTRAL, name)] if name == NEUTRAL or self.plainly(example, name) else []
        return found

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        place = bisect_right(self.ends, row)
        example = self.examples[place]
        instruction, guideline = self.prompts(example)[row - (self.ends[place - 1] if place else 0)]
        return example, instruction, example.trace(guideline, self.answer_with)


@dataclass(frozen=True)
class TrainingSteps:
    """The batch of any step, as a function of (seed, step, rank, number of ranks) alone.

    Spares stand on every device: which of them are asked, and where, follows from what all devices found.
    """

    items: Sequence[Any]
    """Rows or questions."""
    collate: Callable[[Sequence], Batch]
    """Makes a batch of them."""
    order: EndlessOrder | InTurn | OneAfterAnother
    share: Share = WHOLE
    ahead: int = 0
    """See `Feed`."""

    def __call__(self, step: int) -> Batch:
        """This device's batch."""
        batch = self._batch(self.share.of(self.order.step(step)), step)
        if self.ahead:
            later = (self.share.of(self.order.step(step + 1 + number)) for number in range(self.ahead))
            batch = replace(batch, ahead=tuple(self.items[index] for indices in later for index in indices))
        return replace(batch, spares=self._batch(self.order.spares(step), step)) if self.order.spare else batch

    def _batch(self, indices: Sequence[int], step: int) -> Batch:
        return replace(self.collate([self.items[index] for index in indices]), step=step)


class Batches:
    """Batches in order, with their pictures where workers read these.

    With workers `Batch.pictures` is filled. Without, it is empty and the policy reads what it does not hold yet, when
    it comes to it. `Batch.spares` never carry pictures: few are asked, and a broken picture that nobody looks at must
    not end a run.
    """

    def __init__(
        self,
        batch_of: Callable[[int], Batch],
        n_steps: int,
        *,
        read_picture: ReadPicture | None = None,
        num_workers: int = 0,
    ) -> None:
        """Keep what makes the batches; nothing is read before the first one.

        Args:
            batch_of: the batch of a step; with workers it is sent to them.
            n_steps: batches in all.
            read_picture: see `Feed`.
            num_workers: processes that read pictures; at least 0.
        """
        self.batch_of, self.n_steps = batch_of, n_steps
        self.read_picture, self.num_workers = read_picture, num_workers

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(range(self.n_steps))

    def batches(self, steps: range) -> Iterator[Batch]:
        """The batches of some steps."""
        if self.read_picture is None or self.num_workers == 0 or not steps:
            yield from map(self.batch_of, steps)
            return
        read = read_ahead(self.batch_of, steps, self.read_picture, min(self.num_workers, len(steps)))
        try:
            for step, pictures in zip(steps, read, strict=True):
                yield replace(self.batch_of(step), pictures=pictures)
        finally:
            read.close()


class TrainingBatches(Batches):
    """Batches of an endless stream, `len` of them per pass; a resumed run goes on after the ones that were used."""

    step = 0

    def __iter__(self) -> Iterator[Batch]:
        end = self.n_steps * (self.step // self.n_steps + 1)
        for batch in self.batches(range(self.step, end)):
            self.step = batch.step + 1  # before the yield: a checkpoint taken while the batch is in use counts it
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches used, however many were read ahead; Lightning stores this in checkpoints."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches that were used."""
        self.step = state["step"]


def question_batches(examples: Sequence[Example], size: int, share: Share) -> Picked[Batch]:
    """Questions in their order, each on one device and once.

    Nothing is padded: the last batch may be shorter, or empty, than on another device. All have as many batches, for
    what comes after the last one they do together.

    Args:
        examples: questions.
        size: questions per batch over all devices.
        share: this device's part.
    """
    own, each = share.of(examples), -(-size // share.ranks)
    most = -(-len(examples) // share.ranks)
    return Picked(partial(question_batch, own, each), range(-(-most // each)))


def question_batch(examples: Sequence[Example], size: int, step: int) -> Batch:
    """The questions of a step, in order."""
    return Batch(tuple(examples[step * size : (step + 1) * size]), step=step)


def collate_rows(rows: Sequence[tuple[Example, str, str]]) -> Batch:
    """Transpose (example, guideline, completion) rows into a batch."""
    return Batch(*zip(*rows, strict=True)) if rows else Batch(())


def collate_questions(examples: Sequence[Example]) -> Batch:
    """Wrap questions into a batch without completions."""
    return Batch(tuple(examples))
