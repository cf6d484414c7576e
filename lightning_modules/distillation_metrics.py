"""What a step of integration reports, over all devices. Names are an interface; see docs/tensorboard.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from datamodules.batch import SPECIALTY
from lightning_modules.rollouts import Rollouts


def answer_sums(rollouts: Rollouts, taught: Sequence[bool]) -> Counter[str]:
    """Sums over one device's answers, by tag; `shares` makes means of them when those of all devices are added up."""
    sums = Counter({"answers": len(rollouts.completions)})
    right = rollouts.right.mean(dim=1).tolist()
    for example, share, listened in zip(rollouts.examples, right, taught, strict=True):
        own = f"train/specialty/{example.tags[SPECIALTY]}"
        sums.update({f"{own}/questions": 1, f"{own}/correct": share, f"{own}/taught": float(listened)})
    for completion, reward in zip(rollouts.completions, rollouts.rewards, strict=True):
        sums.update(
            {
                "train/completion/tokens": len(completion.ids),
                "train/completion/truncated": int(completion.truncated),
                "train/completion/parsed": int(reward.answer is not None),
                "train/reward/correct": int(reward.right),
            }
        )
    return sums


def answer_metrics(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means per answer, and per question of a specialty, of what `answer_sums` gave on every device."""
    sums: Counter[str] = Counter()
    for part in parts:
        sums.update(part)
    found = {}
    for tag, total in sums.items():
        if tag.endswith(("/correct", "/taught")) and tag.startswith("train/specialty/"):
            found[tag] = total / sums[f"{tag.rpartition('/')[0]}/questions"]
        elif tag.startswith(("train/completion/", "train/reward/")):
            found[tag] = total / sums["answers"]
    return found


def distance_metrics(
    means: Mapping[str, float], weights: Mapping[str, float], tokens: Mapping[str, float]
) -> dict[str, float]:
    """Distance to the teachers, and what each specialty counted.

    Args:
        means: nats per token, of the specialties that were taught anything.
        weights: part of the loss.
        tokens: that were taught.
    """
    found = {f"train/specialty/{specialty}/kl_nats": distance for specialty, distance in means.items()}
    if means:
        found["train/kl/teacher_nats"] = sum(means.values()) / len(means)
    for specialty, count in tokens.items():
        found[f"train/specialty/{specialty}/weight"] = weights[specialty]
        found[f"train/specialty/{specialty}/token_share"] = count / max(1.0, sum(tokens.values()))
    return found
