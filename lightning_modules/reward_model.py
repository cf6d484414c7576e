"""A reward model: LoRA on any family and a head that grades answers, trained on compared or on marked answers.

Source: Bradley-Terry reward models, InstructGPT, arXiv:2203.02155, section 3.5; outcome verifiers, arXiv:2110.14168.
Choice: all dimensions at once from one state, so that a pair is read once; ranks, rates and steps are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.batch import BadExampleError, Batch, Example
from datamodules.graded import DIMENSIONS, Graded, graded
from datamodules.loading import Demand, Feed
from guards.ranges import above, at_least
from lightning_modules.adapters import LoRASettings
from lightning_modules.budget import within_budget
from lightning_modules.calibration import Calibration, calibration
from lightning_modules.functional.preference import bradley_terry, outcome
from lightning_modules.grading import RewardHead, line_tokens, rewards, written_answers
from lightning_modules.stage import Stage, StageContext

Trial = tuple[Tensor, Tensor]
"""Log-odds (N, D), and what came of it (N, D): 1 or 0, and NaN where nothing did: a tie, or an answer not marked."""


class RewardModel(Stage):
    """Learns how answers are graded; it sees the question's picture, its words and an answer, and no other answer."""

    adapter = "reward"
    kind = "reward"

    @dataclass(frozen=True)
    class Config(Stage.Config):
        """Hyper-parameters of a reward model."""

        objective: Literal["preference", "outcome"] = "preference"
        """`preference`: which of two answers is better (Bradley-Terry). `outcome`: whether an answer is right."""
        dimensions: tuple[str, ...] = DIMENSIONS
        """What answers are graded on, each an output of the head; names of the data's grades."""
        lora_rank: Annotated[int, at_least(1)] = 16
        """r, at least 1."""
        lora_alpha: Annotated[float, above(0)] = 32.0
        """Scale numerator of the update alpha / r · B A; above 0."""
        lora_seed: int = 0
        """Seed of A."""
        learning_rate: float = 1e-3
        """Peak of the schedule, of adapter and head; above 0."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.dimensions or len(set(self.dimensions)) != len(self.dimensions):
                raise ValueError(f"dimensions must be one or more different names, got {list(self.dimensions)}")

    def __init__(self, config: Config | None = None, *, context: StageContext) -> None:
        """Attach a fresh adapter and a head. Arguments as of `SFTLoRA`."""
        super().__init__(context, config if config is not None else self.Config())
        c = self.config
        self.policy.add_adapter(self.adapter, LoRASettings(c.lora_rank, c.lora_alpha, c.lora_seed))
        self.policy.activate([*context.start, self.adapter], trainable=self.adapter)
        self.head = RewardHead(self.policy.family.hidden_size, c.dimensions)
        if c.objective == "preference":
            self.head.bias.requires_grad_(False)  # it cancels in every comparison
        self._trials: list[Trial] = []

    @classmethod
    @override
    def check_questions(cls, config: Config, questions: Iterable[Example]) -> None:
        for example in graded(questions, config.dimensions):
            held = {grade for name in config.dimensions for grade in example.grades.get(name, ())}
            if config.objective == "outcome" and not held <= {0.0, 1.0}:
                raise BadExampleError(
                    f"example {example.question_id!r}: objective=outcome takes grades of 0 (wrong) and 1 (right), got "
                    f"{sorted(held)}; grades that only rank are for objective=preference"
                )

    @classmethod
    @override
    def demand(cls, config: Config) -> Demand:
        return Demand(traces=frozenset())

    @override
    def feed(self) -> Feed:
        return Feed("questions", read_picture=self.policy.read_picture)

    @override
    def metrics_at_start(self) -> dict[str, float]:
        return {"train/loss": 0.0, "train/accuracy": 0.0}

    # -- what is read, and what is learnt from it ----------------------------------------------------------------

    def trials(self, batch: Batch) -> Iterator[Trial]:
        """Log-odds and outcomes of a batch, in pieces that keep the answers to a question together."""
        examples = graded(batch.examples, self.config.dimensions)
        written = [
            written_answers(self.policy, example, example.answers, batch.pictures_of(row))
            for row, example in enumerate(examples)
        ]
        for rows in within_budget([line_tokens(*one) for one in written], self.config.micro_batch_tokens):
            prompts = [written[row][0] for row in rows for _ in written[row][1]]
            tails = [tail for row in rows for tail in written[row][1]]
            with self.clock.phase("forward"):
                found = rewards(self.policy, self.head, prompts, tails)
                self.clock.count("train_tokens", sum(line_tokens(*written[row]) for row in rows))
                trial = self.compared(found, [examples[row] for row in rows])
            yield trial

    def compared(self, found: Tensor, examples: Sequence[Graded]) -> Trial:
        """Rewards (B, D) of the answers to some questions, as log-odds with what came of them."""
        grades = torch.tensor([row for example in examples for row in self.grades(example)], device=found.device)
        if self.config.objective == "outcome":
            return found, grades
        starts = [0]
        for example in examples:
            starts.append(starts[-1] + len(example.answers))
        pairs = [
            pair
            for start, example in zip(starts, examples, strict=False)
            for pair in combinations(range(start, start + len(example.answers)), 2)
        ]
        first, second = torch.tensor(pairs, dtype=torch.long, device=found.device).reshape(-1, 2).unbind(1)
        ahead = grades[first] - grades[second]
        return found[first] - found[second], torch.where(ahead == 0, torch.nan, (ahead > 0).float() + 0 * ahead)

    def grades(self, example: Graded) -> list[list[float]]:
        """(answers, D) grades of a question's answers; NaN on dimensions that the data do not grade."""
        unknown = (float("nan"),) * len(example.answers)
        columns = [example.grades.get(name, unknown) for name in self.config.dimensions]
        return [list(row) for row in zip(*columns, strict=True)]

    def loss(self, trial: Trial) -> Tensor:
        """(N, D) nats of each verdict; zero where there is none."""
        logits, outcomes = trial
        if self.config.objective == "outcome":
            return outcome(logits, outcomes)
        return bradley_terry(logits, torch.nan_to_num(2 * outcomes - 1, nan=0.0))

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        (verdicts,) = self.over_devices(self.verdicts(batch))
        sums = {"train/loss": 0.0, "train/accuracy": 0.0}

        def pieces() -> Iterator[Tensor]:
            for trial in self.trials(batch):
                loss = self.loss(trial).sum() / max(verdicts, 1)
                sums["train/loss"] += float(loss.detach())
                sums["train/accuracy"] += float(right(trial).sum()) / max(verdicts, 1)
                yield loss

        metrics = self.optimise(pieces(), [example.question_id for example in batch.examples])
        found = dict(zip(sums, self.over_devices(*sums.values()), strict=True))
        self.report(metrics | found, shown=tuple(found))

    def verdicts(self, batch: Batch) -> int:
        """Verdicts that a batch holds, ties left out."""
        empty = len(self.config.dimensions)
        count = 0
        for example in graded(batch.examples, self.config.dimensions):
            _, outcomes = self.compared(torch.zeros(len(example.answers), empty), [example])
            count += int((~outcomes.isnan()).sum())
        return count

    # -- validation ----------------------------------------------------------------------------------------------

    @override
    @torch.no_grad()
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._trials += [(logits.cpu(), outcomes.cpu()) for logits, outcomes in self.trials(batch)]

    @override
    def on_validation_epoch_end(self) -> None:
        everywhere = [trial for part in self.from_all(self._trials) for trial in part]
        self._trials = []
        found = self.validated(everywhere) if everywhere else {}
        self.last_validation = {"step": self.batches_done, "metrics": found}
        self.log_dict(found, logger=False, sync_dist=True)
        self.log_validation()

    def validated(self, trials: Sequence[Trial]) -> dict[str, float]:
        """Metrics by tag, the temperature fitted on these very verdicts; dimensions without a verdict are left out."""
        logits, outcomes = (torch.cat(parts) for parts in zip(*trials, strict=True))
        known = ~outcomes.isnan()
        if not bool(known.any()):
            return {}
        whole = calibration(logits[known], outcomes[known])
        name = self.context.specialty
        found = {"val/loss": whole.nats, f"val/accuracy/{name}": whole.accuracy}
        found |= {f"val/{key}/{name}": value for key, value in calibrated(whole).items()}
        for column, dimension in enumerate(self.config.dimensions):
            own = known[:, column]
            if bool(own.any()):
                accuracy = calibration(logits[own, column], outcomes[own, column]).accuracy
                found[f"val/dimension/{dimension}"] = accuracy
        return found

    @override
    def beside_adapter(self, validation: Mapping[str, float]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        c, temperature = self.config, validation.get(f"val/temperature/{self.context.specialty}")
        tensors = {"weight": self.head.weight, "bias": self.head.bias}
        return tensors, {"objective": c.objective, "dimensions": list(c.dimensions), "temperature": temperature}


def right(trial: Trial) -> Tensor:
    """(N, D) bool, True where log-odds are on the side that won; odds of one count as wrong."""
    logits, outcomes = trial
    return ((logits > 0) & (outcomes == 1)) | ((logits < 0) & (outcomes == 0))


def calibrated(found: Calibration) -> dict[str, float]:
    """What is reported of a calibration, by name."""
    return {"temperature": found.temperature, "ece": found.ece, "brier": found.brier}
