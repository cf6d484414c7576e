"""Tables for a page: one experiment's matrix, and the mean and spread over seeds.

    python -m evaluation.summary runs/seed0/rl_gba runs/seed1/rl_gba runs/seed2/rl_gba

Every number is scored again from `evaluation/predictions.jsonl`, so the table needs no model and trusts no cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.paired import paired_difference
from evaluation.predictions import Prediction, by_variant, read_predictions
from evaluation.scorers import main_outcome, main_scorer
from evaluation.scoring import Row, columns_of, matrix
from evaluation.statistics import mean_sd


def matrix_markdown(rows: Sequence[Row]) -> str:
    """One experiment: accuracy in percent with its 95 % Wilson interval, parse rate below 100 % noted."""
    columns = columns_of(rows)
    sizes = {name: next(row.cells[name].n for row in rows if name in row.cells) for name in columns}
    lines = [
        "| model | " + " | ".join(f"{name} (n = {sizes[name]})" for name in columns) + " | macro | parsed |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for row in rows:
        cells = [
            f"{100 * cell.accuracy:.1f} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]"
            for cell in (row.cells[name] for name in columns)
        ]
        parsed = min(cell.parse_rate for cell in row.cells.values())
        macro = "-" if row.macro is None else f"{100 * row.macro:.1f}"
        lines.append(f"| {row.model} | " + " | ".join(cells) + f" | {macro} | {100 * parsed:.0f} % |")
    return "\n".join(lines)


def seeds_markdown(tables: Sequence[Sequence[Row]]) -> str:
    """Several seeds: mean ± sample standard deviation of the accuracy in percent."""
    columns = columns_of(tables[0])
    by_model = [{row.model: row for row in table} for table in tables]
    lines = ["| model | " + " | ".join(columns) + " | macro |", "|---" * (len(columns) + 2) + "|"]
    for model in by_model[0]:
        rows = [table[model] for table in by_model]
        values = [[row.cells[name].accuracy for row in rows] for name in columns] + [[row.macro or 0.0 for row in rows]]
        cells = []
        for accuracies in values:
            mean, spread = mean_sd([100 * accuracy for accuracy in accuracies])
            cells.append(f"{mean:.1f} ± {spread:.1f}")
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def comparison_markdown(predictions: Sequence[Prediction], pairs: Sequence[tuple[str, str, str]]) -> str:
    """Paired differences of two rows on one column: points with a 95 % bootstrap interval by patient, and p.

    Args:
        predictions: of one experiment.
        pairs: (model before, model after, specialty).
    """
    lines = ["| before | after | specialty | difference, points | p (McNemar, exact) |", "|---|---|---|---|---|"]
    for before, after, specialty in pairs:
        first, second = (
            {p.question_id: p for p in predictions if p.model == model and p.specialty == specialty}
            for model in (before, after)
        )
        ids = sorted(first)
        right = [[main_outcome(side[i]).right for i in ids] for side in (first, second)]
        found = paired_difference(*right, clusters=[first[i].patient_id for i in ids])
        interval = f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        lines.append(f"| {before} | {after} | {specialty} | {interval} | {found.p_mcnemar:.3g} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    """Print the tables of the experiments named on the command line.

    Returns:
        0; 2 if one of them cannot be read.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", type=Path, help="experiment folders; several are taken as seeds")
    folders = parser.parse_args(given).experiments
    try:
        predictions = [by_variant(read_predictions(folder))[""] for folder in folders]
    except (OSError, ValueError) as error:
        print(f"summary: {error}", file=sys.stderr)
        return 2
    tables = [matrix(found) for found in predictions]
    scorers = [" and ".join(sorted({main_scorer(item) for item in found})) for found in predictions]
    if len(set(scorers)) > 1:
        told = ", ".join(f"{folder}: {scorer}" for folder, scorer in zip(folders, scorers, strict=True))
        parser.error(f"these were asked by different protocols, and are no seeds of one another; counted by {told}")
    print(f"Accuracies by the scorer {scorers[0]}\n")
    if len(tables) > 1:
        print(seeds_markdown(tables) + "\n")
    for folder, found, table in zip(folders, predictions, tables, strict=True):
        print(f"{folder}\n\n{matrix_markdown(table)}\n")
        models = [row.model for row in table]
        pairs = []
        for model in models:
            _, _, specialty = model.partition("/")
            later = [other for other in models if other.endswith(f"/{specialty}") and other != model]
            if specialty in columns_of(table) and model.startswith("sft"):
                pairs += [("base", model, specialty), *((model, other, specialty) for other in later)]
        print(comparison_markdown(found, pairs) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
