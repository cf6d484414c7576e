"""Time per phase, tokens per second and peak memory: as curves while a run trains, and as one line at its end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from typing_extensions import override

from artifacts.durable import write_text

if TYPE_CHECKING:
    from lightning_modules.phases import PhaseClock
    from lightning_modules.stage import Stage


class PhaseTimes(L.Callback):
    """Reads the stage's clock every `log_every_n_steps` batches, and writes its sums to a file."""

    def __init__(self, name: str, path: Path) -> None:
        """Say whose times these are.

        Args:
            name: of the run.
            path: of the JSON file with the sums since the run began; what a kill undid does not count.
        """
        self.name, self.path = name, path
        self.batches = self.reported = 0
        self.clock: PhaseClock | None = None
        self.restored: dict[str, Any] = {}
        self.began, self.before = time.process_time(), 0.0

    @property
    def cpu_s(self) -> float:
        """Processor seconds of this process since the fit began, with those of its interrupted part."""
        return self.before + time.process_time() - self.began

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Stage, *_: object) -> None:
        self.batches += 1
        if pl_module.batches_done % trainer.log_every_n_steps == 0:
            times = pl_module.clock.take(self.batches - self.reported)
            drawn = {f"work/{tag}": value for tag, value in times.items()}  # a board sorts by name: these come last
            for logger in trainer.loggers:
                logger.log_metrics(drawn, step=pl_module.batches_done - 1)  # beside the batch's other curves
            self.reported = self.batches

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: Stage) -> None:
        if not trainer.is_global_zero:
            return
        summary, counts = pl_module.clock.summary(), pl_module.clock.total_counts
        taken = {"batches": self.batches, "rollouts": int(counts["rollouts"]), "cpu_s": round(self.cpu_s, 1)}
        write_text(self.path, json.dumps(taken | summary, indent=2) + "\n")
        print(f"{self.name}  {described(self.batches, summary)}", flush=True)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "cpu_s": self.cpu_s} | (self.clock.sums() if self.clock else {})

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: Stage) -> None:
        self.clock, self.began = pl_module.clock, time.process_time()
        if self.restored:
            self.before = self.restored.get("cpu_s", 0.0)
            self.batches = self.reported = self.restored["batches"]
            self.clock.go_on_from(self.restored)
            self.restored = {}


def described(batches: int, summary: dict[str, float]) -> str:
    """One line of a run's times.

    >>> described(6, {"time/rollout_s": 31.2, "speed/rollout_tokens_per_s": 812.4, "memory/peak_mib": 900.0})
    '6 steps: rollout 31.2 s; 812 generated tokens/s; peak memory 900 MiB'
    """
    times = [f"{tag[5:-2]} {value:.1f} s" for tag, value in summary.items() if tag.startswith("time/")]
    words = {"speed/rollout_tokens_per_s": "generated tokens/s", "speed/train_tokens_per_s": "trained tokens/s"}
    speeds = [f"{summary[tag]:.0f} {word}" for tag, word in words.items() if tag in summary]
    memory = f"peak memory {summary['memory/peak_mib']:.0f} MiB"
    return f"{batches} steps: {', '.join(times)}; {'; '.join([*speeds, memory])}"
