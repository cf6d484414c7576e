"""What a matrix shows, in words that say no more than its intervals: experts, best agent, what is forgotten."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np

from evaluation.agents import REJECTED, Cast, accuracy, cast
from evaluation.bounded import bounded_mean
from evaluation.detectable import smallest_difference
from evaluation.kept import BASE, answers_of
from evaluation.pairwise import compare_pair, judged
from evaluation.predictions import Prediction
from evaluation.report_files import Verdict, percent, points
from evaluation.scorers import main_outcome
from evaluation.shares import Share, share_of_gain
from evaluation.sign_flip import sign_flip_p
from evaluation.systems import System

FILE = "verdict.json"
"""In the folder of the evaluation."""
NOT_SHOWN: Verdict = "no evidence"


@dataclass(frozen=True)
class Claim:
    """One thing that the matrix was asked. Differences and shares are fractions.

    Attributes:
        system: who.
        baseline: next to whom.
        on: the questions.
        n: how many questions.
        difference: of the accuracies; of several specialties their mean.
        low: lower end of its 95 % interval, paired and by patient.
        high: upper end.
        detectable: the smallest true difference that so many questions find with 80 %.
        p: exact sign-flip test by patient.
        of: how many agents the system is the best of, chosen on these very questions; 1 where nothing was chosen.
        recovered: the share of the experts' gain; None where that is not asked.
        p_holm: p corrected for all claims.
        verdict: what holds.
    """

    system: str
    baseline: str
    on: str
    n: int
    difference: float
    low: float
    high: float
    detectable: float
    p: float
    of: int = 1
    recovered: Share | None = None
    p_holm: float = math.nan
    verdict: Verdict = NOT_SHOWN

    @property
    def sentence(self) -> str:
        """In words."""
        told = f"{percent(self.difference, self.low, self.high, sign='+')} points"
        who = (
            f"{self.system} (the best of {self.of} agents, chosen on these very questions)"
            if self.of > 1
            else self.system
        )
        if self.verdict != NOT_SHOWN:
            held = f"{self.verdict}, {told}"
        elif self.low <= 0 <= self.high:
            seen = points(self.detectable)
            held = f"no difference that {self.n} questions can show ({told}; visible from {seen} on)"
        else:
            held = f"no difference that is shown once all of these lines are corrected for ({told})"
        return f"{who} against {self.baseline}, {self.on}: {held}{'' if self.recovered is None else self.kept_share}"

    @property
    def kept_share(self) -> str:
        """The share of the experts' gain, in words."""
        share = self.recovered
        if not share.bounded:
            return "; what share of the experts' gain that is, these questions do not bound"
        return f"; {100 * share.share:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}] of the experts' gain"


def verdict(predictions: Sequence[Prediction], kept: Sequence[Prediction] = ()) -> list[Claim]:
    """Ask a matrix what its reader wants to know; nothing where it has no experts.

    Experts, each on its own specialty, next to the base and each stage's next to those of the stage before; the best
    agent next to the base, with its share of the last experts' gain, and next to what the gates rejected where that
    answers more; what experts and agent lose of the base's own questions. All p-values are corrected together.

    Args:
        predictions: of all models in the main way.
        kept: answers to the base's own questions.

    Raises:
        ValueError: models were asked different questions of one specialty.
    """
    found = cast(predictions)
    if found is None:
        return []
    claims = [compared(first, second) for first, second in pairwise([found.base, *found.stages.values()])]
    accepted = [one for name, one in found.agents.items() if not name.endswith(REJECTED)]
    best = max(accepted, key=accuracy, default=None)
    rows = dict(found.experts)
    if best is not None:
        claims.append(of_best(best, len(accepted), found))
        rows[best.name] = [best.name]
    return judged([*claims, *of_rejected(best, found), *forgotten(kept, rows)])


def compared(first: System, second: System, confidence: float = 0.95, of: int = 1) -> Claim:
    """The second next to the first, each specialty counting once."""
    row = compare_pair(first, second, confidence=confidence)[-1]
    on = row.specialty
    return Claim(
        second.name, first.name, on, row.n, row.difference, row.low, row.high, row.detectable, min(1.0, of * row.p), of
    )


def of_best(best: System, count: int, found: Cast) -> Claim:
    """The best of so many agents; as it was chosen on these questions, intervals and p are Bonferroni's over them."""
    confidence = 1 - 0.05 / count
    share = share_of_gain(found.outcomes(best), confidence)
    return replace(compared(found.base, best, confidence, count), recovered=share)


def of_rejected(best: System | None, found: Cast) -> Iterator[Claim]:
    """What the gates rejected, where it answers more than the best agent that they let through, or none was."""
    rejected = [one for name, one in found.agents.items() if name.endswith(REJECTED)]
    highest = max(rejected, key=accuracy, default=None)
    if highest is not None and (best is None or accuracy(highest) > accuracy(best)):
        many = len(found.agents)
        claim = compared(found.base if best is None else best, highest, 1 - 0.05 / many, many)
        yield replace(claim, system=f"{highest.name}, which the gates rejected,", of=1)


def forgotten(predictions: Sequence[Prediction], rows: Mapping[str, Sequence[str]]) -> Iterator[Claim]:
    """What models, of several their mean, lose of the base's own questions.

    Args:
        predictions: answers to these.
        rows: name -> the models; nothing is told of one that was not asked.
    """
    answers = answers_of(predictions)
    base = answers.get(BASE, {})
    patients = [item.patient_id for item in base.values()]
    for name, members in rows.items():
        if not base or any(answers.get(row, {}).keys() != base.keys() for row in members):
            continue
        right = [[int(main_outcome(answers[row][key]).right) for key in base] for row in (BASE, *members)]
        gained = np.sum(right[1:], axis=0) - len(members) * np.array(right[0])
        found = bounded_mean(gained / len(members), patients)
        detectable = smallest_difference(found.worth.n, found.disagreement)
        on, p = "the base's own questions", sign_flip_p(gained, patients)
        yield Claim(name, BASE, on, len(base), found.mean, *found.interval(0.95), detectable, p)


def verdict_json(claims: Sequence[Claim]) -> str:
    """Every number and its sentence; null where a number is not finite."""

    def finite(value: object) -> object:
        if isinstance(value, dict):
            return {key: finite(one) for key, one in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps([finite(asdict(claim)) | {"sentence": claim.sentence} for claim in claims], indent=2) + "\n"


def verdict_text(claims: Sequence[Claim]) -> str:
    """The sentences as a list; empty where there are none."""
    return "\n".join(f"- {claim.sentence}." for claim in claims)
