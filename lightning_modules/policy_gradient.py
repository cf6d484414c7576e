"""Reinforcement learning in parts: rollouts, advantages, a loss. What varies is a part with a class path.

Source: GRPO, arXiv:2402.03300; each part names its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from typing_extensions import override

from datamodules.batch import Batch
from datamodules.loading import Feed
from lightning_modules.adapters import LoRASettings
from lightning_modules.advantages.advantage import Advantage
from lightning_modules.asker import Asker
from lightning_modules.dynamic_sampling import ask_again
from lightning_modules.engines.engine import Engine
from lightning_modules.functional.reductions import Denominators
from lightning_modules.layout import layout_of
from lightning_modules.losses.kl import KLPenalty
from lightning_modules.losses.loss import PolicyLoss
from lightning_modules.objective import Objective, Tally
from lightning_modules.parts import part
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.term import RewardTerm
from lightning_modules.rl_metrics import mean_metrics, rollout_metrics
from lightning_modules.rl_settings import RLSettings
from lightning_modules.rollouts import Rollouts
from lightning_modules.silence import refuse_idle_transfer, refuse_penalty, refuse_silence
from lightning_modules.stage import Stage, StageContext
from lightning_modules.transfer.transfer import Transfer


class PolicyGradient(Stage):
    """Group-relative policy gradient on one specialty, as a second LoRA on its frozen expert; GRPO by default.

    The reference is the same model without the second adapter, so that the KL is exactly zero at the first step.
    """

    adapter = "rl"
    kind = "rl"

    @dataclass(frozen=True)
    class Config(RLSettings):
        """As `RLSettings`."""

    def __init__(self, config: Config | None = None, *, context: StageContext) -> None:
        """Build the parts, and attach a second adapter on top of the expert's.

        Args:
            config: see `Config`.
            context: the policy with the expert's adapters loaded, specialty, seed.

        Raises:
            ValueError: a part is of another kind, the terms would let a wrong answer outscore a right one, every
                advantage would be zero, the transfer would have nothing to act on, or the advantage refuses a KL that
                is taken from the reward.
        """
        super().__init__(context, config if config is not None else self.Config())
        c = self.config
        layout = layout_of(tuple(context.guidelines_named(c.guidelines)), c.rollouts_per_guideline, c.neutral_share)
        self.guidelines = context.guidelines_named(["neutral"] * (c.neutral_share > 0) + list(c.guidelines))
        self.advantage = part(c.advantage, Advantage, "advantage")
        rewards = Rewards([part(spec, RewardTerm, "rewards") for spec in c.rewards])
        refuse_silence(self.advantage, layout, rewards, self.guidelines)
        engine, loss = part(c.engine, Engine, "engine"), part(c.loss, PolicyLoss, "loss")
        self.kl = part(c.kl, KLPenalty, "kl") if c.kl else None
        if self.kl is not None and self.kl.in_reward:
            refuse_penalty(self.advantage, layout, rewards, self.guidelines, c.dynamic_share)
        transfer = part(c.transfer, Transfer, "transfer") if c.transfer else None
        refuse_idle_transfer(transfer, layout)
        limits = (c.max_new_tokens, c.temperature, transfer is not None, self.clock)
        self.asker = Asker(self.policy, engine, rewards, self.guidelines, layout, *limits)
        weights = (c.reduction, c.temperature, c.entropy_bonus, c.sampler_weight_cap, self.clock)
        self.objective = Objective(self.policy, tuple(context.start), loss, self.kl, transfer, *weights)
        self.rollouts: Rollouts | None = None  # the newest, for cards and samples
        self.policy.add_adapter(self.adapter, LoRASettings(c.lora_rank, c.lora_alpha, c.lora_seed))
        self.policy.activate([*context.start, self.adapter], trainable=self.adapter)

    @override
    def feed(self) -> Feed:
        c = self.config
        spare = c.dynamic_rounds * c.questions_per_step if c.dynamic_share else 0
        chosen = {"questions": self.questions, "in_order": c.curriculum}
        return Feed("questions", c.questions_per_step, spare=spare, read_picture=self.policy.read_picture, **chosen)

    @override
    def metrics_at_start(self) -> dict[str, float]:
        return {"train/reward/total": 0.0, "train/reward/correct": 0.0, "train/kl/ref_nats": 0.0}

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        c, step = self.config, self.batches_done
        rollouts = self.roll_out(batch, "train", step)
        again = partial(self.roll_out_again, step)
        rollouts, asked = ask_again(rollouts, batch.spares, c.dynamic_share, c.dynamic_rounds, again)
        self.rollouts = rollouts
        metrics = rollout_metrics(rollouts) | asked
        parts = rollouts.minibatches(c.minibatches, c.questions_per_step)
        if c.minibatches > 1:  # the first part's update moves what the others are to be compared with
            for rows in self.micro_batches(rollouts, range(len(rollouts.completions))):
                self.objective.old_logps(rollouts, rows)
        for number, rows in enumerate(parts * c.updates_per_rollout):
            found = self.update(rollouts, rows)
            metrics |= found if number == 0 else {name: v for name, v in found.items() if "clip_fraction" in name}
        everywhere = mean_metrics(self.from_all((metrics, len(rollouts.completions))))
        self.report(everywhere, shown=tuple(self.metrics_at_start()))

    def roll_out(self, batch: Batch, purpose: str, step: int) -> Rollouts:
        """Answer each question, reward the answers and weigh them against each other.

        Args:
            batch: this device's questions of a step.
            purpose: part of the random streams' name, so that probes do not repeat training rollouts.
            step: batches before this one; likewise.
        """
        first, every = self.trainer.global_rank, self.trainer.world_size
        places = [first + every * number for number in range(len(batch.examples))]
        return self.rolled_out(batch, places, (purpose, self.context.seed, step))

    def roll_out_again(self, step: int, batch: Batch, places: Sequence[int], number: int) -> Rollouts:
        """Answer further questions at the places of dead groups, in streams of their own."""
        return self.rolled_out(batch, places, ("again", self.context.seed, step, number))

    def rolled_out(self, batch: Batch, places: Sequence[int], stream: tuple[object, ...]) -> Rollouts:
        """Rollouts with advantages; arguments as of `Asker.ask`."""
        version = self.global_step
        rollouts = self.asker.ask(batch.examples, places, stream, pictures=batch.pictures, version=version)
        if self.kl is not None and self.kl.in_reward:
            for rows in self.micro_batches(rollouts, range(len(rollouts.completions))):
                self.objective.penalise(rollouts, rows)
        rollouts.advantages = self.advantage(rollouts.outcome)
        return rollouts

    def micro_batches(self, rollouts: Rollouts, rows: Sequence[int]) -> Iterator[list[int]]:
        """Rows in pieces that fit into `micro_batch_tokens`."""
        neutral_too = self.objective.transfer is not None
        return rollouts.micro_batches(rows, self.config.micro_batch_tokens, neutral_too=neutral_too)

    def update(self, rollouts: Rollouts, rows: Sequence[int]) -> dict[str, float]:
        """One optimiser step on rows; micro-batches add up to the gradient of all, over all devices.

        Returns:
            Its metrics by TensorBoard tag, the same on every device.
        """
        c, tally = self.config, Tally()
        counted = [row for row in rows if not (c.mask_truncated and rollouts.completions[row].truncated)]
        tokens, sequences = self.over_devices(sum(map(len, rollouts.ids(counted))), len(counted))
        sizes = Denominators(int(tokens), int(sequences), c.max_new_tokens)

        def pieces() -> Iterator[Tensor]:
            live = [row for row in counted if self.objective.needs(rollouts, row)]
            for few in self.micro_batches(rollouts, live):
                yield self.objective.piece(rollouts, few, sizes, tally)

        questions = dict.fromkeys(rollouts.examples[row // rollouts.layout.size].question_id for row in counted)
        taken = self.optimise(pieces(), list(questions))
        return taken | Tally.joined(self.from_all(tally)).metrics()
