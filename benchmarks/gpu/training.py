"""Steps of DSA and GBA under Lightning, as a run takes them, per phase."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from benchmarks import work
from benchmarks.gpu import made
from benchmarks.gpu.lines import now
from benchmarks.gpu.sizes import Size
from benchmarks.ours import StepValues
from datamodules.batch import Batch
from datamodules.prompts import NEUTRAL
from lightning_modules.budget import within_budget
from lightning_modules.policy import Policy
from lightning_modules.rewards.combine import Reward
from lightning_modules.rl_gba import GBA
from lightning_modules.rollouts import Rollouts
from lightning_modules.sft_lora import SFTLoRA
from lightning_modules.stage import Stage, StageContext

SCORING = ("reference", "forward")
"""Phases of the clock that together are called scoring."""


class StaysOnDevice(Stage):
    """Lightning moves a stage to the processor after a fit; the next measurement wants it where it is."""

    @override
    def cpu(self) -> StaysOnDevice:
        return self


class MadeSFT(StaysOnDevice, SFTLoRA):
    """DSA, as it is."""


class MadeGBA(StaysOnDevice, GBA):
    """GBA with made rewards, for a random model earns none: no row is dead."""

    @override
    def rolled_out(self, batch: Batch, places: Sequence[int], stream: tuple[object, ...]) -> Rollouts:
        rollouts = super().rolled_out(batch, places, stream)
        totals = [work.reward_even(completion.ids) for completion in rollouts.completions]
        rollouts.rewards = [Reward(total, {}, total, None, None, None, right=False) for total in totals]
        rollouts.weigh(self.advantage)
        return rollouts


@dataclass
class Watch(L.Callback):
    """Keeps every step's phases and speeds, and the last step's weights and gradient before they are changed.

    Attributes:
        device: `cuda` or `cpu`.
        keep: whether weights and gradient are wanted, which takes their memory twice.
        phases: seconds by phase, one mapping per step; the forward passes of the policy and of its reference are
            called scoring.
        speeds: tokens per second, likewise.
        seconds: of each step as a whole.
        weights: (N,) of all trained parameters, one after the other.
        gradient: (N,).
    """

    device: str
    keep: bool = False
    phases: list[dict[str, float]] = field(default_factory=list)
    speeds: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    weights: Tensor | None = None
    gradient: Tensor | None = None
    _since: float = 0.0

    @override
    def on_train_batch_start(self, *_: Any) -> None:
        self._since = now(self.device)

    @override
    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        trained = list(pl_module.trained.values()) if self.keep else []
        if trained:
            self.weights = torch.cat([parameter.detach().flatten() for parameter in trained])
            self.gradient = torch.cat([parameter.grad.flatten() for parameter in trained])

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.seconds.append(now(self.device) - self._since)
        taken = pl_module.clock.take()
        phases = {tag[len("time/") : -len("_s")]: s for tag, s in taken.items() if tag.startswith("time/")}
        self.phases.append({"scoring": sum(phases.pop(name, 0.0) for name in SCORING), **phases})
        self.speeds.append({tag.removeprefix("speed/"): s for tag, s in taken.items() if tag.startswith("speed/")})


@contextmanager
def bare_afterwards(policy: Policy) -> Iterator[None]:
    """Take off again whatever adapters were put on, also where it failed."""
    try:
        yield
    finally:
        policy.bare()


def fit(stage: Stage, batches: list[Batch], device: str, *, keep: bool = False) -> tuple[Watch, dict[str, float]]:
    """Train over the batches; what was seen of the steps, and the last one's metrics."""
    watch, values = Watch(device, keep), StepValues()
    trainer = L.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_steps=len(batches),
        max_epochs=1,
        logger=values,
        callbacks=[watch],
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        deterministic=True,
    )
    trainer.fit(stage, DataLoader(batches, batch_size=None))
    return watch, next(row for row in reversed(values.rows) if "train/grad_norm" in row)


def sft(policy: Policy, size: Size, device: str, *, checkpoint: bool) -> dict[str, Any]:
    """Steps of imitation, after one of warm-up."""
    each, batches = size.sft_rows, []
    for step in range(1 + size.sft_steps):
        rows = made.questions(size, each, 1000 + step * each)
        batches.append(Batch(tuple(rows), (NEUTRAL,) * each, tuple(made.answers(size, each, step * each))))
    config = SFTLoRA.Config(
        guidelines=(),
        lora_rank=work.RANK,
        lora_alpha=float(work.ALPHA),
        warmup=0.0,
        micro_batch_tokens=size.sft_micro_tokens,
        checkpoint_layers=checkpoint,
    )
    with bare_afterwards(policy):
        piece = micro_batch(policy, batches[-1], size.sft_micro_tokens)
        watch, metrics = fit(MadeSFT(config, context=StageContext(policy)), batches, device)
    seconds = watch.seconds[1:]
    return {
        "seconds": round(statistics.median(seconds), 3),
        "repeats": len(seconds),
        "rows": each,
        "micro_batch": piece,
        "phases": rounded(watch.phases[-1]),
        **rounded(watch.speeds[-1]),
        "loss": round(metrics["train/loss"], 4),
    }


def micro_batch(policy: Policy, batch: Batch, tokens: int) -> dict[str, int]:
    """The first forward pass of a batch: rows, the tokens of a row, and those that are imitated, as means."""
    lengths = [len(policy.completion_ids(text)) for text in batch.completions]
    whole = [
        len(policy.prompt(example, "").ids) + length for example, length in zip(batch.examples, lengths, strict=True)
    ]
    rows = within_budget(whole, tokens)[0]
    row, scored = (sum(numbers[place] for place in rows) // len(rows) for numbers in (whole, lengths))
    return {"prompts": 0, "prompt": 0, "rows": len(rows), "row": row, "scored": scored}


@dataclass
class RLStep:
    """What a GBA step leaves for the stock loop to repeat.

    Attributes:
        rollouts: with prompts, completions and advantages.
        weights: (N,) of the adapter as it scored.
        gradient: (N,) of the step's loss.
        seconds: of the step.
    """

    rollouts: Rollouts
    weights: Tensor
    gradient: Tensor
    seconds: float


def rl_config(size: Size) -> GBA.Config:
    """GBA without the neutral prompt's own term, which the stock loop does not have; everything else is the default."""
    return GBA.Config(
        rollouts_per_guideline=size.rollouts,
        neutral_share=0.0,
        transfer=None,
        questions_per_step=size.questions,
        max_new_tokens=size.new_tokens,
        lora_rank=work.RANK,
        lora_alpha=float(work.ALPHA),
        warmup=0.0,
        max_grad_norm=float("inf"),
        micro_batch_tokens=size.rl_micro_tokens,
        checkpoint_layers=True,
    )


def gba(policy: Policy, size: Size, device: str) -> tuple[dict[str, Any], RLStep]:
    """One step of GBA, with an adapter that acts, so that the KL has a gradient too."""
    batch = Batch(tuple(made.questions(size, size.questions, 2000)))
    with bare_afterwards(policy), made.endless(policy):
        stage = MadeGBA(rl_config(size), context=StageContext(policy))
        let_act(policy)
        watch, metrics = fit(stage, [batch], device, keep=True)
        step = RLStep(stage.rollouts, watch.weights, watch.gradient, watch.seconds[0])
    found = {
        "seconds": round(step.seconds, 3),
        "questions": size.questions,
        "group": len(step.rollouts.completions) // size.questions,
        "new_tokens": size.new_tokens,
        "prompt_tokens": len(step.rollouts.prompts[0].ids),
        "phases": rounded(watch.phases[0]),
        **rounded(watch.speeds[0]),
        "metrics": {n: metrics[f"train/{n}"] for n in ("grad_norm", "kl/ref_nats", "ratio/sampler_log_max")},
    }
    return found, step


def let_act(policy: Policy) -> None:
    """Give the trained adapter's B seeded values: small beside what the weights do."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad and "lora_B" in name:
            values = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(0.01 * values)


def rounded(numbers: dict[str, float]) -> dict[str, float]:
    """To milliseconds."""
    return {name: round(value, 3) for name, value in numbers.items()}
