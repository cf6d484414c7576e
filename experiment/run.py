"""Run an experiment: first what it requires, then each specialty, then whatever its callbacks do at the end."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from callbacks.phase_times import PhaseTimes
from callbacks.progress import PlainProgress, StepBar
from callbacks.resume_point import ResumePoint, resumed_step
from callbacks.save_result import SaveResult
from configs.load import Loaded, handed_on
from configs.problems import ConfigError, Problem
from configs.resolve import completed
from configs.show import changed_settings
from datamodules.check import quick_checks
from experiment.context import ExperimentContext
from experiment.folders import locked, read_state, write_status
from experiment.interrupts import deferred
from experiment.provenance import data_sha256, provenance
from merge.adapter_files import AdapterError, adapter_sha256, read_manifest
from merge.durable import write_text


def assemble(loaded: Loaded) -> ExperimentContext:
    """Build the context of an experiment and of everything that it requires."""
    required = [assemble(one) for one in loaded.required]
    return ExperimentContext(loaded.experiment, loaded.resolved, loaded.path, required)


def run_experiment(context: ExperimentContext, overrides: Sequence[str]) -> None:
    """Bring an experiment to its end; what is finished already is left alone.

    Args:
        context: as `assemble` returns it.
        overrides: the command line's, for worker processes.

    Raises:
        ConfigError: the folder holds results of other settings.
        BadExampleError: the data cannot be used.
        AdapterError: a finished expert stands on another one than the one beneath it now.
        RuntimeError: a worker process failed.
    """
    experiment = context.experiment
    wanted = list(experiment.only) or context.specialties
    claim_folder(context)
    with phase(context, "data"):
        training = context.provides != "nothing"
        if not training:
            _ = context.examined  # a folder that is no adapter is told now
        if not training or unfinished(context, wanted):  # before hours of training what is required, not after
            quick_checks({specialty: context.data(specialty) for specialty in wanted}, training=training)
    for parent in context.required:
        run_required(parent, wanted, handed_on(overrides))
    torch.set_num_threads(experiment.threads)
    if training:
        train_all(context, wanted, overrides)
    missing = unfinished(context, context.specialties)
    if missing:
        print(f"{experiment.name}: {', '.join(wanted)} done; {', '.join(missing)} still to come", flush=True)
        return
    for callback in context.callbacks():
        with phase(context, type(callback).__name__):
            callback.finish()
    runs = [context.folder.run(specialty).path for specialty in wanted] if training else []
    for folder in (context.folder.path, *runs):
        if read_state(folder) != "finished":  # also where a run was interrupted after it had left its result
            write_status(folder, "finished")


def train_all(context: ExperimentContext, wanted: Sequence[str], overrides: Sequence[str]) -> None:
    """Train the wanted specialties that have not left their result; arguments and errors as of `run_experiment`."""
    experiment = context.experiment
    with phase(context, "training"):
        check_parents(context, wanted)
        todo = unfinished(context, wanted)
        if experiment.workers > 1 and len(todo) > 1:
            run_side_by_side(context, todo, overrides)
        else:
            for specialty in todo:
                train(context, specialty)


def unfinished(context: ExperimentContext, specialties: Sequence[str]) -> list[str]:
    """Those whose run has not left its result."""
    return [specialty for specialty in specialties if not context.is_run_complete(specialty)]


@contextmanager
def phase(context: ExperimentContext, name: str) -> Iterator[None]:
    """Record in the experiment's status.json in which phase it was interrupted, or failed."""
    try:
        yield
    except BaseException as error:
        write_failure(context.folder.path, error, phase=name)
        raise


def write_failure(folder: Path, error: BaseException, **fields: Any) -> None:
    """Record an interruption or a failure; where even that cannot be written, the error itself is what counts."""
    state = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
    with suppress(OSError):
        write_status(folder, state, reason=f"{type(error).__name__}: {error}", **fields)


def check_parents(context: ExperimentContext, specialties: Sequence[str]) -> None:
    """Refuse finished experts whose foundation was trained anew since.

    Raises:
        AdapterError: names the expert.
    """
    for specialty in specialties:
        beneath = context.experts_beneath(specialty)
        if not beneath or not context.is_run_complete(specialty):
            continue
        folder, foundation = context.folder.run(specialty).adapter, beneath[-1][1]
        recorded = (read_manifest(folder)["parent"] or {}).get("sha256")
        if recorded != adapter_sha256(foundation):
            raise AdapterError(
                f"{folder}: grew from another adapter than {foundation} is now; was that one trained anew? "
                "Start this experiment afresh with overwrite=true"
            )


def run_required(parent: ExperimentContext, wanted: Sequence[str], overrides: Sequence[str]) -> None:
    """Finish the part of a required experiment that the wanted specialties need."""
    if parent.provides == "expert":
        needed = [specialty for specialty in parent.specialties if specialty in wanted]
        if not needed:
            return
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
            changed = changed_settings(completed(before), json.loads(json.dumps(context.resolved)))
            if changed:
                raise ConfigError(
                    [
                        Problem(
                            place=str(folder.settings),
                            key=key,
                            message="differs from the settings that this folder was made with; choose another `name` "
                            "or `runs_dir`, or start afresh with overwrite=true",
                        )
                        for key in changed
                    ]
                )
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
            write_failure(run.path, error)
            raise
        run.set_status("finished", seconds=round(time.monotonic() - started, 1))


def _fit(context: ExperimentContext, specialty: str) -> None:
    experiment, run = context.experiment, context.folder.run(specialty)
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    data = context.data(specialty)
    policy, fingerprint = context.policy()
    stage = context.stage(specialty, policy, fingerprint)
    write_text(run.path / "config.resolved.json", json.dumps(context.resolved, indent=2) + "\n")
    facts = provenance(Path(experiment.runs_dir))
    facts |= {"base_fingerprint": fingerprint, "data_sha256": data_sha256(data, "train")}
    write_text(run.path / "provenance.json", json.dumps(facts, indent=2) + "\n")

    quiet_lightning()
    arguments = dict(experiment.trainer)
    steps = max(1, round(arguments.pop("max_steps") * experiment.budget))
    resume = str(run.checkpoint) if run.checkpoint.exists() else None
    with deferred() as stop_wanted:
        trainer = L.Trainer(
            logger=tensorboard(context, specialty, stage, resumed_step(run.checkpoint)),
            max_steps=steps,
            max_epochs=1,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[
                SaveResult(context, specialty, fingerprint, facts),
                *context.callbacks(),
                PhaseTimes(f"{experiment.name}/{specialty}", run.path / "timings.json"),
                progress(f"{experiment.name}/{specialty}"),
                ResumePoint(run.checkpoint, stop_wanted=stop_wanted),
            ],
            **arguments,
        )
        # Twice the batches: skipped updates are made up for, and a run that skips most of them still comes to an end.
        trainer.fit(stage, train_dataloaders=stage.dataloader(data, 2 * steps), ckpt_path=resume, weights_only=True)
    if trainer.global_step < steps:
        raise RuntimeError(
            f"{experiment.name}/{specialty} stopped at step {trainer.global_step} of {steps}: too many updates were "
            "skipped because their gradient was not finite; is learning_rate too high?"
        )


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
        # In a session of its own Ctrl-C reaches it through us alone, once, and it can record where it stood.
        running[" ".join(share)] = subprocess.Popen([*command, *own], start_new_session=True)
    try:
        codes = {share: process.wait() for share, process in running.items()}
    except BaseException:
        for process in running.values():
            process.terminate()  # not SIGINT, which a job in a shell's background is started deaf to
        for process in running.values():
            process.wait()
        raise
    failed = {share: code for share, code in codes.items() if code != 0}
    if failed:
        raise RuntimeError(
            "training failed in "
            + "; ".join(f"[{share}] with exit code {code}" for share, code in failed.items())
            + "; the reason stands above, and in each run's status.json"
        )
