"""A specialty's rows with some of another set mixed in, so that what was learnt from that one is not forgotten."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from typing_extensions import override

from datamodules.base import Once, VQADataModule
from datamodules.batch import BadExampleError, Example
from datamodules.loading import WHOLE, Feed, Share, TrainingBatches, TrainingSteps, collate_rows
from datamodules.order import Beside, EndlessOrder
from datamodules.picked import joined
from datamodules.prompts import NEUTRAL


class Replayed(VQADataModule):
    """A specialty whose training steps also take rows of another set; everything else is the specialty's own."""

    def __init__(self, own: VQADataModule, replayed: VQADataModule, share: float) -> None:
        """Keep both.

        Args:
            own: the specialty.
            replayed: whose training rows are mixed in, with the traces that `own`'s have, and neutral ones.
            share: of each step's rows, in (0, 1); see `again`.
        """
        super().__init__(own.config, specialty=own.specialty, seed=own.seed)
        self.own, self.replayed, self.share = own, replayed, share
        self.memory, self.plainly = own.memory, own.plainly

    @override
    def examples(self) -> Iterator[Example]:
        return self.own.examples()

    @Once
    def splits(self) -> dict[str, tuple[Example, ...]]:
        """Those of the specialty."""
        return self.own.splits

    @override
    def val_examples(self) -> tuple[Example, ...]:
        return self.own.val_examples()

    @override
    def training_batches(self, feed: Feed, n_steps: int | None = None, share: Share = WHOLE) -> TrainingBatches:
        """As of any set; of the rows of a step the last `again` are replayed ones.

        Raises:
            BadExampleError: either set is test-only, has no row, or fewer than a step takes of it.
            ValueError: questions are asked for, or a step has fewer rows than there are devices.
        """
        if feed.kind != "rows":
            raise ValueError(
                f"specialty {self.specialty!r}: only rows to imitate are replayed, and {feed.kind} are asked for"
            )
        size = feed.size or self.config.batch_size
        repeated = again(self.share, size)
        if size < max(2, share.ranks):
            raise ValueError(
                f"specialty {self.specialty!r}: a step takes {size} rows, at least one of them replayed, for "
                f"{share.ranks} devices; take more"
            )
        neutral_too = None if feed.guidelines is None else feed.guidelines | {NEUTRAL}
        parts = [
            self.part(self.own, "trained", feed.guidelines, size - repeated, self.seed),
            self.part(self.replayed, "replayed", neutral_too, repeated, seed_of_replay(self.seed)),
        ]
        (own, own_order), _ = parts
        steps = TrainingSteps(joined([rows for rows, _ in parts]), collate_rows, Beside([o for _, o in parts]), share)
        n_steps = -(-len(own) // own_order.size) if n_steps is None else n_steps
        return TrainingBatches(steps, n_steps, read_picture=feed.read_picture, num_workers=self.config.num_workers)

    def part(
        self, data: VQADataModule, how: str, guidelines: frozenset[str] | None, size: int, seed: int
    ) -> tuple[Sequence, EndlessOrder]:
        """The rows of one of the sets and which of them a step takes.

        Raises:
            BadExampleError: the set is test-only, or has too few.
        """
        data.require_training()
        rows = data.rows(guidelines)
        if size > len(rows):
            raise BadExampleError(
                f"specialty {self.specialty!r}: a step takes {size} rows that are {how}, and {data.specialty!r} has "
                f"{len(rows)}; nothing comes twice in a step, so take fewer per step"
            )
        return rows, EndlessOrder(len(rows), size, seed)


def again(share: float, size: int) -> int:
    """How many of a step's rows are replayed: the nearest whole number to the share, at least one and not all.

    Args:
        share: in (0, 1).
        size: rows of a step, at least 2.

    Examples:
        >>> again(0.1, 12), again(0.25, 12), again(0.01, 12), again(0.99, 4)
        (1, 3, 1, 3)
    """
    return max(1, min(size - 1, round(share * size)))


def seed_of_replay(seed: int) -> int:
    """Of the order of the replayed rows, which is another than that of the specialty's own."""
    return random.Random(f"{seed}:replay").getrandbits(32)
