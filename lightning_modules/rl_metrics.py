"""What an RL step reports: rewards, dead groups, winners, lengths, letters. Names are an interface; see the README."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from datamodules.batch import LETTERS
from lightning_modules.group import Group


def update_metrics(group: Group, guidelines: Iterable[str]) -> dict[str, float]:
    """Scalars of one batch of rollouts, by TensorBoard tag.

    Args:
        group: rewarded rollouts with their advantages.
        guidelines: K names in the group's order.
    """
    total, correct = group.totals, group.component("correct")
    metrics = {
        f"train/reward/{name}": nan_mean(group.component(name)) for name in ("total", "correct", "format", "adherence")
    }
    winner = total.mean(dim=2) == total.mean(dim=2).amax(dim=1, keepdim=True)  # (P, K); ties count for all
    for k, name in enumerate(guidelines):
        metrics[f"train/guideline/{name}/reward"] = float(total[:, k].mean())
        metrics[f"train/guideline/{name}/correct"] = float(correct[:, k].mean())
        metrics[f"train/guideline/{name}/adherence"] = nan_mean(group.component("adherence")[:, k])
        metrics[f"train/guideline/{name}/advantage"] = float(group.advantages[:, k].mean())
        metrics[f"train/guideline/{name}/won"] = float(winner[:, k].double().mean())
    for name in ("total", "correct", "format"):
        metrics[f"train/dead_groups/{name}"] = float(dead(group.component(name)).double().mean())
    lengths = group.lengths.double()
    metrics["train/completion/tokens"] = float(lengths.mean())
    metrics["train/completion/truncated"] = sum(c.truncated for c in group.completions) / len(group.completions)
    metrics["train/completion/parsed"] = sum(r.letter is not None for r in group.rewards) / len(group.rewards)
    metrics["train/completion/gated"] = sum(r.gate is not None for r in group.rewards) / len(group.rewards)
    metrics["train/completion/adherence_length_correlation"] = correlation(
        group.component("adherence").flatten(), lengths
    )
    metrics["train/completion/letter_distance"] = letter_distance(group)
    return {name: value for name, value in metrics.items() if value == value}


def dead(values: Tensor) -> Tensor:
    """(P, K, g) -> (P,) bool: all values of the question's group are equal, so this component teaches nothing."""
    flat = values.flatten(1)
    return flat.amax(1) == flat.amin(1)


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


def letter_distance(group: Group) -> float:
    """Total variation between the answered letters and the right ones, in [0, 1]; 0 is the right mix, 1 a collapse."""
    rollouts = len(group.rewards) // len(group.examples)
    gold = Counter(example.letter for example in group.examples for _ in range(rollouts))
    given = Counter(item.letter for item in group.rewards)
    return sum(abs(gold[letter] - given[letter]) for letter in [*LETTERS, None]) / (2 * len(group.rewards))
