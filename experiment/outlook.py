"""What a command has before it, told at its start, and how long an experiment's other runs take, told after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from experiment.lineage import Lineage


def plan(lineage: Lineage, is_done: Callable[[Lineage, str], bool]) -> str:
    """One line: the experiments in turn, with the runs that each has still to train.

    Args:
        lineage: of the experiment that is asked for.
        is_done: whether a run of an experiment has left its result.
    """
    told = []
    for member in lineage.lineage:
        name = member.experiment.name
        if member.provides == "nothing":
            told.append(f"{name} (examines)")
            continue
        left = [run for run in member.runs if not is_done(member, run)]
        trained = f"{len(left)} of {len(member.runs)} runs to train, {member.steps} steps each"
        told.append(f"{name} ({trained if left else 'trained'})")
    return f"{lineage.experiment.name}: {', then '.join(told)}"


class Outlook:
    """Tells after each run of an experiment how long the others take, at the pace of those that are done."""

    def __init__(self, name: str, runs: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock.

        Args:
            name: of the experiment.
            runs: that are to be trained now.
            clock: seconds.
        """
        self.name, self.runs, self.clock = name, runs, clock
        self.begin, self.done = clock(), 0

    def tell(self, done: int) -> None:
        """Say so where a further run is done and others are left.

        Args:
            done: runs that are done by now.
        """
        if self.done < done < self.runs:
            pace = (self.clock() - self.begin) / done
            left = timedelta(seconds=round(pace * (self.runs - done)))
            print(f"{self.name}: {done} of {self.runs} runs done, about {left} for the others", flush=True)
        self.done = max(self.done, done)


def finished(states: Sequence[str]) -> int:
    """How many of these states of runs say so."""
    return sum(state == "finished" for state in states)
