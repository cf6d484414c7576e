"""Every table that follows from raw answers: scores, votes, variants of the questions, scorers, tags."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.ablations import ablation, consistency
from evaluation.baselines import NOT_MEASURED, Answers, majority, together, without_picture
from evaluation.choosing import chosen_table
from evaluation.clustered import clustered_wilson
from evaluation.detectable import DISAGREEMENT, smallest_told
from evaluation.headroom import headroom, headroom_table
from evaluation.kept import answers_of, kept_column
from evaluation.odds import Odds
from evaluation.open_scores import CAPTION as CAPTION_OF_OPEN
from evaluation.open_scores import HEADER as OPEN_NAMES
from evaluation.open_scores import open_rows
from evaluation.predictions import Prediction, by_variant
from evaluation.prices import CAPTION as CAPTION_OF_COSTS
from evaluation.prices import NAMES, Prices, cost_rows
from evaluation.report_files import Table, percent, points
from evaluation.routes import route_rows
from evaluation.scorers import NEEDS_OPTIONS, main_scorer, scorer_named
from evaluation.scoring import Score, by_tag, score
from evaluation.several import several
from evaluation.verdict import verdict, verdict_text

TAGS = ("modality", "body_system", "body_part", "medical_task", "subject", "question_type", "answer_type")
"""What results are broken down by where the questions carry it in at least two values."""
Parts = dict[str, dict[str, list[Prediction]]]
BESIDE = ("one letter, %", "no picture, %", "visible, points")
CAPTION = (
    "One letter: the commonest right answer of the training rows for every question; ≤ that of these questions, an "
    "upper bound, where training rows are not known. Visible: the smallest true difference between two models that so "
    f"many questions find with 80 % at 5 %, if {DISAGREEMENT:.0%} of them tell the two apart; where patients have "
    "several questions, from all independent to all of a patient alike. `evaluation.compare` has that of each pair."
)


@dataclass(frozen=True)
class Beside:
    """What stands beside the scores, under `BESIDE`.

    Attributes:
        blind: as of `evaluation.baselines.without_picture`.
        training: how often which answer is right in the training rows.
    """

    blind: Mapping[str, Mapping[str, Mapping[tuple, bool]]]
    training: Answers

    def cells(self, items: Sequence[Prediction]) -> list[str]:
        """One letter, no picture and visible difference for answers of one model."""
        columns = parts_of(items)[items[0].model]
        letters = [majority(held, self.training.get(specialty)) for specialty, held in columns.items()]
        sizes = list(map(len, columns.values()))
        right = self.blind.get(items[0].model, {})
        seen = [right[item.specialty][item.key] for item in items if item.key in right.get(item.specialty, {})]
        return [
            str(together(letters, sizes)),
            _share(sum(seen) / len(seen)) if len(seen) == len(items) else NOT_MEASURED,
            smallest_told(len({item.key[:2] for item in items}), len({(i.specialty, i.patient_id) for i in items})),
        ]

    def macro(self, columns: Mapping[str, Sequence[Prediction]]) -> list[str]:
        """The same for the mean over specialties; its visible difference depends on the pair, see `compare`."""
        letters = [majority(held, self.training.get(specialty)) for specialty, held in columns.items()]
        right = self.blind.get(next(iter(columns.values()))[0].model, {})
        shares = [sum(right[name].values()) / len(right[name]) for name in columns if name in right]
        blind = _share(math.fsum(shares) / len(shares)) if len(shares) == len(columns) else NOT_MEASURED
        return [str(together(letters, [1] * len(letters))), blind, ""]


def parts_of(predictions: Sequence[Prediction]) -> Parts:
    """Model -> specialty -> its predictions, in order of first appearance."""
    parts: Parts = {}
    for item in predictions:
        parts.setdefault(item.model, {}).setdefault(item.specialty, []).append(item)
    return parts


def scores_table(parts: Parts, beside: Beside) -> Table:
    """Every model on every specialty: what counts and the lenient reading, unread answers, micro and macro means."""
    rows = []
    for model, columns in parts.items():
        found = {specialty: score(items) for specialty, items in columns.items()}
        rows += [
            _score_row(model, specialty, one, beside.cells(columns[specialty])) for specialty, one in found.items()
        ]
        if len(found) > 1:
            whole = [item for items in columns.values() for item in items]
            rows.append(_score_row(model, "micro", score(whole), beside.cells(whole)))
            means = [math.fsum(values) / len(found) for values in zip(*map(_rates, found.values()), strict=True)]
            rows.append([model, "macro", str(len(whole)), "", *map(_share, means), *beside.macro(columns)])
    return Table(["model", "specialty", *_score_names(parts)], rows, CAPTION)


def scorer_table(parts: Parts, name: str, variants: Sequence[Prediction], training: Answers) -> Table:
    """Every model on every specialty by one named scorer, with the reasons it gives; `variants` hold all answers."""
    outcome = scorer_named(name)
    readable = [item for item in variants if item.options or name not in NEEDS_OPTIONS]
    beside = Beside(without_picture(readable, outcome), training)
    rows = []
    for model, columns in parts.items():
        for specialty, items in columns.items():
            if name in NEEDS_OPTIONS and not all(item.options for item in items):
                rows.append([model, specialty, str(len(items)), "-", "", "", "", "has questions without options"])
                continue
            outcomes = [outcome(item) for item in items]
            right = [one.right for one in outcomes]
            bounds = clustered_wilson(right, [item.patient_id for item in items])
            reasons = Counter(one.reason for one in outcomes)
            told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
            rows.append(
                [
                    model,
                    specialty,
                    str(len(items)),
                    percent(sum(right) / len(items), *bounds),
                    *beside.cells(items),
                    told,
                ]
            )
    return Table(["model", "specialty", "n", f"{name}, %", *BESIDE, "how it was read"], rows)


def breakdown_table(parts: Parts, tag: str, beside: Beside) -> Table:
    """Every model by the values of one tag."""
    rows = [
        _score_row(model, value, score(items), beside.cells(items))
        for model, columns in parts.items()
        for value, items in by_tag([item for items in columns.values() for item in items], tag).items()
    ]
    return Table(["model", tag, *_score_names(parts)], rows)


def routes_table(parts: Parts) -> Table:
    """How often every router chose a question's own specialty; no rows if there is no router."""
    rows = [
        [model, specialty, str(n), percent(*share), astray] for model, specialty, n, share, astray in route_rows(parts)
    ]
    names = ["model", "specialty", "questions", "sent to their own expert, %", "the others went to"]
    return Table(names, rows)


def kept_table(predictions: Sequence[Prediction]) -> Table:
    """Every model on the base's own questions, next to the base; no rows if they were not asked."""
    rows, answers = [], answers_of(predictions)
    for model, one in kept_column(predictions).items():
        kinds = {kind: score(items) for kind, items in by_tag(list(answers[model].values()), "question_type").items()}
        by_type = ", ".join(f"{kind} {_share(found.accuracy)} of {found.n}" for kind, found in kinds.items())
        told = [percent(one.score.accuracy, one.score.low, one.score.high)]
        if one.difference is None:
            told += ["", ""]
        else:
            paired = one.difference
            told += [percent(paired.difference, paired.low, paired.high, sign="+"), points(paired.detectable)]
        rows.append([model, str(one.score.n), str(one.score.n_clusters), *told, by_type])
    names = ["model", "n", "patients", "right, %", "difference from the base, points", "visible, points"]
    return Table([*names, "by question type, %"], rows)


def several_table(parts: Parts) -> Table:
    """Votes, pass@k and maj@k of every model on every specialty; no rows if each question has one completion."""
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
    return Table(names, rows)


def ablation_table(main: Parts, variants: Mapping[str, Parts]) -> Table:
    """Every variant beside the main way, on the questions that it was asked; no rows if there is none."""
    rows = []
    for label, parts in variants.items():
        for model, columns in parts.items():
            for specialty, items in columns.items():
                found = ablation(main[model][specialty], items)
                difference = percent(found.difference, found.low, found.high, sign="+")
                told = [_share(found.accuracy_main), _share(found.accuracy), difference, points(found.detectable)]
                told.append(f"{found.p:.3g}")
                rows.append([model, specialty, label, str(found.n), *told, _share(found.same)])
    names = ["model", "specialty", "variant", "n", "main, %", "variant, %", "difference, points", "visible, points"]
    return Table([*names, "p", "same answer, %"], rows)


def consistency_table(main: Parts, variants: Mapping[str, Parts], key: str) -> Table:
    """All orders of the options (key "shuffle"), or all wordings ("wording"), together; no rows if there is none."""
    others = [parts for label, parts in variants.items() if label.startswith(f"{key}=")]
    rows = []
    for model, columns in main.items() if others else ():
        for specialty, items in columns.items():
            found = consistency(items, [parts.get(model, {}).get(specialty, []) for parts in others])
            each = ", ".join(map(_share, found.accuracies))
            letters = ", ".join(f"{name} {said}/{right}" for name, (said, right) in found.letters.items())
            rows.append([model, specialty, str(found.n), each, _share(found.changed), _share(found.always), letters])
    names = ["model", "specialty", f"n in every {key}", "each, %", "changed text, %", "right in all, %"]
    return Table([*names, "letters, answered/right"], rows)


def free_table(parts: Parts) -> Table:
    """Exact match and shared words of the answers to questions without options; no rows where there are none."""
    return Table(OPEN_NAMES, open_rows(parts), CAPTION_OF_OPEN)


def prices_table(predictions: Sequence[Prediction], prices: Prices) -> Table:
    """What every model behind an endpoint was asked for, and cost; no rows where all ran here."""
    return Table(NAMES, cost_rows(predictions, prices), CAPTION_OF_COSTS)


def telling_tags(predictions: Sequence[Prediction]) -> list[str]:
    """Those of the usual tags that tell questions of this file apart."""
    return [tag for tag in TAGS if len({item.tags[tag] for item in predictions if tag in item.tags}) > 1]


def report(
    predictions: Sequence[Prediction],
    scorers: Sequence[str],
    tags: Sequence[str],
    training: Answers | None = None,
    kept: Sequence[Prediction] = (),
    prices: Prices | None = None,
    odds: Odds | None = None,
) -> str:
    """The verdict and all tables of one file of predictions, in Markdown; arguments and errors of `all_tables`."""
    claims = verdict_text(verdict(by_variant(predictions)[""], kept))
    found = all_tables(predictions, scorers, tags, training, kept, prices, odds)
    shown = {"Verdict": claims, **{title: table.markdown for title, table in found.items()}}
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in shown.items() if text)


def all_tables(
    predictions: Sequence[Prediction],
    scorers: Sequence[str],
    tags: Sequence[str],
    training: Answers | None = None,
    kept: Sequence[Prediction] = (),
    prices: Prices | None = None,
    odds: Odds | None = None,
) -> dict[str, Table]:
    """All tables of one file of predictions, by their titles; those without rows are left out.

    Args:
        predictions: of any number of models, the main way first.
        scorers: names of `evaluation.scorers.SCORERS` that are reported beside our own two readings.
        tags: what the main answers are broken down by.
        training: how often which answer is right in the training rows, as of `evaluation.baselines`.
        kept: answers to the base's own questions.
        prices: of models behind endpoints, as of `evaluation.prices`.
        odds: of a verifier, as of `evaluation.odds`.

    Raises:
        ValueError: nothing to score, or answers that do not fit together.
    """
    main, *others = by_variant(predictions).items()
    parts = parts_of(main[1])
    variants = {label: parts_of(items) for label, items in others}
    beside = Beside(without_picture(predictions), training or {})
    recovered = headroom(main[1])
    tables = {
        "Scores": scores_table(parts, beside),
        "Free answers": free_table(parts),
        **({"Headroom recovered": headroom_table(recovered)} if recovered else {}),
        "Kept of the base's own questions": kept_table(kept),
        "Sent by routers": routes_table(parts),
        "Several answers per question": several_table(parts),
        "Chosen by a verifier": chosen_table(parts, odds or {}),
        "Questions put in another way": ablation_table(parts, variants),
        "Orders of the options": consistency_table(parts, variants, "shuffle"),
        "Wordings": consistency_table(parts, variants, "wording"),
        **{f"Scored by {name}": scorer_table(parts, name, predictions, training or {}) for name in scorers},
        **{f"By {tag}": breakdown_table(parts, tag, beside) for tag in tags},
        "Cost": prices_table([*predictions, *kept], prices or {}),
    }
    return {title: table for title, table in tables.items() if table.rows}


def _rates(one: Score) -> tuple[float, ...]:
    return one.accuracy, one.accuracy_lenient, one.parse_rate, one.parse_rate_lenient, one.refusals, one.truncated


def _score_names(parts: Parts) -> list[str]:
    """Heads of what `_score_row` fills in, the main score by its name."""
    used = {main_scorer(item) for columns in parts.values() for items in columns.values() for item in items}
    read = "read strictly, %" if used == {"strict"} else "read, %"
    shown = [" or ".join(sorted(used)), "lenient"]
    return [
        "n",
        "patients",
        *(f"{name}, %" for name in shown),
        read,
        "read leniently, %",
        "refused, %",
        "cut off, %",
        *BESIDE,
    ]


def _score_row(model: str, name: str, one: Score, beside: Sequence[str]) -> list[str]:
    share = percent(one.accuracy, one.low, one.high)
    return [model, name, str(one.n), str(one.n_clusters), share, *map(_share, _rates(one)[1:]), *beside]


def _share(value: float) -> str:
    return f"{100 * value:.1f}"
