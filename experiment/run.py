"""Run an experiment: first what it requires, then each specialty, then whatever its callbacks do at the end."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks.plain_progress import PlainProgress
from callbacks.resume_point import ResumePoint
from callbacks.save_result import SaveResult
from configs.load import Loaded, handed_on
from configs.show import changed_settings
from configs.problems import ConfigError, Problem
from datamodules.check import quick_check
from experiment.context import ExperimentContext
from experiment.folders import locked
from experiment.provenance import data_sha256, provenance
from merge.durable import write_text

def assemble(loaded: Loaded) -> ExperimentContext:
    """Build the context of an experiment and of everything that it requires."""
    return ExperimentContext(loaded.experiment, loaded.resolved, loaded.path, [assemble(one) for one in loaded.required])


def run_experiment(context: ExperimentContext, overrides: Sequence[str]) -> None:
    """Bring an experiment to its end; what is finished already is left alone.

    Args:
        context: as `assemble` returns it.
        overrides: the command line's, for worker processes.

    Raises:
        ConfigError: the folder holds results of other settings.
        BadExampleError: the data cannot be used.
        RuntimeError: a worker process failed.
    """
    experiment = context.experiment
    wanted = list(experiment.only) or context.specialties
    for parent in context.required:
        run_required(parent, wanted, handed_on(overrides))
    claim_folder(context)
    torch.set_num_threads(experiment.threads)
    todo = [specialty for specialty in wanted if not context.is_run_complete(specialty)]
    for specialty in todo:
        quick_check(context.data(specialty))
    if experiment.workers > 1 and len(todo) > 1:
        run_side_by_side(context, todo, overrides)
    else:
        for specialty in todo:
            train(context, specialty)
    if context.is_complete():
        for callback in context.callbacks():
            callback.finish()
    else:
        missing = [s for s in context.specialties if not context.is_run_complete(s)]
        print(f"{experiment.name}: {', '.join(wanted)} done; {', '.join(missing)} still to come", flush=True)


def run_required(parent: ExperimentContext, wanted: Sequence[str], overrides: Sequence[str]) -> None:
    """Finish the part of a required experiment that the wanted specialties need."""
    if parent.stage_class.provides == "expert":
        needed = [specialty for specialty in parent.specialties if specialty in wanted]
        parent = replace(parent, experiment=replace(parent.experiment, only=needed))
    run_experiment(parent, overrides)


def claim_folder(context: ExperimentContext) -> None:
    """Write the settings into the experiment's folder, or check that they are the ones it was made with.

    Raises:
        ConfigError: they differ; names each differing key.
    """
    folder = context.folder
    with locked(folder.path, f"the settings of {context.experiment.name}"):
        if folder.settings.exists() and not context.experiment.overwrite:
            before = json.loads(folder.settings.read_text())
            changed = changed_settings(before, json.loads(json.dumps(context.resolved)))
            if changed:
                raise ConfigError([
                    Problem(
                        place=str(folder.settings),
                        key=key,
                        message="differs from the settings that this folder was made with; choose another `name` or "
                        "`runs_dir`, or start afresh with overwrite=true",
                    )
                    for key in changed
                ])
            return
        if context.experiment.overwrite and folder.settings.exists():
            folder.clear()
        write_text(folder.settings, json.dumps(context.resolved, indent=2) + "\n")


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
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            run.set_status("interrupted" if stopped else "failed", reason=f"{type(error).__name__}: {error}")
            raise
        run.set_status("finished", seconds=round(time.monotonic() - started, 1))


def _fit(context: ExperimentContext, specialty: str) -> None:
    experiment, run = context.experiment, context.folder.run(specialty)
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    data = context.data(specialty)
    policy, fingerprint = context.policy()
    stage = context.stage(specialty, policy, fingerprint)
    write_text(run.path / "config.resolved.json", json.dumps(context.resolved, indent=2) + "\n")
    facts = provenance() | {"base_fingerprint": fingerprint, "data_sha256": data_sha256(data, "train")}
    write_text(run.path / "provenance.json", json.dumps(facts, indent=2) + "\n")

    quiet_lightning()
    logger = TensorBoardLogger(experiment.runs_dir, name=experiment.name, version=specialty, default_hp_metric=False)
    logger.log_hyperparams(flat(context.resolved), stage.metrics_at_start())
    arguments = dict(experiment.trainer)
    steps = max(1, round(arguments.pop("max_steps") * experiment.budget))
    progress = TQDMProgressBar(refresh_rate=5) if sys.stderr.isatty() else PlainProgress(f"{experiment.name}/{specialty}")
    trainer = L.Trainer(
        logger=logger,
        max_steps=steps,
        max_epochs=-1,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[
            ResumePoint(run.checkpoint),
            SaveResult(context, specialty, fingerprint, facts),
            *context.callbacks(),
            progress,
        ],
        **arguments,
    )
    resume = str(run.checkpoint) if run.checkpoint.exists() else None
    trainer.fit(stage, train_dataloaders=stage.dataloader(data, steps), ckpt_path=resume, weights_only=True)
    if trainer.global_step < steps and not context.is_run_complete(specialty):
        raise RuntimeError(f"{experiment.name}/{specialty} stopped at step {trainer.global_step} of {steps}")


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


def run_side_by_side(context: ExperimentContext, todo: Sequence[str], overrides: Sequence[str]) -> None:
    """Train specialties in worker processes, each of which runs the same configuration for its share.

    Raises:
        RuntimeError: a worker failed; names its specialties and exit code.
    """
    workers = min(context.experiment.workers, len(todo))
    script = Path(__file__).resolve().parent.parent / "train.py"
    command = [sys.executable, str(script), "--config", str(context.path), *overrides]
    running = {}
    for share in (todo[i::workers] for i in range(workers)):
        own = [f"only={json.dumps(share)}", "workers=1", "overwrite=false"]
        running[" ".join(share)] = subprocess.Popen([*command, *own])
    try:
        codes = {share: process.wait() for share, process in running.items()}
    except BaseException:
        for process in running.values():
            process.send_signal(signal.SIGINT)
        for process in running.values():
            process.wait()
        raise
    failed = {share: code for share, code in codes.items() if code != 0}
    if failed:
        raise RuntimeError(
            "training failed in " + "; ".join(f"[{share}] with exit code {code}" for share, code in failed.items())
            + "; the reason stands above, and in each run's status.json"
        )
