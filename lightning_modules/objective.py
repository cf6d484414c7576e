"""The loss of a micro-batch of rollouts: policy term, distance to the reference, transfer, entropy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_modules.functional import policy_loss, reductions
from lightning_modules.losses.kl import KLPenalty
from lightning_modules.losses.loss import PolicyLoss
from lightning_modules.phases import PhaseClock
from lightning_modules.policy import Policy, Scores
from lightning_modules.rollouts import Rollouts, padded
from lightning_modules.transfer.transfer import Crossing, Transfer


@dataclass
class Tally:
    """What micro-batches report: sums over tokens that become means, sums of loss shares, and maxima."""

    tokens: int = 0
    of_tokens: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    most: dict[str, float] = field(default_factory=dict)

    def add_tokens(self, mask: Tensor, **values: Tensor) -> None:
        """Take (B, T) values whose mean over the tokens of `mask` is reported."""
        self.tokens += int(mask.sum())
        for name, value in values.items():
            self.of_tokens[name] += float((value.detach().float() * mask).sum())

    @classmethod
    def joined(cls, parts: Iterable[Tally]) -> Tally:
        """What several devices met in one update."""
        whole = cls()
        for part in parts:
            whole.tokens += part.tokens
            whole.of_tokens.update(part.of_tokens)
            whole.sums.update(part.sums)
            whole.most = {name: max(v, whole.most.get(name, v)) for name, v in (whole.most | part.most).items()}
        return whole

    def metrics(self) -> dict[str, float]:
        """By TensorBoard tag; rows that were left out for having no part in the gradient are in no mean."""
        means = {f"train/{name}": value / self.tokens for name, value in self.of_tokens.items() if self.tokens}
        return means | {f"train/{name}": value for name, value in (self.sums | self.most).items()}


@dataclass(frozen=True)
class Objective:
    """Parts and weights; see `PolicyGradient.Config`, whose names these are.

    Attributes:
        policy: scored under its active adapters.
        reference: adapters of the frozen reference, which the policy's own stand on.
        loss: per token.
        kl: to the reference, or None.
        transfer: to the neutral prompt, or None.
        reduction: name in `functional.reductions.REDUCTIONS`.
        temperature: of the distribution that is scored.
        entropy_bonus: weight, per nat.
        sampler_weight_cap: C, or 0.
        clock: times the forward passes.
    """

    policy: Policy
    reference: tuple[str, ...]
    loss: PolicyLoss
    kl: KLPenalty | None
    transfer: Transfer | None
    reduction: str
    temperature: float
    entropy_bonus: float
    sampler_weight_cap: float
    clock: PhaseClock

    def needs(self, rollouts: Rollouts, row: int) -> bool:
        """Whether a row has any part in the gradient; leaving out one that has none is exact."""
        if (self.kl is not None and not self.kl.in_reward) or self.entropy_bonus:
            return True
        if self.transfer is not None and self.transfer.from_teacher and self.crosses(rollouts, row):
            return True
        return float(rollouts.advantages.flatten()[row]) != 0

    def crosses(self, rollouts: Rollouts, row: int) -> bool:
        """Whether transfer acts on a row."""
        if self.transfer is None:
            return False
        if not self.transfer.from_teacher:
            return float(rollouts.advantages.flatten()[row]) != 0
        neutral = rollouts.prompt(row).ids == rollouts.neutral_prompt(row).ids
        return neutral and rollouts.teacher_prompt(row) is not None

    def piece(self, rollouts: Rollouts, rows: list[int], sizes: reductions.Denominators, tally: Tally) -> Tensor:
        """The micro-batch's share of the update's loss.

        Args:
            rollouts: the whole batch, with advantages.
            rows: of this micro-batch.
            sizes: of the whole update, over all devices.
            tally: takes what is reported.

        Returns:
            () float, with gradient.
        """
        own, ids = [rollouts.prompt(row) for row in rows], rollouts.ids(rows)
        crossing = [row for row in rows if self.crosses(rollouts, row)]
        # A neutral rollout's own prompt is the neutral one: it is scored once for both.
        second = [row for row in crossing if rollouts.prompt(row).ids != rollouts.neutral_prompt(row).ids]
        ref_logps = self.reference_logps(rollouts, rows) if self.kl is not None else None
        with self.clock.phase("forward"):
            taught = self.teacher_logps(rollouts, crossing) if crossing and self.transfer.from_teacher else None
            scores = self.policy.score(
                [*own, *(rollouts.neutral_prompt(row) for row in second)],
                [*ids, *rollouts.ids(second)],
                self.temperature,
                entropy_gradient=self.entropy_bonus != 0,
            )
            self.clock.count("train_tokens", scores.tokens)
            first = _rows_of(scores, slice(0, len(rows)))
            if rows[0] not in rollouts.old_logps:
                rollouts.remember(rollouts.old_logps, rows, first.logps.detach())
            loss = self.policy_term(rollouts, rows, first, ref_logps, sizes, tally)
            if crossing:
                neutral = dict(zip(rows, first.logps, strict=True)) | dict(
                    zip(second, scores.logps[len(rows) :], strict=True)
                )
                loss = loss + self.transfer_term(
                    rollouts, crossing, torch.stack([neutral[row] for row in crossing]), taught, sizes, tally
                )
        return loss

    def policy_term(
        self,
        rollouts: Rollouts,
        rows: Sequence[int],
        scores: Scores,
        ref_logps: Tensor | None,
        sizes: reductions.Denominators,
        tally: Tally,
    ) -> Tensor:
        """Clipped policy gradient, KL and entropy of rows under their own prompts; arguments as of `piece`."""
        reduce, mask, logps = reductions.REDUCTIONS[self.reduction], scores.completion_mask, scores.logps
        old_logps = padded(rollouts.old_logps, rows)
        sampled = rollouts.sampler_logps(rows).to(logps)
        found = self.loss(logps, old_logps, rollouts.advantages_of(rows).to(logps), mask)
        values = found.values
        if self.sampler_weight_cap:
            weights = policy_loss.truncated_importance_weights(old_logps, sampled, self.sampler_weight_cap)
            values = values * weights
            tally.of_tokens["ratio/sampler_weight"] += float((weights * mask).sum())
            capped = (old_logps - sampled > math.log(self.sampler_weight_cap)) & mask
            tally.of_tokens["ratio/sampler_capped"] += float(capped.sum())
        loss = reduce(values, mask, sizes)
        tally.sums["loss/policy"] += float(loss.detach())
        if ref_logps is not None:
            tally.of_tokens["kl/ref_nats"] += float((policy_loss.k3_kl(logps.detach(), ref_logps) * mask).sum())
            if not self.kl.in_reward:
                penalty = self.kl.config.beta * reduce(self.kl(logps, ref_logps), mask, sizes)
                tally.sums["loss/kl"] += float(penalty.detach())
                loss = loss + penalty
        if self.entropy_bonus:
            bonus = self.entropy_bonus * reduce(scores.entropy, mask, sizes)
            tally.sums["loss/entropy"] -= float(bonus.detach())
            loss = loss - bonus
        tally.add_tokens(mask, entropy_nats=scores.entropy, **found.shares)
        drift = (logps.detach() - sampled).abs() * mask
        tally.of_tokens["ratio/sampler_log_mean"] += float(drift.sum())
        tally.most["ratio/sampler_log_max"] = max(float(drift.max()), tally.most.get("ratio/sampler_log_max", 0.0))
        return loss

    def transfer_term(
        self,
        rollouts: Rollouts,
        rows: Sequence[int],
        neutral_logps: Tensor,
        teacher_logps: Tensor | None,
        sizes: reductions.Denominators,
        tally: Tally,
    ) -> Tensor:
        """η times the transfer of rows to the neutral prompt: a mean over tokens, then over all rows of the update.

        Choice: the mean over each completion's tokens whatever the run's reduction, as NudgeRL has it.
        """
        lengths = torch.tensor([len(rollouts.completions[row].ids) for row in rows], device=neutral_logps.device)
        mask = torch.arange(neutral_logps.shape[1], device=neutral_logps.device) < lengths[:, None]
        other = _wide(padded(rollouts.old_logps, rows) if teacher_logps is None else teacher_logps, neutral_logps)
        crossing = Crossing(neutral_logps, other, rollouts.advantages_of(rows).to(neutral_logps), mask)
        eta = self.transfer.config.eta
        term = eta * reductions.sequence_mean(self.transfer(crossing), mask, sizes)
        tally.sums["loss/transfer"] += float(term.detach())
        return term

    @torch.no_grad()
    def teacher_logps(self, rollouts: Rollouts, rows: Sequence[int]) -> Tensor:
        """(B, T) nats of neutral rollouts under their teaching guideline's prompt, as the policy stands."""
        prompts = [rollouts.teacher_prompt(row) for row in rows]
        return self.policy.logps(prompts, rollouts.ids(rows), self.temperature)

    @torch.no_grad()
    def reference_logps(self, rollouts: Rollouts, rows: Sequence[int]) -> Tensor:
        """(B, T) nats under the frozen reference: the same model without the adapter that learns; kept per row."""
        missing = [row for row in rows if row not in rollouts.ref_logps]
        if missing:
            with self.clock.phase("reference"), self.policy.acting(self.reference):
                prompts = [rollouts.prompt(row) for row in missing]
                logps = self.policy.logps(prompts, rollouts.ids(missing), self.temperature)
            rollouts.remember(rollouts.ref_logps, missing, logps)
        return padded(rollouts.ref_logps, rows)

    def penalise(self, rollouts: Rollouts, rows: Sequence[int]) -> None:
        """Take β Σ_t k1 of each completion, under the policy that sampled it, from its reward."""
        ref_logps = self.reference_logps(rollouts, rows)
        sampled = rollouts.sampler_logps(rows).to(ref_logps)
        k1 = self.kl.config.beta * self.kl(sampled, ref_logps).double().sum(dim=1)
        for row, penalty in zip(rows, k1.tolist(), strict=True):
            own = rollouts.rewards[row]
            rollouts.rewards[row] = replace(own, total=own.total - penalty, between=own.between - penalty)

    @torch.no_grad()
    def old_logps(self, rollouts: Rollouts, rows: list[int]) -> None:
        """Remember what the policy gives rows before any update on them."""
        with self.clock.phase("forward"):
            logps = self.policy.logps([rollouts.prompt(r) for r in rows], rollouts.ids(rows), self.temperature)
            rollouts.remember(rollouts.old_logps, rows, logps)


def _rows_of(scores: Scores, rows: slice) -> Scores:
    """Some rows of what was scored."""
    return Scores(scores.logps[rows], scores.entropy[rows], scores.completion_mask[rows], scores.tokens)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """(B, T') values as (B, T) with zeros, T of another tensor."""
    return torch.nn.functional.pad(values, (0, like.shape[1] - values.shape[1]))
