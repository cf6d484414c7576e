"""Agents for all specialties side by side: what each answers, keeps, forgets and took; over seeds where there are some.

    python -m evaluation.integration runs/integration/seed*/*/ --out runs/integration/agents
    python -m evaluation.integration runs/integration/seed*/*/ --against joint/agent         with a second table

Each folder is an experiment that was examined. Those that lie in one folder are of one seed and share its experts: an
agent that was trained on all data at once, as `joint_sft.yaml` does, has none of its own and is held against those of
the others. Experiments of one name differ by their seed alone. With `--against` each model's difference to one of them
follows, taken seed by seed. `configs/sweeps/integration.yaml` trains such agents.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluation.against import differences, differences_csv, told_differences
from evaluation.agents import told_verdicts
from evaluation.headroom import least, told
from evaluation.report_files import markdown, signed
from evaluation.seed_models import EXPERTS, Model, forgot, parts, seeds_of, shares
from evaluation.table_command import Made, table_command

CAPTION = (
    "Accuracies are means over seeds, each specialty counting once in their mean. Recovered: (model - base) / "
    "(experts - base); least: the specialty where it is lowest. Own questions: what the base could answer before, "
    "model - base in points; of the experts their mean. Brackets hold 95 %, over seeds by Student's quantile, shares "
    "by Fieller's method, for these questions; of one seed alone by patient, for this very model. KL: to the "
    "teachers, nats per token, over the last tenth of training and the answers that were learned from. Rollouts and "
    "CPU seconds are those of training, means over seeds; `with all beneath` adds the experts and whatever else the "
    "model stands on. A merge or a router trains nothing. A dash: no such number, or no interval that seeds or "
    "questions bound."
)


def mean(values: Sequence[float | None]) -> float | None:
    """Over seeds; None where one does not say."""
    return None if None in values else float(np.mean(values))


def whole(value: float | None, digits: int = 0) -> str:
    """A number for reading; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def by_model(seeds: Sequence[Mapping[str, Model]]) -> dict[str, list[Model]]:
    """Base and experts of each stage first, then the agents, the best first."""
    found = {name: [seed[name] for seed in seeds] for name in seeds[0]}
    standing = [name for name in found if name == "base" or name.endswith(EXPERTS)]
    agents = sorted(found.keys() - standing, key=lambda name: (-found_mean(found[name]), name))
    return {name: found[name] for name in (*standing, *agents)}


def found_mean(models: Sequence[Model]) -> float:
    """Accuracy over specialties and seeds."""
    return float(np.mean([one.recovered[0].agent for one in models]))


def table(seeds: Sequence[Mapping[str, Model]], unchecked: str = "") -> str:
    """All agents in Markdown.

    Args:
        seeds: name -> model, of every seed; base and experts first.
        unchecked: as of `seeds_of`.
    """
    models = by_model(seeds)
    columns = [row.specialty for row in seeds[0]["base"].recovered]
    header = ["model", *(f"{name}, %" for name in columns), "recovered, %", "least, %", "own questions, points"]
    header += ["KL", "rollouts", "CPU seconds", "with all beneath", "peak memory, MiB"]
    ends = ("base", [name for name in models if name.endswith(EXPERTS)][-1])  # 0 and 1 by what a share is
    lines = []
    for name, ones in models.items():
        accuracies = [100 * np.mean([one.recovered[i].agent for one in ones]) for i in range(len(columns))]
        found, lost = shares(ones), forgot(ones)
        costs = [one.cost for one in ones]
        own = [None if None in costs else mean([getattr(cost, key) for cost in costs]) for key in ("rollouts", "cpu_s")]
        peak = None if None in costs else max(cost.peak_mib for cost in costs)
        lines.append(
            [told_verdicts(name, [[one.row] for one in ones]), *(f"{value:.1f}" for value in accuracies)]
            + (["-", "-"] if name in ends else [told(found[columns[0]], "-"), least(found) or "-"])
            + ["-" if lost is None else signed(*lost), whole(mean([one.kl for one in ones]), 3), whole(own[0])]
            + [whole(own[1]), whole(mean([one.cpu_s for one in ones])), whole(peak)]
        )
    size = seeds[0]["base"].recovered[0]
    counted = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}, {size.n} questions about {size.patients} patients"
    return f"{markdown(header, lines, names=1)}\n\n{counted}. {CAPTION} {unchecked}".strip()


def as_csv(seeds: Sequence[Mapping[str, Model]]) -> str:
    """Every number by model and specialty, as fractions; what is not known or not bounded is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        "model specialty seeds n base experts accuracy share share_low share_high forgot forgot_low forgot_high "
        "kl rollouts cpu_s cpu_s_with_beneath peak_mib".split()
    )
    for name, ones in by_model(seeds).items():
        costs = [one.cost for one in ones]
        known = None not in costs
        took = [mean([getattr(cost, key) for cost in costs]) if known else None for key in ("rollouts", "cpu_s")]
        beside = [mean([one.kl for one in ones]), *took, mean([one.cpu_s for one in ones])]
        beside.append(max(cost.peak_mib for cost in costs) if known else None)
        lost = forgot(ones) or ("", "", "")
        for i, (specialty, share) in enumerate(shares(ones).items()):
            rows = [one.recovered[i] for one in ones]
            means = [float(np.mean([getattr(row, key) for row in rows])) for key in ("base", "experts", "agent")]
            told_share = share.cells if name != "base" else ("", "", "")
            line = [name, specialty, len(ones), rows[0].n, *means, *told_share, *lost, *beside]
            writer.writerow(["" if value is None or value != value else value for value in line])  # NaN
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the agents, and write them where asked; returns as `table_command` does."""

    def make(folders: Sequence[Path], against: str | None) -> Made:
        seeds, unchecked = seeds_of(folders)
        shown = Made(table(seeds, unchecked), as_csv(seeds))
        if against is None:
            return shown
        found = differences({name: parts(ones) for name, ones in by_model(seeds).items()}, against)
        text = f"{shown.text}\n\n{told_differences(found, against)}"
        return replace(shown, text=text, others={"against.csv": differences_csv(found, against)})

    options = {"against": "a model; all others minus it, seed by seed, make a second table and against.csv"}
    return table_command(
        "agents", "evaluation.integration", __doc__, "one parent is one seed", make, arguments, options
    )


if __name__ == "__main__":
    sys.exit(main())
