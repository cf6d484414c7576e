"""Make a base to adapt: train a whole tiny model, or join a pretrained language model to a vision tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from typing_extensions import override

from datamodules.batch import Batch
from datamodules.loading import Feed
from datamodules.prompts import NEUTRAL
from guards.ranges import at_least
from lightning_modules.imitation import Lesson, validation_loss
from lightning_modules.schedule import MuonAndAdamW
from lightning_modules.stage import Stage, StageContext


class BaseTraining(Stage):
    """Imitation on perception and language; what is trained becomes the base of every expert."""

    provides = "base"

    @dataclass(frozen=True)
    class Config(Stage.Config):
        """What is trained, and how fast."""

        parameters: Literal["all", "language", "projector"] = "all"
        """`all` trains a model from scratch; `projector` aligns pictures with a frozen language model, and `language`
        trains that model too, so that it also learns to answer in the form that is read."""
        learning_rate: float = 2e-3
        """Peak of AdamW's schedule; above 0."""
        muon_rate: Annotated[float, at_least(0)] = 5e-3
        """Peak of Muon's schedule on the hidden matrices; 0 leaves them to AdamW."""
        warmup: float = 20.0
        """Linear rise: below 1 a share of all steps, from 1 on a number of steps."""

    def __init__(self, config: Config | None = None, *, context: StageContext) -> None:
        """Make the chosen parameters trainable. Arguments as of `SFTLoRA`."""
        super().__init__(context, config if config is not None else self.Config())
        family = self.policy.family
        if self.config.parameters == "projector":
            chosen = family.projector_parameters()
        else:
            frozen = {id(p) for p in family.vision_parameters()} if self.config.parameters == "language" else set()
            chosen = [p for p in family.parameters() if id(p) not in frozen]
        for parameter in chosen:
            parameter.requires_grad_(True)

    @classmethod
    @override
    def check(cls, config: Config) -> None:
        if config.muon_rate and config.optimizer != "adamw":
            raise ValueError(
                f"optimizer={config.optimizer} is AdamW on all that is trained; set muon_rate=0, or leave optimizer at "
                "adamw"
            )

    @override
    def optimizer(self) -> torch.optim.Optimizer:
        c = self.config
        if c.muon_rate == 0:
            return super().optimizer()
        hidden = [
            p
            for name, p in self.trained.items()
            if p.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name
        ]
        others = [p for p in self.trained.values() if all(p is not matrix for matrix in hidden)]
        return MuonAndAdamW(
            hidden,
            others,
            hidden_rate=c.muon_rate,
            other_rate=c.learning_rate,
            betas=c.betas,
            weight_decay=c.weight_decay,
        )

    @override
    def feed(self) -> Feed:
        return Feed("rows", guidelines=frozenset({NEUTRAL}), read_picture=self.policy.read_picture)

    @override
    def metrics_at_start(self) -> dict[str, float]:
        return {"train/loss": 0.0, "train/token_probability": 0.0}

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        lesson = Lesson.of(self.policy, batch, {NEUTRAL: ""}, self.clock)
        (tokens,) = self.over_devices(lesson.tokens)
        pieces = lesson.pieces(int(tokens), self.config.micro_batch_tokens)
        metrics = self.optimise(pieces, [example.question_id for example in batch.examples])
        loss, probability = self.over_devices(lesson.loss, lesson.token_probability)
        found = {"train/loss": loss, "train/token_probability": probability}
        self.report(metrics | found, shown=tuple(found))

    @override
    def validation_loss(self, batch: Batch) -> tuple[float, int]:
        answer_with, budget = self.trainer.datamodule.config.answer_with, self.config.micro_batch_tokens
        return validation_loss(self.policy, batch, None, answer_with, budget)
