"""Dynamic sampling: where a group teaches nothing, another question is asked in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
) -> tuple[Rollouts, dict[str, float]]:
    """Replace dead groups by further questions until a share of the step is informative.

    Args:
        rollouts: of the step's questions, with advantages.
        spares: further questions of this step, in order; each is asked at most once.
        share: of the questions that must be informative; 0 asks nothing again.
        rounds: how often more is asked, at most.
        ask: (questions, their places, round from 1) -> rollouts with advantages.

    Returns:
        The rollouts with as many dead groups replaced as was needed and found, and
        `train/dynamic/asked_again` (questions), `train/dynamic/informative` (share of the step).

    Source: DAPO, arXiv:2503.14476, section 3.2.
    Choice: the number of questions and of rounds is bounded, where DAPO asks until the batch is full; what is still
        dead then stays, is counted, and costs nothing in training.
    """
    wanted = share * len(rollouts.examples)
    asked = 0
    for number in range(1, rounds + 1):
        live = informative(rollouts)
        dead = [q for q in range(len(rollouts.examples)) if q not in live]
        held = len(spares.examples) - asked if spares is not None else 0
        count = min(len(dead), held)
        if len(live) >= wanted or not count:
            break
        places = [rollouts.places[q] for q in dead[:count]]
        part = slice(asked, asked + count)
        fresh = ask(Batch(spares.examples[part], pictures=spares.pictures[part]), places, number)
        asked += count
        found = informative(fresh)
        refilled = [dead[i] for i in found]
        if found:
            kept = [q for q in range(len(rollouts.examples)) if q not in refilled]
            rollouts = joined([chosen(rollouts, kept), chosen(fresh, found)])
    share_found = len(informative(rollouts)) / len(rollouts.examples)
    return rollouts, {"train/dynamic/asked_again": float(asked), "train/dynamic/informative": share_found}
