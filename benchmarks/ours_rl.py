"""Our side of the RL benchmark: the real training step under Lightning, with cheap rewards. A worker of `rl_vs_trl`.

Where lengths are forced (`varlen`) the log-probabilities of sampling are those of the forced distribution and those of
training are not, on neither side: the ratio is then no importance ratio. That is of no matter for what is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from benchmarks import made_model, made_rows, ours, work
from benchmarks.clock import PeakMemory, Recorder, summary, versions
from benchmarks.worker import arguments, leave
from datamodules.batch import Batch
from lightning_modules.decoding import Processor
from lightning_modules.engines.packed import Packed
from lightning_modules.policy import Policy
from lightning_modules.policy_gradient import PolicyGradient
from lightning_modules.prompts import Prompt
from lightning_modules.rewards.combine import Reward
from lightning_modules.rollout import Completion, sample
from lightning_modules.rollouts import Rollouts
from lightning_modules.stage import StageContext

# The policy loss is a mean over completions here; TRL logs the whole loss.
NAMES = {
    "train/grad_norm": "grad_norm",
    "train/kl/ref_nats": "kl",
    "train/reward/total": "reward",
    "train/completion/tokens": "completion_tokens",
    "train/loss/policy": "policy_loss",
}


class ForcedLengths(Packed):
    """The built-in engine with the lengths that the work gives each step."""

    @dataclass(frozen=True)
    class Config(Packed.Config):
        """As the engine's."""

    @override
    def generate(
        self, policy: Policy, prompts: Sequence[Prompt], copies: Sequence[int], seeds: Sequence[int], **how: Any
    ) -> list[Completion]:
        lengths = work.completion_lengths(how.pop("version"), sum(copies))
        processor = forced_lengths(lengths, policy.family.eos_token_id)
        with policy.folded():
            return sample(policy, prompts, copies=copies, seeds=seeds, processor=processor, **how)


class MadeRL(PolicyGradient):
    """GRPO with the work's rewards."""

    work = "fixed"

    @override
    def rolled_out(self, batch: Batch, places: Sequence[int], stream: tuple[object, ...]) -> Rollouts:
        rollouts = super().rolled_out(batch, places, stream)
        vocabulary = self.policy.family.model.config.text_config.vocab_size
        totals = [
            0.5 if work.is_dead(self.work, row // rollouts.layout.size) else total_reward(completion.ids, vocabulary)
            for row, completion in enumerate(rollouts.completions)
        ]
        rollouts.rewards = [Reward(total, {}, total, None, None, None, right=False) for total in totals]
        rollouts.weigh(self.advantage)
        return rollouts


def forced_lengths(lengths: Sequence[int], end: int) -> Processor:
    """End every row exactly at its length: the end token is banned before and the only choice there."""
    table = torch.tensor(lengths)

    def processor(log_probs: Tensor, rows: Sequence[int], written: int) -> Tensor:
        last = table[list(rows)] == written + 1
        forced = log_probs - torch.log1p(-log_probs[:, end].exp())[:, None]
        forced[:, end] = -torch.inf
        forced[last] = -torch.inf
        forced[last, end] = 0.0
        return forced

    return processor


def total_reward(ids: tuple[int, ...], vocabulary: int) -> float:
    """Both rewards under their weights."""
    even, low = work.REWARD_WEIGHTS
    return even * work.reward_even(ids) + low * work.reward_low(ids, vocabulary)


class FixedBatch(MadeRL):
    """One update on made completions, with an adapter that acts and the base as the sampling policy."""

    found: dict[str, float]

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        made_model.fill_adapter(self.policy.family.model)
        completions, advantages = work.fixed_completions(self.policy.family.model.config.text_config.vocab_size)
        rollouts = self.roll_out(batch, "fixed", 0)
        rollouts.completions = [Completion(ids, (0.0,) * len(ids), "", True) for ids in completions]
        rollouts.advantages = torch.tensor(advantages).reshape(rollouts.shape)
        for first in range(0, len(completions), work.MICRO_ROWS):
            rows = range(first, first + work.MICRO_ROWS)
            logps = self.base_logps([rollouts.prompt(row) for row in rows], rollouts.ids(rows))
            rollouts.remember(rollouts.old_logps, rows, logps)
        taken, tally = self.update(rollouts, range(len(completions)))
        metrics = taken | tally.metrics()
        loss = metrics["train/loss/policy"] + metrics.get("train/loss/kl", 0.0)
        self.found = {"loss": loss, "grad_norm": metrics["train/grad_norm"]}

    @torch.no_grad()
    def base_logps(self, prompts: list, ids: list) -> Tensor:
        """(B, T) nats without any adapter."""
        with self.policy.acting(()):
            return self.policy.score(prompts, ids).logps


def config(work_name: str, group_size: int) -> PolicyGradient.Config:
    """GRPO with the work's numbers."""
    beta = work.beta_of(work_name)
    engine = "benchmarks.ours_rl.ForcedLengths" if work_name == "varlen" else "lightning_modules.engines.packed.Packed"
    bounds = {"clip_low": work.CLIP, "clip_high": work.CLIP}
    return PolicyGradient.Config(
        rollouts_per_guideline=group_size,
        questions_per_step=work.PROMPTS_PER_STEP,
        loss={"class_path": "lightning_modules.losses.clipped.Clipped", "init_args": bounds},
        kl={"class_path": "lightning_modules.losses.kl.InLoss", "init_args": {"beta": beta}} if beta else None,
        engine={"class_path": engine},
        reduction="sequence_mean",
        temperature=1.0,
        max_new_tokens=work.COMPLETION_TOKENS,
        lora_rank=work.RANK,
        lora_alpha=float(work.ALPHA),
        learning_rate=work.LEARNING_RATE,
        warmup=0.0,
        max_grad_norm=work.MAX_GRAD_NORM,
        micro_batch_tokens=work.MICRO_ROWS * (work.PROMPT_TOKENS + work.COMPLETION_TOKENS),
    )


def measure(size: str, work_name: str, steps: int, folder: Path, *, settings: PolicyGradient.Config) -> dict:
    """Train for `steps` steps after one of warm-up.

    Args:
        size: of the model.
        work_name: of `work.RL_WORKS`.
        steps: that count.
        folder: of the tokenizer.
        settings: as `config` gives them; tests shorten them.
    """
    recorder, values = Recorder(), ours.StepValues()
    # With the end token among them, all completions run to the limit.
    banned = None if work_name == "varlen" else made_model.SPECIAL
    family = ours.MadeFamily(ours.MadeFamily.Config(size, str(folder)), recorder, banned)
    stage = MadeRL(settings, context=StageContext(Policy(family)))
    stage.work = work_name
    trainer = ours.trainer(steps + 1, recorder, values)
    batches = question_batches(family, settings.questions_per_step)
    with PeakMemory() as memory:
        trainer.fit(stage, train_dataloaders=batches)
    ours.attach(recorder, [row for row in values.rows if "train/grad_norm" in row], NAMES)
    return summary(recorder, memory) | {"versions": versions(*ours.PACKAGES)}


def question_batches(family: ours.MadeFamily, questions: int) -> DataLoader:
    """The run's questions in their order."""
    examples = [ours.example(index, row) for index, row in enumerate(made_rows.rl_rows(family.tokenizer))]
    batches = [Batch(tuple(examples[first : first + questions])) for first in range(0, len(examples), questions)]
    return DataLoader(batches, batch_size=None)


def fixed_batch(size: str, folder: Path, settings: PolicyGradient.Config) -> dict:
    """Loss and gradient norm on the fixed batch, nothing banned."""
    recorder = Recorder()
    family = ours.MadeFamily(ours.MadeFamily.Config(size, str(folder)), recorder, banned=())
    stage = FixedBatch(replace(settings, max_new_tokens=1), context=StageContext(Policy(family)))
    L.seed_everything(0, verbose=False)
    ours.trainer(1, recorder, ours.StepValues()).fit(stage, question_batches(family, work.PROMPTS_PER_STEP))
    return stage.found


def main(given: argparse.Namespace) -> dict:
    """Run what the driver asks for."""
    settings = config(given.work, given.group)
    if given.fixed_batch:
        return fixed_batch(given.size, given.folder, settings)
    return measure(given.size, given.work, given.steps, given.folder, settings=settings)


if __name__ == "__main__":
    chosen = arguments(work.RL_WORKS)
    leave(main(chosen), chosen.out)
