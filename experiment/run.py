"""Run an experiment: first what it requires, then each specialty, then whatever its callbacks do at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from answering.live_base import LiveBase
from artifacts.adapter_files import AdapterError, adapter_sha256, read_manifest
from artifacts.durable import write_text
from artifacts.folders import locked, read_state, write_failure, write_status
from artifacts.ranks import is_first, started_together
from configs.load import Loaded, handed_on
from configs.problems import ConfigError, Problem
from configs.resolve import completed
from configs.show import changed_settings
from datamodules.check import quick_checks
from experiment.context import ExperimentContext
from experiment.fit import has_several_devices, train
from experiment.side_by_side import run_side_by_side


def assemble(loaded: Loaded, live: LiveBase | None = None) -> ExperimentContext:
    """Build the context of an experiment and of everything that it requires; all share one live base."""
    live = live or LiveBase()
    required = [assemble(one, live) for one in loaded.required]
    return ExperimentContext(loaded.experiment, loaded.resolved, loaded.path, required, live)


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
    if not is_first():
        return  # what is made of finished runs is the first process's work
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
        ConfigError: they differ; names each differing key. Or `check_devices` refuses them.
    """
    folder = context.folder
    check_devices(context)
    if not is_first():
        return
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


def check_devices(context: ExperimentContext) -> None:
    """Refuse what processes of one run cannot agree on.

    Raises:
        ConfigError: names the setting.
    """
    experiment, problems = context.experiment, []

    def problem(key: str, value: object, message: str) -> None:
        problems.append(Problem(place=str(context.path), key=key, value=value, message=message))

    if has_several_devices(experiment) and experiment.module is not None:
        if experiment.workers > 1:
            problem(
                "workers", experiment.workers, "specialties take turns where each is on several devices; set workers=1"
            )
        if isinstance(experiment.fit.val_every, str):
            message = "the clocks of several devices do not agree on when to validate; give a number of batches"
            problem("fit.val_every", experiment.fit.val_every, message)
    if experiment.overwrite and started_together():
        message = "processes that start together do not agree on when a folder is cleared; delete it by hand"
        problem("overwrite", True, message)
    if problems:
        raise ConfigError(problems)
