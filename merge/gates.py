"""When a merge is accepted, accepted with a warning, or rejected: a rejected one never becomes the result.

Choice: held against what agents answered (`evaluation.gate_check`), retention, norms and the distance to the experts do
    not tell agents that are harmed from agents that gain, so that they are notes: the reader is told, and nothing
    follows. A merge that answers clearly better than the base over all questions is never rejected.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from artifacts.adapter_checks import READING
from merge.report import HIGHEST_SIZE, LOW_ENERGY, LOWEST_SIZE, NORM_RATIO, WEAK_RETENTION
from merge.smoke import Smoke

Verdict = Literal["accept", "note", "warn", "reject"]
Check = Literal["retention", "norms", "size", "rank", "reading", "base", "expert", "finite", "kl", "loops", "figures"]

KL_RATIO = 1.05
"""Times the largest expert's divergence from the base above which the merged agent's is called far."""
NEAR_KL = 1e-3
"""Nats per token that are never far."""
MANY_LOOPS = 0.5
"""Share of replies that end in a loop above which an agent is of no use."""


@dataclass(frozen=True)
class Gate:
    """One check that a merge did not simply pass, or what a check measured."""

    verdict: Verdict
    text: str
    """What was found, with figures."""
    check: Check
    """Which check it is, so that it can be held against answers later (`evaluation.gate_check`)."""


def summary(gates: Sequence[Gate]) -> dict[str, Any]:
    """The worst verdict and all findings, in JSON's types."""
    order = get_args(Verdict)
    worst = max((order.index(gate.verdict) for gate in gates), default=0)
    return {"verdict": order[worst], "gates": [asdict(gate) for gate in gates]}


def gates_on_updates(report: Mapping[str, Any], *, examined: bool = False) -> list[Gate]:
    """What the weights alone tell: experts that were lost, norms out of proportion.

    Args:
        report: see `merge.report.conflict_report`.
        examined: the agent's answers are looked at too; then a norm out of all proportion is a note.

    Source: retention is ours: TIES reverses an expert of a tenth of the others' norm.
    Choice: on merges of the embedded experts retention rejected those that answered best of all that see no data, and
        let through what answered nothing (docs/results_former.md), so that it notes. RegMean is free in directions that
        no input takes, and can be ten times as large as any expert there without harm; answers tell, and where there
        are none the norm has to.
    """
    found, experts = [], report["experts"]
    for name, e in experts.items():
        if e["retention"] is None:
            found.append(Gate("note", f"{name} is zero; it adds nothing", "retention"))
        elif e["retention"] <= 0:
            found.append(
                Gate("note", f"retention of {name} is {e['retention']:.3f}: the agent moves against it", "retention")
            )
        elif e["retention"] < WEAK_RETENTION:
            found.append(
                Gate("note", f"retention of {name} is {e['retention']:.3f}, below {WEAK_RETENTION}", "retention")
            )
    norms = sorted(e["norm"] for e in experts.values() if e["norm"] > 0)
    if norms and norms[-1] > NORM_RATIO * norms[0]:
        text = f"norms differ by a factor of {norms[-1] / norms[0]:.1f}; elect at unit norm, or weigh by norm"
        found.append(Gate("note", text, "norms"))
    size = report["merged"]["norm_over_largest_expert"]
    if size is None or size == 0:
        found.append(Gate("reject", "the merged update is zero", "size"))
    elif not LOWEST_SIZE <= size <= HIGHEST_SIZE:
        far: Verdict = "warn" if LOWEST_SIZE / 3 <= size <= 3 * HIGHEST_SIZE else "reject"
        text = f"the merged update has {size:.3g} times the largest expert's norm ({LOWEST_SIZE} to {HIGHEST_SIZE})"
        found.append(Gate("note" if examined else far, text, "size"))
    if report["merged"]["retained_energy"] < LOW_ENERGY:
        text = f"the rank keeps {report['merged']['retained_energy']:.1%} of the merged update"
        found.append(Gate("warn", text, "rank"))
    return found


def gates_on_reading(unrecorded: Sequence[str]) -> list[Gate]:
    """A warning about experts that do not record their tokenizer and chat template; those that differ were refused."""
    text = f"{', '.join(unrecorded)}: tokenizer and chat template are not recorded ({', '.join(READING)})"
    return [Gate("warn", f"{text}; are they the others'?", "reading")] if unrecorded else []


@dataclass(frozen=True)
class Answers:
    """Right or wrong, question by question, on one specialty; the same questions for all three."""

    base: Sequence[bool]
    expert: Sequence[bool]
    merged: Sequence[bool]
    smoke: Smoke | None = None
    """How expert and merged agent speak, where a model was there to tell."""

    def __post_init__(self) -> None:
        if not len(self.base) == len(self.expert) == len(self.merged) or not self.base:
            counts = (len(self.base), len(self.expert), len(self.merged))
            raise ValueError(f"base, expert and merged answered {counts} questions; expected the same ones, at least 1")


@dataclass(frozen=True)
class Examination:
    """How merged agents are asked."""

    protocol: Mapping[str, Any]
    """All that answers depend on besides the adapter, in JSON's types; another protocol is another merge."""
    answers: Callable[[Path], Mapping[str, Answers]]
    """Adapter folder -> specialty -> who was right where."""


def share(answers: Sequence[bool]) -> float:
    """Accuracy, 0 to 1."""
    return sum(answers) / len(answers)


def bootstrap_interval(
    a: Sequence[bool], b: Sequence[bool], factor: float = 1.0, *, draws: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of share(a) - factor share(b) over questions drawn with replacement, the same for both.

    Args:
        a: (n,) answers.
        b: (n,) answers to the same questions.
        factor: on b's share.
        draws: resamples; seeded, so that the same answers give the same interval.
        confidence: coverage.

    Source: paired bootstrap, Efron 1979, percentile interval.
    """
    generator, n = random.Random(0), len(a)
    gains = [x - factor * y for x, y in zip(a, b, strict=True)]
    means = sorted(sum(generator.choices(gains, k=n)) / n for _ in range(draws))
    edge = int(draws * (1 - confidence) / 2)
    return means[edge], means[-1 - edge]


def differ(a: Sequence[bool], b: Sequence[bool]) -> bool:
    """Whether McNemar's exact test tells two series of answers to the same questions apart, two-sided at 5 %.

    Choice: beside the bootstrap, whose interval is too short where few questions differ: 3 lost and none won of 5
        would do.
    """
    lost, won = (sum(x and not y for x, y in zip(*pair, strict=True)) for pair in ((b, a), (a, b)))
    n = lost + won
    return 2 * sum(math.comb(n, i) for i in range(min(lost, won) + 1)) < 0.05 * 2**n


def gates_on_answers(answers: Mapping[str, Answers], epsilon: float = 0.1) -> list[Gate]:
    """What examinations tell: every specialty must stay at or above the base, and near its expert.

    Args:
        answers: specialty -> who was right where.
        epsilon: share of the expert's accuracy that may be lost, in [0, 1).

    Returns:
        A rejection where a specialty is below the base, its interval excludes equality and McNemar's test agrees; a
        warning where it is below the base otherwise; a note where it is below (1 - epsilon) of the expert; and what
        `gates_on_smoke` finds. Where all questions together are answered clearly better than by the base, warnings
        stand for rejections.
    """
    found = gates_on_smoke({specialty: a.smoke for specialty, a in answers.items() if a.smoke is not None})
    for specialty, a in answers.items():
        merged, base, expert = share(a.merged), share(a.base), share(a.expert)
        if merged < base:
            low, high = bootstrap_interval(a.merged, a.base)
            verdict: Verdict = "reject" if high < 0 and differ(a.merged, a.base) else "warn"
            text = f"{specialty}: {merged:.3f} is below the base's {base:.3f}, difference {low:+.3f} to {high:+.3f}"
            found.append(Gate(verdict, f"{text} (95 %, n = {len(a.base)})", "base"))
        if merged < (1 - epsilon) * expert:
            low, high = bootstrap_interval(a.merged, a.expert)
            text = f"{specialty}: {merged:.3f} is below {1 - epsilon:.2f} of the expert's {expert:.3f}"
            text += f", difference {low:+.3f} to {high:+.3f} (95 %, n = {len(a.base)})"
            found.append(Gate("note", text, "expert"))
    return spared(found, answers)


def spared(found: Sequence[Gate], answers: Mapping[str, Answers]) -> list[Gate]:
    """The same, where the agent is clearly better than the base over all questions with warnings for rejections.

    Not so where logits are not finite: what was answered then is no agent's.
    """
    merged, base = ([right for a in answers.values() for right in getattr(a, side)] for side in ("merged", "base"))
    rejected = [gate for gate in found if gate.verdict == "reject"]
    if not rejected or sum(merged) <= sum(base) or not differ(merged, base):
        return list(found)
    if any(gate.check == "finite" for gate in rejected):
        return list(found)
    told = f"; over all questions {share(merged):.3f} against the base's {share(base):.3f}, so not rejected"
    return [Gate("warn", g.text + told, g.check) if g.verdict == "reject" else g for g in found]


def gates_on_smoke(smoke: Mapping[str, Smoke]) -> list[Gate]:
    """What can be told without reading answers: whether the agent is a language model still.

    Args:
        smoke: specialty -> how expert and merged agent speak.

    Returns:
        A rejection where logits are not finite, or where most replies end in a loop, beyond chance more than the
        expert's; a warning where more do but not most, or where the agent is further from the base than any expert by
        a factor of `KL_RATIO`; and, last, the figures.

    Choice: bounds relative to the experts, because what divergence is much, and how often a base loops on its own,
        depends on base and training. On 18 merges of the embedded experiment the divergence over the largest expert's
        orders those beyond 1 by what is left of them (right at 1.06: 36 %, 1.2: 18, 1.4: 14, 1.8: 7, above 2: 0; the
        base 38), and all that beat the base are below 0.9. On two specialties of real pictures RegMean, the best there
        at ten times any expert's norm, has 0.9, the sum of the experts 2.0.
    """
    if not smoke:
        return []
    found: list[Gate] = []
    largest = max(s.expert_kl if math.isfinite(s.expert_kl) else 0.0 for s in smoke.values())
    for specialty, s in smoke.items():
        if not math.isfinite(s.kl):
            whose = "the merged agent" if math.isfinite(s.expert_kl) else "the base or the expert"
            found.append(Gate("reject", f"{specialty}: logits of {whose} hold NaN or infinity", "finite"))
        elif s.kl > max(KL_RATIO * largest, NEAR_KL):
            text = f"{specialty}: KL to the base is {s.kl:.3g} nats a token, the largest expert's {largest:.3g}"
            found.append(Gate("warn", f"{text} (limit {KL_RATIO:g} times that)", "kl"))
        if not math.isfinite(s.expert_kl) and math.isfinite(s.kl):
            found.append(Gate("warn", f"{specialty}: logits of the expert hold NaN or infinity", "finite"))
        if bootstrap_interval(s.loops, s.expert_loops)[0] > 0 and differ(s.loops, s.expert_loops):
            text = f"{share(s.loops):.3f} of the replies end in a loop, {share(s.expert_loops):.3f} of the expert's"
            verdict: Verdict = "reject" if share(s.loops) > MANY_LOOPS else "warn"
            found.append(Gate(verdict, f"{specialty}: {text} (n = {len(s.loops)})", "loops"))
    figures = ", ".join(f"{specialty} {s.kl:.3g} (expert {s.expert_kl:.3g})" for specialty, s in smoke.items())
    loops, of_experts = (sum(sum(getattr(s, key)) for s in smoke.values()) for key in ("loops", "expert_loops"))
    ends = f"{loops} of {sum(len(s.loops) for s in smoke.values())} replies end in a loop (experts: {of_experts})"
    return [*found, Gate("accept", f"KL to the base, nats a token: {figures}; {ends}", "figures")]
