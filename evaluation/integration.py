"""Agents for all specialties side by side: what each answers, keeps, forgets and took; over seeds where there are some.

    python -m evaluation.integration runs/integration/seed*/*/ --out runs/integration/agents
    python -m evaluation.integration runs/integration/seed*/*/ --against joint/agent         with a second table

Each folder is an experiment that was examined. Those that lie in one folder are of one seed and share its experts: an
agent that was trained on all data at once, as `joint_sft.yaml` does, has none of its own and is held against those of
the others. With `--against` each model's difference to one of them follows, taken seed by seed.
`configs/sweeps/integration.yaml` trains such agents.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evaluation.against import OWN, differences, differences_csv, told_differences
from evaluation.agents import Cast, cast, of_any_verdict, told_verdicts
from evaluation.bounded import bounded_mean
from evaluation.costs import Cost, costs_of
from evaluation.headroom import Recovered, least, over_seeds, rows_of, told
from evaluation.kept import answers_of, read_kept
from evaluation.predictions import Prediction, by_variant, read_predictions
from evaluation.report.curves import scalars
from evaluation.report_files import markdown, signed
from evaluation.scorers import main_outcome
from evaluation.seed_means import Part, seed_mean
from evaluation.shares import Outcomes, Share
from evaluation.table_command import Made, table_command

EXPERTS = "'s experts"
"""Ends the name of a stage's experts together, as of `Cast.stages`."""
LAST = 0.1
"""Share of training that its end is."""
DISTANCE = r"train/specialty/[^/]+/kl_nats"
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


@dataclass(frozen=True)
class Model:
    """One model of one seed.

    Attributes:
        outcomes: specialty -> who was right.
        recovered: the mean over specialties first where there are several, then each.
        forgot: (n,) model - base on the base's own questions, and whom each is about; None where they were not asked.
        kl: to its teachers at the end of training; None where it had none.
        cost: of its own training; None of what was not trained.
        cpu_s: of that and of all beneath it; None where a run does not say.
        asked: keys of the questions, the base's own among them.
        row: what its matrix calls it, which tells whether the gates rejected it.
    """

    outcomes: Mapping[str, Outcomes]
    recovered: Sequence[Recovered]
    forgot: tuple[np.ndarray, Sequence[str]] | None
    kl: float | None
    cost: Cost | None
    cpu_s: float | None
    asked: frozenset[tuple]
    row: str


def seed_of(folders: Sequence[Path]) -> dict[str, Model]:
    """Read the models of one seed: base, the experts of each stage, agents, routers.

    Args:
        folders: of examined experiments, at least one of which has experts of all specialties.

    Raises:
        OSError: one was not examined.
        ValueError: none has experts, there is no agent, or experiments were asked different questions or stand on
            different bases.
    """
    read = {folder: by_variant(read_predictions(folder))[""] for folder in folders}
    first = next((folder for folder, rows in read.items() if cast(rows) is not None), None)
    if first is None:
        raise ValueError(f"{folders[0].parent}: no experiment has the base and an expert of every specialty")
    home: dict[str, Path] = {}
    for folder in (first, *folders):
        home |= {item.model: folder for item in read[folder] if item.model not in home}
    refuse_other_bases(read)
    found = cast([item for folder in read for item in read[folder] if home[item.model] == folder])
    if not found.agents:
        raise ValueError(f"{folders[0].parent}: no experiment has an agent for all specialties")
    kept = {folder: read_kept(folder) for folder in folders}
    forgot = forgotten(kept, home, found)
    asked = frozenset(found.base.items) | {item.key for rows in kept.values() for item in rows}
    systems = {"base": found.base, **found.stages, **found.agents, **found.others}
    models = {}
    for name, one in systems.items():
        costs = [] if name == "base" else beneath(home.get(name, first), maker(name))
        trained = name.endswith("/agent") and costs
        cpu = [cost.cpu_s for cost in costs]
        outcomes = found.outcomes(one)
        models[of_any_verdict(name)] = Model(
            outcomes,
            rows_of(name, outcomes),
            forgot.get(name),
            distance(home[name].parent / maker(name) / "agent") if trained else None,
            costs[-1] if trained else None,
            sum(cpu) if cpu and None not in cpu else None,
            asked,
            name,
        )
    return models


def refuse_other_bases(read: Mapping[Path, Sequence[Prediction]]) -> None:
    """Make sure that all agents of a seed grew from one base, by what it answers.

    Raises:
        ValueError: two experiments' bases answer differently, or one was not asked.
    """
    bases = {folder: {item.key: item for item in rows if item.model == "base"} for folder, rows in read.items()}
    first = next(iter(bases))
    for folder, answers in bases.items():
        if {key: one.completion for key, one in answers.items()} != {
            key: one.completion for key, one in bases[first].items()
        }:
            raise ValueError(
                f"{first} and {folder}: their bases give different answers; agents are compared on the same questions "
                "and from the same base, so that experiments of one seed lie in one folder and are examined alike"
            )


def maker(name: str) -> str:
    """The experiment that a row is called after."""
    for mark in ("/merged/", "/agent", "/router/", EXPERTS):
        name = name.partition(mark)[0]
    return name


def beneath(folder: Path, experiment: str) -> list[Cost]:
    """Costs of an experiment and of all it stands on, itself last; empty where it has no finished run."""
    costs = costs_of(folder)
    names = [cost.experiment for cost in costs]
    return costs[: names.index(experiment) + 1] if experiment in names else []


def distance(run: Path) -> float | None:
    """KL to the teachers over the end of training, the mean over specialties."""
    means = []
    for points in scalars(run, (DISTANCE,)).values():
        begins = points[-1][0] * (1 - LAST)
        means.append(np.mean([value for step, value in points if step >= begins]))
    return float(np.mean(means)) if means else None


def forgotten(
    kept: Mapping[Path, Sequence[Prediction]], home: Mapping[str, Path], found: Cast
) -> dict[str, tuple[np.ndarray, Sequence[str]]]:
    """Model -> its answers to the base's own questions minus the base's, and whom they are about."""
    answers = {
        model: items
        for folder, rows in kept.items()
        for model, items in answers_of(rows).items()
        if home.get(model) == folder
    }
    base = answers.get("base")
    if base is None:
        return {}
    keys = sorted(base)
    right = {
        model: np.array([main_outcome(items[key]).right for key in keys], dtype=np.float64)
        for model, items in answers.items()
        if items.keys() == base.keys()
    }
    for stage, rows in found.experts.items():
        experts = [right[name] for name in rows if name in right]
        if experts:
            right[stage] = np.mean(experts, axis=0)
    patients = [base[key].patient_id for key in keys]
    return {model: (one - right["base"], patients) for model, one in right.items() if model != "base"}


# -- over seeds ------------------------------------------------------------------------------------------------------


def seeds_of(folders: Sequence[Path]) -> list[dict[str, Model]]:
    """The seeds of a command line.

    Raises:
        OSError, ValueError: as of `seed_of`; or a folder is given twice, or seeds have other models or questions.
    """
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise ValueError("a folder is given twice, and every agent counts once")
    by_seed: dict[Path, list[Path]] = {}
    for place in places:
        by_seed.setdefault(place.parent, []).append(place)
    seeds = {root: seed_of(group) for root, group in by_seed.items()}
    first, *others = seeds
    for root in others:
        if seeds[root].keys() != seeds[first].keys():
            told = sorted(seeds[root].keys() ^ seeds[first].keys())
            raise ValueError(f"{first} and {root} are no seeds of each other: only one of them has {', '.join(told)}")
        if unlike := sorted(seeds[root]["base"].asked ^ seeds[first]["base"].asked):
            raise ValueError(
                f"{first} and {root} were asked different questions: {len(unlike)} by one of them alone, such as "
                f"{unlike[0]}"
            )
    return list(seeds.values())


def shares(models: Sequence[Model]) -> dict[str, Share]:
    """Specialty -> share of the experts' gain: over seeds, or of the one seed by patient."""
    columns = zip(*(model.recovered for model in models), strict=True)
    return {rows[0].specialty: rows[0].share if len(rows) == 1 else over_seeds(rows) for rows in columns}


def forgot(models: Sequence[Model]) -> tuple[float, float, float] | None:
    """(mean, low, high) of model - base on the base's own questions; None where one seed was not asked them.

    Low and high are NaN where all seeds came out alike.
    """
    parts = [model.forgot for model in models if model.forgot is not None]
    if len(parts) < len(models):
        return None
    values, patients = np.stack([values for values, _ in parts]), parts[0][1]
    if len(values) == 1:
        found = bounded_mean(values[0], patients)
        return (found.mean, *found.interval(0.95))
    over = seed_mean([(values, patients)])
    return over.mean, over.low, over.high


def parts(models: Sequence[Model]) -> dict[str, Part]:
    """Specialty, and `OWN` where all seeds were asked, -> what one model answered by seed, and whom it is about."""
    found = {
        specialty: (np.array([one.outcomes[specialty].agent for one in models], dtype=np.float64), first.patients)
        for specialty, first in models[0].outcomes.items()
    }
    lost = [one.forgot for one in models]
    if None not in lost:
        found[OWN] = np.stack([values for values, _ in lost]), lost[0][1]
    return found


# -- for reading -----------------------------------------------------------------------------------------------------


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


def table(seeds: Sequence[Mapping[str, Model]]) -> str:
    """All agents in Markdown.

    Args:
        seeds: name -> model, of every seed; base and experts first.
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
    return f"{markdown(header, lines, names=1)}\n\n{counted}. {CAPTION}"


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
        seeds = seeds_of(folders)
        shown = Made(table(seeds), as_csv(seeds))
        if against is None:
            return shown
        found = differences({name: parts(ones) for name, ones in by_model(seeds).items()}, against)
        text = f"{shown.text}\n\n{told_differences(found, against)}"
        return replace(shown, text=text, others={"against.csv": differences_csv(found, against)})

    options = {"against": "a row whose difference to each of the others, seed by seed, makes a second table"}
    return table_command(
        "agents", "evaluation.integration", __doc__, "one parent is one seed", make, arguments, options
    )


if __name__ == "__main__":
    sys.exit(main())
