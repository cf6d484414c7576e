"""Whether models are right for the right reason: their reasoning held against what is known of each case.

    python -m judging.reasons runs/rl_gba                      every model of a matrix
    python -m judging.reasons runs/rl_gba --models 'rl_gba/*' --by question_type --out reasons
    python -m judging.reasons --validate                       how well the reader itself reads, on made traces

Works on the answers of a finished examination without any model, for generated sets (phantoms and clinic), whose
generator knows every case. For other sets a judge is asked: `python -m judging.rubric`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

from datamodules.phantoms.truth import KnowsTruth
from evaluation.predictions import Prediction, by_variant, read_predictions
from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole
from judging.asked import questions_of, sets_of
from judging.by_rule import read_by_rule
from judging.reasoning import Reasoning
from judging.reasons_table import CAPTION, Key, Readings, reasons_table, reasons_verdict


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 if the reader misreads made traces; 2 if the experiment cannot be read.
    """
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", type=Path, help="experiment folder or file of predictions")
    parser.add_argument("--models", nargs="+", default=["*"], help="patterns of row names; all by default")
    parser.add_argument("--by", default="", metavar="TAG", help="break specialties down, such as by question_type")
    parser.add_argument("--out", type=Path, help="folder for reasons.md and reasons.jsonl")
    parser.add_argument("--validate", action="store_true", help="measure the reader on made traces with known flaws")
    given = parser.parse_args(arguments)
    if given.validate == (given.experiment is not None):
        parser.error("name one experiment, or --validate")
    try:
        if given.validate:
            from judging.flaws import validation

            print(printable_whole(validation()))
            return 0
        answers, readings, notes = read_experiment(given.experiment, given.models)
        text = report(answers, readings, notes, given.by)
        if given.out is not None:
            write(given.out, text, readings)
        print(printable_whole(text))
    except (OSError, ValueError) as error:
        print(printable_lines(f"reasons: {error}"), file=sys.stderr)
        return 2
    return 0


def read_experiment(
    experiment: Path, models: Sequence[str] = ("*",)
) -> tuple[list[Prediction], dict[Key, Reasoning], list[str]]:
    """Read the reasoning of an experiment's answers.

    Returns:
        The answers in the main way; what was read of them; what was left out and why.

    Raises:
        OSError: there are no predictions.
        ValueError: they cannot be read, are not answers to the set that the folder names, or nothing can be read.
    """
    answers = by_variant(read_predictions(experiment))[""]
    taken = [item for item in answers if any(fnmatchcase(item.model, pattern) for pattern in models)]
    if not taken:
        raise ValueError(f"no model fits {' or '.join(models)}; there are {', '.join({i.model: 0 for i in answers})}")
    sets, readings, notes = sets_of(experiment), {}, []
    for specialty in dict.fromkeys(item.specialty for item in taken):
        data, asked = sets.get(specialty), [item for item in taken if item.specialty == specialty]
        if not isinstance(data, KnowsTruth):
            notes.append(f"{specialty}: nobody knows its cases' findings; ask a judge (`python -m judging.rubric`).")
            continue
        if not all(item.options for item in asked):
            told = "answers without options are not read by rule; ask a judge (`python -m judging.rubric`)."
            notes.append(f"{specialty}: {told}")
            continue
        truths = {name: data.truth(example) for name, example in questions_of(data, asked).items()}
        for item in asked:
            readings[item.model, item.key] = read_by_rule(item, truths[item.question_id], data.bodies())
    if not readings:
        raise ValueError(f"{experiment}: {' '.join(notes)}")
    return taken, readings, notes


def report(answers: Sequence[Prediction], readings: Readings, notes: Sequence[str], by: str = "") -> str:
    """Verdict, table and what the columns mean, in Markdown."""
    verdict = "\n".join(reasons_verdict(answers, readings))
    return "\n\n".join(part for part in (verdict, reasons_table(answers, readings, by), CAPTION, *notes) if part)


def write(out: Path, text: str, readings: Mapping[Key, Reasoning]) -> None:
    """Keep the report, and what was read of each answer."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "reasons.md").write_text(text + "\n", encoding="utf-8")
    names = ("specialty", "question_id", "guideline", "sample")
    lines = (
        {"model": model, **dict(zip(names, key, strict=True)), **asdict(one), "right_reason": one.right_reason}
        for (model, key), one in readings.items()
    )
    (out / "reasons.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
