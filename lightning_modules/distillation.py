"""Integration: one LoRA learns from the experts of all specialties, each of which is a LoRA on the same base.

The student answers training questions of every specialty under the neutral prompt; on what it wrote, the specialty's
expert gives the next-token distributions that it is pulled towards. A teacher costs a switch of adapters. With
`written_by: teacher` the experts answer instead.

Source: multi-teacher on-policy distillation, arXiv:2606.30406; balanced token shares and budgets that follow the gap:
    Open-MOPD, arXiv:2608.19098; teachers that are verified first: TGOPD, arXiv:2609.02998.
Choice: the student starts from a merged agent instead of the experts' common ancestor, where `start` names one; weights
    for the gap and every number are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.batch import SPECIALTY, Batch
from datamodules.loading import Demand, Feed
from datamodules.prompts import NEUTRAL
from lightning_modules.adapters import LoRASettings
from lightning_modules.asker import Asker
from lightning_modules.distillation_metrics import answer_metrics, answer_sums, distance_metrics
from lightning_modules.distillation_settings import IntegrationSettings
from lightning_modules.engines.engine import Engine
from lightning_modules.engines.packed import Packed
from lightning_modules.functional.distillation import distribution_kl, log_ratio_reinforce
from lightning_modules.functional.policy_loss import k3_kl
from lightning_modules.functional.reductions import masked
from lightning_modules.functional.specialty_weights import specialty_weights
from lightning_modules.layout import Layout
from lightning_modules.parts import part
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.correct import Correct
from lightning_modules.rollouts import Rollouts, joined
from lightning_modules.stage import Stage, StageContext
from lightning_modules.teacher_gate import TeacherGate

AHEAD = 14
"""Steps whose questions teachers answer with those of a step: few answers at a time are slow."""


class Integrate(Stage):
    """On-policy distillation of all specialties' experts into one adapter on the bare base."""

    provides = "agent"
    adapter = "agent"
    kind = "agent"
    shards = "while_learning"

    @dataclass(frozen=True)
    class Config(IntegrationSettings):
        """As `IntegrationSettings`."""

    def __init__(self, config: Config | None = None, *, context: StageContext) -> None:
        """Take over the adapter to start from if it is attached under the student's name, else attach a fresh one.

        Args:
            config: see `Config`.
            context: the base, with the teachers' adapters loaded.

        Raises:
            ValueError: there is no teacher, or the engine does not go with the form.
        """
        super().__init__(context, config if config is not None else self.Config())
        c = self.config
        if not context.teachers:
            raise ValueError("there is no expert to learn from; name the experiments that train them in requires")
        self.check(c)
        guidelines, rewards = context.guidelines_named([NEUTRAL]), Rewards([Correct()])
        engine, layout = part(c.engine, Engine, "engine"), Layout({NEUTRAL: c.rollouts_per_question})
        engine.accept(self.policy.family)
        limits = (c.max_new_tokens, c.temperature, False, self.clock)
        self.asker = Asker(self.policy, engine, rewards, guidelines, layout, None, *limits)
        writer = engine if isinstance(engine, Packed) else Packed(Packed.Config())
        asked = (c.gate, c.gate_samples, c.gate_temperature, c.max_new_tokens, writer.config.rows_at_once)
        shared = (rewards, guidelines[NEUTRAL])
        self.gate = TeacherGate(self.policy, context.teachers, *shared, *asked, context.seed, self.clock)
        self.gaps: dict[str, float] = {}
        self.rollouts: Rollouts | None = None  # the newest
        if self.adapter not in self.policy.adapters:
            self.policy.add_adapter(self.adapter, LoRASettings(c.lora_rank, c.lora_alpha, c.lora_seed))
        self.policy.activate([self.adapter], trainable=self.adapter)

    @classmethod
    @override
    def check(cls, config: Config) -> None:
        exact = part(config.engine, Engine, "engine").exact
        if config.written_by == "teacher" and config.form == "policy_gradient":
            raise ValueError("form=policy_gradient needs tokens that the student itself drew; set written_by=student")
        if config.written_by == "teacher" and config.gate == "better":
            raise ValueError(
                "gate=better compares a teacher with the student's own answers, and with written_by=teacher there are "
                "none; take gate=right or none"
            )
        if config.written_by == "teacher" and not exact:
            raise ValueError(
                f"{config.engine['class_path']} holds one copy of the student, and with written_by=teacher the experts "
                "write in turn; leave engine as it is by default"
            )
        if config.form == "policy_gradient" and not exact:
            raise ValueError(
                f"form=policy_gradient needs tokens that the student itself drew, and {config.engine['class_path']} "
                "samples from a copy of it; take form=full, for which what is written only chooses the places"
            )

    @classmethod
    @override
    def demand(cls, config: Config) -> Demand:
        return Demand(("",), config.max_new_tokens)

    @override
    def feed(self) -> Feed:
        size = self.config.questions_per_specialty * len(self.context.teachers)
        ahead = AHEAD if self.config.gate != "none" else 0
        return Feed("questions", size, ahead=ahead, read_picture=self.policy.read_picture)

    @override
    def teardown(self, stage: str) -> None:
        self.asker.engine.close()

    @override
    def metrics_at_start(self) -> dict[str, float]:
        return {"train/kl/teacher_nats": 0.0, "train/reward/correct": 0.0}

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        with self.whole_base():
            rollouts = self.answers(batch)
            taught = self.gate(rollouts, batch.ahead).tolist()
        rows = {specialty: taught_rows(rollouts, taught, specialty) for specialty in self.context.teachers}
        counts = self.over_devices(*(sum(map(len, rollouts.ids(own))) for own in rows.values()))
        tokens = dict(zip(rows, counts, strict=True))
        weights = self.weights(tokens)
        distances: Counter[str] = Counter()

        def pieces() -> Iterator[Tensor]:
            for specialty, own in rows.items():
                for few in rollouts.micro_batches(own, self.config.micro_batch_tokens):
                    loss, distance = self.distance(rollouts, few, specialty)
                    distances[specialty] += distance
                    yield loss * (weights[specialty] / tokens[specialty])

        metrics = self.optimise(pieces(), [example.question_id for example in batch.examples])
        summed = self.over_devices(*(distances[specialty] for specialty in rows))
        means = {s: total / tokens[s] for s, total in zip(rows, summed, strict=True) if tokens[s]}
        if "train/grad_norm" in metrics:  # a step that was skipped measured nothing
            self.follow(means)
        metrics |= answer_metrics(self.from_all(answer_sums(rollouts, taught)))
        self.rollouts = rollouts
        self.report(metrics | distance_metrics(means, weights, tokens), shown=tuple(self.metrics_at_start()))

    def weights(self, tokens: Mapping[str, float]) -> dict[str, float]:
        """Part of the loss of each specialty, of which so many tokens are taught at this step."""
        c = self.config
        gaps = torch.tensor([self.gaps.get(specialty, torch.nan) for specialty in tokens], dtype=torch.float64)
        counts, balanced = torch.tensor(list(tokens.values())), c.token_shares == "balanced"
        found = specialty_weights(counts, gaps, balanced=balanced, exponent=c.gap_exponent)
        return dict(zip(tokens, found.tolist(), strict=True))

    def follow(self, means: Mapping[str, float]) -> None:
        """Move each specialty's distance to its teacher towards that of the step; the first one is taken as it is."""
        memory = self.config.gap_memory
        for specialty, distance in means.items():
            self.gaps[specialty] = memory * self.gaps.get(specialty, distance) + (1 - memory) * distance

    def answers(self, batch: Batch) -> Rollouts:
        """Answers to a step's questions: the student's, or of each question its specialty's expert's."""
        if self.config.written_by == "student":
            return self.written(batch, range(len(batch.examples)))
        parts = []
        for specialty, teacher in self.context.teachers.items():
            own = [n for n, example in enumerate(batch.examples) if example.tags[SPECIALTY] == specialty]
            if own:
                with self.policy.acting(teacher):
                    parts.append(self.written(batch, own))
        return joined(parts)

    def written(self, batch: Batch, numbers: Sequence[int]) -> Rollouts:
        """What the adapters that act now answer to some questions of this device's batch."""
        ranks, rank = self.trainer.world_size, self.trainer.global_rank
        return self.asker.ask(
            [batch.examples[number] for number in numbers],
            [rank + ranks * number for number in numbers],
            ("train", self.context.seed, self.batches_done),
            pictures=[batch.pictures[number] for number in numbers] if batch.pictures else (),
            version=self.global_step,
        )

    def distance(self, rollouts: Rollouts, rows: list[int], specialty: str) -> tuple[Tensor, float]:
        """Sums over the tokens of one specialty's rows: the loss, and the KL to the teacher in nats."""
        c, policy, teacher = self.config, self.policy, self.context.teachers[specialty]
        prompts, ids = [rollouts.prompt(row) for row in rows], rollouts.ids(rows)
        if c.form == "policy_gradient":
            with self.clock.phase("teacher"), policy.acting(teacher):
                theirs = policy.logps(prompts, ids, c.temperature)
            with self.clock.phase("forward"):
                scores = policy.score(prompts, ids, c.temperature)
                self.clock.count("train_tokens", scores.tokens)
                loss = log_ratio_reinforce(scores.logps, theirs, c.log_ratio_clip)
                kl = masked(k3_kl(scores.logps.detach(), theirs), scores.completion_mask)
                return masked(loss, scores.completion_mask).sum(), float(kl.double().sum())

        def teacher_head(states: Tensor) -> Tensor:
            with policy.acting(teacher):
                return policy.family.logits(states)

        with self.clock.phase("teacher"), torch.no_grad(), policy.acting(teacher):
            theirs = policy.completion_states(prompts, ids).hidden
        with self.clock.phase("forward"):
            states = policy.completion_states(prompts, ids)
            self.clock.count("train_tokens", states.tokens)
            heads, shared = (policy.family.logits, teacher_head), {"banned": policy.banned}
            shared |= {"temperature": c.temperature, "forward": c.form == "forward"}
            kl = distribution_kl(states.hidden, theirs, *heads, **shared)
            return kl.sum(), float(kl.detach().double().sum())

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        rates = {name: rate for own in self.from_all(self.gate.rates) for name, rate in own.items()}
        checkpoint["integration"] = {"gaps": dict(self.gaps), "teacher_rates": rates}

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.gaps = dict(checkpoint["integration"]["gaps"])
        self.gate.rates.update(checkpoint["integration"]["teacher_rates"])


def taught_rows(rollouts: Rollouts, taught: Sequence[bool], specialty: str) -> list[int]:
    """Rows of the questions of a specialty that its teacher teaches."""
    size = rollouts.layout.size
    return [
        row
        for row in range(len(rollouts.completions))
        if taught[row // size] and rollouts.examples[row // size].tags[SPECIALTY] == specialty
    ]
