"""Let a verifier choose among several answers: best-of-n and weighted vote beside pass@k and majority.

    python -m judging.verify --config evaluate.yaml name=sampled --verifier verifier_tiny.yaml

The experiment that `--config` and its settings name was examined with `samples` above 1; nothing is asked again. Its
folder gets `verified.jsonl`, `verified.md`, `verified.csv` and `verified.png`, and its `report.md` what the verifier
chooses, as soon as the examination's own command is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from artifacts.durable import write_text
from artifacts.interrupts import as_program, stop_alike
from configs.problems import ConfigError
from datamodules.batch import Example
from evaluation.choosing import Verified, lines_of
from evaluation.odds import FILE as SCORES
from evaluation.odds import key_of, read, written
from evaluation.predictions import Prediction, by_variant, read_predictions
from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole
from judging.asked import questions_of
from judging.sampled import is_of
from judging.verified_report import as_csv, figure, page

if TYPE_CHECKING:
    from answering.grader import Grader
    from experiment.context import ExperimentContext

PAGE, NUMBERS, FIGURE = "verified.md", "verified.csv", "verified.png"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 if it failed; 2 for a wrong command or configuration.
    """
    parser = Parser(
        prog="python -m judging.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="experiment file that was examined, as train.py takes it")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="its dotted settings")
    parser.add_argument("--verifier", required=True, help="experiment file that trained the verifier")
    parser.add_argument("--verifier-set", action="append", default=[], metavar="key=value", help="its settings")
    parser.add_argument("--model", default="", help="row that is looked at, such as sft_dsa/{specialty}; empty: all")
    parser.add_argument("--run", default="verifier", help="the verifier's run (specialty) in that experiment")
    given = parser.parse_intermixed_args(arguments)
    stop_alike()
    try:
        from experiment.graders import grader_of
        from experiment.live_model import context_of

        context = context_of(given.config, given.settings)
        grader = grader_of(given.verifier, given.verifier_set, given.run)
        print(printable_whole(verify(context, grader, given.model)))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(printable_lines(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 1
    return 0


def verify(context: ExperimentContext, grader: Grader, model: str = "") -> str:
    """Score every answer of an examination that has no score by this verifier yet, and write what follows.

    Args:
        context: of the examined experiment.
        grader: the verifier.
        model: row whose answers are looked at, as of `judging.sampled.is_of`.

    Raises:
        ValueError: the verifier did not learn outcomes, or the answers are not one file's.
        BadExampleError: a question is not there as it was answered.
        FileNotFoundError: the experiment was not examined.
    """
    if grader.objective != "outcome" or len(grader.dimensions) != 1:
        raise ValueError(
            f"--verifier: learnt {grader.objective} on {', '.join(grader.dimensions)}; a verifier has "
            "objective: outcome and one dimension, as configs/verifier_tiny.yaml"
        )
    folder = context.folder.evaluation
    predictions = [item for item in by_variant(read_predictions(folder))[""] if is_of(item, model)]
    if not predictions:
        raise ValueError(f"--model {model!r} is no row of {folder}")
    known = read(folder / SCORES, grader.identity)
    missing = [item for item in predictions if key_of(item) not in known]
    scores = known | dict(scored(context, grader, missing))
    write_text(folder / SCORES, written(scores, grader.identity))
    found = lines_of([Verified(item, scores[key_of(item)]) for item in predictions])
    text = page(found)
    write_text(folder / PAGE, text)
    write_text(folder / NUMBERS, as_csv(found))
    figure(found).savefig(folder / FIGURE, dpi=150)
    return text


def scored(
    context: ExperimentContext, grader: Grader, predictions: Sequence[Prediction], at_once: int = 16
) -> Iterator[tuple[str, float]]:
    """(key, log-odds of being right) of answers, question by question."""
    groups: dict[str, dict[tuple[str, tuple[str, ...]], list[Prediction]]] = {}
    for item in predictions:
        groups.setdefault(item.specialty, {}).setdefault((item.question_id, item.options), []).append(item)
    asked: list[tuple[Example, list[Prediction]]] = []
    for specialty, held in groups.items():
        questions = questions_of(context.data(specialty), chain.from_iterable(held.values()))
        asked += [(replace(questions[name], options=options), items) for (name, options), items in held.items()]
    if not asked:
        return
    with grader.acting() as grade:
        for start in range(0, len(asked), at_once):
            part = asked[start : start + at_once]
            found = grade([(example, [item.completion for item in items]) for example, items in part])
            for (_, items), odds in zip(part, found, strict=True):
                yield from ((key_of(item), float(value)) for item, value in zip(items, odds[:, 0], strict=True))


if __name__ == "__main__":
    as_program(main)
