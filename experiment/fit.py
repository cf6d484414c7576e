"""One `Trainer.fit`: one specialty of one experiment, from the interrupted run's checkpoint to the saved result."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from artifacts.durable import write_text
from artifacts.folders import locked, write_failure
from artifacts.interrupts import deferred
from callbacks.phase_times import PhaseTimes
from callbacks.progress import PlainProgress, StepBar
from callbacks.resume_point import ResumePoint, resumed_step
from callbacks.save_result import SaveResult
from datamodules.hashes import data_sha256
from experiment.context import ExperimentContext
from experiment.continuation import continuations
from experiment.provenance import provenance
from experiment.standing import BASE, PARENT, ROWS, check_base, parent_sha256, read_provenance


def train(context: ExperimentContext, specialty: str) -> None:
    """One `Trainer.fit`: from the interrupted run's checkpoint if there is one, to the saved result."""
    experiment, run = context.experiment, context.folder.run(specialty)
    with locked(run.path, f"{experiment.name}/{specialty}"):
        if context.is_run_complete(specialty):
            return
        started = time.monotonic()
        run.set_status("running")
        try:
            _fit(context, specialty)
            if context.provides == "base":
                context.live.clear()  # its weights are those of the run now
        except BaseException as error:
            write_failure(run.path, error)
            raise
        run.set_status("finished", seconds=round(time.monotonic() - started, 1))


def _fit(context: ExperimentContext, specialty: str) -> None:
    experiment, run = context.experiment, context.folder.run(specialty)
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    data = context.data(specialty)
    policy, fingerprint = context.policy()
    policy.bare()  # an expert before this one, in the same process, left its adapters
    stage = context.stage(specialty, policy, fingerprint)
    write_text(run.path / "config.resolved.json", json.dumps(context.resolved, indent=2) + "\n")
    before, steps = read_provenance(run), context.steps
    check_base(run, before, fingerprint)
    facts = provenance(Path(experiment.runs_dir))
    facts |= {BASE: fingerprint, ROWS: data_sha256(data, "train"), PARENT: parent_sha256(context, specialty)}
    facts |= {"steps": steps, "continuations": continuations(run, before, steps, Path(experiment.runs_dir))}
    write_text(run.path / "provenance.json", json.dumps(facts, indent=2) + "\n")

    quiet_lightning()
    resume = str(run.checkpoint) if run.checkpoint.exists() else None
    with deferred() as stop_wanted:
        callbacks = [
            SaveResult(context, specialty, fingerprint, facts),
            *context.callbacks(),
            PhaseTimes(f"{experiment.name}/{specialty}", run.path / "timings.json"),
            progress(f"{experiment.name}/{specialty}"),
            ResumePoint(run.checkpoint, stop_wanted=stop_wanted),
        ]
        logger = tensorboard(context, specialty, stage, resumed_step(run.checkpoint))
        trainer = trainer_of(context, logger=logger, callbacks=callbacks)
        # Twice the batches: skipped updates are made up for, and a run that skips most of them still comes to an end.
        trainer.fit(stage, train_dataloaders=stage.dataloader(data, 2 * steps), ckpt_path=resume, weights_only=True)
    if trainer.global_step < steps:
        raise RuntimeError(
            f"{experiment.name}/{specialty} stopped at step {trainer.global_step} of {steps}: too many updates were "
            "skipped because their gradient was not finite; is learning_rate too high?"
        )


def trainer_of(context: ExperimentContext, **arguments: Any) -> L.Trainer:
    """The Trainer of one run.

    Args:
        context: of the experiment, whose section `trainer` holds.
        arguments: further arguments of the Trainer, over those.
    """
    given = context.experiment.trainer | {"max_steps": context.steps, "max_epochs": 1} | arguments
    return L.Trainer(enable_checkpointing=False, enable_model_summary=False, **given)


def tensorboard(
    context: ExperimentContext, specialty: str, stage: L.LightningModule, resumed: int | None
) -> TensorBoardLogger:
    """The run's logger; settings and the names of the metrics to compare go into the HParams table.

    Args:
        context: of the experiment.
        specialty: the run.
        stage: knows its metrics.
        resumed: step that is logged next if the run goes on; what an interrupted run logged later is withdrawn.
    """
    name, folder = context.experiment.name, context.experiment.runs_dir
    purge = {} if resumed is None else {"purge_step": resumed}
    logger = TensorBoardLogger(folder, name=name, version=specialty, default_hp_metric=False, **purge)
    if resumed is None:
        names = dict.fromkeys(stage.metrics_at_start(), 0.0)  # the table takes names from here, values from the curves
        for summary in hparams(flat(context.resolved), names):
            logger.experiment.file_writer.add_summary(summary)
    return logger


def progress(name: str) -> L.Callback:
    """A bar for a person, lines for a log."""
    return StepBar(refresh_rate=5) if sys.stderr.isatty() else PlainProgress(name)


def quiet_lightning() -> None:
    """Silence what Lightning says at every fit about devices and other products; its warnings of substance stay."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*smaller than the logging interval.*", ".*in eval mode at the start of training.*"):
        warnings.filterwarnings("ignore", message=message)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys for the HParams table; lists become text."""
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in flat(value, f"{prefix}{key}.").items()}
    return {prefix[:-1]: tree if isinstance(tree, int | float | str | bool) else str(tree)}
