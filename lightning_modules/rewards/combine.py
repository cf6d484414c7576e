"""One number per rollout: the weighted terms, with a right answer always above a wrong one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.answers import thinking_of
from evaluation.open_answers import is_same
from lightning_modules.rewards.gates import Gate, answered, gates
from lightning_modules.rewards.guidelines import Guideline
from lightning_modules.rewards.term import Judged, Question, RewardTerm


@dataclass(frozen=True)
class Reward:
    """The reward of one completion.

    Attributes:
        total: `between` plus `within`.
        parts: term's name -> its score, unweighted, as it was paid; None where it does not apply.
        between: Σ of weight times score over the terms that any two rollouts of a question are compared by.
        within: the same over the terms that are compared within a guideline alone; None if none applies.
        gate: the gate that fails, or None.
        letter: what was strictly read, even if a gate fails; None if unparsed, or without options.
        right: strictly read, right, and through every gate.
        criteria: what the scores were made of, such as credit per criterion of the guideline; empty behind a gate.
        unknown: names of terms whose score could not be had; `total`, `between` and `within` are those of the rest.
        answer: what was strictly read, a letter, or without options a text; None if unparsed.
    """

    total: float
    parts: Mapping[str, float | None]
    between: float
    within: float | None
    gate: Gate | None
    letter: str | None
    right: bool
    criteria: Mapping[str, float] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    answer: str | None = None


class Rewards:
    """The reward terms of a run, as one function of a completion.

        total = Σ_j w_j · s_j

    Behind a failed gate a score above 0 becomes 0, and so does every score of a term that is paid only if right where
    the answer is wrong. A wrong answer never outscores or equals a right one, whatever the completions say: that is
    worked out from the weights and ranges before anything is rolled out, and refused where it does not hold.
    """

    def __init__(self, terms: Sequence[RewardTerm]) -> None:
        """Take the terms and check what they promise.

        Args:
            terms: at least one, with names of their own.

        Raises:
            ValueError: there is no term, names repeat, nothing can earn, or a wrong answer could outscore a right one.
        """
        self.terms = tuple(terms)
        self.names = tuple(term.name for term in self.terms)
        if not self.terms:
            raise ValueError("rewards: got no term; a run needs at least one, such as correct")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"rewards: names repeat: {list(self.names)}; give the class another `name`")
        weights = ", ".join(f"{term.name} {term.config.weight:g}" for term in self.terms)
        if not any(term.config.weight > 0 and term.highest > 0 for term in self.terms):
            raise ValueError(f"rewards: nothing can be earned with the weights {weights}")
        least, most = self.least_if_right(), self.most_if_wrong()
        if not least > most:
            raise ValueError(
                f"reward weights: a wrong answer could outscore a right one: it may earn up to {most:g} and a right "
                f"one as little as {least:g} with the weights {weights}; raise that of correct, or lower those of "
                "terms that are paid to wrong answers or that punish"
            )

    def least_if_right(self) -> float:
        """The least that a right answer can earn; a term that does not apply gives 0."""
        return self._sums({term.name: term.lowest for term in self.terms})[0]

    def most_if_wrong(self) -> float:
        """The most that a wrong answer can earn."""
        most = {term.name: 0.0 if term.only_if_right else max(0.0, term.highest) for term in self.terms}
        return self._sums(most)[0]

    def __call__(
        self, text: str, example: Question, guideline: Guideline, *, n_tokens: int = 0, truncated: bool = False
    ) -> Reward:
        """Reward one completion; arguments as of `judged`, errors as of `together`."""
        return self.together([judged(text, example, guideline, n_tokens=n_tokens, truncated=truncated)])[0]

    def together(self, read: Sequence[Judged]) -> list[Reward]:
        """Reward completions, every term scoring all of them at once.

        Raises:
            ValueError: a term's score is outside the range that it promises.
        """
        columns = [paid_scores(term, read) for term in self.terms]
        return [self._reward(one, row) for one, row in zip(read, zip(*columns, strict=True), strict=True)]

    def _reward(self, one: Judged, scores: Sequence[float | None]) -> Reward:
        named = dict(zip(self.names, scores, strict=True))
        unknown = tuple(name for name, score in named.items() if score is not None and math.isnan(score))
        parts = {name: None if name in unknown else score for name, score in named.items()}
        total, between, within = self._sums(parts)
        criteria: dict[str, float] = {}
        for term in self.terms if one.gate is None else ():
            criteria |= term.criteria(one)
        return Reward(total, parts, between, within, one.gate, one.letter, one.right, criteria, unknown, one.answer)

    def _sums(self, parts: Mapping[str, float | None]) -> tuple[float, float, float | None]:
        """(total, between, within); always added in one order, so that rounding keeps a promise about bounds."""
        between, within = 0.0, None
        for term in self.terms:
            score = parts[term.name]
            if score is not None and term.within_guideline:
                within = (within or 0.0) + term.config.weight * score
            elif score is not None:
                between += term.config.weight * score
        return between + (within or 0.0), between, within


def judged(text: str, example: Question, guideline: Guideline, *, n_tokens: int = 0, truncated: bool = False) -> Judged:
    """Read a completion under the guideline whose instruction its prompt carried.

    Args:
        text: as generated, without the prompt.
        example: the question that was put.
        guideline: of this rollout.
        n_tokens: its length in tokens.
        truncated: it was cut off at the length limit.
    """
    gate = gates(text, example.question, example.options, guideline.instruction, example.answer)
    answer, _ = answered(text, example.options, example.answer)
    same = answer == example.letter if example.options else is_same(answer, example.answer)
    letter, right = answer if example.options else None, gate is None and same
    return Judged(text, example, guideline, thinking_of(text), n_tokens, truncated, gate, letter, right, answer)


def paid_scores(term: RewardTerm, read: Sequence[Judged]) -> list[float | None]:
    """A term's scores as they are paid: nothing above 0 behind a gate, nothing at all if it needs a right answer.

    Raises:
        ValueError: a score is not in the term's range, or there is not one for each.
    """
    scores = term.scores(read)
    if len(scores) != len(read):
        raise ValueError(f"reward term {term.name}: got {len(scores)} scores of {len(read)} completions")
    return [paid(term, one, score) for one, score in zip(read, scores, strict=True)]


def paid(term: RewardTerm, judged: Judged, score: float | None) -> float | None:
    """One score as it is paid; what is not known stays so only where it could have been paid.

    Raises:
        ValueError: the score is not in the term's range.
    """
    if score is None:
        if term.lowest > 0:
            raise ValueError(f"reward term {term.name}: got no score, but promises at least {term.lowest:g}")
        return None
    if term.only_if_right and not judged.right:
        return 0.0
    gated = judged.gate is not None
    low, high = (min(0.0, term.lowest), 0.0) if gated else (term.lowest, term.highest)
    if math.isnan(score):
        return score if low < high else 0.0
    score = min(0.0, score) if gated else score
    if not low <= score <= high:
        raise ValueError(
            f"reward term {term.name}: the score {score} is outside [{term.lowest:g}, {term.highest:g}]; "
            "set `lowest` and `highest` of the class to what it gives"
        )
    return float(score)
