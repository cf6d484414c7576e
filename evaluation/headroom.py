"""How much of what experts gain over the base an agent for all specialties keeps.

    recovered = (agent − base) / (experts − base)

Each specialty's expert answers its own questions, which is what an oracle router gives. The experts are those of the
last experiment of the file that has one for every specialty. Patients are drawn with replacement, the same for base,
experts and agent.

Source: headroom to a domain-routed oracle: Open-MOPD, arXiv:2608.19098. Interval: percentile bootstrap, Efron 1979.
Choice: where the headroom is 0 or less in more than one of 200 resamples nothing is divided by it; up to there such
    resamples widen the interval at both ends. Training seeds are not in the interval; `evaluation.summary` shows their
    spread.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from evaluation.clustered import cluster_index
from evaluation.predictions import Prediction
from evaluation.report_files import markdown, percent
from evaluation.routes import expert_rows
from evaluation.scorers import main_outcome

FILE = "headroom.csv"
"""In the folder of the evaluation."""
MACRO = "mean over specialties"
DRAWS = 2000
TOO_SMALL = 0.005
"""Share of resamples without headroom from which on it is too small to divide by."""
ORACLE = "/router/oracle"
"""End of the row that has the experts' own answers."""


@dataclass(frozen=True)
class Recovered:
    """An agent between base and experts, on one specialty or by the mean over all. Fractions.

    Attributes:
        model: row of the agent.
        specialty: or `MACRO`.
        n: questions, each as often as it was answered.
        patients: that they are about.
        base: accuracy of the base.
        experts: of each specialty's own expert.
        agent: of the agent.
        headroom: experts minus base, with its 95 % interval.
        cost: agent minus experts, with its: what serving the other specialties too costs.
        share: of the headroom that is recovered, with its interval; None where the headroom is too small to divide by.
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
    share: tuple[float, float, float] | None


@dataclass(frozen=True)
class Headroom:
    """All agents of a file.

    Attributes:
        experts: the experiment that the experts are of.
        rows: by model, the mean over specialties first where there are several.
    """

    experts: str
    rows: tuple[Recovered, ...]

    @property
    def by_model(self) -> dict[str, list[Recovered]]:
        """Agent -> its rows, the one that recovers most first."""
        found: dict[str, list[Recovered]] = {}
        for row in self.rows:
            found.setdefault(row.model, []).append(row)
        return dict(sorted(found.items(), key=lambda item: -item[1][0].agent))


Drawn = tuple[float, np.ndarray]
"""A figure, and what it is in each resample: (DRAWS,)."""


def headroom(predictions: Sequence[Prediction]) -> Headroom | None:
    """What every agent recovers; None where there is no base, no expert of every specialty, or no agent.

    Args:
        predictions: the main way of one experiment.
    """
    columns = sorted({item.specialty for item in predictions})
    answers: dict[str, dict[str, list[Prediction]]] = {}
    for item in predictions:
        answers.setdefault(item.model, {}).setdefault(item.specialty, []).append(item)
    groups = expert_rows(answers, columns)
    experts = {row for group in groups.values() for row in group.values()}
    if "base" not in answers or not groups:
        return None
    name, group = list(groups.items())[-1]
    whole = {model: held for model, held in answers.items() if set(held) == set(columns) and model not in experts}
    agents = [model for model in whole if model not in ("base", name + ORACLE) and not is_expert(model, columns)]
    if not agents or set(whole.get("base", ())) != set(columns):
        return None
    found: dict[str, list[Recovered]] = {model: [] for model in agents}
    drawn: dict[tuple[str, str], Drawn] = {}
    for number, specialty in enumerate(columns):
        parts = {"base": answers["base"], "experts": answers[group[specialty]]} | {m: whole[m] for m in agents}
        patients = resampled({row: held[specialty] for row, held in parts.items()}, number)
        drawn |= {(row, specialty): figure for row, figure in patients.figures.items()}
        for model in agents:
            own = [drawn[row, specialty] for row in ("base", "experts", model)]
            found[model].append(recovered(model, specialty, patients.n, patients.count, *own))
    if len(columns) > 1:
        for model, rows in found.items():
            own = [mean([drawn[row, s] for s in columns]) for row in ("base", "experts", model)]
            counts = (sum(row.n for row in rows), sum(row.patients for row in rows))
            rows.insert(0, recovered(model, MACRO, *counts, *own))
    return Headroom(name, tuple(row for rows in found.values() for row in rows))


def is_expert(model: str, columns: Sequence[str]) -> bool:
    """Whether a row is of one specialty's expert, of an experiment that has not one for each."""
    return model.rpartition("/")[2] in columns


@dataclass(frozen=True)
class Resampled:
    """Accuracies on one specialty, and in each resample of its patients."""

    n: int
    count: int
    figures: Mapping[str, Drawn]


def resampled(parts: Mapping[str, Sequence[Prediction]], seed: int) -> Resampled:
    """Draw the patients of one specialty anew, the same ones for every model.

    Args:
        parts: model -> its answers to the same questions.
        seed: of the draws.

    Raises:
        ValueError: models answered different questions.
    """
    keys = sorted(item.key for item in next(iter(parts.values())))
    held = {model: {item.key: item for item in items} for model, items in parts.items()}
    if any(sorted(items) != keys for items in held.values()):
        raise ValueError(f"{keys[0][0]}: {', '.join(parts)} did not answer the same questions")
    patients = cluster_index([next(iter(held.values()))[key].patient_id for key in keys])
    sizes = np.bincount(patients)
    counts = np.random.default_rng(seed).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=DRAWS)
    drawn, figures = counts @ sizes, {}
    for model, items in held.items():
        right = np.array([main_outcome(items[key]).right for key in keys], dtype=np.float64)
        figures[model] = (float(right.mean()), counts @ np.bincount(patients, weights=right) / drawn)
    return Resampled(len(keys), len(sizes), figures)


def mean(figures: Sequence[Drawn]) -> Drawn:
    """Over specialties, each counting once."""
    return float(np.mean([value for value, _ in figures])), np.mean([draws for _, draws in figures], axis=0)


def recovered(
    model: str, specialty: str, n: int, patients: int, base: Drawn, experts: Drawn, agent: Drawn
) -> Recovered:
    """One row."""
    pairs = ((experts, base), (agent, base), (agent, experts))
    room, gained, cost = ((first[0] - second[0], first[1] - second[1]) for first, second in pairs)
    share = None
    without = room[1] <= 0
    if room[0] > 0 and float(without.mean()) <= TOO_SMALL:
        ratios = np.divide(gained[1], room[1], out=np.full(DRAWS, np.nan), where=~without)
        low, high = (ends(np.where(without, beyond, ratios)) for beyond in (-np.inf, np.inf))
        share = (gained[0] / room[0], low[0], high[1])
    bounds = ((room[0], *ends(room[1])), (cost[0], *ends(cost[1])), share)
    return Recovered(model, specialty, n, patients, base[0], experts[0], agent[0], *bounds)


def ends(draws: np.ndarray) -> tuple[float, float]:
    """95 % of the draws lie between."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


# -- for reading -----------------------------------------------------------------------------------------------------


def told(row: Recovered) -> str:
    """The share in words."""
    return "headroom too small to divide by" if row.share is None else percent(*row.share)


def worst(rows: Sequence[Recovered]) -> Recovered | None:
    """The specialty that is recovered least, of those whose headroom can be divided by."""
    known = [row for row in rows if row.specialty != MACRO and row.share is not None]
    return min(known, key=lambda row: row.share[0], default=None)


def headroom_table(found: Headroom) -> str:
    """Every agent by specialty, in Markdown."""
    head = ["model", "specialty", "n", "patients", "base, %", "experts, %", "model, %", "headroom, points"]
    head += ["recovered, %", "model − expert, points"]
    lines = [
        [row.model, row.specialty, str(row.n), str(row.patients)]
        + [f"{100 * value:.1f}" for value in (row.base, row.experts, row.agent)]
        + [percent(*row.headroom, sign="+"), told(row), percent(*row.cost, sign="+")]
        for rows in found.by_model.values()
        for row in rows
    ]
    return (
        f"{markdown(head, lines)}\n\nRecovered: (model − base) / (experts − base), the experts of {found.experts} each "
        "on their own specialty. In brackets 95 % by patient (bootstrap): other patients, not other training seeds. "
        "Model − expert: what serving the other specialties too costs."
    )


def headroom_text(found: Headroom) -> str:
    """For a terminal: one line for every agent, the best first."""
    by_model = found.by_model
    first = next(iter(by_model.values()))[0]
    room = percent(*first.headroom, sign="+")
    lines = [
        f"recovered of what the experts of {found.experts} gain over the base ({room} points), and least of any one:"
    ]
    width = max(map(len, by_model))
    for model, rows in by_model.items():
        least = worst(rows) if len(rows) > 1 else None
        of = f"   {least.specialty} {100 * least.share[0]:.1f}" if least is not None else ""
        lines.append(f"  {model.ljust(width)}  {told(rows[0])}{' %' if rows[0].share else ''}{of}")
    return "\n".join(lines)


def headroom_csv(found: Headroom) -> str:
    """Every number in full, as fractions; empty where the headroom is too small."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    wide = ("headroom", "cost", "share")
    names = [field.name for field in fields(Recovered)]
    writer.writerow([c for name in names for c in ((name, f"{name}_low", f"{name}_high") if name in wide else (name,))])
    for row in found.rows:
        values = asdict(row) | {"share": row.share or ("", "", "")}
        writer.writerow([part for name in names for part in (values[name] if name in wide else (values[name],))])
    return out.getvalue()
