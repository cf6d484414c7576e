"""Make a base to adapt: train a whole tiny model, or align the projector of a pretrained one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.batch import Batch
from datamodules.loading import Feed
from datamodules.prompts import NEUTRAL
from lightning_modules.schedule import MuonAndAdamW
from lightning_modules.sft_lora import imitation_loss
from lightning_modules.stage import Stage, StageContext


class BaseTraining(Stage):
    """Imitation on perception and language; what is trained becomes the base of every expert."""

    provides = "base"

    @dataclass(frozen=True)
    class Config:
        """What is trained, and how fast."""

        parameters: Literal["all", "projector"] = "all"
        """`all` trains a model from scratch; `projector` aligns pictures with a frozen language model."""
        learning_rate: float = 2e-3
        """Peak of AdamW's schedule."""
        muon_rate: float = 5e-3
        """Peak of Muon's schedule on the hidden matrices; 0 leaves them to AdamW."""
        warmup_steps: int = 20
        """Optimiser steps of linear warm-up."""
        micro_batch_tokens: int = 16384
        """Bound on tokens per forward pass; the gradient does not depend on it."""
        checkpoint_layers: bool = False
        """Compute activations again in the backward pass: less memory, about a third slower."""

        def __post_init__(self) -> None:
            if self.learning_rate <= 0 or self.muon_rate < 0 or self.warmup_steps < 0:
                raise ValueError("learning_rate must be above 0, muon_rate and warmup_steps at least 0")
            if self.micro_batch_tokens < 1:
                raise ValueError(f"micro_batch_tokens must be at least 1, got {self.micro_batch_tokens}")

    def __init__(self, config: Config | None = None, *, context: StageContext) -> None:
        """Make the chosen parameters trainable. Arguments as of `SFTLoRA`."""
        super().__init__(context)
        self.config = config if config is not None else self.Config()
        self.instructions = {NEUTRAL: ""}
        if self.config.checkpoint_layers:
            self.policy.checkpoint_layers()
        family = self.policy.family
        chosen = family.parameters() if self.config.parameters == "all" else family.projector_parameters()
        for parameter in chosen:
            parameter.requires_grad_(True)

    @override
    def optimizer(self) -> torch.optim.Optimizer:
        if self.config.muon_rate == 0:
            return super().optimizer()
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        hidden = [p for name, p in trained if p.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name]
        others = [p for _, p in trained if all(p is not matrix for matrix in hidden)]
        return MuonAndAdamW(hidden, others, hidden_rate=self.config.muon_rate, other_rate=self.config.learning_rate)

    @override
    def feed(self) -> Feed:
        return Feed("rows", read_picture=self.policy.read_picture)

    @override
    def metrics_at_start(self) -> dict[str, float]:
        return {"train/loss": 0.0, "train/token_probability": 0.0}

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, probability = imitation_loss(
            self.policy, batch, self.instructions, self.clock, self.config.micro_batch_tokens
        )
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/token_probability", probability, prog_bar=True)
        return loss
