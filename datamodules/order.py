"""Which items a training step takes: an endless stream of epochs, as a function of seed and step alone."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain


class EndlessOrder:
    """Steps of `size` items out of `n_items`, epoch after epoch.

    Every epoch is a permutation of all items, drawn from (seed, epoch); a step may straddle two epochs. So no item is
    left out of an epoch, and a step of which there is no whole number in an epoch costs nothing.

    No item comes twice in a step. A step that straddles two epochs has taken the last items of the first one; those of
    them that the second one would bring within the same step are moved back to just behind the step. The second epoch
    stays a permutation, and all its other items stay in the order that was drawn.
    """

    def __init__(self, n_items: int, size: int, seed: int, *, spare: int = 0, shuffled: bool = True) -> None:
        """Draw nothing yet.

        Args:
            n_items: items in all.
            size: items per step, at least 1.
            seed: of the order.
            spare: further items that `spares` gives per step, at least 0.
            shuffled: False takes the items in their own order, epoch after epoch.

        Raises:
            ValueError: a step and its spares would need more items than there are.
        """
        if size < 1 or spare < 0 or size + spare > n_items:
            raise ValueError(f"got size={size} and spare={spare} for {n_items} items; a step repeats no item")
        self.n_items, self.size, self.seed, self.spare = n_items, size, seed, spare
        self.shuffled = shuffled
        self._epochs: dict[int, array[int]] = {}

    def step(self, step: int) -> list[int]:
        """The items of a step, distinct, `size` of them."""
        epoch, place = divmod(step * self.size, self.n_items)
        items = list(self.epoch(epoch)[place : place + self.size])
        return items if len(items) == self.size else [*items, *self.epoch(epoch + 1)[: self.size - len(items)]]

    def spares(self, step: int) -> list[int]:
        """`spare` more distinct items, none of the step's own, from a stream of their own: drawn from (seed, step)."""
        own = set(self.step(step))
        drawn = random.Random(f"{self.seed}:spare:{step}").sample(range(self.n_items), self.size + self.spare)
        return [item for item in drawn if item not in own][: self.spare]

    def epoch(self, epoch: int) -> array[int]:
        """The permutation of an epoch, after what its first step has moved back."""
        first = epoch
        while first not in self._epochs and self._leans(first):
            first -= 1
        for number in range(first, epoch + 1):
            order = self._epochs.get(number) or self._drawn(number)
            self._epochs = {n: self._epochs[n] for n in (number - 1,) if n in self._epochs} | {number: order}
        return self._epochs[epoch]

    def _taken(self, epoch: int) -> int:
        """Items of the epoch before that stand in the step at this epoch's beginning."""
        return epoch * self.n_items % self.size

    def _leans(self, epoch: int) -> bool:
        """Whether what was moved in the epoch before can reach those items, so that it has to be known first.

        Moving reaches the first `size` places of an epoch: this is rare, sets of more than two steps never lean.
        """
        taken = self._taken(epoch)
        return taken > 0 and self.n_items - taken < self.size

    def _drawn(self, epoch: int) -> array[int]:
        order, taken = self._permuted(epoch), self._taken(epoch)
        if not taken:
            return order
        before = self._epochs.get(epoch - 1) or self._permuted(epoch - 1)
        held = set(before[-taken:])
        kept, moved = array("Q"), array("Q")
        for item in order:
            if len(kept) == self.size - taken:
                break
            (moved if item in held else kept).append(item)
        return kept + moved + order[len(kept) + len(moved) :]

    def _permuted(self, epoch: int) -> array[int]:
        return permutation(self.n_items, self.seed, epoch) if self.shuffled else array("Q", range(self.n_items))


class InTurn:
    """Steps that take as many items of each of several sets, in turn; within a set as `EndlessOrder`."""

    spare = 0

    def __init__(self, sizes: Mapping[str, int], each: int, seed: int) -> None:
        """Draw nothing yet.

        Args:
            sizes: items of each set by name, at least `each`; an item's number counts through all sets.
            each: of every set per step.
            seed: with a set's name it draws its order.
        """
        self.orders = orders_of(sizes, each, seed)

    def step(self, step: int) -> list[int]:
        """The items of a step: one of each set, then another of each, and so on."""
        taken = [[first + item for item in order.step(step)] for first, order in self.orders]
        return list(chain.from_iterable(zip(*taken, strict=True)))


class OneAfterAnother:
    """Steps that take items of one set, then of the next; within a set as `EndlessOrder`."""

    spare = 0

    def __init__(self, sizes: Mapping[str, int], each: int, seed: int, steps: int) -> None:
        """Draw nothing yet.

        Args:
            sizes: as of `InTurn`.
            each: items per step.
            seed: as of `InTurn`.
            steps: of all sets together, at least one for each; what comes after them is the last one's.

        Raises:
            ValueError: a set would have no step.
        """
        if steps < len(sizes):
            raise ValueError(f"{steps} steps are too few for {len(sizes)} sets one after the other; take more steps")
        self.sets, self.steps = orders_of(sizes, each, seed), steps

    def step(self, step: int) -> list[int]:
        """The items of a step, all of one set."""
        turn, began, _ = turn_of(step, self.steps, len(self.sets))
        first, order = self.sets[turn]
        return [first + item for item in order.step(step - began)]


def orders_of(sizes: Mapping[str, int], each: int, seed: int) -> list[tuple[int, EndlessOrder]]:
    """Each set's first item, counted through all sets, and the order within the set; arguments as of `InTurn`."""
    found: list[tuple[int, EndlessOrder]] = []
    first = 0
    for name, size in sizes.items():
        found.append((first, EndlessOrder(size, each, random.Random(f"{seed}:in turn:{name}").getrandbits(32))))
        first += size
    return found


def turn_of(step: int, steps: int, turns: int) -> tuple[int, int, int]:
    """Which of `turns` parts of `steps` a step is in, as even as whole numbers are; after the end, the last one.

    Returns:
        Its number from 0, its first step, and that of what follows.

    >>> [turn_of(step, 10, 3) for step in (0, 3, 4, 6, 7, 12)]
    [(0, 0, 4), (0, 0, 4), (1, 4, 7), (1, 4, 7), (2, 7, 10), (2, 7, 10)]
    """
    turn = min(turns - 1, step * turns // max(1, steps))
    return turn, -(-turn * steps // turns), -(-(turn + 1) * steps // turns)


class Beside:
    """Steps that take of each of several sets as many items as its own order does, one set after the other."""

    spare = 0

    def __init__(self, orders: Sequence[EndlessOrder]) -> None:
        """Keep them; an item's number counts through all sets."""
        self.orders = orders

    def step(self, step: int) -> list[int]:
        """The items of a step."""
        firsts = accumulate((order.n_items for order in self.orders), initial=0)
        return [first + item for first, order in zip(firsts, self.orders, strict=False) for item in order.step(step)]


def permutation(n_items: int, seed: int, epoch: int) -> array[int]:
    """All items in an order drawn from (seed, epoch); no global random state is touched."""
    order = array("Q", range(n_items))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order
