"""Optimiser steps that were skipped because a number in them was not finite: counted, recorded, and an end to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from artifacts import step_records

FILE = "bad_steps.jsonl"


class BadSteps:
    """Counts skipped steps.

    Attributes:
        in_a_row: since the last step that was taken.
        total: of the run.
    """

    def __init__(self, most_in_a_row: int) -> None:
        """Start at none.

        Args:
            most_in_a_row: the skipped step that ends the run, at least 1.
        """
        self.most_in_a_row = most_in_a_row
        self.in_a_row = self.total = 0

    def good(self) -> None:
        """A step was taken."""
        self.in_a_row = 0

    def skipped(self, file: Path | None, step: int, rows: Sequence[str], *, loss: float, grad_norm: float) -> None:
        """Count a step, say which rows it had, and keep them.

        Args:
            file: takes one JSON line; None on all but the first of several devices.
            step: batches done.
            rows: ids of the questions in it, over all devices.
            loss: of the step.
            grad_norm: of the step, before clipping.

        Raises:
            RuntimeError: too many in a row.
        """
        self.in_a_row += 1
        self.total += 1
        found = f"loss {loss}, gradient norm {grad_norm}"
        if file is not None:
            record = {"step": step, "loss": str(loss), "grad_norm": str(grad_norm), "rows": list(rows)}
            step_records.append(file, [record])
            print(f"step {step}: {found}; skipped. Questions: {', '.join(rows)}", flush=True)
        if self.in_a_row >= self.most_in_a_row:
            raise RuntimeError(
                f"{self.in_a_row} steps in a row that are not finite, the last at step {step} ({found}) on questions "
                f"{', '.join(rows)}; is learning_rate too high, or a picture corrupt? All of them stand in {FILE} "
                "beside the run's checkpoints; the weights are those before the first of them"
            )
