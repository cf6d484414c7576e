"""The base class of every specialty: splits by patient, shuffled options, batches. Write `examples` and be done."""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import lightning as L
import numpy as np
from typing_extensions import override

from datamodules.batch import BadExampleError, Example
from datamodules.loading import (
    WHOLE,
    Batches,
    Feed,
    Rows,
    Share,
    TrainingBatches,
    TrainingSteps,
    collate_questions,
    collate_rows,
    question_batches,
)
from datamodules.order import EndlessOrder
from datamodules.picked import Picked
from datamodules.sight import Sight
from datamodules.store import Shown, Store
from datamodules.targets import refuse_unreadable, untagged
from guards.ranges import Ranged, at_least, between

SPLITS = ("train", "val", "test")


def uniform_hash(*keys: object) -> float:
    """A number in [0, 1) that depends on the keys alone, not on order, process or platform."""
    digest = hashlib.sha256("\x1f".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def drawn_options(example: Example, seed: int) -> Example:
    """The same question with its options in an order drawn from a seed and its id."""
    order = list(example.options)
    random.Random(f"{seed}:{example.question_id}").shuffle(order)
    return replace(example, options=tuple(order))


def in_hash_order(store: Store, numbers: Sequence[int]) -> array[int]:
    """Numbers of examples, ordered by a hash of their ids; equal hashes stay in the order in which they are given."""
    hashes = np.fromiter((uniform_hash("order", store[number].question_id) for number in numbers), float, len(numbers))
    return array("Q", np.asarray(numbers, np.uint64)[np.argsort(hashes, kind="stable")].tobytes())


def without(examples: Picked[Example], unwanted: Collection[str]) -> Picked[Example]:
    """The examples whose ids are none of these."""
    kept = [example.question_id not in unwanted for example in examples]
    return Picked(examples.give, array("Q", compress(examples.numbers, kept)))


class Once:
    """`functools.cached_property` as it is from Python 3.12 on: without a lock.

    That of 3.11 holds one lock for all data sets while it computes. Here one may wait for another in another thread: to
    know what a model takes of a split, the tiny model's tokenizer is made, in a thread, of texts from other data sets.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        """Keep what computes the value."""
        self.function, self.__doc__ = function, function.__doc__

    def __get__(self, instance: Any, owner: type) -> Any:
        """The value, computed at the first look."""
        if instance is None:
            return self
        return instance.__dict__.setdefault(self.function.__name__, self.function(instance))


class VQADataModule(L.LightningDataModule):
    """Multiple-choice questions of one specialty.

    A subclass yields `Example`s from `examples`; what else it needs from YAML it adds to its own `Config`.
    """

    TEST_ONLY: ClassVar[str] = ""
    """Why the set is for examination only; a set that gives a reason is refused as training data."""
    memory: Path | None = None
    """Folder that keeps what was found out about files between processes; None looks every time."""
    same_rows: VQADataModule | None = None
    """A set of the same settings, whose rows are taken in place of reading them again; set it before any are read."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options that every data set shares."""

        root: str = ""
        """Folder that holds the files; no path may leave it."""
        val_fraction: Annotated[float, between(0, 1, open_high=True)] = 0.1
        """Share of the patients in the validation split, in [0, 1)."""
        test_fraction: Annotated[float, between(0, 1, open_high=True)] = 0.25
        """Share of the patients in the test split, in [0, 1)."""
        split_seed: int = 0
        """Moves patients between splits; keep it fixed over runs that are compared."""
        shuffle_options: bool = True
        """Draw the order of the options per question, so that no letter is favoured."""
        answer_with: Literal["letter", "text"] = "letter"
        """What traces put into the answer block: the option's letter, or its text; strict scoring reads both."""
        batch_size: Annotated[int, at_least(1)] = 16
        """Rows per training batch, and questions per batch of an examination, over all devices; at least 1."""
        num_workers: Annotated[int, at_least(0)] = 0
        """Processes that decode and preprocess pictures ahead of training, on each device; at least 0. None: pictures
        are read when they are needed. No result depends on it. They hand pictures over in shared memory (/dev/shm)."""
        allowed_roots: tuple[str, ...] = ()
        """Further folders into which symbolic links below `root` may lead, such as the `blobs` of a hub's cache."""
        val_questions: Annotated[int, at_least(0)] = 32
        """Questions of the validation split that are asked while training; at least 0, and 0 asks all."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.val_fraction + self.test_fraction >= 1:
                raise ValueError("val_fraction + test_fraction must be below 1, or nothing is left to train on")

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
        self.sight: Sight | None = None  # what the model can take, where that is known; set it before any split is read

    @property
    def rows_key(self) -> str:
        """Equal for sets whose examples and splits are equal while no file changes."""
        used = replace(self.config, batch_size=1, num_workers=0, val_questions=0)
        return repr((type(self), self.specialty, self.seed, used))

    @property
    def further_folders(self) -> tuple[str, ...]:
        """Folders besides the root in which files of the set may lie."""
        return self.config.allowed_roots

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
            yield self.split_of(example.patient_id), self.with_targets(example)

    def with_targets(self, example: Example) -> Example:
        """The example with traces that can be imitated; a set that overrides `placed` calls this for each of its rows.

        Raises:
            BadExampleError: a trace would teach an answer that is not the right one as strictly read; see
                `datamodules.targets`.
        """
        if not example.reasoning:
            return example
        try:
            plain = untagged(example)
            shown = self.shuffled(plain) if self.config.shuffle_options else plain
            refuse_unreadable(shown, self.config.answer_with)
        except BadExampleError as error:
            raise BadExampleError(f"example {example.question_id!r}: {error}") from error
        return plain

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

    @Once
    def splits(self) -> dict[str, Picked[Example]]:
        """Split name -> examples, ordered by a hash of their ids; of many, most are made when they are asked for.

        Raises:
            BadExampleError: ids repeat, or a split that should hold something is empty.
        """
        return self.all_splits if self.sight is None else self.seen(self.all_splits, self.sight)

    @Once
    def all_splits(self) -> dict[str, Picked[Example]]:
        """The splits, whatever the model can take of them; errors as there."""
        if self.same_rows is not None:
            return self.same_rows.all_splits
        store, found = self.collected()
        for name in self.expected_splits():
            if not found[name]:
                raise BadExampleError(
                    f"specialty {self.specialty!r}: the {name} split is empty "
                    f"({sum(map(len, found.values()))} examples in all; root={self.config.root!r}); "
                    "is the data folder right, and are there enough patients for the fractions?"
                )
        return {name: self.as_shown(store, in_hash_order(store, numbers)) for name, numbers in found.items()}

    def collected(self) -> tuple[Store, dict[str, Sequence[int]]]:
        """Every example as it came, and split -> the numbers of its own; errors as of `splits`."""
        store, found = Store(self.memory), {name: array("Q") for name in SPLITS}
        for split, example in self._placed_examples():
            if store.number_of(example.question_id) is not None:
                raise BadExampleError(f"specialty {self.specialty!r}: question_id {example.question_id!r} occurs twice")
            found[split].append(store.add(example))
        return store, found

    def _placed_examples(self) -> Iterator[tuple[str, Example]]:
        """Splits and examples; what is wrong with one is told with the specialty's name."""
        with self.named():
            yield from self.placed()

    def as_shown(self, store: Store, numbers: Sequence[int]) -> Picked[Example]:
        """Examples of a store with their options in the order in which they are shown."""
        if not self.config.shuffle_options:
            return Picked(store.__getitem__, numbers)
        return Picked(Shown(store, numbers, partial(drawn_options, seed=self.config.split_seed)), numbers)

    def seen(self, splits: Mapping[str, Picked[Example]], sight: Sight) -> dict[str, Picked[Example]]:
        """The splits without the questions that the model cannot take.

        Raises:
            BadExampleError: there are such questions, and the set does not leave them out; or nothing else is left.
        """
        unfit = {n: sight.unfit(n, held, self.config.answer_with) for n, held in splits.items()}
        if any(unfit.values()):
            self.leave_out({name: reason for held in unfit.values() for name, reason in held.items()})
        for name, held in splits.items():
            if held and len(unfit[name]) == len(held):
                raise BadExampleError(
                    f"specialty {self.specialty!r}: the model can take no question of the {name} split"
                )
        return {n: without(held, unfit[n]) if unfit[n] else held for n, held in splits.items()}

    def leave_out(self, unfit: Mapping[str, str]) -> None:
        """Say that questions cannot be used, by id with the reason, and refuse the set unless it goes on without them.

        Raises:
            BadExampleError: it does not; names the first ten.
        """
        shown = "\n  ".join(f"{name}: {reason}" for name, reason in list(unfit.items())[:10])
        raise BadExampleError(f"specialty {self.specialty!r}: the model cannot take {len(unfit)} questions:\n  {shown}")

    @contextmanager
    def named(self) -> Iterator[None]:
        """Tell what is wrong with an example with the specialty's name."""
        try:
            yield
        except BadExampleError as error:
            raise BadExampleError(f"specialty {self.specialty!r} (root={self.config.root!r}): {error}") from error

    def shuffled(self, example: Example) -> Example:
        """The same question with its options in an order drawn from its id."""
        return drawn_options(example, self.config.split_seed)

    def rows(self, guidelines: Collection[str] | None = None) -> Sequence[tuple[Example, str, str]]:
        """Training rows (example, guideline, completion).

        Args:
            guidelines: whose traces are taken; None takes all.
        """
        return Rows(self.splits["train"], guidelines, self.config.answer_with, self.plainly)

    def val_rows(self, guidelines: Collection[str] | None = None) -> Sequence[tuple[Example, str, str]]:
        """Rows of the questions that are asked while training; arguments as of `rows`."""
        return Rows(self.val_examples(), guidelines, self.config.answer_with, self.plainly)

    def plainly(self, example: Example, guideline: str) -> bool:
        """Whether a worked trace is also learnt under the neutral prompt; by default each is."""
        return True

    def taught(self) -> dict[str, int]:
        """What imitation has to go by in the training split: questions by kind, where a set has more than one."""
        return {}

    def val_examples(self) -> Sequence[Example]:
        """The questions that are asked while training: the same ones every time, in every run."""
        return self.splits["val"][: self.config.val_questions or None]

    # -- loaders -------------------------------------------------------------------------------------------------

    @override
    def prepare_data(self) -> None:
        """Do nothing: the files lie under `root`. A set that has to be fetched first overrides this.

        Lightning calls it on one process of a machine, before `setup` on all of them, so no state belongs here.
        """

    @override
    def setup(self, stage: str | None = None) -> None:
        _ = self.splits

    @override
    def train_dataloader(self) -> TrainingBatches:
        # Twice the batches: skipped updates are made up for, and a run that skips most of them still comes to an end.
        steps = 2 * self.trainer.max_steps if self.trainer.max_steps > 0 else None
        return self.training_batches(self.trainer.lightning_module.feed(), steps, self._share())

    @override
    def val_dataloader(self) -> Batches:
        return self._questions(self.val_examples())

    @override
    def test_dataloader(self) -> Batches:
        return self._questions(self.splits["test"])

    def training_batches(self, feed: Feed, n_steps: int | None = None, share: Share = WHOLE) -> TrainingBatches:
        """What `train_dataloader` gives, for any stage and outside a Trainer too.

        Args:
            feed: what the stage takes.
            n_steps: batches in all; None makes the least number that shows every item once.
            share: this device's part.

        Raises:
            BadExampleError: the set is test-only, no row is left, or a step would need an item twice.
            ValueError: a step has fewer items than there are devices.
        """
        self.require_training()
        rows = feed.kind == "rows"
        items = self.rows(feed.guidelines) if rows else self.chosen(feed.questions)
        if not items:
            wanted = "a reasoning trace" + (f" of {sorted(feed.guidelines)}" if feed.guidelines is not None else "")
            raise BadExampleError(f"specialty {self.specialty!r}: no training example carries {wanted}")
        size = feed.size or self.config.batch_size
        if size + feed.spare > len(items):
            spare = f" and {feed.spare} spare ones" if feed.spare else ""
            whole, n = feed.questions is None, len(items)
            held = f"the training split has {n}" if whole else f"of the training split {n} are chosen"
            raise BadExampleError(
                f"specialty {self.specialty!r}: a step takes {size} {feed.kind}{spare}, and {held}; nothing comes "
                " twice in a step, so take fewer per step"
            )
        if size < share.ranks:
            raise ValueError(
                f"specialty {self.specialty!r}: a step takes {size} {feed.kind} over all devices, and there are "
                f"{share.ranks} devices; take at least one for each, or fewer devices"
            )
        order = EndlessOrder(len(items), size, self.seed, spare=feed.spare, shuffled=not feed.in_order)
        batch_of = TrainingSteps(items, collate_rows if rows else collate_questions, order, share, feed.ahead)
        n_steps = -(-len(items) // size) if n_steps is None else n_steps
        return TrainingBatches(batch_of, n_steps, read_picture=feed.read_picture, num_workers=self.config.num_workers)

    def chosen(self, question_ids: Sequence[str] | None) -> Sequence[Example]:
        """Training questions by id, in this order; None takes all of them in the split's own.

        Raises:
            BadExampleError: there is no such training question.
        """
        if question_ids is None:
            return self.splits["train"]
        wanted = set(question_ids)
        known = {example.question_id: example for example in self.splits["train"] if example.question_id in wanted}
        if strange := [name for name in question_ids if name not in known]:
            raise BadExampleError(
                f"specialty {self.specialty!r}: {len(strange)} chosen questions are not in the training split, such as "
                f"{strange[0]!r}"
            )
        return tuple(known[name] for name in question_ids)

    def _questions(self, examples: Sequence[Example]) -> Batches:
        """This device's questions to examine with."""
        batches = question_batches(examples, self.config.batch_size, self._share())
        read_picture, workers = self.trainer.lightning_module.feed().read_picture, self.config.num_workers
        return Batches(batches.__getitem__, len(batches), read_picture=read_picture, num_workers=workers)

    def _share(self) -> Share:
        return Share(self.trainer.global_rank, self.trainer.world_size)
