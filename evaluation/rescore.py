"""Score an experiment's raw answers again, without a model.

    python -m evaluation.rescore runs/seed0/rl_gba
    python -m evaluation.rescore runs/seed0/rl_gba --scorer official:medevalkit --by modality body_system
    python -m evaluation.rescore runs/seed0/rl_gba --check          exit code 1 unless matrix.csv holds these numbers

Several completions per question (guidelines, samples) are also shown together: vote, pass@k, maj@k. Where questions
were also put in other ways (no picture, other order, other words), those answers stand beside the main ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.baselines import read_training_answers
from evaluation.kept import kept_column, read_kept
from evaluation.matrix_table import matrix_csv
from evaluation.odds import read_odds
from evaluation.predictions import Prediction, by_variant, read_predictions
from evaluation.prices import read_prices
from evaluation.scorers import SCORERS
from evaluation.scoring import matrix
from evaluation.tables import report, telling_tags
from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole


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
    kept = kept_column(read_kept(path))
    again = matrix_csv(matrix(by_variant(predictions)[""]), kept).split("\n")
    stored = file.read_text(encoding="utf-8").split("\n")
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
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="experiment folder or file of predictions")
    parser.add_argument("--scorer", nargs="+", default=[], choices=list(SCORERS), help="also score by these")
    parser.add_argument(
        "--by", nargs="+", default=[], metavar="TAG", help="break down by these tags, not by the usual ones"
    )
    parser.add_argument("--check", action="store_true", help="compare with the experiment's matrix.csv")
    given = parser.parse_args(arguments)
    try:
        predictions = read_predictions(given.experiment)
        tags = {tag for item in predictions for tag in item.tags}
        if missing := [tag for tag in given.by if tag not in tags]:
            raise ValueError(f"--by {' '.join(missing)}: no prediction has such a tag; there are {sorted(tags)}")
        tags_shown = given.by or telling_tags(predictions)
        place = given.experiment
        beside = (read_training_answers(place), read_kept(place), read_prices(place), read_odds(place))
        text = report(predictions, given.scorer, tags_shown, *beside)
    except (OSError, ValueError) as error:
        print(printable_lines(f"rescore: {error}"), file=sys.stderr)
        return 2
    print(printable_whole(text))
    if given.check:
        try:
            print("\n" + refuse_other_numbers(given.experiment, predictions))
        except (OSError, ValueError) as error:
            print(printable_lines(f"rescore: {error}"), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
