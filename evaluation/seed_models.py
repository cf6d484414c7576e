"""The models of a comparison over seeds: what each answered, kept, forgot and took, read from examined experiments.

Experiments that lie in one folder are of one seed. One that trains on all specialties at once has no experts of its
own, and is held against those of its seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.against import OWN
from evaluation.agents import Cast, cast, of_any_verdict
from evaluation.bounded import bounded_mean
from evaluation.costs import Cost, costs_of
from evaluation.headroom import Recovered, over_seeds, rows_of
from evaluation.kept import answers_of, read_kept
from evaluation.predictions import Prediction, by_variant, read_predictions
from evaluation.report.curves import scalars
from evaluation.scorers import main_outcome
from evaluation.seed_means import Part, seed_mean
from evaluation.seeds import facts_of, refuse_no_seeds
from evaluation.shares import Outcomes, Share

EXPERTS = "'s experts"
"""Ends the name of a stage's experts together, as of `Cast.stages`."""
LAST = 0.1
"""Share of training that its end is."""
DISTANCE = r"train/specialty/[^/]+/kl_nats"


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


def seeds_of(folders: Sequence[Path]) -> tuple[list[dict[str, Model]], str]:
    """The seeds of a command line.

    Returns:
        The models of each seed, and a sentence about what could not be checked; empty where everything was.

    Raises:
        OSError, ValueError: as of `seed_of`; or a folder is given twice, or seeds have other models or questions, or
            experiments of one name differ by more than their seed.
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
    return list(seeds.values()), unchecked(by_seed) if others else ""


def unchecked(by_seed: Mapping[Path, Sequence[Path]]) -> str:
    """Make sure that experiments of one name are seeds of one another; as of `refuse_no_seeds`.

    Args:
        by_seed: folder of a seed -> its experiments.

    Raises:
        ValueError: they differ by more than their seed, or a seed lacks one.
    """
    by_name: dict[str, list[Path]] = {}
    for place in [place for group in by_seed.values() for place in group]:
        by_name.setdefault(place.name, []).append(place)
    for name, places in by_name.items():
        if len(places) < len(by_seed):
            told = sorted(str(root) for root in by_seed.keys() - {place.parent for place in places})
            raise ValueError(f"every seed has the same experiments; there is no {name} from {', '.join(told)}")
    notes = [refuse_no_seeds([facts_of(place) for place in places]) for places in by_name.values()]
    return " ".join(dict.fromkeys(note for note in notes if note))


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
