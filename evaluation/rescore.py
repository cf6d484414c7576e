"""Score an experiment's raw answers again, without a model.

    python -m evaluation.rescore runs/seed0/rl_gba
    python -m evaluation.rescore runs/seed0/rl_gba --scorer official:medevalkit --by modality body_system
    python -m evaluation.rescore runs/seed0/rl_gba --check          exit code 1 unless matrix.csv holds these numbers

Several completions per question (guidelines, samples) are also shown together: vote, pass@k, maj@k.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from evaluation.clustered import clustered_wilson
from evaluation.comparison_report import percent
from evaluation.predictions import Prediction, read_predictions
from evaluation.scorers import SCORERS, scorer_named
from evaluation.scoring import Score, breakdown, matrix, matrix_csv, score
from evaluation.several import several

Parts = dict[str, dict[str, list[Prediction]]]


def parts_of(predictions: Sequence[Prediction]) -> Parts:
    """Model -> specialty -> its predictions, in order of first appearance."""
    parts: Parts = {}
    for item in predictions:
        parts.setdefault(item.model, {}).setdefault(item.specialty, []).append(item)
    return parts


def scores_table(parts: Parts) -> str:
    """Every model on every specialty: both readings with what they could not read, then micro and macro means."""
    rows = []
    for model, columns in parts.items():
        found = {specialty: score(items) for specialty, items in columns.items()}
        rows += [_score_row(model, specialty, one) for specialty, one in found.items()]
        if len(found) > 1:
            rows.append(_score_row(model, "micro", score([item for items in columns.values() for item in items])))
            means = [math.fsum(values) / len(found) for values in zip(*map(_rates, found.values()), strict=True)]
            rows.append([model, "macro", str(sum(one.n for one in found.values())), "", *map(_share, means)])
    names = ("model", "specialty", "n", "patients", "strict, %", "lenient, %", "read strictly, %", "read leniently, %")
    return _table([*names, "refused, %", "cut off, %"], rows)


def scorer_table(parts: Parts, name: str) -> str:
    """Every model on every specialty by one named scorer, with the reasons it gives."""
    outcome = scorer_named(name)
    rows = []
    for model, columns in parts.items():
        for specialty, items in columns.items():
            outcomes = [outcome(item) for item in items]
            right = [one.right for one in outcomes]
            bounds = clustered_wilson(right, [item.patient_id for item in items])
            reasons = Counter(one.reason for one in outcomes)
            told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
            rows.append([model, specialty, str(len(items)), percent(sum(right) / len(items), *bounds), told])
    return _table(["model", "specialty", "n", f"{name}, %", "how it was read"], rows)


def breakdown_table(parts: Parts, tag: str) -> str:
    """Every model by the values of one tag."""
    rows = [
        _score_row(model, value, one)
        for model, columns in parts.items()
        for value, one in breakdown([item for items in columns.values() for item in items], tag).items()
    ]
    names = ("model", tag, "n", "patients", "strict, %", "lenient, %", "read strictly, %", "read leniently, %")
    return _table([*names, "refused, %", "cut off, %"], rows)


def several_table(parts: Parts) -> str:
    """Votes, pass@k and maj@k of every model on every specialty; empty if each question has one completion."""
    rows = []
    for model, columns in parts.items():
        for specialty, items in columns.items():
            found = several(items)
            if found.completions > 1:
                alone = ", ".join(f"{name} {_share(value)}" for name, value in found.by_guideline.items())
                passed, won = (
                    ", ".join(f"{k}: {_share(value)}" for k, value in values.items())
                    for values in (found.pass_at, found.maj_at)
                )
                rows.append([model, specialty, str(found.n), alone, _share(found.vote), passed, won])
    names = ["model", "specialty", "questions", "by guideline, %", "vote, %", "pass@k, %", "maj@k, %"]
    return _table(names, rows) if rows else ""


def refuse_other_numbers(path: Path, predictions: Sequence[Prediction]) -> str:
    """Compare matrix.csv beside the predictions with what they give.

    Returns:
        A sentence that says how many numbers agree.

    Raises:
        FileNotFoundError: there is no matrix.csv.
        ValueError: a line differs; names it.
    """
    found = path if path.name == "evaluation" else path / "evaluation"
    file = (path.parent if path.suffix == ".jsonl" else found) / "matrix.csv"
    stored, again = file.read_text(encoding="utf-8").split("\n"), matrix_csv(matrix(predictions)).split("\n")
    for number, (before, after) in enumerate(zip(stored, again, strict=False), 1):
        if before != after:
            raise ValueError(f"{file}:{number}: holds {before!r}, the predictions give {after!r}")
    if len(stored) != len(again):
        raise ValueError(f"{file}: has {len(stored)} lines, the predictions give {len(again)}")
    return f"{file}: the {sum(line.count(',') for line in again[1:])} numbers follow from the predictions"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 if `--check` finds other numbers; 2 if the predictions cannot be read or scored.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="experiment folder or file of predictions")
    parser.add_argument("--scorer", nargs="+", default=[], choices=list(SCORERS), help="also score by these")
    parser.add_argument("--by", nargs="+", default=[], metavar="TAG", help="also break down by these tags")
    parser.add_argument("--check", action="store_true", help="compare with the experiment's matrix.csv")
    given = parser.parse_args(arguments)
    try:
        predictions = read_predictions(given.experiment)
        parts = parts_of(predictions)
        tags = {tag for item in predictions for tag in item.tags}
        if missing := [tag for tag in given.by if tag not in tags]:
            raise ValueError(f"--by {' '.join(missing)}: no prediction has such a tag; there are {sorted(tags)}")
        tables = [scores_table(parts), several_table(parts)]
        tables += [scorer_table(parts, name) for name in given.scorer]
        tables += [breakdown_table(parts, tag) for tag in given.by]
    except (OSError, ValueError) as error:
        print(f"rescore: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(filter(None, tables)))
    if given.check:
        try:
            print("\n" + refuse_other_numbers(given.experiment, predictions))
        except (OSError, ValueError) as error:
            print(f"rescore: {error}", file=sys.stderr)
            return 1
    return 0


def _rates(one: Score) -> tuple[float, ...]:
    return one.accuracy, one.accuracy_lenient, one.parse_rate, one.parse_rate_lenient, one.refusals, one.truncated


def _score_row(model: str, name: str, one: Score) -> list[str]:
    strict = percent(one.accuracy, one.low_clustered, one.high_clustered)
    return [model, name, str(one.n), str(one.n_clusters), strict, *map(_share, _rates(one)[1:])]


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    escaped = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


if __name__ == "__main__":
    sys.exit(main())
