"""How far a reasoning follows a guideline: structure that can be read off the text, and findings it must know.

It sees form, and whether the findings of the example are stated; not whether a true reason is a good one. That is why
it is paid to right answers only, and compared within a guideline only. The word lists are English; the order of
sentences counts, that of the words within one mostly does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from typing_extensions import override

from evaluation.answers import LETTERS
from lightning_modules.rewards.causes import LINK, causal_links, rejected_with_reason
from lightning_modules.rewards.evidence import Evidence, read_evidence
from lightning_modules.rewards.findings import Reference, grounding, reference
from lightning_modules.rewards.guidelines import CONDITION, Criterion, Guideline
from lightning_modules.rewards.probabilities import PERCENTAGE, consistent_update, percentages
from lightning_modules.rewards.reading import NEGATED, normal, words
from lightning_modules.rewards.term import Judged, Question, RewardTerm

ANNOUNCING = frozenset(
    "so the answer is a an it this that therefore thus hence final conclusion diagnosis verdict".split()
)


class Adherence(RewardTerm):
    """Adherence of a right answer's reasoning to the guideline of its rollout; none under the neutral prompt.

    It is read off what is said of the options, so that a question without options has none.

    Findings are taken from the example's worked reasoning. Where it has none, only form is scored.
    """

    name: ClassVar = "adherence"
    within_guideline: ClassVar = True
    only_if_right: ClassVar = True

    @dataclass(frozen=True)
    class Config(RewardTerm.Config):
        """Options."""

        weight: float = 0.2
        """The weight in the total; the term is compared within a guideline, so it cannot outbid a right answer."""

    @override
    def score(self, judged: Judged) -> float | None:
        if not (judged.guideline.criteria and judged.example.options):
            return None
        return self._scored(judged).score if judged.right else 0.0

    @override
    def criteria(self, judged: Judged) -> Mapping[str, float]:
        return self._scored(judged).criteria if judged.guideline.criteria and judged.letter else {}

    @override
    def applies_to(self, example: Question) -> bool:
        return bool(example.options)

    def _scored(self, judged: Judged) -> AdherenceScore:
        example = judged.example
        chosen = example.options[LETTERS.index(judged.letter)]
        known = reference_of(example, judged.guideline)
        return adherence(judged.thinking, example.options, chosen, judged.guideline, known)


@dataclass(frozen=True)
class AdherenceScore:
    """How far a reasoning follows a guideline.

    Attributes:
        score: in [0, 1].
        criteria: criterion's name -> credit in [0, 1], before weights; of a pitfall, 1 means it was fallen into. What
            does not apply is left out.
        reason: None, or why the score is 0 whatever the credits.
    """

    score: float
    criteria: Mapping[str, float]
    reason: Literal["contradiction"] | None = None


def adherence(
    thinking: str, options: Sequence[str], answer_text: str, guideline: Guideline, known: Reference | None = None
) -> AdherenceScore:
    """Score a reasoning against the guideline's criteria.

        score = clip( Σ_c w_c · credit_c / Σ_{w_c > 0} w_c, 0, 1 ) · Π_d ( 1 − share_d · (1 − credit_d) )

    c runs over the criteria of form, d over those of kind `grounded`. Credit grows with distinct occurrences up to
    `at_least` and not beyond. Only what stands before the end of the concluding sentence counts, denied phrases do not
    count, and a reasoning that concludes another option than the one answered gets 0. Pure, and linear in the text's
    length.

    Args:
        thinking: the reasoning without tags.
        options: the texts in the order shown.
        answer_text: the option that the completion answers; not necessarily the right one.
        guideline: with at least one criterion of positive weight.
        known: the example's findings; without them, `grounded` criteria do not apply and any reason counts.

    Raises:
        ValueError: the answer is not among the options, or the guideline has no criteria (`neutral`).

    Source: the sum is HealthBench's, arXiv:2505.08775; the strategies are those of Savage et al. 2024,
        doi 10.1038/s41746-024-01010-1.
    Choice: criteria of structure instead of a judge: reproducible, offline, and cheap enough for every rollout.
        Findings are a factor and no summand: as a summand they would pay a reasoning that follows another guideline.
    """
    if answer_text not in options:
        raise ValueError(f"adherence: the answer {answer_text!r} is not among the options {tuple(options)}")
    if not guideline.criteria:
        raise ValueError(f"adherence: guideline {guideline.name!r} has no criteria to be scored by")
    evidence = read_evidence(thinking, options, list(options).index(answer_text), known)
    found = {criterion.name: CREDIT[criterion.kind](evidence, criterion) for criterion in guideline.criteria}
    credits = {name: credit for name, credit in found.items() if credit is not None}
    if evidence.concluded and evidence.answer not in evidence.concluded:
        return AdherenceScore(0.0, credits, "contradiction")
    form = [criterion for criterion in guideline.criteria if criterion.kind != CONDITION]
    points = sum(criterion.weight * credits[criterion.name] for criterion in form)
    possible = sum(criterion.weight for criterion in form if criterion.weight > 0)
    score = min(1.0, max(0.0, points / possible))
    for criterion in guideline.criteria:
        if criterion.kind == CONDITION:
            score *= 1 - criterion.share * (1 - credits.get(criterion.name, 1.0))
    return AdherenceScore(score, credits)


def reference_of(example: Question, guideline: Guideline) -> Reference | None:
    """What an example's worked reasoning knows of it beyond its prompt under a guideline."""
    prompt = "\n".join([example.question, *example.options, guideline.instruction])
    return reference(tuple(example.reasoning.values()), prompt)


def grounded(evidence: Evidence, criterion: Criterion) -> float | None:
    """Findings of the example that are stated, less what is misread; None without worked reasoning to know them by."""
    if evidence.reference is None or not evidence.reference.findings:
        return None
    return grounding(evidence.text, evidence.mentions, evidence.reference, criterion.at_least)


def patterns(evidence: Evidence, criterion: Criterion) -> float:
    """Distinct phrases of a list that occur and are not denied within the three words before."""
    expression = phrase_pattern(criterion.phrases)
    kinds = {
        match.lastindex for match in expression.finditer(evidence.text) if not _denied(evidence.text, match.start())
    }
    return min(1.0, len(kinds) / criterion.at_least)


def candidates(evidence: Evidence, criterion: Criterion) -> float:
    """Distinct options that are weighed: named in a sentence for or against something, or concluded."""
    weighed = {mention.option for mention in evidence.mentions if mention.weighed or mention.rejected}
    return min(1.0, len(weighed | evidence.concluded) / criterion.at_least)


def direct(evidence: Evidence, criterion: Criterion) -> float:
    """From `at_least` words of finding straight to one option: no other option, causal link or percentage."""
    text = evidence.text
    named = {mention.option for mention in evidence.mentions}
    if len(named) != 1 or not evidence.concluded or LINK.search(text) or PERCENTAGE.search(text):
        return 0.0
    before = [word for word in words(text[: evidence.mentions[0].start]) if word not in ANNOUNCING]
    return float(len(before) >= criterion.at_least)


def max_words(evidence: Evidence, criterion: Criterion) -> float:
    """The whole reasoning has at most this many words."""
    return float(evidence.n_words <= criterion.at_most)


def min_words(evidence: Evidence, criterion: Criterion) -> float:
    """The reasoning's share of this many words."""
    return min(1.0, evidence.n_words / criterion.at_least)


CREDIT: dict[str, Callable[[Evidence, Criterion], float | None]] = {
    function.__name__: function
    for function in (
        patterns,
        candidates,
        rejected_with_reason,
        causal_links,
        percentages,
        consistent_update,
        direct,
        max_words,
        min_words,
        grounded,
    )
}
"""Kind of criterion -> its credit in [0, 1], None where it does not apply; a test holds these to be the kinds that
guideline files may name."""


@lru_cache(maxsize=256)
def phrase_pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """One expression with a group per phrase; phrases are literal, so that no file can bring a slow expression."""
    bodies = []
    for phrase in phrases:
        body = r"\s+".join(map(re.escape, normal(phrase).rstrip("*").split()))
        bodies.append(rf"({body}\w*)" if phrase.endswith("*") else rf"({body}(?!\w))")
    return re.compile(r"(?<!\w)(?:" + "|".join(bodies) + ")")


def _denied(text: str, start: int) -> bool:
    return bool(NEGATED.search(text[max(0, start - 40) : start]))
