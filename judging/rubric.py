"""Answers marked by a judge, criterion by criterion: reasoning where nobody knows the truth, and free answers.

    python -m judging.rubric --config judging/reasons.yaml run=runs/evaluate out=runs/judging/reasons
    python -m judging.rubric --config judging/open.yaml run=runs/evaluate out=runs/judging/open rubric=medevalkit

Every reply is kept at once; the same command goes on where it stopped. What is known costs nothing again.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tqdm import tqdm

from artifacts.interrupts import as_program
from configs.build import build
from datamodules.base import uniform_hash
from datamodules.batch import Example
from endpoints.command import ended
from evaluation.predictions import Prediction, by_variant, read_predictions
from evaluation.scorers import main_outcome
from guards.arguments import Parser
from guards.printable import printable_whole
from judging.asked import questions_of, sets_of
from judging.judge import Judge
from judging.marking import Asked, asked_about
from judging.open_table import agreement_table
from judging.reasons_table import CAPTION, Key, reasons_table, reasons_verdict
from judging.record import Record
from judging.rubric_settings import RubricSettings, load_rubric_settings
from judging.rubrics import VERSION, Rubric, load_rubric, met, reasoning_of, verdicts
from judging.run import UnfinishedError


@dataclass(frozen=True)
class Marked:
    """One reply of the judge.

    Attributes:
        key: of the request.
        reply: as it came.
        truncated: it reached its limit.
        prompt_tokens: of the request; 0 where nobody counts.
        completion_tokens: of the reply, likewise.
    """

    key: str
    reply: str
    truncated: bool
    prompt_tokens: int
    completion_tokens: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        As of `endpoints.command.ended`, and 2 for a wrong command.
    """
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings over those of the file")
    parser.add_argument("--config", required=True, help="a YAML file, or one below configs/")
    given = parser.parse_intermixed_args(arguments)
    return ended(lambda: print(printable_whole(marked(load_rubric_settings(given.config, given.words)))))


def marked(settings: RubricSettings) -> str:
    """Ask for every reply that is missing, and say what they amount to; the report also goes into the folder.

    Raises:
        ValueError: rubric, judge, answers or folder cannot be used.
        UnfinishedError: replies are missing.
    """
    rubric, judge = load_rubric(settings.rubric), build(settings.judge)
    answers = chosen(settings)
    examples = examples_of(settings, answers)
    asked = [
        one
        for item in answers
        for one in asked_about(rubric, judge.identity, item, examples[item.specialty, item.question_id])
    ]
    record = Record(Path(settings.out), checked_mark)
    by_key = {one.request.key: one for one in asked}
    with record.writer(about(rubric, judge, asked)) as keep:
        known = {line.key for line in record.lines()}
        waiting = [one.request for key, one in by_key.items() if key not in known]
        came = judge.replies(waiting) if waiting else ()
        for request, reply in tqdm(came, rubric.name, len(waiting), unit="reply", mininterval=1):
            tokens = (reply.prompt_tokens, reply.completion_tokens)
            keep(Marked(request.key, reply.text, reply.truncated, *tokens))
    marks = {line.key: line for line in record.lines()}
    if left := len(set(by_key) - set(marks)):
        raise UnfinishedError(f"{left} of {len(by_key)} replies are missing; run the same command again to go on")
    text = report(rubric, judge, answers, asked, marks)
    (Path(settings.out) / "report.md").write_text(text + "\n", encoding="utf-8")
    return text


def chosen(settings: RubricSettings) -> list[Prediction]:
    """The answers that are marked, in the main way of asking.

    Raises:
        OSError: there are no predictions.
        ValueError: they cannot be read, or none fits.
    """
    answers = by_variant(read_predictions(Path(settings.run)))[""]
    fitting = [
        item
        for item in answers
        if any(fnmatchcase(item.model, pattern) for pattern in settings.models)
        and (not settings.specialties or item.specialty in settings.specialties)
    ]
    if not fitting:
        there = ", ".join(dict.fromkeys(f"{item.model} on {item.specialty}" for item in answers))
        raise ValueError(f"{settings.run}: no answer fits `models` and `specialties`; there are {there}")
    if not settings.n:
        return fitting
    columns: dict[str, set[str]] = {}
    for item in fitting:
        columns.setdefault(item.specialty, set()).add(item.question_id)
    ordered = {name: sorted(ids, key=lambda one: uniform_hash("rubric", one)) for name, ids in columns.items()}
    kept = {name: set(ids[: settings.n]) for name, ids in ordered.items()}
    return [item for item in fitting if item.question_id in kept[item.specialty]]


def examples_of(settings: RubricSettings, answers: Sequence[Prediction]) -> dict[tuple[str, str], Example]:
    """(specialty, question id) -> the question; errors as of `judging.asked`."""
    sets = sets_of(Path(settings.run), settings.trust)
    found = {}
    for name in dict.fromkeys(item.specialty for item in answers):
        if name not in sets:
            raise ValueError(f"{settings.run}: its experiment.json names no data set {name!r}; choose `specialties`")
        asked = questions_of(sets[name], [item for item in answers if item.specialty == name])
        found |= {(name, question_id): example for question_id, example in asked.items()}
    return found


def about(rubric: Rubric, judge: Judge, asked: Sequence[Asked]) -> dict[str, Any]:
    """All that the replies follow from."""
    keys = hashlib.sha256("".join(sorted({one.request.key for one in asked})).encode()).hexdigest()
    return {"judge": dict(judge.identity), "rubric": rubric.name, "frame": VERSION, "requests_sha256": keys}


def checked_mark(held: Any) -> Marked:
    """A line of the file as a reply.

    Raises:
        ValueError: it is none.
    """
    line = Marked(**held)
    if not all(type(value) is kind for value, kind in zip(held.values(), (str, str, bool, int, int), strict=True)):
        raise ValueError("fields are not as they were written")
    return line


def report(
    rubric: Rubric, judge: Judge, answers: Sequence[Prediction], asked: Sequence[Asked], marks: Mapping[str, Marked]
) -> str:
    """What the replies amount to, in Markdown."""
    found: dict[Key, dict[str, bool | None]] = {(item.model, item.key): {} for item in answers}
    for one in asked:
        found[one.item.model, one.item.key] |= verdicts(rubric, one.group, marks[one.request.key].reply)
    unknown = sum(None in held.values() for held in found.values())
    parts = [cost(judge, [marks[key] for key in {one.request.key for one in asked}], unknown, len(answers))]
    if any(one.part == "right" for one in rubric.criteria):
        judged = {place: said for place, held in found.items() if (said := met(rubric, held, "right")) is not None}
        parts.append(agreement_table([item for item in answers if (item.model, item.key) in judged], judged))
    else:
        none = {one.name: False for one in rubric.criteria}  # no reasoning meets no criterion
        readings = {
            (item.model, item.key): reasoning_of(rubric, found[item.model, item.key] or none, main_outcome(item).right)
            for item in answers
        }
        parts += ["\n".join(reasons_verdict(answers, readings)), reasons_table(answers, readings), CAPTION]
    return "\n\n".join(part for part in (f"Judged by rubric `{rubric.name}`: {rubric.source}.", *parts) if part)


def cost(judge: Judge, marks: Sequence[Marked], unknown: int, answers: int) -> str:
    """What the replies cost and how many answers they leave unknown, in words."""
    prompt, completion = (sum(getattr(one, name) for one in marks) for name in ("prompt_tokens", "completion_tokens"))
    money = judge.price.of(prompt, completion)
    told = f"; {prompt} tokens of prompts and {completion} of replies" if prompt or completion else ""
    told += f", {money:.4f} in money" if money else ""
    return f"{len(marks)} replies on {answers} answers{told}. {unknown} answers have a criterion that is not decided."


if __name__ == "__main__":
    as_program(main)
