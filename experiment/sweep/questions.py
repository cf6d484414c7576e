"""Whether there are as many questions as the sweep asks for: a plan for a thousand is none for five hundred."""

from __future__ import annotations

from collections.abc import Iterator

from configs.problems import Problem
from configs.tree import place_of
from experiment.run import assemble
from experiment.sweep.runs import Runs


def too_few(runs: Runs) -> Iterator[Problem]:
    """Splits that have fewer questions than are asked for, of the specialties that count.

    Raises:
        BadExampleError: the data cannot be used.
    """
    file, sweep = runs.file, runs.file.sweep
    context = assemble(runs.arm(sweep.primary.against, sweep.seeds[0]).loaded)
    for member in context.lineage:
        member.remembers = False  # a dry run leaves no file
    asked = [("questions", "test", sweep.questions)]
    asked += [("tuning.questions", "val", sweep.tuning.questions)] if sweep.tuning is not None else []
    for name in sweep.primary.specialties or context.specialties:
        for key, split, count in asked:
            there = len(context.data(name).splits[split])
            if there < count:
                message = (
                    f"{name} has {there} questions in its split {split!r}, and {count} are asked for; ask for fewer, "
                    "or make the split larger"
                )
                yield Problem(place_of(file.tree, key), key, count, message)
