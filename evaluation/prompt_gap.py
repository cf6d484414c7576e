"""Whether guidelines find answers that the neutral prompt does not, at equal numbers of samples.

Guided reinforcement learning can only teach what a rollout has found. So before it is trained: is one of k answers
right more often where they come from all guidelines, k/K from each, than where all k come from the neutral prompt?
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from datamodules.prompts import NEUTRAL
from evaluation.bounded import bounded_mean
from evaluation.clustered import clustered_wilson
from evaluation.predictions import Prediction
from evaluation.report_files import markdown, percent
from evaluation.scorers import main_outcome
from evaluation.scoring import by_tag
from evaluation.statistics import mean_interval
from evaluation.votes import pass_at_k, pooled_pass_at_k

Verdict = Literal["guidelines can win", "nothing to win", "not told"]
Bounds = tuple[float, float, float]
"""(value, low, high): fractions, with an interval of 95 % over patients."""


@dataclass(frozen=True)
class PromptGap:
    """One model on one set of questions. All figures are fractions.

    Attributes:
        n: questions; 0 for the mean over specialties.
        n_clusters: patients.
        accuracy: prompt -> share of its sampled answers that are right, the neutral one first.
        neutral: pass@k of the neutral prompt.
        guided: pass@k pooled over the guidelines.
        difference: guided less neutral, paired by question.
        only_guided: chance that one of k guided answers is right and none of k neutral ones.
        only_neutral: the reverse.
    """

    n: int
    n_clusters: int
    accuracy: Mapping[str, Bounds]
    neutral: Bounds
    guided: Bounds
    difference: Bounds
    only_guided: float
    only_neutral: float


def prompt_gap(predictions: Sequence[Prediction], k: int) -> PromptGap:
    """Compare the neutral prompt with the guidelines.

    Args:
        predictions: of one model, each question sampled under the neutral prompt and under every guideline.
        k: answers that are allowed to each side; a multiple of the number of guidelines.

    Raises:
        ValueError: nothing to compare, a question lacks a prompt, or there are fewer samples than k asks for.

    Source: pass@k: Chen et al. 2021, arXiv:2107.03374. Interval of the difference: `evaluation.bounded.bounded_mean`.
    Choice: each question gives one difference, and those about one patient go together. Samples of the two sides are
        independent given the question, so that the chance of "only guided" is a product, and unbiased too.
    """
    questions: dict[tuple[str, str], dict[str, list[bool]]] = {}
    patients: dict[tuple[str, str], tuple[str, str]] = {}
    for item in predictions:
        key = item.key[:2]
        patients[key] = (item.specialty, item.patient_id)
        questions.setdefault(key, {}).setdefault(item.guideline, []).append(main_outcome(item).right)
    prompts = list(dict.fromkeys([NEUTRAL, *(name for right in questions.values() for name in right)]))
    guidelines = prompts[1:]
    for (_, name), right in questions.items():
        if missing := [prompt for prompt in prompts if prompt not in right]:
            raise ValueError(f"prompt_gap: question {name!r} has no answer under {missing[0]!r}; was it cut off?")
    if not guidelines:
        raise ValueError("prompt_gap: needs answers under the neutral prompt and under at least one guideline")
    neutral, guided = [], []
    for right in questions.values():
        neutral.append(pass_at_k(len(right[NEUTRAL]), sum(right[NEUTRAL]), k))
        guided.append(pooled_pass_at_k([(len(right[name]), sum(right[name])) for name in guidelines], k))
    of = list(patients.values())
    accuracy = {}
    for prompt in prompts:
        answers = [(patients[key], one) for key, right in questions.items() for one in right[prompt]]
        accuracy[prompt] = level([one for _, one in answers], [patient for patient, _ in answers])
    differences = [b - a for a, b in zip(neutral, guided, strict=True)]
    found = bounded_mean(differences, of)
    return PromptGap(
        n=len(questions),
        n_clusters=len(set(of)),
        accuracy=accuracy,
        neutral=level(neutral, of),
        guided=level(guided, of),
        difference=(found.mean, *found.interval(0.95)),
        only_guided=math.fsum(b * (1 - a) for a, b in zip(neutral, guided, strict=True)) / len(of),
        only_neutral=math.fsum(a * (1 - b) for a, b in zip(neutral, guided, strict=True)) / len(of),
    )


def level(values: Sequence[float], patients: Sequence[tuple[str, str]]) -> Bounds:
    """A mean of values in [0, 1] with Wilson's interval, which for values between 0 and 1 is on the wide side."""
    return (math.fsum(values) / len(values), *clustered_wilson(values, patients))


def by_type(predictions: Sequence[Prediction], k: int, tag: str) -> dict[str, PromptGap]:
    """Value of a tag -> the gap on those questions; arguments and errors as of `prompt_gap`."""
    return {value: prompt_gap(items, k) for value, items in by_tag(predictions, tag).items()}


def mean_gap(gaps: Sequence[PromptGap]) -> PromptGap:
    """The mean over specialties, each counting once; their intervals are those of independent estimates."""

    def mean(parts: Sequence[Bounds]) -> Bounds:
        return mean_interval([part[0] for part in parts], [part[1:] for part in parts])

    return PromptGap(
        n=0,
        n_clusters=sum(gap.n_clusters for gap in gaps),
        accuracy={name: mean([gap.accuracy[name] for gap in gaps]) for name in gaps[0].accuracy},
        neutral=mean([gap.neutral for gap in gaps]),
        guided=mean([gap.guided for gap in gaps]),
        difference=mean([gap.difference for gap in gaps]),
        only_guided=math.fsum(gap.only_guided for gap in gaps) / len(gaps),
        only_neutral=math.fsum(gap.only_neutral for gap in gaps) / len(gaps),
    )


def verdict(gap: PromptGap, margin: float) -> Verdict:
    """What the interval of the difference supports.

    Args:
        gap: on the questions in question.
        margin: difference, as a fraction, below which guidelines are not worth their training.
    """
    _, low, high = gap.difference
    return "nothing to win" if high < margin else "guidelines can win" if low > 0 else "not told"


def sentence(gap: PromptGap, k: int, margin: float) -> str:
    """The verdict in words, with the figures that it rests on; arguments as of `verdict` and `prompt_gap`."""
    value, low, high = gap.difference
    shown = (
        f"pass@{k} is {100 * gap.guided[0]:.1f} % over guidelines and {100 * gap.neutral[0]:.1f} % under the neutral "
        f"prompt, a difference of {100 * value:+.1f} points, interval {100 * low:+.1f} to {100 * high:+.1f}"
    )
    bound = f"{100 * margin:g} points"
    found = verdict(gap, margin)
    if found == "guidelines can win":
        return f"Guidelines can win here: {shown}."
    if found == "nothing to win":
        return f"There is nothing for guidelines to win here: {shown}, all of it below {bound}."
    told = f"Not told by these questions: {shown}, holds both 0 and {bound}"
    # an interval no wider than the margin cannot hold both
    return f"{told}; about {math.ceil(gap.n * ((high - low) / margin) ** 2)} would tell." if gap.n else f"{told}."


def table(rows: Mapping[tuple[str, str, str], PromptGap], k: int) -> str:
    """Every row in Markdown.

    Args:
        rows: (model, specialty, type of question or "all") -> its gap; the prompts are the same in all of them.
        k: as of `prompt_gap`.
    """
    prompts = list(next(iter(rows.values())).accuracy)
    names = ["model", "specialty", "questions", "n", *(f"{prompt}, %" for prompt in prompts)]
    names += [f"pass@{k} neutral, %", f"pass@{k} guided, %", "difference, points", "only guided, %", "only neutral, %"]
    lines = []
    for head, gap in rows.items():
        accuracy = [percent(*gap.accuracy[prompt]) for prompt in prompts]
        passed = [percent(*gap.neutral), percent(*gap.guided), percent(*gap.difference, sign="+")]
        only = [f"{100 * gap.only_guided:.1f}", f"{100 * gap.only_neutral:.1f}"]
        lines.append([*head, str(gap.n or "mean"), *accuracy, *passed, *only])
    return markdown(names, lines)
