"""Dynamic sampling: where a group teaches nothing, another question is asked in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from datamodules.batch import Batch
from lightning_modules.rollouts import Rollouts, chosen, joined


def informative(rollouts: Rollouts) -> list[int]:
    """Questions with at least one advantage that is not zero."""
    return [q for q, row in enumerate(rollouts.advantages) if bool((row != 0).any())]


def ask_again(
    rollouts: Rollouts,
    spares: Batch | None,
    share: float,
    rounds: int,
    ask: Callable[[Batch, Sequence[int], int], Rollouts],
    from_all: Callable[[Any], list[Any]],
) -> tuple[Rollouts, dict[str, float]]:
    """Replace dead groups by further questions until a share of the step, over all devices, is informative.

    Which spare question goes to which place follows from the places that are dead on any device, so that it does not
    depend on how many devices there are; the device that holds the dead group asks.

    Args:
        rollouts: of this device's questions of the step, at least one, with advantages.
        spares: further questions of the step, the same on all devices, in order; each is asked at most once.
        share: of the questions that must be informative; 0 asks nothing again.
        rounds: how often more is asked, at most.
        ask: (questions, their places, round from 1) -> rollouts with advantages.
        from_all: an item -> what each device holds.

    Returns:
        This device's rollouts with as many dead groups replaced as was needed and found, in the order of their places,
        and, of all devices, `train/dynamic/asked_again` (questions), `train/dynamic/informative` (share of the step).

    Source: DAPO, arXiv:2503.14476, section 3.2.
    Choice: the number of questions and of rounds is bounded, where DAPO asks until the batch is full; what is still
        dead then stays, is counted, and costs nothing in training.
    """
    asked, held = 0, len(spares.examples) if spares is not None else 0
    dead, questions = dead_places(rollouts, from_all)
    for number in range(1, rounds + 1):
        if questions - len(dead) >= share * questions or not dead or asked == held:
            break
        fills = dict(zip(dead, range(asked, held), strict=False))  # place -> spare question
        own = {place: spare for place, spare in fills.items() if place in rollouts.places}
        if own:
            fresh = ask(Batch(tuple(spares.examples[spare] for spare in own.values())), list(own), number)
            rollouts = refilled(rollouts, fresh)
        asked += len(fills)
        dead, _ = dead_places(rollouts, from_all)
    found = {"train/dynamic/asked_again": float(asked), "train/dynamic/informative": 1 - len(dead) / questions}
    return rollouts, found


def dead_places(rollouts: Rollouts, from_all: Callable[[Any], list[Any]]) -> tuple[list[int], int]:
    """The places of the step that are not informative on any device, in order; and the questions of the step."""
    live = informative(rollouts)
    own = [place for q, place in enumerate(rollouts.places) if q not in live]
    everywhere = from_all((own, len(rollouts.places)))
    return sorted(place for places, _ in everywhere for place in places), sum(count for _, count in everywhere)


def refilled(rollouts: Rollouts, fresh: Rollouts) -> Rollouts:
    """Rollouts with those of other questions at the places where these are informative."""
    found = informative(fresh)
    taken = {fresh.places[q] for q in found}
    kept = [q for q, place in enumerate(rollouts.places) if place not in taken]
    return joined([chosen(rollouts, kept), chosen(fresh, found)])
