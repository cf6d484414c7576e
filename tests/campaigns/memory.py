"""RL steps of the nano model, and whether the memory of the process grows with them.

    python -m tests.campaigns.memory --count 2000 [--minutes 30] [--seed 0] [--write docs/reliability.md]

A line is laid through each measure over the steps after the warm-up, the first quarter. A measure grows if its slope
is above its bound and above twice its standard error; the error is that of the means of `BLOCKS` blocks about the line,
since neighbouring steps are not independent. Process memory moves by pages and arenas; the other two are counts.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import tempfile
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from typing_extensions import override

from tests.campaigns import forked
from tests.campaigns.scenes import Scenery, trained
from tests.campaigns.tally import Tally, arguments, last_line

EVERY = 5
"""Steps between two measurements."""
BLOCKS = 12
BOUNDS = {"resident, KiB": 8.0, "objects": 0.5, "Python's bytes": 256.0}
"""Most growth per step that is let pass: what a step logs is far below, a rollout that is kept far above."""


class Watch(L.Callback):
    """Writes a line of measures every few steps."""

    def __init__(self, path: Path, count: int) -> None:
        """Say where to, and how many steps there will be."""
        self.path, self.count, self.steps = path, count, 0
        self.before: tracemalloc.Snapshot | None = None

    @override
    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        self.steps += 1
        if self.steps % EVERY:
            return
        gc.collect()
        if self.before is None and self.steps >= self.count // 4:
            self.before = tracemalloc.take_snapshot()
        elif self.before is not None and self.steps + EVERY > self.count:
            grown = tracemalloc.take_snapshot().compare_to(self.before, "lineno")[:5]
            self.path.with_suffix(".sites").write_text("\n".join(map(str, grown)), encoding="utf-8")
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        held = tracemalloc.get_traced_memory()[0]
        values = (pages * os.sysconf("SC_PAGE_SIZE") / 1024, len(gc.get_objects()), held)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps([self.steps, *values]) + "\n")


@dataclass(frozen=True)
class Growth:
    """A measure's line over the steps."""

    measure: str
    start: float
    """Mean of the first block after the warm-up."""
    slope: float
    """Per step."""
    error: float
    """Standard error of the slope."""

    @property
    def grows(self) -> bool:
        """Whether it is more than noise and more than the bound."""
        return self.slope > BOUNDS[self.measure] and self.slope > 2 * self.error

    def __str__(self) -> str:
        return f"{self.measure}: {self.start:.0f} after warm-up, {self.slope:+.3f} ± {self.error:.3f} a step"


def growths(rows: np.ndarray) -> list[Growth]:
    """The lines of all measures.

    Args:
        rows: (N, 1 + measures): steps, then a value of each.
    """
    settled = rows[len(rows) // 4 :]
    means = np.array([block.mean(axis=0) for block in np.array_split(settled, BLOCKS)])
    x = means[:, 0] - means[:, 0].mean()
    found = []
    for column, measure in enumerate(BOUNDS, start=1):
        y = means[:, column] - means[:, column].mean()
        slope = float(x @ y / (x @ x))
        rest = y - slope * x
        error = float(np.sqrt(rest @ rest / (BLOCKS - 2) / (x @ x)))
        found.append(Growth(measure, float(means[0, column]), slope, error))
    return found


def watched(path: Path, count: int) -> None:
    """Let every fit of this process be measured."""
    from experiment import fit

    callbacks_of = fit.callbacks_of

    def with_watch(*given: Any) -> list[L.Callback]:
        return [*callbacks_of(*given), Watch(path, count)]

    fit.callbacks_of = with_watch
    tracemalloc.start()


def main(words: Sequence[str] | None = None) -> int:
    """Run the steps; 1 if memory grows with them, or the run fails."""
    options = arguments(__doc__, 2000, words)
    tally = Tally("memory", "RL steps", options)
    forked.preload()
    work = Path(tempfile.mkdtemp(prefix="memory-")).resolve()
    try:
        scenery = Scenery(work)
        scenery.found(trained("dsa", "only=[alpha]"))
        settings = (
            f"trainer.max_steps={options.count}",
            f"seed={options.seed}",
            "callbacks.cards=null",
            "fit.val_every=0",
        )
        run = trained("gba", "name=long", "only=[alpha]", "fit.checkpoint_every_steps=100", *settings)
        path = work / "measured"
        ended = forked.finished(
            *forked.started(run, scenery.here, lambda: watched(path, options.count)),
            patience=60 * min(options.minutes, 120),
            progress=lambda: tally.tell(counted(path), options),
        )
        sites = path.with_suffix(".sites")
        where = sites.read_text("utf-8") if sites.exists() else ""
        rows = (
            np.array([json.loads(line) for line in path.read_text().splitlines()])
            if path.exists()
            else np.empty((0, 4))
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if len(rows) < 2 * BLOCKS:
        tally.add(
            "RL", options.seed, [("different", f"{len(rows)} measurements only: {last_line(ended.output)}")], cases=0
        )
        return tally.end(options.write)
    found = growths(rows)
    bad = [("different", f"memory grows: {growth}") for growth in found if growth.grows]
    tally.add("RL", options.seed, bad, cases=int(rows[-1, 0]))
    tally.notes.append("Growth per step: " + "; ".join(map(str, found)) + ".")
    print(f"{tally.notes[-1]}\nWhat grew most among Python's bytes:\n{where}")
    return tally.end(options.write)


def counted(path: Path) -> int:
    """Steps that were measured so far."""
    return EVERY * path.read_bytes().count(b"\n") if path.exists() else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
