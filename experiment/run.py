"""Run an experiment: first what it requires, then each specialty, then whatever its callbacks do at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch

from answering.live_base import LiveBase
from artifacts.adapter_files import AdapterError
from artifacts.folders import STATUS, read_state, write_failure, write_status
from artifacts.manifest import DamagedError
from artifacts.ranks import is_first, started_together, wait_for_first
from callbacks.experiment_callback import ExperimentCallback
from configs.build import config_of
from configs.load import Loaded
from configs.problems import ConfigError, Problem
from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError
from datamodules.check import quick_checks
from experiment.behind_endpoint import check_endpoint
from experiment.claim import claim_folder, clear_overwritten, refuse_changed
from experiment.context import REPLAY, ExperimentContext
from experiment.fit import has_several_devices, train
from experiment.integration import check_integration, is_ready
from experiment.joint import check_joint
from experiment.judges import check_judges
from experiment.launchers.part import WHOLE, Part
from experiment.loggers import check_loggers
from experiment.outlook import Outlook, plan
from experiment.side_by_side import answered_beside, run_side_by_side
from experiment.standing import check_parents, check_rows
from guards.telling import doing
from lightning_modules.sharding import NAME as FSDP2


def assemble(
    loaded: Loaded, live: LiveBase | None = None, sets: dict[str, VQADataModule] | None = None
) -> ExperimentContext:
    """Build the context of an experiment and of everything that it requires; all share one live base, and rows."""
    is_asked, live, sets = live is None, live or LiveBase(), {} if sets is None else sets
    required = [assemble(one, live, sets) for one in loaded.required]
    own = (loaded.experiment, loaded.resolved, loaded.path, required, loaded.called, loaded.arguments)
    return ExperimentContext(*own, live=live, sets=sets, is_asked=is_asked)


def run_lineage(context: ExperimentContext) -> None:
    """Bring an experiment and all that it requires to their end.

    Args:
        context: as `assemble` returns it.

    Raises:
        Exception: as `run_experiment`.
    """
    refuse_what_cannot_be(context)
    refuse_changed(context)
    if is_first():
        clear_overwritten(context)
        if len(context.lineage) > 1 and context.part == WHOLE:
            print(plan(context, stands), flush=True)
    run_experiment(context)


def stands(context: ExperimentContext, run: str) -> bool:
    """Whether a run has left its result; that it is damaged is told in the phase that reads it."""
    try:
        return context.is_run_complete(run)
    except (AdapterError, DamagedError):
        return True


def refuse_what_cannot_be(context: ExperimentContext) -> None:
    """Refuse settings of which only the classes know that they do not go together.

    Raises:
        ConfigError: a base would be trained at a precision that is for frozen weights.
    """
    if problems := [
        Problem(
            str(member.path),
            "precision",
            member.experiment.precision,
            f"{member.experiment.precision} is the precision of frozen base weights, and "
            f"{member.experiment.module.class_path} trains them; leave it at float32 (trainer.precision=bf16-mixed "
            "computes in bf16)",
        )
        for member in context.lineage
        if member.provides == "base" and member.experiment.precision != "float32"
    ]:
        raise ConfigError(problems)
    for member in context.lineage:
        check_devices(member)
        check_module(member)
        check_replay(member)
        check_integration(member)
        check_joint(member)
        check_endpoint(member)
        if member.experiment.module is not None and not all(stands(member, run) for run in member.runs):
            check_judges(member)
            check_loggers(member)
    check_one_group(context)


def check_module(context: ExperimentContext) -> None:
    """Refuse options of the objective that do not go together: hours later it would say the same.

    Raises:
        ConfigError: says which.
    """
    module = context.experiment.module
    if module is None:
        return
    try:
        context.stage_class.check(config_of(module))
    except (ValueError, ImportError) as error:
        raise ConfigError([Problem(str(context.path), "module.init_args", None, str(error))]) from error


def check_replay(context: ExperimentContext) -> None:
    """Refuse rows that are mixed into steps which take none.

    Raises:
        ConfigError: names the setting.
    """
    module = context.experiment.module
    fits = module is not None and context.stage_class.replays and context.provides == "expert"
    if context.experiment.replay is not None and not fits:
        named = "an experiment without a module trains nothing" if module is None else f"{module.class_path} takes none"
        if module is not None and context.stage_class.replays:
            named = f"only into experts' steps, not with train: {context.experiment.train}"
        message = (
            f"rows are replayed in modules that imitate rows, such as lightning_modules.sft_lora.SFTLoRA, and {named}; "
            "leave replay out, or give it to the experiment that trains the experts (NAME:replay.share=...)"
        )
        raise ConfigError([Problem(str(context.path), "replay", None, message)])


def check_devices(context: ExperimentContext) -> None:
    """Refuse what processes of one run cannot agree on.

    Raises:
        ConfigError: names the setting.
    """
    experiment, problems = context.experiment, []

    def problem(key: str, value: object, message: str) -> None:
        problems.append(Problem(place=str(context.path), key=key, value=value, message=message))

    asked = experiment.trainer.get("strategy") == FSDP2 and experiment.module is not None
    sharded = asked and bool(unfinished(context, context.runs))  # what is finished is only read
    if sharded and not has_several_devices(experiment):
        problem("trainer.strategy", FSDP2, f"{FSDP2} deals a base out over devices; set trainer.devices above 1")
    if sharded and context.stage_class.shards == "never":
        message = (
            f"{experiment.module.class_path} cannot train over a base that lies in parts, as DSA, the "
            "policy-gradient stages and integration can. It takes ddp, with the base whole on each device "
            "(precision=bf16 halves it)"
        )
        problem("trainer.strategy", FSDP2, message)
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


def check_one_group(context: ExperimentContext) -> None:
    """Refuse a lineage whose unfinished experiments are on several devices, and not on as many.

    The processes that the first fit starts stay together until the command ends.

    Raises:
        ConfigError: names the setting of the experiment that differs from one before it.
    """
    first: tuple[str, dict[str, object]] | None = None
    for member in context.lineage:
        experiment = member.experiment
        if not (has_several_devices(experiment) and unfinished(member, member.runs)):
            continue
        asked = {key: experiment.trainer.get(key, 1) for key in ("devices", "num_nodes")}
        first = first or (experiment.name, asked)
        for key in (key for key in asked if asked[key] != first[1][key]):
            message = (
                f"{first[0]} is on {first[1][key]}; one command runs on one group of devices: give both the same "
                f"number, or finish {first[0]} by a command of its own"
            )
            raise ConfigError([Problem(str(member.path), f"trainer.{key}", asked[key], message)])


def run_experiment(context: ExperimentContext) -> None:
    """Bring an experiment to its end; what is finished already is left alone.

    Raises:
        ConfigError: the folder holds results of other settings, or of other rows.
        BadExampleError: the data cannot be used.
        AdapterError: a finished expert stands on another one than the one beneath it now.
        RuntimeError: a worker process failed.
    """
    train_experiment(context)
    if is_first() and not context.part.trains_only:  # what is made of finished runs is the first process's work
        finish_experiment(context)


def train_experiment(context: ExperimentContext) -> None:
    """Finish what an experiment requires, and train its own runs; errors as of `run_experiment`."""
    experiment, runs = context.experiment, context.runs_of(wanted_of(context))
    look(context)
    parents = parents_of(context)
    if examines_beside(context, runs):
        for parent in parents:
            train_experiment(parent)
        with answered_beside(parents, experiment.workers - 1):
            for parent in parents:
                finish_experiment(replace(parent, part=Part(merges_only=True)))
            train_all(context, runs)
        for parent in parents:
            finish_experiment(parent)
        return
    train_side_by_side(context, runs)
    for parent in parents:
        run_experiment(parent)
    if context.integrates and not is_first() and started_together():
        wait_for_first(lambda: is_ready(context))  # the first process makes the merge that it starts from
    train_all(context, runs)


def wanted_of(context: ExperimentContext) -> list[str]:
    """The specialties that are asked for."""
    return list(context.experiment.only) or context.specialties


def parents_of(context: ExperimentContext) -> list[ExperimentContext]:
    """The required experiments, of experts with those specialties alone that are asked for; none that has none."""
    found, wanted = [], wanted_of(context)
    for parent in context.required:
        needed = [specialty for specialty in parent.specialties if specialty in wanted]
        if parent.provides != "expert":
            found.append(parent)
        elif needed:
            found.append(replace(parent, experiment=replace(parent.experiment, only=needed)))
    return found


def look(context: ExperimentContext) -> None:
    """Take an experiment's folder and look at its data, before anything is trained; errors as of `run_experiment`."""
    wanted, runs = wanted_of(context), context.runs_of(wanted_of(context))
    if is_first():
        claim_folder(context)
    with phase(context, "data", "looking at the data"):
        training = context.provides != "nothing"
        if not training:
            _ = context.examined  # a folder that is no adapter is told now
        if training:
            check_rows(context, runs)
        further = asked_besides(context)
        if not training or unfinished(context, runs) or further:  # before hours of training what is required, not after
            check_data(context, wanted, further)
            check_questions(context, runs)


def examines_beside(context: ExperimentContext, runs: Sequence[str]) -> bool:
    """Whether an agent is to be trained while other processes examine what it is made from."""
    several = context.experiment.workers > 1 and context.part == WHOLE
    return several and context.provides == "agent" and bool(unfinished(context, runs))


def train_side_by_side(context: ExperimentContext, runs: Sequence[str]) -> None:
    """Train experts in worker processes, where there are several to train; errors as of `run_experiment`.

    Each worker trains the experts beneath its own too, of experiments with as many workers.
    """
    if context.provides != "expert" or context.experiment.workers == 1:
        return
    members = dealt_with(context)
    todo = [run for run in runs if any(unfinished(m, [run]) for m in members if run in m.specialties)]
    if len(todo) < 2:
        return
    for member in members:
        for parent in parents_of(member):
            if parent.folder not in [one.folder for one in members]:
                run_experiment(parent)
        if member is not context:
            look(member)
    with phase(context, "training"):
        standing = [run for run in runs if not any(unfinished(m, [run]) for m in members[:-1] if run in m.specialties)]
        check_parents(context, standing)
        run_side_by_side(members, todo)


def dealt_with(context: ExperimentContext) -> list[ExperimentContext]:
    """An experiment of experts, last, and before it the required ones that its workers train with it."""
    alike = [
        parent
        for parent in parents_of(context)
        if parent.provides == "expert" and parent.experiment.workers == context.experiment.workers
    ]
    beneath = {member.folder: member for parent in alike for member in dealt_with(parent)}
    return [*beneath.values(), context]


def finish_experiment(context: ExperimentContext) -> None:
    """Make what is made of finished runs, where all are in; else say which are still to come."""
    experiment, runs = context.experiment, context.runs_of(wanted_of(context))
    torch.set_num_threads(experiment.threads)
    missing = unfinished(context, context.runs)
    if missing:
        set_finished([context.folder.run(run).path for run in runs])
        with suppress(OSError):  # a folder that can only be read stays as it is
            (context.folder.path / STATUS).unlink()  # of an interruption that has been made good
        print(f"{experiment.name}: {', '.join(runs)} done; {', '.join(missing)} still to come", flush=True)
        return
    finish_all(context, runs)


def check_questions(context: ExperimentContext, runs: Sequence[str]) -> None:
    """Refuse questions that the module cannot use under its settings: those to train on, and those that cards show.

    Raises:
        BadExampleError: names the specialty and the first question.
    """
    if context.experiment.module is None:
        return
    config = config_of(context.experiment.module)
    for run in runs:
        try:
            splits = context.data(run).splits
            context.stage_class.check_questions(config, chain(splits["train"], splits["val"]))
        except BadExampleError as error:
            raise BadExampleError(f"specialty {run!r}: {error}") from error


def asked_besides(context: ExperimentContext) -> dict[str, VQADataModule]:
    """The sets that callbacks ask besides the specialties, by name."""
    own = [callback for callback in context.callbacks() if isinstance(callback, ExperimentCallback)]
    return {name: data for callback in own for name, data in callback.further_data().items()}


def check_data(context: ExperimentContext, wanted: Sequence[str], further: Mapping[str, VQADataModule]) -> None:
    """Look at all sets that the experiment trains on or asks; errors as of `quick_checks`."""
    quick_checks(own_sets(context, wanted), training=context.provides != "nothing", examined=further)


def own_sets(context: ExperimentContext, wanted: Sequence[str]) -> dict[str, VQADataModule]:
    """The sets that the experiment's runs take rows of, by name."""
    sets = {specialty: context.data(specialty) for specialty in wanted}
    if context.replayed is not None:
        sets[f"{REPLAY}/"] = context.replayed  # no specialty is called so
    return sets


def finish_all(context: ExperimentContext, runs: Sequence[str]) -> None:
    """Let the callbacks make what they make of finished runs, and say so in the folders."""
    part, callbacks = context.part, list(context.callbacks())

    def make(callback: ExperimentCallback) -> bool:
        with phase(context, type(callback).__name__, getattr(callback, "work", "")):
            return callback.finish() if part.share is None else callback.finish_share(*part.share)

    if part.share is not None:
        while any([make(callback) for callback in callbacks]):
            pass  # others made more meanwhile, such as merges
        return
    for callback in callbacks:
        if part.merges_only and callback.is_shared:
            break
        make(callback)
    if part != WHOLE:
        return
    folders = [context.folder.run(run).path for run in runs] if context.provides != "nothing" else []
    set_finished([context.folder.path, *folders])


def set_finished(folders: Sequence[Path]) -> None:
    """Say so of those that do not yet, as of a run that was interrupted after it had left its result."""
    for folder in folders:
        if read_state(folder) != "finished":
            write_status(folder, "finished")


def train_all(context: ExperimentContext, runs: Sequence[str]) -> None:
    """Carry out the runs that have not left their result; errors as of `run_experiment`."""
    if context.provides == "nothing":
        return
    torch.set_num_threads(context.experiment.threads)
    with phase(context, "training"):
        check_parents(context, runs)
        todo = unfinished(context, runs)
        outlook = Outlook(context.experiment.name, len(todo))
        for number, run in enumerate(todo, 1):
            train(context, run)
            if is_first() and not context.part.trains_only:  # else others train the experiment's other runs
                outlook.tell(number)


def unfinished(context: ExperimentContext, runs: Sequence[str]) -> list[str]:
    """Those that have not left their result."""
    return [run for run in runs if not context.is_run_complete(run)]


@contextmanager
def phase(context: ExperimentContext, name: str, work: str = "") -> Iterator[None]:
    """Record in the experiment's status.json in which phase it was interrupted, or failed.

    Args:
        context: of the experiment.
        name: of the phase.
        work: what is done in it, in words; empty takes the name.
    """
    try:
        with doing(f"{context.experiment.name}: {work or name}"):
            yield
    except BaseException as error:
        write_failure(context.folder.path, error, phase=name)
        raise
