"""Tables for a page: each experiment's matrix, and the mean and spread over those that are seeds of one another.

    python -m evaluation.summary runs/seed0/rl_gba runs/seed1/rl_gba runs/seed2/rl_gba

Every number is scored again from `evaluation/predictions.jsonl`, so the table needs no model and trusts no cache.
Experiments are seeds of one another where settings, training rows and questions are the same but for the seed; others
are averaged apart, and what they differ by is told. `evaluation.compare --by seed` compares two methods over seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.agents import of_any_verdict, told_verdicts
from evaluation.baselines import SETTING, Line, lines_below, read_training_answers
from evaluation.costs import costs_of, costs_table
from evaluation.headroom import Headroom, headroom, headroom_table, seeds_table
from evaluation.paired import paired_difference
from evaluation.predictions import Prediction, by_variant, read_predictions
from evaluation.report_files import percent, points
from evaluation.scorers import main_outcome, main_scorer
from evaluation.scoring import Row, columns_of, matrix
from evaluation.seeds import Facts, differing, facts_of, refuse_no_seeds
from evaluation.statistics import mean_sd
from evaluation.systems import System, refuse_unlike
from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole


@dataclass(frozen=True)
class Loaded:
    """One experiment.

    Attributes:
        facts: what it was made with.
        main: its answers to the plain questions.
        table: their matrix.
        below: what stands below it.
        headroom: what each agent recovers of what the experts gain; None where there is no such thing.
    """

    facts: Facts
    main: Sequence[Prediction]
    table: Sequence[Row]
    below: Sequence[Line]
    headroom: Headroom | None

    @property
    def scorer(self) -> str:
        """By which name answers count."""
        return " and ".join(sorted({main_scorer(item) for item in self.main}))


def loaded(folder: Path) -> Loaded:
    """Read an experiment.

    Raises:
        OSError: it has no predictions.
        ValueError: they cannot be read or scored.
    """
    predictions = read_predictions(folder)
    main = by_variant(predictions)[""]
    below = lines_below(predictions, read_training_answers(folder))
    return Loaded(facts_of(folder), main, matrix(main), below, headroom(main))


def apart(first: Loaded, other: Loaded) -> str:
    """Why two experiments are no seeds of one another: what they differ by; empty where they are."""
    if unlike := differing(first.facts, other.facts):
        return "; ".join(f"{key} {values}" for key, values in unlike.items())
    models = [sorted(of_any_verdict(row.model) for row in side.table) for side in (first, other)]
    if models[0] != models[1]:
        return f"models {', '.join(models[0])} and {', '.join(models[1])}"
    for model in models[0]:
        systems = [
            System(f"{side.facts.path}:{model}", 0, model, answers, {})
            for side in (first, other)
            for answers in [{i.key: i for i in side.main if of_any_verdict(i.model) == model}]
        ]
        try:
            refuse_unlike(*systems)
        except ValueError as error:
            return str(error)
    return ""


def grouped(experiments: Sequence[Loaded]) -> list[list[Loaded]]:
    """Experiments that are seeds of one another, in order of first appearance.

    Raises:
        ValueError: one group has the same seed twice.
    """
    groups: list[list[Loaded]] = []
    for one in experiments:
        home = next((group for group in groups if not apart(group[0], one)), None)
        if home is None:
            groups.append([one])
        else:
            home.append(one)
    for group in groups:
        refuse_no_seeds([one.facts for one in group])
    return groups


def matrix_markdown(rows: Sequence[Row], below: Sequence[Line] = ()) -> str:
    """One experiment: accuracy in percent with its 95 % interval by patient, parse rate below 100 % noted."""
    columns = columns_of(rows)
    sizes = {name: next(row.cells[name].n for row in rows if name in row.cells) for name in columns}
    lines = [
        "| model | " + " | ".join(f"{name} (n = {sizes[name]})" for name in columns) + " | macro | parsed |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for row in rows:
        cells = [
            percent(row.cells[name].accuracy, row.cells[name].low, row.cells[name].high) if name in row.cells else "-"
            for name in columns
        ]
        parsed = min(cell.parse_rate for cell in row.cells.values())
        macro = "-" if row.macro is None else f"{100 * row.macro:.1f}"
        lines.append(f"| {row.model} | " + " | ".join(cells) + f" | {macro} | {100 * parsed:.0f} % |")
    for line in below:
        lines.append(f"| {line.name} | " + " | ".join(line.told.get(name, "-") for name in columns) + " | | |")
    return "\n".join(lines)


def seeds_markdown(group: Sequence[Loaded]) -> str:
    """Several seeds: mean ± sample standard deviation of the accuracy in percent, over what each seed has."""
    columns = columns_of(group[0].table)
    lines = ["| model | " + " | ".join(columns) + " | macro |", "|---" * (len(columns) + 2) + "|"]
    tables = [{of_any_verdict(row.model): row for row in one.table} for one in group]
    names = [[row.model for row in one.table] for one in group]
    for model in tables[0]:
        rows = [table[model] for table in tables]
        values = [[row.cells[name].accuracy for row in rows if name in row.cells] for name in columns]
        values.append([row.macro for row in rows if row.macro is not None])
        lines.append(f"| {told_verdicts(model, names)} | " + " | ".join(map(_spread, values)) + " |")
    belows = [{line.name: line for line in one.below} for one in group]
    for line in group[0].below:
        same = [below[line.name] for below in belows if line.name in below]
        told = [
            _spread([other.shares[name] for other in same]) if name in line.shares else line.told.get(name, "-")
            for name in columns
        ]
        lines.append(f"| {line.name} | " + " | ".join(told) + " | |")
    return "\n".join(lines)


def _spread(accuracies: Sequence[float]) -> str:
    if not accuracies:
        return "-"
    mean, spread = mean_sd([100 * accuracy for accuracy in accuracies])
    return f"{mean:.1f} ± {spread:.1f}"


def comparison_markdown(predictions: Sequence[Prediction], pairs: Sequence[tuple[str, str, str]]) -> str:
    """Paired differences of two rows on one column: points with a 95 % interval by patient, what could be seen, and p.

    Args:
        predictions: of one experiment.
        pairs: (model before, model after, specialty); those that lack one of the two are left out.
    """
    heads = ["before", "after", "specialty", "difference, points", "visible, points", "p (by patient)"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for before, after, specialty in pairs:
        first, second = (
            {p.key: p for p in predictions if p.model == model and p.specialty == specialty}
            for model in (before, after)
        )
        keys = sorted(first)
        if not keys or keys != sorted(second):
            continue
        right = [[main_outcome(side[key]).right for key in keys] for side in (first, second)]
        found = paired_difference(*right, clusters=[first[key].patient_id for key in keys])
        interval = percent(found.difference, found.low, found.high, sign="+")
        told = f"{interval} | {points(found.detectable)} | {found.p:.3g}"
        lines.append(f"| {before} | {after} | {specialty} | {told} |")
    return "\n".join(lines)


def stages(table: Sequence[Row]) -> list[tuple[str, str, str]]:
    """What is compared within an experiment: the base with each DSA expert, and that with what grew from it."""
    models = [row.model for row in table]
    pairs = []
    for model in models:
        _, _, specialty = model.partition("/")
        later = [other for other in models if other.endswith(f"/{specialty}") and other != model]
        if specialty in columns_of(table) and model.startswith("sft"):
            pairs += [("base", model, specialty), *((model, other, specialty) for other in later)]
    return pairs


def summary(folders: Sequence[Path]) -> str:
    """All tables of some experiments.

    Raises:
        OSError: one has no predictions.
        ValueError: one cannot be read or scored, or a seed is given twice.
    """
    experiments = [loaded(folder) for folder in folders]
    groups = grouped(experiments)
    told = []
    for number, group in enumerate(groups):
        if number:
            first, other = groups[0][0], group[0]
            told.append(f"{other.facts.path} is no seed of {first.facts.path}: {apart(first, other)}")
        if len(group) > 1:
            paths = ", ".join(str(one.facts.path) for one in group)
            unchecked = refuse_no_seeds([one.facts for one in group])
            told.append(f"Mean ± standard deviation over {len(group)} seeds: {paths}. {unchecked}".strip())
            told.append(f"Accuracies by the scorer {group[0].scorer}\n\n{seeds_markdown(group)}")
            if all(one.headroom is not None for one in group):
                told.append(seeds_table([one.headroom for one in group]))
    for one in experiments:
        told.append(
            f"{one.facts.path}: accuracies by the scorer {one.scorer}\n\n{matrix_markdown(one.table, one.below)}"
        )
        if one.headroom is not None:
            told.append(headroom_table(one.headroom).markdown)
        if pairs := stages(one.table):
            told.append(comparison_markdown(one.main, pairs))
        if costs := costs_of(one.facts.path):
            told.append(f"{one.facts.path}: what training took\n\n{costs_table(costs).markdown}")
    told.append(
        "One letter: the commonest right answer of the training rows for every question; ≤ that of these questions, an "
        f"upper bound, where training rows are not known. No picture is measured by {SETTING}. Visible: the smallest "
        "true difference between two models that so many questions find with 80 % at 5 %; in a matrix, if 30 % of them "
        "tell the two apart."
    )
    return "\n\n".join(told)


def main(given: Sequence[str] | None = None) -> int:
    """Print the tables of the experiments named on the command line.

    Returns:
        0; 2 if one of them cannot be read.
    """
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", type=Path, help="experiment folders; seeds among them are averaged")
    folders = parser.parse_args(given).experiments
    try:
        print(printable_whole(summary(folders)))
    except (OSError, ValueError) as error:
        print(printable_lines(f"summary: {error}"), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
