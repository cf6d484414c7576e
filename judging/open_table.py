"""Free answers by rule and by judge, side by side, and how far they agree beyond chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from evaluation.clustered import clustered_wilson
from evaluation.open_scores import READINGS, open_reading
from evaluation.predictions import Prediction
from evaluation.report_files import markdown, percent
from evaluation.scorers import lenient, main_outcome
from judging.agreement import cohen_kappa

HALF = 0.5
"""F1 from which an answer counts as right by shared words."""
RULES: dict[str, Callable[[Prediction], bool]] = {
    "exact, strictly read": lambda item: main_outcome(item).right,
    "exact, leniently read": lambda item: lenient(item).right,
    **{f"{name}, F1 from {HALF:g}": lambda item, name=name: open_reading(item, name).f1 >= HALF for name in READINGS},
}
"""Name -> whether a free answer is right by it."""
TRUTH = "truth"
"""Tag of made answers whose worth is known: right or wrong."""
CAPTION = (
    "Kappa: Cohen's, of each rule with what stands beside it; 0 is the agreement of chance, 1 is full. Intervals are "
    "95 %, by patient; kappa's by the jackknife. Questions with options are left out."
)


def agreement_table(answers: Sequence[Prediction], judged: Mapping[tuple, bool], by: str = "judge") -> str:
    """Per model and rule: how many are right by it and by the judge, and how far the two agree.

    Args:
        answers: to questions of any kind.
        judged: (model, key) -> whether the judge calls it right.
        by: who the judge is, for the header.
    """
    rows = []
    free = [item for item in answers if not item.options]
    for model in dict.fromkeys(item.model for item in free):
        items = [item for item in free if item.model == model]
        patients = [(item.specialty, item.patient_id) for item in items]
        other = [judged[item.model, item.key] for item in items]
        known = {"known truth": is_true} if by != "truth" and all(TRUTH in item.tags for item in items) else {}
        for name, rule in (RULES | known).items():
            by_rule = [rule(item) for item in items]
            shares = (percent(sum(one) / len(one), *clustered_wilson(one, patients)) for one in (by_rule, other))
            rated = (list(map(int, by_rule)), list(map(int, other)))
            kappa = cohen_kappa(*rated, ["\x1f".join(who) for who in patients])
            rows.append([model, name, str(len(items)), *shares, told(kappa)])
    if not rows:
        return "No question is open: nothing to compare."
    header = ("model", "rule", "n", "right by the rule, %", f"right by the {by}, %", "kappa")
    return f"{markdown(header, rows, names=2)}\n\n{CAPTION}"


def is_true(item: Prediction) -> bool:
    """Whether a made answer is right."""
    return item.tags[TRUTH] == "right"


def told(kappa: tuple[float, float, float]) -> str:
    """Kappa with its interval; a dash where there is none."""
    value, low, high = kappa
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")
