"""What an RL step reports: rewards, dead rows, winners, gaps between prompts, lengths, letters.

Names are an interface; see docs/tensorboard.md.
"""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from datamodules.batch import LETTERS
from datamodules.prompts import NEUTRAL
from lightning_modules.rollouts import Rollouts


def rollout_metrics(rollouts: Rollouts) -> dict[str, float]:
    """Scalars of one batch of rollouts with their advantages, by TensorBoard tag; what is undefined is left out."""
    total = known_total(rollouts)
    metrics = {"train/reward/total": nan_mean(total), "train/reward/unknown": mean_of(~rollouts.known)}
    terms = list(rollouts.rewards[0].parts)
    metrics |= {f"train/reward/{name}": nan_mean(rollouts.term(name)) for name in terms}
    metrics |= {f"train/dead_groups/{name}": mean_of(equal(rollouts.term(name))) for name in terms}
    metrics["train/dead_groups/total"] = mean_of(equal(total))
    metrics["train/dead_rows"] = mean_of(rollouts.advantages == 0)
    metrics |= guideline_metrics(rollouts) | completion_metrics(rollouts) | gap_metrics(rollouts)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def known_total(rollouts: Rollouts) -> Tensor:
    """(P, R) total rewards; NaN where one of the terms could not be had."""
    return rollouts.earned("total").where(rollouts.known, torch.nan)


def guideline_metrics(rollouts: Rollouts) -> dict[str, float]:
    """Reward, answers and advantage per guideline, and how often each was the best of its question by right answers."""
    right, total, advantages = rollouts.right, known_total(rollouts), rollouts.advantages
    under = {name: rollouts.under(name) for name in rollouts.prior}
    member = torch.stack(list(under.values()), dim=2).double()  # (P, R, K)
    means = (right[:, :, None] * member).sum(1) / member.sum(1).clamp(min=1)  # (P, K)
    best = means == means.amax(dim=1, keepdim=True)
    # Ties count for all, but where nobody is right nobody won.
    won = (best & (means > 0)).double().mean(dim=0)
    metrics = {}
    for k, (name, places) in enumerate(under.items()):
        metrics[f"train/guideline/{name}/reward"] = nan_mean(total[places])
        metrics[f"train/guideline/{name}/correct"] = float(right[places].mean())
        metrics[f"train/guideline/{name}/advantage"] = float(advantages[places].mean())
        metrics[f"train/guideline/{name}/advantage_size"] = float(advantages[places].abs().mean())
        metrics[f"train/guideline/{name}/won"] = float(won[k])
        for term in rollouts.rewards[0].parts:
            if term not in ("correct", "format"):
                metrics[f"train/guideline/{name}/{term}"] = nan_mean(rollouts.term(term)[places])
    return metrics


def choice_metrics(rollouts: Rollouts) -> dict[str, float]:
    """How guided rollouts were spread where that was chosen: each guideline's share, and how many a question had."""
    guided = [[name for name in own if name != NEUTRAL] for own in rollouts.carried]
    every = [name for own in guided for name in own]
    shares = {f"train/choice/{name}": every.count(name) / len(every) for name in rollouts.prior if name != NEUTRAL}
    return shares | {"train/choice/distinct": sum(len(set(own)) for own in guided) / len(guided)}


def gap_metrics(rollouts: Rollouts) -> dict[str, float]:
    """Whether guidelines find what the neutral prompt does not: pass@k of both, k the neutral rollouts of a question.

    `train/prompt_gap/correct` is the accuracy of guided less that of neutral rollouts.
    """
    layout = rollouts.layout
    if NEUTRAL not in layout.counts or len(layout.guidelines) < 2:
        return {}
    neutral = layout.guideline_of == layout.guidelines.index(NEUTRAL)
    right = rollouts.right
    k = min(int(neutral.sum()), int((~neutral).sum()))
    own, guided = (
        sum(pass_at_k(int(row.numel()), int(row.sum()), k) for row in right[:, places]) / len(right)
        for places in (neutral, ~neutral)
    )
    return {
        "train/prompt_gap/correct": float(right[:, ~neutral].mean() - right[:, neutral].mean()),
        "train/prompt_gap/neutral_pass_at_k": own,
        "train/prompt_gap/guided_pass_at_k": guided,
    }


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that one of k rollouts is right, drawn without replacement from n of which some are.

    Source: Chen et al. 2021, arXiv:2107.03374, equation 1.
    """
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def completion_metrics(rollouts: Rollouts) -> dict[str, float]:
    """Lengths, and what became of completions."""
    lengths, rewards = rollouts.lengths.double(), rollouts.rewards
    metrics = {
        "train/completion/tokens": float(lengths.mean()),
        "train/completion/truncated": sum(c.truncated for c in rollouts.completions) / len(rewards),
        "train/completion/parsed": sum(r.answer is not None for r in rewards) / len(rewards),
        "train/completion/gated": sum(r.gate is not None for r in rewards) / len(rewards),
        "train/completion/letter_distance": letter_distance(rollouts),
    }
    if "adherence" in rewards[0].parts:
        adherence = rollouts.term("adherence").flatten()
        metrics["train/completion/adherence_length_correlation"] = correlation(adherence, lengths)
    return metrics


def equal(values: Tensor) -> Tensor:
    """(P, R) -> (P,) bool: all known values of the question's group are equal, so that this term teaches nothing."""
    low, high = values.nan_to_num(nan=torch.inf).amin(1), values.nan_to_num(nan=-torch.inf).amax(1)
    return high <= low


def mean_of(flags: Tensor) -> float:
    """Share of True."""
    return float(flags.double().mean())


def nan_mean(values: Tensor) -> float:
    """Mean of the numbers that are known; NaN if none is."""
    return float(values[~values.isnan()].mean()) if bool((~values.isnan()).any()) else float("nan")


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's r over the pairs that are known; NaN where it is undefined."""
    known = ~(first.isnan() | second.isnan())
    pair = torch.stack([first[known], second[known]])
    if pair.shape[1] < 2 or bool((pair.std(dim=1) == 0).any()):
        return float("nan")
    return float(torch.corrcoef(pair)[0, 1])


def letter_distance(rollouts: Rollouts) -> float:
    """Total variation between the answered letters and the right ones, in [0, 1]; 0 is the right mix, 1 a collapse.

    Over the questions with options; NaN where there is none.
    """
    size = rollouts.layout.size
    closed = [example for example in rollouts.examples for _ in range(size) if example.options]
    rows = [row for row in range(len(rollouts.rewards)) if rollouts.examples[row // size].options]
    gold = Counter(example.letter for example in closed)
    given = Counter(rollouts.rewards[row].letter for row in rows)
    distance = sum(abs(gold[letter] - given[letter]) for letter in [*LETTERS, None])
    return distance / (2 * len(rows)) if rows else math.nan
