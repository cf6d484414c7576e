"""The base class of every specialty: splits by patient, shuffled options, batches. Write `examples` and be done."""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import lightning as L
from typing_extensions import override

from datamodules.batch import BadExampleError, Batch, Example
from datamodules.prompts import NEUTRAL

SPLITS = ("train", "val", "test")


def uniform_hash(*keys: object) -> float:
    """A number in [0, 1) that depends on the keys alone, not on order, process or platform."""
    digest = hashlib.sha256("\x1f".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class VQADataModule(L.LightningDataModule):
    """Multiple-choice questions of one specialty.

    A subclass yields `Example`s from `examples`; what else it needs from YAML it adds to its own `Config`.
    """

    TEST_ONLY: ClassVar[str] = ""
    """Why the set is for examination only; a set that gives a reason is refused as training data."""

    @dataclass(frozen=True)
    class Config:
        """Options that every data set shares."""

        root: str = ""
        """Folder that holds the files; no path may leave it."""
        val_fraction: float = 0.1
        """Share of the patients in the validation split, in [0, 1)."""
        test_fraction: float = 0.25
        """Share of the patients in the test split, in [0, 1)."""
        split_seed: int = 0
        """Moves patients between splits; keep it fixed over runs that are compared."""
        shuffle_options: bool = True
        """Draw the order of the options per question, so that no letter is favoured."""
        answer_with: Literal["letter", "text"] = "letter"
        """What traces put into the answer block: the option's letter, or its text; strict scoring reads both."""
        batch_size: int = 16
        """Rows per training batch; at least 1."""
        val_questions: int = 32
        """Questions of the validation split that are asked while training, the first in hash order; at least 0."""

        def __post_init__(self) -> None:
            if not 0 <= self.val_fraction < 1 or not 0 <= self.test_fraction < 1:
                raise ValueError("val_fraction and test_fraction must lie in [0, 1)")
            if self.val_fraction + self.test_fraction >= 1:
                raise ValueError("val_fraction + test_fraction must be below 1, or nothing is left to train on")
            if self.batch_size < 1:
                raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
            if self.val_questions < 0:
                raise ValueError(f"val_questions must be at least 0, got {self.val_questions}")

    def __init__(self, config: Config | None = None, *, specialty: str = "", seed: int = 0) -> None:
        """Keep the configuration; nothing is read before the first split is asked for.

        Args:
            config: options; None means the defaults of the subclass.
            specialty: the name under which the experiment knows this data set.
            seed: orders the training batches.
        """
        super().__init__()
        self.config = config if config is not None else self.Config()
        self.specialty = specialty or type(self).__name__
        self.seed = seed
        self.root = Path(self.config.root)

    @abstractmethod
    def examples(self) -> Iterator[Example]:
        """Yield every example of every split, in any order."""

    def split_of(self, patient_id: str) -> str:
        """The split of a patient: a function of the id and `split_seed` alone."""
        u = uniform_hash("split", self.config.split_seed, patient_id)
        if u < self.config.test_fraction:
            return "test"
        return "val" if u < self.config.test_fraction + self.config.val_fraction else "train"

    def placed(self) -> Iterator[tuple[str, Example]]:
        """Every example with its split; a set whose authors give the splits overrides this."""
        for example in self.examples():
            yield self.split_of(example.patient_id), example

    def expected_splits(self) -> Collection[str]:
        """The splits that must hold something."""
        shares = {"train": 1.0, "val": self.config.val_fraction, "test": self.config.test_fraction}
        return [name for name in SPLITS if shares[name] > 0]

    def require_training(self) -> None:
        """Refuse to train on what is for examination only.

        Raises:
            BadExampleError: the set is test-only, or its training split is empty.
        """
        if self.TEST_ONLY:
            raise BadExampleError(f"specialty {self.specialty!r}: never a training set: {self.TEST_ONLY}")
        if not self.splits["train"]:
            raise BadExampleError(f"specialty {self.specialty!r}: there is no training question")

    @cached_property
    def splits(self) -> dict[str, tuple[Example, ...]]:
        """Split name -> examples, ordered by a hash of their ids.

        Raises:
            BadExampleError: ids repeat, or a split that should hold something is empty.
        """
        found: dict[str, dict[str, Example]] = {name: {} for name in SPLITS}
        for split, example in self._placed_examples():
            target = found[split]
            if any(example.question_id in held for held in found.values()):
                raise BadExampleError(f"specialty {self.specialty!r}: question_id {example.question_id!r} occurs twice")
            target[example.question_id] = self.shuffled(example) if self.config.shuffle_options else example
        for name in self.expected_splits():
            if not found[name]:
                raise BadExampleError(
                    f"specialty {self.specialty!r}: the {name} split is empty "
                    f"({sum(map(len, found.values()))} examples in all; root={self.config.root!r}); "
                    "is the data folder right, and are there enough patients for the fractions?"
                )
        return {
            name: tuple(sorted(held.values(), key=lambda e: uniform_hash("order", e.question_id)))
            for name, held in found.items()
        }

    def _placed_examples(self) -> Iterator[tuple[str, Example]]:
        """Splits and examples; what is wrong with one is told with the specialty's name."""
        try:
            yield from self.placed()
        except BadExampleError as error:
            raise BadExampleError(f"specialty {self.specialty!r} (root={self.config.root!r}): {error}") from error

    def shuffled(self, example: Example) -> Example:
        """The same question with its options in an order drawn from its id."""
        order = list(example.options)
        random.Random(f"{self.config.split_seed}:{example.question_id}").shuffle(order)
        return replace(example, options=tuple(order))

    @override
    def setup(self, stage: str | None = None) -> None:
        _ = self.splits

    def rows(self, guidelines: Collection[str] | None = None) -> Sequence[tuple[Example, str, str]]:
        """Training rows (example, guideline, completion).

        Every worked trace comes once under its own instruction and once under the neutral one, so that the expert
        answers without an instruction too.

        Args:
            guidelines: whose traces are taken; None takes all.
        """
        return [
            (example, instruction, example.trace(guideline, self.config.answer_with))
            for example in self.splits["train"]
            for guideline in example.reasoning
            if guidelines is None or guideline in guidelines
            for instruction in (guideline, NEUTRAL)
        ]

    def sft_loader(self, n_steps: int, guidelines: Collection[str] | None = None) -> StepLoader:
        """Batches of rows to imitate.

        Args:
            n_steps: batches in all.
            guidelines: whose traces are taken; None takes all.

        Raises:
            BadExampleError: no row is left, or the set is test-only.
        """
        self.require_training()
        rows = self.rows(guidelines)
        if not rows:
            wanted = "a reasoning trace" if guidelines is None else f"a reasoning trace of {sorted(guidelines)}"
            raise BadExampleError(f"specialty {self.specialty!r}: no training example carries {wanted}")
        return StepLoader(rows, self.config.batch_size, collate_rows, self.seed, n_steps)

    def question_loader(self, questions_per_step: int, n_steps: int) -> StepLoader:
        """Batches of distinct questions to roll out.

        Raises:
            BadExampleError: there is no training question, or the set is test-only.
        """
        self.require_training()
        return StepLoader(self.splits["train"], questions_per_step, collate_questions, self.seed, n_steps)

    @override
    def train_dataloader(self) -> StepLoader:
        trainer, steps = self.trainer, 2 * self.trainer.max_steps  # skipped updates are made up for
        feed = trainer.lightning_module.feed()
        if feed.kind == "rows":
            loader = self.sft_loader(steps, feed.guidelines)
        else:
            loader = self.question_loader(feed.size or self.config.batch_size, steps)
        loader.rank, loader.ranks = trainer.global_rank, trainer.world_size
        return loader

    @override
    def val_dataloader(self) -> ValidationLoader:
        """The validation questions of this rank, one batch of at most `batch_size` after the other."""
        own = self.splits["val"][: self.config.val_questions][self.trainer.global_rank :: self.trainer.world_size]
        size = self.config.batch_size
        return ValidationLoader(tuple(Batch(tuple(own[first : first + size])) for first in range(0, len(own), size)))


@dataclass(frozen=True)
class ValidationLoader:
    """Batches of validation questions."""

    batches: tuple[Batch, ...]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class StepLoader:
    """Batches as a pure function of (seed, step), so that a resumed run sees what the uninterrupted one would have.

    Epochs are drawn anew one after the other; a batch may straddle two of them, and no item is left out of an epoch.
    """

    def __init__(
        self, items: Sequence, batch_size: int, collate: Callable[[Sequence], Batch], seed: int, n_steps: int
    ) -> None:
        """Keep the items; nothing is drawn before the first batch.

        Args:
            items: rows or questions.
            batch_size: items per batch.
            collate: makes a batch of them.
            seed: of the order.
            n_steps: batches in all.
        """
        self.items, self.batch_size, self.collate, self.seed, self.n_steps = items, batch_size, collate, seed, n_steps
        self.step = 0
        self.rank, self.ranks = 0, 1

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[Batch]:
        while self.step < self.n_steps:
            first = self.step * self.batch_size
            self.step += 1  # before the yield: a checkpoint taken while the batch is in use counts it as done
            yield self.collate(
                [self.items[self.index(first + i)] for i in range(self.rank, self.batch_size, self.ranks)]
            )

    def index(self, position: int) -> int:
        """The item at a position of the endless stream of epochs."""
        epoch, place = divmod(position, len(self.items))
        return epoch_order(len(self.items), self.seed, epoch)[place]

    def state_dict(self) -> dict[str, int]:
        """Lightning stores this in checkpoints."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches that were used."""
        self.step = state["step"]


@lru_cache(maxsize=4)
def epoch_order(n_items: int, seed: int, epoch: int) -> list[int]:
    """A permutation drawn from (seed, epoch); no global random state is touched."""
    order = list(range(n_items))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order


def collate_rows(rows: Sequence[tuple[Example, str, str]]) -> Batch:
    """Transpose (example, guideline, completion) rows into a batch."""
    examples, guidelines, completions = zip(*rows, strict=True) if rows else ((), (), ())
    return Batch(examples, guidelines, completions)


def collate_questions(examples: Sequence[Example]) -> Batch:
    """Wrap questions into a batch without completions."""
    return Batch(tuple(examples))
