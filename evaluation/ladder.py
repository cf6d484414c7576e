"""How much of what its experts gained an agent has, by what the base knew before: a table and a figure over rungs.

    python -m evaluation.ladder runs/base_ladder/seed*/*/ --out runs/base_ladder/ladder

Each folder is an experiment that merged and examined; a rung is what its folder is called, and folders of one name are
its seeds. What a base knew is its accuracy on its own questions (`callbacks.evaluate.init_args.kept`); where these
were not asked, on the specialties. `configs/sweeps/base_ladder.yaml` trains the rungs.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.agents import accuracy, cast
from evaluation.kept import BASE, kept_column, read_kept
from evaluation.predictions import by_variant, read_predictions
from evaluation.report_files import markdown
from evaluation.shares import Outcomes, Share, share_of_gain, share_over_seeds
from evaluation.table_command import Made, table_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Share of what the experts gained over their base that an agent has, (agent - base) / (experts - base), means over "
    "specialties, in percent. Intervals cover 95 %: over seeds by Fieller's method with Student's quantile, for these "
    "questions; of one seed alone by patient, for this very model. Where there is a dash, questions or seeds do not "
    "show that the experts gained anything, so that there is no share to tell."
)


@dataclass(frozen=True)
class Reading:
    """One seed of one rung. Accuracies are fractions.

    Attributes:
        knew: of the base on its own questions; None where they were not asked.
        base: of the base on the specialties, each counting once.
        experts: of the last stage's experts, each on its own specialty.
        agents: method -> accuracy.
        columns: method -> specialty -> who was right.
        asked: keys of the questions.
    """

    knew: float | None
    base: float
    experts: float
    agents: Mapping[str, float]
    columns: Mapping[str, Mapping[str, Outcomes]]
    asked: frozenset[tuple]


@dataclass(frozen=True)
class Rung:
    """All seeds of a rung.

    Attributes:
        name: of its folders.
        seeds: what each came to.
    """

    name: str
    seeds: Sequence[Reading]

    def mean(self, values: Iterator[float]) -> float:
        """Over seeds."""
        return math.fsum(values) / len(self.seeds)

    @property
    def knows(self) -> float:
        """What the base knew before."""
        return self.mean(one.base if one.knew is None else one.knew for one in self.seeds)

    def share(self, method: str) -> Share:
        """Of a method, over the seeds."""
        if len(self.seeds) == 1:
            return share_of_gain(self.seeds[0].columns[method])
        gained = [one.agents[method] - one.base for one in self.seeds]
        return share_over_seeds(gained, [one.experts - one.base for one in self.seeds])


def reading(folder: Path) -> Reading:
    """Read one experiment.

    Raises:
        OSError: it was not examined.
        ValueError: it has no base, no experts of all specialties, or no agent; or its models were asked different
            questions.
    """
    found = cast(by_variant(read_predictions(folder))[""])
    if found is None or not found.agents:
        raise ValueError(f"{folder}: its matrix needs the base, an expert of every specialty and a merged agent")
    kept = kept_column(read_kept(folder))
    names = {name: name.rpartition("/")[2] for name in found.agents}
    if len(set(names.values())) < len(names):  # two experiments of the lineage merged by one method
        names = {name: name for name in found.agents}
    return Reading(
        kept[BASE].score.accuracy if kept else None,
        accuracy(found.base),
        accuracy(found.last),
        {names[name]: accuracy(one) for name, one in found.agents.items()},
        {names[name]: found.outcomes(one) for name, one in found.agents.items()},
        frozenset(found.base.items),
    )


def rungs_of(folders: Sequence[Path]) -> list[Rung]:
    """The rungs, the one whose base knew least first.

    Raises:
        OSError: as of `reading`.
        ValueError: as of `reading`; or a folder is given twice, methods or questions differ, or some bases alone were
            asked their own questions.
    """
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise ValueError("a folder is given twice, and every seed counts once")
    found: dict[str, list[Reading]] = {}
    for folder in folders:
        found.setdefault(folder.resolve().name, []).append(reading(folder))
    rungs = sorted((Rung(name, seeds) for name, seeds in found.items()), key=lambda rung: rung.knows)
    readings = [one for rung in rungs for one in rung.seeds]
    methods = [sorted(one.agents) for one in readings]
    if any(names != methods[0] for names in methods):
        raise ValueError(f"rungs are compared method by method, and these have others: {methods}")
    if len({one.asked for one in readings}) > 1:
        raise ValueError("rungs are compared on the same questions, and these were asked others; examine all alike")
    if len({one.knew is None for one in readings}) > 1:
        raise ValueError("some bases were asked their own questions and others not; set `kept` in all, or in none")
    return rungs


def lines_of(rungs: Sequence[Rung], methods: Sequence[str]) -> list[list[str]]:
    """The table's rows for reading."""
    lines = []
    for rung in rungs:
        told = [f"{100 * rung.mean(getattr(one, name) for one in rung.seeds):.1f}" for name in ("base", "experts")]
        knew = "not asked" if rung.seeds[0].knew is None else f"{100 * rung.knows:.1f}"
        lines.append([rung.name, str(len(rung.seeds)), knew, *told, *(shown(rung.share(name)) for name in methods)])
    return lines


def shown(share: Share) -> str:
    """A share for reading."""
    if not share.bounded:
        return "-"
    return f"{100 * share.share:.0f} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def table(rungs: Sequence[Rung]) -> str:
    """The ladder in Markdown."""
    methods = list(rungs[0].seeds[0].agents)
    header = ["rung", "seeds", "base on its own questions, %", "base on the specialties, %", "experts, %"]
    return f"{markdown([*header, *(f'{name}, %' for name in methods)], lines_of(rungs, methods))}\n\n{CAPTION}"


def as_csv(rungs: Sequence[Rung]) -> str:
    """Every number in full, one line per rung and method; a share that is not bounded is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["rung", "seeds", "knew", "base", "experts", "method", "agent", "share", "low", "high"])
    for rung in rungs:
        means = [rung.mean(getattr(one, name) for one in rung.seeds) for name in ("base", "experts")]
        knew = "" if rung.seeds[0].knew is None else rung.knows
        for method in rung.seeds[0].agents:
            agent = rung.mean(seed.agents[method] for seed in rung.seeds)
            writer.writerow([rung.name, len(rung.seeds), knew, *means, method, agent, *rung.share(method).cells])
    return out.getvalue()


def figure(rungs: Sequence[Rung]) -> Figure:
    """The share of the gain by rung, in the order of what the bases knew, a line per method; drawn without a display.

    Rungs are equally far apart, and methods beside each other, as bases that know alike would hide each other. A share
    that is not told is not drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    methods = list(rungs[0].seeds[0].agents)
    for i, method in enumerate(methods):
        beside = 0.5 * ((i + 0.5) / len(methods) - 0.5)
        told = [(x + beside, one) for x, rung in enumerate(rungs) if (one := rung.share(method)).bounded]
        shares = [100 * one.share for _, one in told]
        errors = [[100 * (one.share - one.low) for _, one in told], [100 * (one.high - one.share) for _, one in told]]
        axes.errorbar([x for x, _ in told], shares, errors, marker="o", capsize=3, label=method)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhline(100, color="black", linewidth=0.8, linestyle=":")
    asked = "the specialties" if rungs[0].seeds[0].knew is None else "its own questions"
    axes.set_xticks(range(len(rungs)), [f"{rung.name}\n{100 * rung.knows:.1f}" for rung in rungs])
    axes.set_xlabel(f"rung, and accuracy of its base on {asked}, %")
    axes.set_ylabel("share of the experts' gain, %")
    drawn.legend(loc="outside right upper", fontsize=8)
    return drawn


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ladder, and write it with its figure; returns as `table_command` does."""

    def make(folders: Sequence[Path]) -> Made:
        rungs = rungs_of(folders)
        return Made(table(rungs), as_csv(rungs), lambda: figure(rungs))

    return table_command("ladder", "evaluation.ladder", __doc__, "one name is one rung", make, arguments)


if __name__ == "__main__":
    sys.exit(main())
