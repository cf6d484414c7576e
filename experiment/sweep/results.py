"""The figures of a finished sweep: arms over seeds, the primary contrast, and what else one may look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.clustered import clustered_wilson
from evaluation.pairwise import MACRO, outcomes, patients_of
from evaluation.seed_means import Part, SeedMean, seed_mean
from evaluation.statistics import holm
from evaluation.systems import refuse_unlike
from experiment.run import assemble
from experiment.sweep.answers import Answers, arm_answers, left_out, paired
from experiment.sweep.choice import Choice, choice_of
from experiment.sweep.runs import Run, Runs
from experiment.sweep.spec import EXPERT, Primary
from experiment.sweep.standing import is_finished


@dataclass(frozen=True)
class ArmSeed:
    """One arm at one seed on one specialty: a share of right answers, with its interval by patient."""

    arm: str
    seed: int
    specialty: str
    n: int
    n_clusters: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Contrast:
    """One arm minus another, paired by seed.

    Attributes:
        arm: the second.
        against: the first, which is taken off.
        figures: column -> its figures; the first column is the one that counts.
        by_seed: the difference of each seed, in the column that counts.
        p_holm: p of that column, corrected over all exploratory contrasts; that of the primary is not corrected.
    """

    arm: str
    against: str
    figures: dict[str, SeedMean]
    by_seed: dict[int, float]
    p_holm: float

    @property
    def first(self) -> SeedMean:
        """The figures that count."""
        return next(iter(self.figures.values()))


@dataclass(frozen=True)
class Results:
    """Everything that a report tells.

    Attributes:
        arms: arm -> column -> its figures; the first column is the one that counts.
        beneath: what all arms stand on -> the same of it: the base, and required experts.
        by_seed: one row per arm, seed and specialty.
        primary: the contrast that was fixed.
        exploratory: all others.
        choices: arm -> what tuning came to; None where nothing is tuned.
        runs: of the arms.
        beside: where the primary contrast counts some questions only, the same over all questions, and over those that
            it leaves out.
    """

    arms: dict[str, dict[str, SeedMean]]
    beneath: dict[str, dict[str, SeedMean]]
    by_seed: tuple[ArmSeed, ...]
    primary: Contrast
    exploratory: tuple[Contrast, ...]
    choices: dict[str, Choice | None]
    runs: tuple[Run, ...]
    beside: dict[str, SeedMean]


def results_of(runs: Runs, asked: Sequence[tuple[str, str]] = ()) -> Results:
    """Read the answers of a sweep and compute everything.

    Args:
        runs: of the sweep.
        asked: (arm, against) of further contrasts; whatever they are, they are exploratory.

    Raises:
        RuntimeError: a run has not ended. Nothing is told of the others then: who looks before the end, and goes on or
            stops by what is seen, finds differences that are not there.
        OSError: answers are missing.
        ValueError: answers cannot be compared.
    """
    sweep = runs.file.sweep
    choices = {arm: choice_of(runs, arm) for arm in sweep.arms}
    made = {
        arm: [runs.arm(arm, seed, choice.values if choice else None) for seed in sweep.seeds]
        for arm, choice in choices.items()
    }
    everything = [run for of in made.values() for run in of]
    if missing := [run.label for run in everything if not is_finished(run)]:
        raise RuntimeError(
            f"{len(missing)} of {len(everything)} runs have not ended, such as {missing[0]}; a report is made of all "
            "or none"
        )
    columns = sweep.primary.specialties or sorted(made[sweep.primary.against][0].loaded.experiment.specialties)
    answers = {arm: answers_of(of, columns, runs) for arm, of in made.items()}
    for arm in answers:
        refuse_unlike(answers[sweep.primary.against].runs[0], answers[arm].runs[0])
    confidence = sweep.primary.confidence
    parts = {arm: found.parts() for arm, found in answers.items()}
    arms = {arm: by_column(found, confidence, (0.0, 1.0)) for arm, found in parts.items()}
    primary = (sweep.primary.arm, sweep.primary.against)
    others = [(arm, primary[1]) for arm in sweep.arms if arm not in primary]
    others = [pair for pair in dict.fromkeys([*others, *asked]) if pair != primary]
    contrasts = [contrast(*pair, parts, sweep.seeds, confidence) for pair in (primary, *others)]
    told = [one for one in contrasts[1:] if not math.isnan(one.first.p)]
    corrected = dict(zip(map(id, told), holm([one.first.p for one in told]), strict=True))
    exploratory = [
        Contrast(o.arm, o.against, o.figures, o.by_seed, corrected.get(id(o), o.first.p)) for o in contrasts[1:]
    ]
    by_seed = tuple(row for found in answers.values() for row in rows_by_seed(found, confidence))
    beneath = {
        name: by_column(found.parts(), confidence, (0.0, 1.0))
        for name, found in beneath_all(runs, made, columns).items()
    }
    wide = beside_primary([made[name] for name in primary], columns, runs) if sweep.primary.where else {}
    return Results(arms, beneath, by_seed, contrasts[0], tuple(exploratory), choices, tuple(everything), wide)


def beside_primary(made: Sequence[Sequence[Run]], columns: Sequence[str], runs: Runs) -> dict[str, SeedMean]:
    """The primary contrast without its `where`: an arm may win where it counts and lose where nobody looks."""
    by = runs.file.sweep.primary
    whole = [answers_of(of, columns, runs, replace(by, where={})) for of in made]
    shown = {"all questions": whole, "questions left out": [left_out(found, by) for found in whole]}
    return {
        name: seed_mean(paired(against.parts(), arm.parts()), by.confidence, (-1.0, 1.0))
        for name, (arm, against) in shown.items()
        if all(run.items for run in arm.runs)
    }


def answers_of(made: Sequence[Run], columns: Sequence[str], runs: Runs, by: Primary | None = None) -> Answers:
    """The answers of one arm's runs that count, by default by the primary contrast."""
    folders = [run.folder for run in made]
    names = [folder.name for folder in folders]
    seeds = [run.seed for run in made]
    return arm_answers(made[0].arm, seeds, folders, names, columns, by or runs.file.sweep.primary)


def beneath_all(runs: Runs, made: Mapping[str, Sequence[Run]], columns: Sequence[str]) -> dict[str, Answers]:
    """The answers of the base, and of the experts that every arm stands on, as one arm's examination has them."""
    sweep = runs.file.sweep
    of = made[sweep.primary.against]
    folders = [run.folder for run in of]
    by = replace(sweep.primary, answers_of="base")
    found = {"base": arm_answers("base", sweep.seeds, folders, ["base"] * len(of), columns, by)}
    common = set.intersection(*(experts_beneath(run, columns) for others in made.values() for run in others[:1]))
    by = replace(by, answers_of=EXPERT)
    for called in [called for called in of[0].loaded.beneath if called in {name for name, _ in common}]:
        names = [run.loaded.beneath[called].experiment.name for run in of]
        found[called] = arm_answers(called, sweep.seeds, folders, names, columns, by)
    return found


def experts_beneath(run: Run, columns: Sequence[str]) -> set[tuple[str, Path]]:
    """(name, folder) of the experiments beneath a run that leave an expert of each of some specialties."""
    return {
        (member.called, member.folder.path)
        for member in assemble(run.loaded).lineage[:-1]
        if member.provides == "expert" and set(columns) <= set(member.specialties)
    }


def by_column(parts: Mapping[str, Part], confidence: float, bounds: tuple[float, float]) -> dict[str, SeedMean]:
    """Figures of the mean over specialties, which counts, and of each; of a single specialty just that."""
    each = {name: seed_mean([part], confidence, bounds) for name, part in parts.items()}
    if len(parts) == 1:
        return each
    return {MACRO: seed_mean(list(parts.values()), confidence, bounds), **each}


def contrast(
    arm: str, against: str, parts: Mapping[str, Mapping[str, Part]], seeds: Sequence[int], confidence: float
) -> Contrast:
    """One arm minus another."""
    differences = dict(zip(parts[arm], paired(parts[against], parts[arm]), strict=True))
    figures = by_column(differences, confidence, (-1.0, 1.0))
    own = [
        sum(float(values[i].mean()) for values, _ in differences.values()) / len(differences) for i in range(len(seeds))
    ]
    return Contrast(arm, against, figures, dict(zip(seeds, own, strict=True)), next(iter(figures.values())).p)


def rows_by_seed(found: Answers, confidence: float) -> list[ArmSeed]:
    """Each seed's accuracy with its interval by patient."""
    rows = []
    for seed, run in zip(found.seeds, found.runs, strict=True):
        for name, keys in found.columns.items():
            right, patients = outcomes(run.right, keys), patients_of(run, keys)
            bounds = clustered_wilson(right, patients, confidence)
            own = (len(keys), int(patients.max()) + 1, float(right.mean()), *bounds)
            rows.append(ArmSeed(found.arm, seed, name, *own))
    return rows
