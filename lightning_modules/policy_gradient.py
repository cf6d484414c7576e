"""Reinforcement learning in parts: rollouts, advantages, a loss. What varies is a part with a class path.

Source: GRPO, arXiv:2402.03300; each part names its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from typing_extensions import override

from datamodules.batch import BadExampleError, Batch, Example
from datamodules.loading import WHOLE, Demand, Feed, Share
from lightning_modules.adapters import LoRASettings
from lightning_modules.asker import Asker
from lightning_modules.choices.choice import Choice, Seen, seen_in
from lightning_modules.dynamic_sampling import ask_again
from lightning_modules.functional.reductions import Denominators
from lightning_modules.objective import Objective, Tally
from lightning_modules.parts import part
from lightning_modules.rewards.term import RewardTerm
from lightning_modules.rl_metrics import choice_metrics, rollout_metrics
from lightning_modules.rl_parts import RLParts
from lightning_modules.rl_settings import RLSettings
from lightning_modules.rollouts import Rollouts, joined
from lightning_modules.stage import Stage, StageContext


class PolicyGradient(Stage):
    """Group-relative policy gradient on one specialty, as a second LoRA on its frozen expert; GRPO by default.

    The reference is the same model without the second adapter, so that the KL is exactly zero at the first step. (In
    bf16 on a card 4e-7 nats were seen with a transfer term, which scores further rows along.)
    """

    adapter = "rl"
    kind = "rl"
    shards = "while_learning"

    @dataclass(frozen=True)
    class Config(RLSettings):
        """As `RLSettings`."""

    def __init__(self, config: Config | None = None, *, context: StageContext) -> None:
        """Build the parts, and attach a second adapter on top of the expert's.

        Args:
            config: see `Config`.
            context: the policy with the expert's adapters loaded, specialty, seed.

        Raises:
            ValueError: the parts do not go together; see `RLParts.of`.
        """
        super().__init__(context, config if config is not None else self.Config())
        c = self.config
        parts = RLParts.of(c)
        self.guidelines, self.advantage, self.kl = parts.guidelines, parts.advantage, parts.kl
        parts.engine.accept(self.policy.family)
        limits = (c.max_new_tokens, c.temperature, parts.transfer is not None, self.clock)
        self.asker = Asker(
            self.policy, parts.engine, parts.rewards, parts.guidelines, parts.layout, parts.choice, *limits
        )
        weights = (c.reduction, c.temperature, c.entropy_bonus, c.sampler_weight_cap, self.clock)
        self.objective = Objective(self.policy, context.start, parts.loss, parts.kl, parts.transfer, *weights)
        self.rollouts: Rollouts | None = None  # the newest, for cards and samples
        self._seen: list[tuple[int, Seen]] = []  # in the step that is in work, each with its round of asking
        self.policy.add_adapter(self.adapter, LoRASettings(c.lora_rank, c.lora_alpha, c.lora_seed))
        self.policy.activate([*context.start, self.adapter], trainable=self.adapter)
        for term in parts.rewards.terms:
            term.attach(self.policy)

    @classmethod
    @override
    def check(cls, config: Config) -> None:
        RLParts.of(config)

    @classmethod
    @override
    def check_questions(cls, config: Config, questions: Iterable[Example]) -> None:
        choice = part(config.choice, Choice, "choice") if config.choice else None
        named = list(StageContext.guidelines_named(config.guidelines))
        idle, example = [part(spec, RewardTerm, "rewards") for spec in config.rewards], None
        for example in questions:
            if choice is not None and (fault := choice.fault(example, named)):
                raise BadExampleError(f"example {example.question_id!r}: choice: {fault}")
            idle = [term for term in idle if not term.applies_to(example)]
            if choice is None and not idle:
                return
        if idle and example is not None:
            raise BadExampleError(
                f"rewards: {idle[0].name} can score no answer to any of the questions: example {example.question_id!r} "
                f"has {f'the options {example.options}' if example.options else 'no options'}, and the others are like "
                "it. Leave the term out (docs/training.md, Open questions), or choose other questions"
            )

    @classmethod
    @override
    def demand(cls, config: Config) -> Demand:
        guidelines = StageContext.guidelines_named(config.guidelines)
        return Demand(("", *(item.instruction for item in guidelines.values())), config.max_new_tokens)

    @override
    def feed(self) -> Feed:
        c = self.config
        spare = c.dynamic_rounds * c.questions_per_step if c.dynamic_share else 0
        chosen = {"questions": self.questions, "in_order": c.curriculum}
        return Feed("questions", c.questions_per_step, spare=spare, read_picture=self.policy.read_picture, **chosen)

    @override
    def rehearse(self) -> None:
        for term in self.asker.rewards.terms:
            term.rehearse()

    @override
    def on_fit_start(self) -> None:
        for term in self.asker.rewards.terms:
            term.begin(self.folder, self.trainer.global_rank, self.trainer.world_size)

    @override
    def teardown(self, stage: str) -> None:
        self.asker.engine.close()

    @override
    def metrics_at_start(self) -> dict[str, float]:
        return {"train/reward/total": 0.0, "train/reward/correct": 0.0, "train/kl/ref_nats": 0.0}

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        c, step = self.config, self.batches_done
        with self.whole_base():
            rollouts = self.roll_out(batch, "train", step, Share(self.trainer.global_rank, self.trainer.world_size))
            self.see(rollouts, 0)
            again = partial(self.roll_out_again, step)
            rollouts, asked = ask_again(rollouts, batch.spares, c.dynamic_share, c.dynamic_rounds, again, self.from_all)
        self.learn_to_choose()
        self.rollouts = rollouts
        parts = rollouts.minibatches(c.minibatches, c.questions_per_step)
        if c.minibatches > 1:  # the first part's update moves what the others are to be compared with
            for rows in self.micro_batches(rollouts, range(len(rollouts.completions))):
                self.objective.old_logps(rollouts, rows)
        updates = [self.update(rollouts, rows) for rows in parts * c.updates_per_rollout]
        self.report(self.metrics_of(rollouts, updates) | asked, shown=tuple(self.metrics_at_start()))

    def metrics_of(self, rollouts: Rollouts, updates: Sequence[tuple[dict[str, float], Tally]]) -> dict[str, float]:
        """What a step reports, as if its rollouts of all devices had been on one: of the updates the first.

        Shares of clipped ratios are those of the last update, as there is nothing to clip in the first.
        """
        everywhere = self.from_all((rollouts.outline(), [tally for _, tally in updates]))
        whole = joined([outline for outline, _ in everywhere])
        metrics = rollout_metrics(whole) | (choice_metrics(whole) if self.asker.choice is not None else {})
        tallies = zip(*(own for _, own in everywhere), strict=True)
        for number, ((taken, _), parts) in enumerate(zip(updates, tallies, strict=True)):
            found = taken | Tally.joined(parts).metrics()
            metrics |= found if number == 0 else {name: v for name, v in found.items() if "clip_fraction" in name}
        return metrics

    def roll_out(self, batch: Batch, purpose: str, step: int, share: Share = WHOLE) -> Rollouts:
        """Answer each question, reward the answers and weigh them against each other.

        Args:
            batch: questions of a step.
            purpose: part of the random streams' name, so that probes do not repeat training rollouts.
            step: batches before this one; likewise.
            share: which of the step's questions the batch has.
        """
        places = [share.rank + share.ranks * number for number in range(len(batch.examples))]
        return self.rolled_out(batch, places, (purpose, self.context.seed, step))

    def roll_out_again(self, step: int, batch: Batch, places: Sequence[int], number: int) -> Rollouts:
        """Answer further questions at the places of dead groups, in streams of their own."""
        rollouts = self.rolled_out(batch, places, ("again", self.context.seed, step, number))
        self.see(rollouts, number)
        return rollouts

    def rolled_out(self, batch: Batch, places: Sequence[int], stream: tuple[object, ...]) -> Rollouts:
        """Rollouts with advantages; arguments as of `Asker.ask`."""
        version = self.global_step
        rollouts = self.asker.ask(batch.examples, places, stream, pictures=batch.pictures, version=version)
        if self.kl is not None and self.kl.in_reward:
            for rows in self.micro_batches(rollouts, range(len(rollouts.completions))):
                self.objective.penalise(rollouts, rows)
        rollouts.weigh(self.advantage)
        return rollouts

    def see(self, rollouts: Rollouts, asked: int) -> None:
        """Remember what questions of a round of asking earned, where a choice is to learn from it."""
        if self.asker.choice is not None:
            self._seen += [(asked, one) for one in seen_in(rollouts)]

    def learn_to_choose(self) -> None:
        """Tell the choice what the step's questions earned on all devices, dead groups that were replaced included."""
        if self.asker.choice is not None:
            everywhere = [one for own in self.from_all(self._seen) for one in own]
            everywhere.sort(key=lambda one: (one[0], one[1].place))  # the same whatever device asked
            self.asker.choice.learn([seen for _, seen in everywhere])
            self._seen = []

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.asker.choice is not None:
            checkpoint["choice"] = self.asker.choice.state()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.asker.choice is not None:
            self.asker.choice.resume(checkpoint["choice"])

    def micro_batches(self, rollouts: Rollouts, rows: Sequence[int]) -> Iterator[list[int]]:
        """Rows in pieces that fit into `micro_batch_tokens`."""
        neutral_too = self.objective.transfer is not None
        return rollouts.micro_batches(rows, self.config.micro_batch_tokens, neutral_too=neutral_too)

    def update(self, rollouts: Rollouts, rows: Sequence[int]) -> tuple[dict[str, float], Tally]:
        """One optimiser step on rows; micro-batches add up to the gradient of all, over all devices.

        Returns:
            What `optimise` returns, and what this device's rows report.
        """
        c, tally = self.config, Tally()
        counted = [row for row in rows if not (c.mask_truncated and rollouts.completions[row].truncated)]
        counted = [row for row in counted if not rollouts.rewards[row].unknown]
        tokens, sequences = self.over_devices(sum(map(len, rollouts.ids(counted))), len(counted))
        sizes = Denominators(int(tokens), int(sequences), c.max_new_tokens)

        def pieces() -> Iterator[Tensor]:
            live = [row for row in counted if self.objective.needs(rollouts, row)]
            for few in self.micro_batches(rollouts, live):
                yield self.objective.piece(rollouts, few, sizes, tally)

        questions = dict.fromkeys(rollouts.examples[row // rollouts.layout.size].question_id for row in counted)
        return self.optimise(pieces(), list(questions)), tally
