"""DSA: one LoRA expert per specialty, by imitating step-by-step reasoning traces.

Source: domain-specific adaptation, MMedExpert-R1, arXiv:2601.10949; LoRA, arXiv:2106.09685.
Choice: ranks, rates and steps are ours, the paper publishes none. Every trace is learnt under its guideline's
    instruction and under the neutral prompt, because the expert is examined with the neutral one. A trace that follows
    no guideline, or an answer that stands alone for want of one, is learnt under the neutral prompt only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typing_extensions import override

from datamodules.batch import Batch
from datamodules.loading import Demand, Feed
from datamodules.prompts import NEUTRAL
from guards.ranges import above, at_least
from lightning_modules.adapters import LoRASettings
from lightning_modules.imitation import Lesson, validation_loss
from lightning_modules.parts import GuidelineNames
from lightning_modules.stage import Stage, StageContext


class SFTLoRA(Stage):
    """Supervised fine-tuning of a LoRA adapter on completion tokens only."""

    adapter = "dsa"
    kind = "dsa"
    shards = "always"
    replays = True

    @dataclass(frozen=True)
    class Config(Stage.Config):
        """Hyper-parameters of DSA."""

        guidelines: GuidelineNames = ("differential", "intuitive", "analytical", "bayesian")
        """Guidelines whose traces are learnt; names, or paths of guideline files."""
        lora_rank: Annotated[int, at_least(1)] = 16
        """r, at least 1."""
        lora_alpha: Annotated[float, above(0)] = 32.0
        """Scale numerator of the update alpha / r · B A; above 0."""
        lora_seed: int = 0
        """Seed of A; the same for all experts, which makes them easier to merge."""
        learning_rate: float = 2e-3
        """Peak of the schedule; above 0."""
        warmup: float = 10.0
        """Linear rise: below 1 a share of all steps, from 1 on a number of steps."""

    def __init__(self, config: Config | None = None, *, context: StageContext) -> None:
        """Attach a fresh adapter.

        Args:
            config: see `Config`.
            context: the base, and adapters beneath if there are any.
        """
        super().__init__(context, config if config is not None else self.Config())
        c = self.config
        guidelines = context.guidelines_named(c.guidelines)
        self.instructions = {NEUTRAL: ""} | {name: item.instruction for name, item in guidelines.items()}
        self.policy.add_adapter(self.adapter, LoRASettings(c.lora_rank, c.lora_alpha, c.lora_seed))
        self.policy.activate([*context.start, self.adapter], trainable=self.adapter)

    @classmethod
    @override
    def demand(cls, config: Config) -> Demand:
        guidelines = StageContext.guidelines_named(config.guidelines)
        traces = frozenset({NEUTRAL, *guidelines})
        return Demand(("", *(item.instruction for item in guidelines.values())), traces=traces)

    @override
    def feed(self) -> Feed:
        return Feed("rows", guidelines=frozenset(self.instructions), read_picture=self.policy.read_picture)

    @override
    def metrics_at_start(self) -> dict[str, float]:
        return {"train/loss": 0.0, "train/token_probability": 0.0}

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        lesson = Lesson.of(self.policy, batch, self.instructions, self.clock)
        (tokens,) = self.over_devices(lesson.tokens)
        pieces = lesson.pieces(int(tokens), self.config.micro_batch_tokens)
        metrics = self.optimise(pieces, [example.question_id for example in batch.examples])
        loss, probability = self.over_devices(lesson.loss, lesson.token_probability)
        found = {"train/loss": loss, "train/token_probability": probability}
        self.report(metrics | found, shown=tuple(found))

    @override
    def validation_loss(self, batch: Batch) -> tuple[float, int]:
        data, budget = self.trainer.datamodule, self.config.micro_batch_tokens
        plainly = getattr(data, "plainly", None)  # a LightningDataModule from elsewhere may have none
        return validation_loss(self.policy, batch, list(self.instructions), data.config.answer_with, budget, plainly)
