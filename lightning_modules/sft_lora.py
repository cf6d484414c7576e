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

from datamodules.batch import Batch
from datamodules.loading import Feed
from datamodules.prompts import NEUTRAL
from lightning_modules.adapters import LoRASettings
from lightning_modules.functional.accumulation import summed_in_pieces
from lightning_modules.functional.reductions import Denominators, token_mean
from lightning_modules.phases import PhaseClock
from lightning_modules.policy import Policy
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
        micro_batch_tokens: int = 16384
        """Bound on tokens per forward pass; the gradient does not depend on it."""
        checkpoint_layers: bool = False
        """Compute activations again in the backward pass: less memory, about a third slower."""

        def __post_init__(self) -> None:
            if self.lora_rank < 1 or self.lora_alpha <= 0:
                raise ValueError("lora_rank must be at least 1 and lora_alpha above 0")
            if self.learning_rate <= 0 or self.warmup_steps < 0:
                raise ValueError("learning_rate must be above 0 and warmup_steps at least 0")
            if self.micro_batch_tokens < 1:
                raise ValueError(f"micro_batch_tokens must be at least 1, got {self.micro_batch_tokens}")

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
        if self.config.checkpoint_layers:
            self.policy.checkpoint_layers()

    @override
    def feed(self) -> Feed:
        return Feed("rows", guidelines=frozenset(self.instructions) - {NEUTRAL}, read_picture=self.policy.read_picture)

    @override
    def metrics_at_start(self) -> dict[str, float]:
        return {"train/loss": 0.0, "train/token_probability": 0.0}

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, token_probability = imitation_loss(
            self.policy, batch, self.instructions, self.clock, self.config.micro_batch_tokens
        )
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/token_probability", token_probability, prog_bar=True)
        return loss


def instructions_of(context: StageContext, guidelines: Sequence[str]) -> dict[str, str]:
    """Guideline name -> instruction, the neutral prompt's empty one included."""
    return {NEUTRAL: ""} | {name: item.instruction for name, item in context.guidelines_named(guidelines).items()}


def imitation_loss(
    policy: Policy, batch: Batch, instructions: Mapping[str, str], clock: PhaseClock, micro_batch_tokens: int
) -> tuple[Tensor, Tensor]:
    """Mean negative log-probability of the batch's completion tokens in nats, and the mean probability they get.

    Args:
        policy: scored under its active adapters, with gradient.
        batch: rows with guidelines and completions.
        instructions: guideline name -> instruction.
        clock: times the forward pass and counts its tokens.
        micro_batch_tokens: bound on tokens per forward pass; where the batch has more, the loss is differentiated in
            pieces, with the same result.

    Returns:
        () loss and () mean token probability (detached).
    """
    with clock.phase("forward"):
        rows = zip(batch.examples, batch.guidelines, strict=True)
        prompts = [
            policy.prompt(example, instructions[guideline], batch.pictures_of(row))
            for row, (example, guideline) in enumerate(rows)
        ]
        completions = [policy.completion_ids(text) for text in batch.completions]
    sizes = Denominators.of(torch.tensor([len(ids) for ids in completions]), max_tokens=max(map(len, completions)))
    probability = torch.zeros((), device=policy.device)

    def piece(rows: Sequence[int]) -> Tensor:
        with clock.phase("forward"):
            scores = policy.score([prompts[row] for row in rows], [completions[row] for row in rows])
            clock.count("train_tokens", scores.tokens)
            probability.add_(token_mean(scores.logps.detach().exp(), scores.completion_mask, sizes))
            return token_mean(-scores.logps, scores.completion_mask, sizes)

    lengths = [len(prompt.ids) + len(ids) for prompt, ids in zip(prompts, completions, strict=True)]
    parts = within_budget(lengths, micro_batch_tokens)
    if len(parts) == 1:
        return piece(parts[0]), probability
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    with clock.phase("backward"):
        return summed_in_pieces(map(piece, parts), trained), probability


def within_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut rows into runs of at most `budget` tokens; a longer row stands alone.

    >>> within_budget([3, 4, 9, 2, 2], budget=7)
    [[0, 1], [2], [3, 4]]
    """
    parts: list[list[int]] = []
    size = budget
    for row, length in enumerate(lengths):
        if not parts or size + length > budget:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += length
    return parts
