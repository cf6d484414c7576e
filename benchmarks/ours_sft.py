"""Our side of the SFT benchmark: DSA's own training step under Lightning. A worker of `sft_vs_trl`.

Both sides start from the same non-zero adapter, so that the first step, which is the warm-up, compares loss and
gradient.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from benchmarks import made_model, made_rows, ours, work
from benchmarks.clock import PeakMemory, Recorder, summary, versions
from benchmarks.worker import arguments, leave
from datamodules.batch import Batch
from datamodules.prompts import NEUTRAL
from lightning_modules.sft_lora import SFTLoRA
from lightning_modules.stage import StageContext


class MadeSFT(SFTLoRA):
    """DSA; remembers the first step's gradient norm."""

    first_norm = 0.0

    @override
    def optimise(self, pieces: Iterable[Tensor], rows: Sequence[str]) -> dict[str, float]:
        metrics = super().optimise(pieces, rows)
        if self.global_step == 1:
            self.first_norm = metrics["train/grad_norm"]
        return metrics


def batches(tokens, work_name: str) -> DataLoader:
    """The run's rows in their order."""
    made = made_rows.sft_rows(tokens, work_name)
    pieces = [made[first : first + work.SFT_ROWS] for first in range(0, len(made), work.SFT_ROWS)]
    found = [
        Batch(
            tuple(ours.example(piece * work.SFT_ROWS + i, row) for i, row in enumerate(rows)),
            (NEUTRAL,) * len(rows),
            tuple(row.answer for row in rows),
        )
        for piece, rows in enumerate(pieces)
    ]
    return DataLoader(found, batch_size=None)


def main(given: argparse.Namespace) -> dict:
    """Train for the steps asked for, after one of warm-up."""
    recorder, values = Recorder(), ours.StepValues()
    family = ours.MadeFamily(ours.MadeFamily.Config(given.size, str(given.folder)), recorder, banned=())
    config = SFTLoRA.Config(
        guidelines=(),
        lora_rank=work.RANK,
        lora_alpha=float(work.ALPHA),
        learning_rate=work.LEARNING_RATE,
        warmup=0.0,
        max_grad_norm=work.MAX_GRAD_NORM,
    )
    stage = MadeSFT(config, context=StageContext(ours.CountedPolicy(family)))
    made_model.fill_adapter(family.model)
    trainer = ours.trainer(given.steps + 1, recorder, values)
    rows = batches(family.tokenizer, given.work)
    with PeakMemory() as memory:
        trainer.fit(stage, train_dataloaders=rows)
    ours.attach(recorder, [row for row in values.rows if "train/loss" in row], {"train/loss": "loss"})
    first = {"loss": recorder.steps[0].values["loss"], "grad_norm": stage.first_norm}
    return summary(recorder, memory) | {"fixed_batch": first, "versions": versions(*ours.PACKAGES)}


if __name__ == "__main__":
    chosen = arguments(work.SFT_WORKS)
    leave(main(chosen), chosen.out)
