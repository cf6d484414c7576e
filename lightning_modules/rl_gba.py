"""GBA: reinforcement learning with guideline-based, group-relative advantages.

Every question is answered under K guidelines, g times each; rewards become advantages by
`functional.advantages.guideline_based_advantages`; the policy is a second LoRA on top of its frozen DSA expert, so
that the reference is the same model with the second adapter off and the KL is exactly zero at the first step.

Source: GRPO, arXiv:2402.03300; the four perspectives: MMedExpert-R1, arXiv:2601.10949.
Choice: the advantage formula and every hyper-parameter are ours, the paper publishes none (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.batch import Batch
from datamodules.loading import Feed
from lightning_modules.adapters import LoRASettings
from lightning_modules.functional import policy_loss, reductions
from lightning_modules.functional.advantages import guideline_based_advantages
from lightning_modules.group import Group, roll_out
from lightning_modules.rewards.combine import RewardWeights
from lightning_modules.rl_metrics import update_metrics
from lightning_modules.stage import Stage, StageContext

KL = {"k1": policy_loss.k1_kl, "k2": policy_loss.k2_kl, "k3": policy_loss.k3_kl}


class GBA(Stage):
    """Guideline-based RL of one specialty's expert."""

    adapter = "gba"
    kind = "gba"

    @dataclass(frozen=True)
    class Config(Stage.Config):
        """Hyper-parameters of GBA; `guidelines: [neutral]` with `lambda_: 1` and `tau: .inf` is GRPO."""

        guidelines: tuple[str, ...] = ("differential", "intuitive", "analytical", "bayesian")
        """K guideline names, or paths of guideline files; `neutral` is the prompt without an instruction."""
        rollouts_per_guideline: int = 2
        """g, at least 1; the group has K * g rollouts."""
        questions_per_step: int = 8
        """P, questions per rollout; at least 1."""
        lambda_: float = 1.0
        """λ, weight of the difference between guidelines; 1 is GRPO."""
        tau: float = float("inf")
        """τ in reward units; finite values shift trust to guidelines that work on the question."""
        priors: dict[str, float] = field(default_factory=dict)
        """π per guideline name; what is not named has the weight that its file gives, 1 by default."""
        scale_by_std: bool = True
        """Divide advantages by the group's standard deviation."""
        reward_correct: float = 1.0
        """Reward of a strictly right answer."""
        reward_format: float = 0.1
        """Reward of a well-formed completion."""
        reward_adherence: float = 0.2
        """Reward of full adherence to the rollout's own guideline; below `reward_correct`."""
        beta: float = 0.02
        """KL coefficient against the DSA expert, per nat; 0 leaves the reference pass out."""
        kl: Literal["k1", "k2", "k3"] = "k3"
        """KL estimator."""
        clip_low: float = 0.2
        """ε_low of the ratio, in [0, 1]."""
        clip_high: float = 0.28
        """ε_high of the ratio, at least 0."""
        ratio: Literal["token", "sequence"] = "token"
        """Importance ratio per token, or per sequence as in GSPO."""
        reduction: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
        """DAPO's, GRPO's or Dr. GRPO's reduction."""
        updates_per_rollout: int = 1
        """μ, optimiser steps per batch of rollouts."""
        temperature: float = 1.0
        """Of sampling, and of the distribution that is scored; above 0."""
        max_new_tokens: int = 96
        """T_max in tokens."""
        lora_rank: int = 16
        """r of the second adapter."""
        lora_alpha: float = 32.0
        """Scale numerator of the second adapter."""
        lora_seed: int = 1
        """Seed of the second adapter's A."""
        learning_rate: float = 5e-4
        """Peak of the schedule."""
        warmup: float = 2.0
        """Linear rise: below 1 a share of all steps, from 1 on a number of steps."""

        def __post_init__(self) -> None:
            super().__post_init__()
            ranges = {
                "guidelines must name at least one": len(self.guidelines) >= 1,
                "guidelines must not repeat": len(set(self.guidelines)) == len(self.guidelines),
                "rollouts_per_guideline must be at least 1": self.rollouts_per_guideline >= 1,
                "a group needs at least 2 rollouts": len(self.guidelines) * self.rollouts_per_guideline >= 2,
                "questions_per_step must be at least 1": self.questions_per_step >= 1,
                "lambda_ must be at least 0": self.lambda_ >= 0,
                "tau must be at least 0": self.tau >= 0,
                "priors must be positive": all(value > 0 for value in self.priors.values()),
                "beta must be at least 0": self.beta >= 0,
                "clip_low must lie in [0, 1]": 0 <= self.clip_low <= 1,
                "clip_high must be at least 0": self.clip_high >= 0,
                "updates_per_rollout must be at least 1": self.updates_per_rollout >= 1,
                "temperature must be above 0": self.temperature > 0,
                "max_new_tokens must be at least 1": self.max_new_tokens >= 1,
                "lora_rank must be at least 1": self.lora_rank >= 1,
                "reward_adherence must lie in [0, reward_correct), or a wrong answer could outscore a right one": 0
                <= self.reward_adherence
                < self.reward_correct,
                "reward_format must be at least 0": self.reward_format >= 0,
            }
            broken = [message for message, holds in ranges.items() if not holds]
            if broken:
                raise ValueError("; ".join(broken))

    def __init__(self, config: Config | None = None, *, context: StageContext) -> None:
        """Attach the second adapter on top of the expert's.

        Args:
            config: see `Config`.
            context: the policy with the DSA adapter loaded, guidelines, specialty, seed.

        Raises:
            ValueError: the reward weights would let a wrong answer outscore a right one.
        """
        super().__init__(context, config if config is not None else self.Config())
        c = self.config
        self.weights = RewardWeights(c.reward_correct, c.reward_format, c.reward_adherence)
        self.guidelines = context.guidelines_named(c.guidelines)
        self.register_buffer(
            "prior",
            torch.tensor([c.priors.get(name, item.prior) for name, item in self.guidelines.items()]),
            persistent=False,
        )
        strange = set(c.priors) - set(self.guidelines)
        if strange:
            raise ValueError(
                f"priors names {sorted(strange)}, which are not among the guidelines {list(self.guidelines)}"
            )
        self.policy.add_adapter(self.adapter, LoRASettings(c.lora_rank, c.lora_alpha, c.lora_seed))
        self.policy.activate([*context.start, self.adapter], trainable=self.adapter)
        self.group: Group | None = None  # the newest rollouts, for cards and samples

    @override
    def feed(self) -> Feed:
        return Feed("questions", size=self.config.questions_per_step)

    @override
    def metrics_at_start(self) -> dict[str, float]:
        return {"train/reward/total": 0.0, "train/reward/correct": 0.0, "train/kl/ref_nats": 0.0}

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        c = self.config
        self.group = group = self.roll_out(batch, "train", self.trainer.global_step)
        metrics = update_metrics(group, self.guidelines)
        for update in range(c.updates_per_rollout):
            found = self.update(group, first=update == 0)
            metrics |= found if update == 0 else {name: v for name, v in found.items() if "clip_fraction" in name}
        self.report(metrics, shown=("train/reward/total", "train/reward/correct", "train/kl/ref_nats"))

    def roll_out(self, batch: Batch, purpose: str, step: int) -> Group:
        """Answer each question K x g times, reward the answers and weigh them against each other.

        Args:
            batch: P questions.
            purpose: part of the random streams' name, so that probes do not repeat training rollouts.
            step: optimiser steps done.
        """
        c = self.config
        group = roll_out(
            self.policy,
            batch.examples,
            self.guidelines,
            self.weights,
            copies=c.rollouts_per_guideline,
            temperature=c.temperature,
            max_new_tokens=c.max_new_tokens,
            stream=(purpose, self.context.seed, step),
            clock=self.clock,
        )
        group.advantages = guideline_based_advantages(
            group.totals, lambda_=c.lambda_, tau=c.tau, prior=self.prior.cpu(), scale_by_std=c.scale_by_std
        )
        return group

    def update(self, group: Group, *, first: bool) -> dict[str, float]:
        """One optimiser step on a batch of rollouts; micro-batches add up to the whole batch's gradient.

        Returns:
            Its metrics by TensorBoard tag.
        """
        c = self.config
        sizes = reductions.Denominators.of(group.lengths, c.max_new_tokens)
        totals: dict[str, float] = {}
        scored = [0]

        def pieces() -> Iterator[Tensor]:
            for rows in group.micro_batches(c.micro_batch_tokens, skip_zero_advantage=c.beta == 0):
                prompts, ids = group.rows(rows)
                ref_logps = self.reference_logps(prompts, ids) if c.beta > 0 else None
                with self.clock.phase("forward"):
                    scores = self.policy.score(prompts, ids, c.temperature)
                    self.clock.count("train_tokens", scores.tokens)
                    if first:
                        group.remember_old_logps(rows, scores.logps.detach())
                    loss, parts = self.loss(
                        scores.logps,
                        group.old_logps_of(rows),
                        ref_logps,
                        group.advantages_of(rows).to(scores.logps),
                        scores.completion_mask,
                        sizes,
                    )
                yield loss
                scored[0] += int(scores.completion_mask.sum())
                for name, value in (parts | group.drift(rows, scores)).items():
                    totals[name] = (
                        max(totals.get(name, 0.0), value) if name.endswith("_max") else totals.get(name, 0.0) + value
                    )

        found = self.optimise(pieces(), [example.question_id for example in group.examples])
        for name in totals:  # means over the tokens that were scored: rows without an advantage may have been left out
            if name == "train/entropy_nats" or name.startswith("train/clip_fraction/"):
                totals[name] *= sizes.tokens / scored[0]
        return totals | found

    def loss(
        self,
        logps: Tensor,
        old_logps: Tensor,
        ref_logps: Tensor | None,
        advantages: Tensor,
        completion_mask: Tensor,
        sizes: reductions.Denominators,
    ) -> tuple[Tensor, dict[str, float]]:
        """The micro-batch's share of the update's loss, and its share of what is reported.

        Args:
            logps: (B, T) nats, current policy, with gradient.
            old_logps: (B, T) nats, before the first update on these rollouts.
            ref_logps: (B, T) nats of the DSA expert, or None for β = 0.
            advantages: (B,) float.
            completion_mask: (B, T) bool.
            sizes: of the whole update.

        Returns:
            () loss, and metrics that add up over micro-batches.
        """
        c = self.config
        reduce = reductions.REDUCTIONS[c.reduction]
        log_ratio = policy_loss.clamped_log_ratio(logps, old_logps)
        if c.ratio == "sequence":
            log_ratio = policy_loss.sequence_log_ratio(log_ratio, completion_mask)
        surrogate = policy_loss.clipped_surrogate(log_ratio, advantages, clip_low=c.clip_low, clip_high=c.clip_high)
        loss = reduce(surrogate, completion_mask, sizes)
        with torch.no_grad():
            ratio = log_ratio.exp()
            token_share = {
                "train/clip_fraction/low": (ratio < 1 - c.clip_low).float(),
                "train/clip_fraction/high": (ratio > 1 + c.clip_high).float(),
            }
            parts = {name: float(reductions.token_mean(v, completion_mask, sizes)) for name, v in token_share.items()}
            parts["train/loss/policy"] = float(loss)
        if ref_logps is not None:
            kl = reduce(KL[c.kl](logps, ref_logps), completion_mask, sizes)
            parts["train/kl/ref_nats"] = float(kl.detach())
            loss = loss + c.beta * kl
        return loss, parts

    @torch.no_grad()
    def reference_logps(self, prompts: list, ids: list) -> Tensor:
        """(B, T) nats under the frozen DSA expert: the same model with the second adapter off."""
        with self.clock.phase("reference"), self.policy.acting(self.context.start):
            return self.policy.score(prompts, ids, self.config.temperature).logps
