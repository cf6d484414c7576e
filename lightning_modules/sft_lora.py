"""DSA: one LoRA expert per specialty, by imitating step-by-step reasoning traces.

Source: domain-specific adaptation, MMedExpert-R1, arXiv:2601.10949; LoRA, arXiv:2106.09685.
Choice: ranks, rates and steps are ours, the paper publishes none. Every trace is learnt under its guideline's
    instruction and under the neutral prompt, because the expert is examined with the neutral one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.base import VQADataModule
from datamodules.batch import Batch
from datamodules.prompts import NEUTRAL
from lightning_modules.functional.reductions import Denominators, token_mean
from lightning_modules.phases import PhaseClock
from lightning_modules.policy import LoRASettings, Policy
from lightning_modules.stage import Stage, StageContext


class SFTLoRA(Stage):
    """Supervised fine-tuning of a LoRA adapter on completion tokens only."""

    adapter = "dsa"
    kind = "dsa"

    @dataclass(frozen=True)
    class Config:
        """Hyper-parameters of DSA."""

        guidelines: tuple[str, ...] = ("differential", "intuitive", "analytical", "bayesian")
        """Guidelines whose traces are learnt; names, or paths of guideline files."""
        lora_rank: int = 16
        """r, at least 1."""
        lora_alpha: float = 32.0
        """Scale numerator of the update alpha / r · B A."""
        lora_seed: int = 0
        """Seed of A; the same for all experts, which makes them easier to merge."""
        learning_rate: float = 2e-3
        """Peak of the schedule."""
        warmup_steps: int = 10
        """Optimiser steps of linear warm-up."""

        def __post_init__(self) -> None:
            if self.lora_rank < 1 or self.lora_alpha <= 0:
                raise ValueError("lora_rank must be at least 1 and lora_alpha above 0")
            if self.learning_rate <= 0 or self.warmup_steps < 0:
                raise ValueError("learning_rate must be above 0 and warmup_steps at least 0")

    def __init__(self, config: Config | None = None, *, context: StageContext) -> None:
        """Attach a fresh adapter.

        Args:
            config: see `Config`.
            context: the base, and adapters beneath if there are any.
        """
        super().__init__(context)
        self.config = config if config is not None else self.Config()
        self.instructions = instructions_of(context, self.config.guidelines)
        self.policy.add_adapter(
            self.adapter, LoRASettings(self.config.lora_rank, self.config.lora_alpha, self.config.lora_seed)
        )
        self.policy.activate([*context.start, self.adapter], trainable=self.adapter)

    @override
    def dataloader(self, data: VQADataModule, n_steps: int):
        return data.sft_loader(n_steps, set(self.instructions) - {NEUTRAL})

    @override
    def metrics_at_start(self) -> dict[str, float]:
        return {"train/loss": 0.0, "train/token_probability": 0.0}

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, token_probability = imitation_loss(self.policy, batch, self.instructions, self.clock)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/token_probability", token_probability, prog_bar=True)
        return loss


def instructions_of(context: StageContext, guidelines: Sequence[str]) -> dict[str, str]:
    """Guideline name -> instruction, the neutral prompt's empty one included."""
    return {NEUTRAL: ""} | {name: item.instruction for name, item in context.guidelines_named(guidelines).items()}


def imitation_loss(
    policy: Policy, batch: Batch, instructions: Mapping[str, str], clock: PhaseClock
) -> tuple[Tensor, Tensor]:
    """Mean negative log-probability of the batch's completion tokens in nats, and the mean probability they get.

    Args:
        policy: scored under its active adapters, with gradient.
        batch: rows with guidelines and completions.
        instructions: guideline name -> instruction.
        clock: times the forward pass and counts its tokens.

    Returns:
        () loss and () mean token probability (detached).
    """
    with clock.phase("forward"):
        rows = zip(batch.examples, batch.guidelines, strict=True)
        prompts = [policy.prompt(example, instructions[guideline]) for example, guideline in rows]
        scores = policy.score(prompts, [policy.completion_ids(text) for text in batch.completions])
        clock.count("train_tokens", scores.tokens)
        sizes = Denominators.of(scores.completion_mask.sum(1), max_tokens=scores.completion_mask.shape[1])
        with torch.no_grad():
            probability = token_mean(scores.logps.exp(), scores.completion_mask, sizes)
        return token_mean(-scores.logps, scores.completion_mask, sizes), probability
