"""How much of what experts gain over the base every model for all specialties has: as a table, a list and a file.

Each specialty's expert answers its own questions, which is what an oracle router gives. The experts are those of the
last experiment of the file that has one for every specialty. Shares are those of `evaluation.shares`, differences the
paired ones of all comparisons; training seeds are not in them, unless several are given.

Source: headroom to a domain-routed oracle: Open-MOPD, arXiv:2608.19098.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from evaluation.agents import cast, of_any_verdict, told_verdicts
from evaluation.pairwise import MACRO
from evaluation.predictions import Prediction
from evaluation.report_files import Table, markdown, percent
from evaluation.shares import Outcomes, Share, mean_difference, share_of_gain, share_over_seeds

FILE = "headroom.csv"
"""In the folder of the evaluation."""
UNBOUNDED = "not bounded by these questions"


@dataclass(frozen=True)
class Recovered:
    """A model between base and experts, on one specialty or by the mean over all. Fractions.

    Attributes:
        model: its row.
        specialty: or `MACRO`.
        n: questions, each as often as it was answered.
        patients: that they are about.
        base: accuracy of the base.
        experts: of each specialty's own expert.
        agent: of the model.
        headroom: experts minus base, with its 95 % interval.
        cost: model minus experts, with its: what serving the other specialties too costs.
        share: of the headroom that is recovered, with its.
    """

    model: str
    specialty: str
    n: int
    patients: int
    base: float
    experts: float
    agent: float
    headroom: tuple[float, float, float]
    cost: tuple[float, float, float]
    share: Share


@dataclass(frozen=True)
class Headroom:
    """All models of a file.

    Attributes:
        experts: whose gain is shared, as "NAME's experts".
        by_model: row -> the mean over specialties first where there are several, then each; the best model first.
    """

    experts: str
    by_model: Mapping[str, Sequence[Recovered]]


def headroom(predictions: Sequence[Prediction]) -> Headroom | None:
    """What every agent, router and named model recovers; None where base, an expert of every specialty or they lack.

    Args:
        predictions: the main way of one experiment.

    Raises:
        ValueError: models were asked different questions of one specialty.
    """
    found = cast(predictions)
    if found is None or not (models := {**found.agents, **found.others}):
        return None
    rows = {name: rows_of(name, found.outcomes(one)) for name, one in models.items()}
    return Headroom(found.last.name, dict(sorted(rows.items(), key=lambda item: -item[1][0].agent)))


def rows_of(model: str, columns: Mapping[str, Outcomes]) -> list[Recovered]:
    """The mean over specialties, where there are several, and each specialty."""
    parts = {MACRO: columns} if len(columns) > 1 else {}
    parts |= {name: {name: one} for name, one in columns.items()}
    return [recovered(model, name, part) for name, part in parts.items()]


def recovered(model: str, specialty: str, columns: Mapping[str, Outcomes]) -> Recovered:
    """One row, of the mean over the given specialties."""
    right = {who: [np.mean(getattr(one, who)) for one in columns.values()] for who in ("base", "experts", "agent")}
    return Recovered(
        model,
        specialty,
        sum(len(one.base) for one in columns.values()),
        sum(len(set(one.patients)) for one in columns.values()),
        **{who: float(np.mean(each)) for who, each in right.items()},
        headroom=mean_difference(columns, Outcomes.gain),
        cost=mean_difference(columns, Outcomes.cost),
        share=share_of_gain(columns),
    )


def over_seeds(rows: Sequence[Recovered]) -> Share:
    """The share of one model on one specialty over seeds, for these questions.

    Args:
        rows: one of each seed, at least two.
    """
    return share_over_seeds([row.agent - row.base for row in rows], [row.experts - row.base for row in rows])


# -- for reading -----------------------------------------------------------------------------------------------------


def told(share: Share, unbounded: str = UNBOUNDED) -> str:
    """In percent, or in words."""
    return percent(*share.interval) if share.bounded else unbounded


def least(shares: Mapping[str, Share]) -> str:
    """The specialty that is recovered least, of those whose share is bounded, with it; empty where there is none."""
    known = {name: one.share for name, one in shares.items() if name != MACRO and one.bounded}
    return f"{(name := min(known, key=known.get))} {100 * known[name]:.1f}" if known else ""


def headroom_table(found: Headroom) -> Table:
    """Every model by specialty."""
    head = ["model", "specialty", "n", "patients", "base, %", "experts, %", "model, %", "headroom, points"]
    head += ["recovered, %", "model − expert, points"]
    lines = [
        [row.model, row.specialty, str(row.n), str(row.patients)]
        + [f"{100 * value:.1f}" for value in (row.base, row.experts, row.agent)]
        + [percent(*row.headroom, sign="+"), told(row.share), percent(*row.cost, sign="+")]
        for rows in found.by_model.values()
        for row in rows
    ]
    caption = (
        f"Recovered: (model − base) / (experts − base), {found.experts} each on their own "
        "specialty; it is not bounded where the questions do not show that these gained anything. In brackets 95 % by "
        "patient for every line by itself: other patients, not other training seeds. The verdict's interval is wider "
        "where it names the best of several agents. Model − expert: what serving the other specialties too costs."
    )
    return Table(head, lines, caption, names=3)


def headroom_text(found: Headroom) -> str:
    """For a terminal: one line for every model, the best first."""
    room = percent(*next(iter(found.by_model.values()))[0].headroom, sign="+")
    lines = [f"recovered of what {found.experts} gain over the base ({room} points), and least of any specialty:"]
    width = max(map(len, found.by_model))
    for model, (first, *others) in found.by_model.items():
        lowest = least({row.specialty: row.share for row in others})
        lines.append(
            f"  {model.ljust(width)}  {told(first.share)}{' %' * first.share.bounded}{'   ' * bool(lowest)}{lowest}"
        )
    return "\n".join(lines)


def seeds_table(seeds: Sequence[Headroom]) -> str:
    """Several seeds: every model's share by specialty over them, in Markdown.

    Args:
        seeds: at least two, of the same models and specialties.
    """
    columns = [row.specialty for row in next(iter(seeds[0].by_model.values()))]
    lines = []
    tables = [{of_any_verdict(model): rows for model, rows in one.by_model.items()} for one in seeds]
    for model in tables[0]:
        by_column = zip(*(table[model] for table in tables), strict=True)
        shares = dict(zip(columns, map(over_seeds, by_column), strict=True))
        cells = [told(one, "not bounded by these seeds") for one in shares.values()]
        lines.append([told_verdicts(model, [one.by_model for one in seeds]), *cells, least(shares) or "-"])
    table = markdown(["recovered, %", *columns, "least"], lines, names=1)
    return (
        f"{table}\n\nRecovered: (model − base) / (experts − base) of the means over seeds. In brackets "
        "95 % over seeds, for these questions; it is not bounded where the seeds do not show that the "
        "experts gained anything, or where all came out alike."
    )


def headroom_csv(found: Headroom) -> str:
    """Every number in full, as fractions; a share that is not bounded is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    wide = ("headroom", "cost", "share")
    names = [field.name for field in fields(Recovered)]
    writer.writerow([c for name in names for c in ((name, f"{name}_low", f"{name}_high") if name in wide else (name,))])
    for rows in found.by_model.values():
        for row in rows:
            single = [getattr(row, name) for name in names if name not in wide]
            writer.writerow([*single, *row.headroom, *row.cost, *row.share.cells])
    return out.getvalue()
