"""The gallery's cases: one question each, with what every model answered and how it was read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules.batch import BadExampleError, Example
from evaluation.answers import LETTERS
from evaluation.kept import KEPT
from evaluation.predictions import Prediction
from evaluation.report.folder import Folder
from evaluation.report.questions import Questions
from evaluation.scorers import main_outcome

LONGEST = 6000
"""Characters of one text; predictions.jsonl has all of it."""
EXAMINATION, KEPT_KIND, TRAINING = "examination", "the base's own questions", "probes of training"


@dataclass
class Gallery:
    """All cases of a report.

    Attributes:
        cases: what the page gets, as JSON.
        models: names; a case's answers name their model by its place here.
        total: questions that there are.
        changed: shown questions whose set is not any more as it was asked, so that its text and pictures are left out.
    """

    cases: list[dict[str, Any]] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    total: int = 0
    changed: int = 0

    def place(self, model: str) -> int:
        """A model's number; a new one gets the next."""
        if model not in self.models:
            self.models.append(model)
        return self.models.index(model)


def add_answers(
    gallery: Gallery, predictions: Sequence[Prediction], named: Mapping[str, str], questions: Questions, most: int
) -> dict[tuple, tuple[dict[str, Any], Example | None]]:
    """Add the questions of an examination, as many of each column as its share of `most` allows.

    Args:
        gallery: gets them.
        predictions: of all models in the main way.
        named: model -> its name in the report.
        questions: of the experiment.
        most: questions that are shown at most, the first of each column; 0 shows all.

    Returns:
        (column, question id, options) -> the case and its question, where that is known.
    """
    groups: dict[tuple, list[Prediction]] = {}
    for item in predictions:
        groups.setdefault((item.specialty, item.question_id, item.options), []).append(item)
    columns = list(dict.fromkeys(key[0] for key in groups))
    share, taken = most // len(columns) or 1 if most and columns else len(groups), dict.fromkeys(columns, 0)
    gallery.total += len(groups)
    found = {}
    for key, items in groups.items():
        taken[key[0]] += 1
        if taken[key[0]] <= share:
            example = questions.asked(items[0])
            gallery.changed += example is None and items[0].question_id in questions.known.get(key[0], {})
            case = case_of(items[0], example, KEPT_KIND if key[0] == KEPT else EXAMINATION)
            case["answers"] = [answer_of(item, gallery.place(named[item.model])) for item in items]
            gallery.cases.append(case)
            found[key] = case, example
    return found


def case_of(item: Prediction, example: Example | None, kind: str) -> dict[str, Any]:
    """A question; without its text where that is not known."""
    return {
        "kind": kind,
        "specialty": item.specialty,
        "id": item.question_id,
        "patient": item.patient_id,
        "question": cut(example.question) if example else "",
        "options": [cut(option) for option in item.options],
        "gold": item.answer_letter,
        "answer": cut(item.gold),
        "reference": {name: cut(text) for name, text in example.reasoning.items()} if example else {},
        "tags": dict(item.tags),
        "pictures": [],
    }


def answer_of(item: Prediction, model: int) -> dict[str, Any]:
    """What a model wrote, and the verdict that its score counts."""
    outcome = main_outcome(item)
    given: dict[str, Any] = {
        "model": model,
        "text": cut("\n\n".join([*item.turns, item.completion])),
        "said": outcome.answered or "",
        "right": bool(outcome.right),
        "reason": outcome.reason,
        "guideline": item.guideline,
        "sample": item.sample,
    }
    given |= {"cut": True} if item.truncated else {}
    given |= {"fault": item.fault} if item.fault else {}
    if item.option_losses:
        given["losses"] = {letter: round(loss, 3) for letter, loss in zip(LETTERS, item.option_losses, strict=False)}
    return given


def add_probes(gallery: Gallery, runs: Sequence[Path], questions: Questions) -> list[tuple[dict, Example | None]]:
    """Add the probe questions of runs, with the rewards that their rollouts earned at the first and the last look.

    Args:
        gallery: gets them.
        runs: folders `<experiment>/<specialty>`.
        questions: of the experiments.
    """
    found: dict[tuple, tuple[dict, Example | None]] = {}
    for run in runs:
        rows = list(records(run / "samples.jsonl"))
        steps = {row["step"] for row in rows}
        for row in rows:
            if row["step"] not in (min(steps), max(steps)):
                continue
            key = (run.name, row["question_id"])
            if key not in found:
                example = probed(questions, *key)
                if example is not None and right_of(example) != row["gold"]:
                    gallery.changed, example = gallery.changed + 1, None
                case = case_of_probe(row, example, run.name)
                found[key] = case, example
                gallery.cases.append(case)
            name = f"{run.parent.name}/{run.name} at step {row['step']}"
            found[key][0]["answers"].append(answer_of_probe(row, gallery.place(name)))
    gallery.total += len(found)
    return list(found.values())


def probed(questions: Questions, run: str, question_id: str) -> Example | None:
    """The question of a probe: of the run's specialty, or of any where one run is over all."""
    columns = [run] if run in questions.known else [name for name in questions.known if name != KEPT]
    return next((held for name in columns if (held := questions.known[name].get(question_id))), None)


def right_of(example: Example) -> str:
    """The right option's letter; of an open question the answer itself."""
    return example.letter if example.options else example.answer


def case_of_probe(row: Mapping[str, Any], example: Example | None, specialty: str) -> dict[str, Any]:
    """The question of a probe."""
    options = example.options if example else ()
    return {
        "kind": TRAINING,
        "specialty": specialty,
        "id": row["question_id"],
        "patient": example.patient_id if example else "",
        "question": cut(example.question) if example else "",
        "options": [cut(option) for option in options],
        "gold": row["gold"] if options else "",
        "answer": cut(example.answer if example else row["gold"]),
        "reference": {name: cut(text) for name, text in example.reasoning.items()} if example else {},
        "tags": dict(example.tags) if example else {},
        "pictures": [],
        "answers": [],
    }


def answer_of_probe(row: Mapping[str, Any], model: int) -> dict[str, Any]:
    """One rollout; the greedy answers of imitation are not scored."""
    given = {"model": model, "text": cut(row["completion"]), "said": "", "right": row.get("right"), "reason": ""}
    given |= {"guideline": row["guideline"], "sample": 0}
    if "reward" in row:
        given["rewards"] = {**row["reward"], "advantage": row["advantage"]}
        given["reason"] = f"gate: {row['gate']}" if row["gate"] else ""
    return given


def records(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's samples; none where there are none.

    Raises:
        ValueError: a line is damaged; names it.
    """
    if not file.is_file():
        return
    for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
                _ = row["step"] + 0, row["question_id"], row["gold"], row["guideline"], row["completion"][:0]
                _ = [row[key] for key in ("gate", "advantage") if "reward" in row]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file}:{number}: is damaged ({type(error).__name__}: {error})") from error
            yield row


def add_pictures(folder: Folder, shown: Sequence[tuple[dict[str, Any], Example | None]]) -> list[str]:
    """Write the pictures of cases into the folder.

    Returns:
        Why some cannot be shown.
    """
    notes = []
    for case, example in shown:
        try:
            case["pictures"] = [folder.picture(source) for source in (example.images if example else ())]
        except BadExampleError as error:
            notes.append(f"{case['id']}: {error}")
    return notes


def cut(text: str) -> str:
    """A text of at most `LONGEST` characters."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … [{len(text) - LONGEST} more characters]"
