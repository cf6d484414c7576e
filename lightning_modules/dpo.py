"""DPO: a better answer made likelier than a worse one, without a reward model between.

Source: Direct Preference Optimization, arXiv:2305.18290. The loss is `functional.preference.dpo`.
Choice: the reference is what the run starts from, the base with the adapters beneath, so that no second model is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.batch import Batch, Example
from datamodules.graded import Graded, graded
from datamodules.loading import Demand, Feed
from guards.ranges import above, at_least
from lightning_modules.adapters import LoRASettings
from lightning_modules.budget import within_budget
from lightning_modules.functional.preference import dpo
from lightning_modules.grading import line_tokens, written_answers
from lightning_modules.stage import Stage, StageContext


@dataclass(frozen=True)
class Margins:
    """Pairs of some questions.

    Attributes:
        loss: (P,) nats.
        implicit: (P,) β times the difference of the log-ratios, in nats: above 0 the better answer gained.
    """

    loss: Tensor
    implicit: Tensor


class DPO(Stage):
    """Learns from pairs of answers to one question, of which one has the better grade; the prompt is read once."""

    adapter = "dpo"
    kind = "dpo"

    @dataclass(frozen=True)
    class Config(Stage.Config):
        """Hyper-parameters of DPO."""

        dimension: str = "overall"
        """Whose grades say which answer is better; equal ones make no pair."""
        beta: Annotated[float, above(0)] = 0.1
        """β, per nat: how dear it is to leave the reference; above 0."""
        lora_rank: Annotated[int, at_least(1)] = 16
        """r, at least 1."""
        lora_alpha: Annotated[float, above(0)] = 32.0
        """Scale numerator of the update alpha / r · B A; above 0."""
        lora_seed: int = 0
        """Seed of A."""
        learning_rate: float = 3e-4
        """Peak of the schedule; above 0."""

    def __init__(self, config: Config | None = None, *, context: StageContext) -> None:
        """Attach a fresh adapter. Arguments as of `SFTLoRA`."""
        super().__init__(context, config if config is not None else self.Config())
        c = self.config
        self.policy.add_adapter(self.adapter, LoRASettings(c.lora_rank, c.lora_alpha, c.lora_seed))
        self.policy.activate([*context.start, self.adapter], trainable=self.adapter)

    @classmethod
    @override
    def check_questions(cls, config: Config, questions: Iterable[Example]) -> None:
        graded(questions, (config.dimension,))

    @classmethod
    @override
    def demand(cls, config: Config) -> Demand:
        return Demand()

    @override
    def feed(self) -> Feed:
        return Feed("questions", read_picture=self.policy.read_picture)

    @override
    def metrics_at_start(self) -> dict[str, float]:
        return {"train/loss": 0.0, "train/accuracy": 0.0}

    def pairs(self, example: Graded) -> list[tuple[int, int]]:
        """(better, worse) of every two answers of which one is better."""
        held = example.grades.get(self.config.dimension, (0.0,) * len(example.answers))
        two = combinations(range(len(held)), 2)
        return [(i, j) if held[i] > held[j] else (j, i) for i, j in two if held[i] != held[j]]

    def margins(self, batch: Batch) -> Iterator[Margins]:
        """Losses of a batch's pairs, in pieces that keep the answers to a question together."""
        examples = graded(batch.examples, (self.config.dimension,))
        written = [
            written_answers(self.policy, example, example.answers, batch.pictures_of(row))
            for row, example in enumerate(examples)
        ]
        for rows in within_budget([line_tokens(*one) for one in written], self.config.micro_batch_tokens):
            prompts = [written[row][0] for row in rows for _ in written[row][1]]
            tails = [tail for row in rows for tail in written[row][1]]
            starts, found = 0, []
            for row in rows:
                found += [(starts + better, starts + worse) for better, worse in self.pairs(examples[row])]
                starts += len(written[row][1])
            if not found:
                continue
            with self.clock.phase("reference"), torch.no_grad(), self.policy.acting(self.context.start):
                reference = self.policy.score(prompts, tails).logps.sum(1)
            with self.clock.phase("forward"):
                scores = self.policy.score(prompts, tails)
                self.clock.count("train_tokens", scores.tokens)
                own = scores.logps.sum(1)
                better, worse = torch.tensor(found, device=own.device).unbind(1)
                loss = dpo(own[better], own[worse], reference[better], reference[worse], self.config.beta)
                gained = (own - reference).detach()
                one = Margins(loss, self.config.beta * (gained[better] - gained[worse]))
            yield one

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        examples = graded(batch.examples, (self.config.dimension,))
        (count,) = self.over_devices(sum(len(self.pairs(example)) for example in examples))
        sums = {"train/loss": 0.0, "train/accuracy": 0.0}

        def pieces() -> Iterator[Tensor]:
            for one in self.margins(batch):
                loss = one.loss.sum() / max(count, 1)
                sums["train/loss"] += float(loss.detach())
                sums["train/accuracy"] += float((one.implicit > 0).sum()) / max(count, 1)
                yield loss

        metrics = self.optimise(pieces(), [example.question_id for example in batch.examples])
        found = dict(zip(sums, self.over_devices(*sums.values()), strict=True))
        self.report(metrics | found, shown=tuple(found))

    @override
    @torch.no_grad()
    def validation_loss(self, batch: Batch) -> tuple[float, int]:
        losses = [one.loss for one in self.margins(batch)]
        return (float(torch.cat(losses).mean()), sum(map(len, losses))) if losses else (0.0, 0)
