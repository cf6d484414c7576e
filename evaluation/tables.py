"""Every table that follows from raw answers, in Markdown: scores, votes, variants of the questions, scorers, tags."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from evaluation.ablations import ablation, consistency
from evaluation.clustered import clustered_wilson
from evaluation.comparison_report import percent
from evaluation.predictions import Prediction, by_variant
from evaluation.scorers import NEEDS_OPTIONS, main_scorer, scorer_named
from evaluation.scoring import Score, breakdown, score
from evaluation.several import several

TAGS = ("modality", "body_system", "body_part", "medical_task", "subject", "question_type", "answer_type")
"""What results are broken down by where the questions carry it in at least two values."""
Parts = dict[str, dict[str, list[Prediction]]]


def parts_of(predictions: Sequence[Prediction]) -> Parts:
    """Model -> specialty -> its predictions, in order of first appearance."""
    parts: Parts = {}
    for item in predictions:
        parts.setdefault(item.model, {}).setdefault(item.specialty, []).append(item)
    return parts


def scores_table(parts: Parts) -> str:
    """Every model on every specialty: what counts and the lenient reading, unread answers, micro and macro means."""
    rows = []
    for model, columns in parts.items():
        found = {specialty: score(items) for specialty, items in columns.items()}
        rows += [_score_row(model, specialty, one) for specialty, one in found.items()]
        if len(found) > 1:
            rows.append(_score_row(model, "micro", score([item for items in columns.values() for item in items])))
            means = [math.fsum(values) / len(found) for values in zip(*map(_rates, found.values()), strict=True)]
            rows.append([model, "macro", str(sum(one.n for one in found.values())), "", *map(_share, means)])
    return _table(["model", "specialty", *_score_names(parts)], rows)


def scorer_table(parts: Parts, name: str) -> str:
    """Every model on every specialty by one named scorer, with the reasons it gives."""
    outcome = scorer_named(name)
    rows = []
    for model, columns in parts.items():
        for specialty, items in columns.items():
            if name in NEEDS_OPTIONS and not all(item.options for item in items):
                rows.append([model, specialty, str(len(items)), "-", "has questions without options"])
                continue
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
    return _table(["model", tag, *_score_names(parts)], rows)


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


def ablation_table(main: Parts, variants: Mapping[str, Parts]) -> str:
    """Every variant beside the main way, on the questions that it was asked; empty if there is none."""
    rows = []
    for label, parts in variants.items():
        for model, columns in parts.items():
            for specialty, items in columns.items():
                found = ablation(main[model][specialty], items)
                points = [f"{100 * value:+.1f}" for value in (found.difference, found.low, found.high)]
                difference = f"{points[0]} [{points[1]}, {points[2]}]"
                told = [_share(found.accuracy_main), _share(found.accuracy), difference, f"{found.p:.3g}"]
                rows.append([model, specialty, label, str(found.n), *told, _share(found.same)])
    names = ["model", "specialty", "variant", "n", "main, %", "variant, %", "difference, points", "p"]
    return _table([*names, "same answer, %"], rows) if rows else ""


def consistency_table(main: Parts, variants: Mapping[str, Parts], key: str) -> str:
    """All orders of the options (key "shuffle"), or all wordings ("wording"), together; empty if there is none."""
    others = [parts for label, parts in variants.items() if label.startswith(f"{key}=")]
    rows = []
    for model, columns in main.items() if others else ():
        for specialty, items in columns.items():
            found = consistency(items, [parts.get(model, {}).get(specialty, []) for parts in others])
            each = ", ".join(map(_share, found.accuracies))
            letters = ", ".join(f"{name} {said}/{right}" for name, (said, right) in found.letters.items())
            rows.append([model, specialty, str(found.n), each, _share(found.changed), _share(found.always), letters])
    names = ["model", "specialty", f"n in every {key}", "each, %", "changed text, %", "right in all, %"]
    return _table([*names, "letters, answered/right"], rows) if rows else ""


def telling_tags(predictions: Sequence[Prediction]) -> list[str]:
    """Those of the usual tags that tell questions of this file apart."""
    return [tag for tag in TAGS if len({item.tags[tag] for item in predictions if tag in item.tags}) > 1]


def report(predictions: Sequence[Prediction], scorers: Sequence[str], tags: Sequence[str]) -> str:
    """All tables of one file of predictions.

    Args:
        predictions: of any number of models, the main way first.
        scorers: names of `evaluation.scorers.SCORERS` that are reported beside our own two readings.
        tags: what the main answers are broken down by.

    Raises:
        ValueError: nothing to score, or answers that do not fit together.
    """
    main, *others = by_variant(predictions).items()
    parts = parts_of(main[1])
    variants = {label: parts_of(items) for label, items in others}
    tables = {
        "Scores": scores_table(parts),
        "Several answers per question": several_table(parts),
        "Questions put in another way": ablation_table(parts, variants),
        "Orders of the options": consistency_table(parts, variants, "shuffle"),
        "Wordings": consistency_table(parts, variants, "wording"),
        **{f"Scored by {name}": scorer_table(parts, name) for name in scorers},
        **{f"By {tag}": breakdown_table(parts, tag) for tag in tags},
    }
    return "\n\n".join(f"## {title}\n\n{table}" for title, table in tables.items() if table)


def _rates(one: Score) -> tuple[float, ...]:
    return one.accuracy, one.accuracy_lenient, one.parse_rate, one.parse_rate_lenient, one.refusals, one.truncated


def _score_names(parts: Parts) -> list[str]:
    """Heads of what `_score_row` fills in, the main score by its name."""
    used = {main_scorer(item) for columns in parts.values() for items in columns.values() for item in items}
    read = "read strictly, %" if used == {"strict"} else "read, %"
    shown = [" or ".join(sorted(used)), "lenient"]
    return ["n", "patients", *(f"{name}, %" for name in shown), read, "read leniently, %", "refused, %", "cut off, %"]


def _score_row(model: str, name: str, one: Score) -> list[str]:
    share = percent(one.accuracy, one.low_clustered, one.high_clustered)
    return [model, name, str(one.n), str(one.n_clusters), share, *map(_share, _rates(one)[1:])]


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    escaped = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])
