"""What `train.py` does with a good configuration, and how it ends: one clear line, and an exit code."""

from __future__ import annotations

import errno
import json
import shlex
import sys
import threading
import warnings
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from artifacts.adapter_files import AdapterError
from artifacts.interrupts import stop_alike
from artifacts.ranks import is_first, let_first_leave
from configs.load import Loaded
from configs.problems import ConfigError
from configs.schema import AGENT
from datamodules.batch import BadExampleError
from experiment.context import ExperimentContext
from experiment.dry_run import dry_run_report
from experiment.launchers.launch import launch
from experiment.launchers.part import WHOLE, Part
from experiment.memory import keep_freed_memory
from experiment.run import assemble, run_lineage
from guards.printable import printable_lines, printable_whole
from guards.telling import doing
from lightning_modules.reproducible import same_numbers
from merge.run import CONFLICT_JSON, REJECTED

EXPECTED = (BadExampleError, AdapterError, MisconfigurationException, OSError, RuntimeError, ValueError)
"""Errors whose message says what is wrong; anything else is a defect of ours and shows its traceback."""

GO_ON = "and the same command goes on"
NO_SPACE = f"free space there, {GO_ON}"
READ_ONLY = "is it read-only, or another user's? Choose another runs_dir"
REMEDIES = {
    errno.ENOSPC: NO_SPACE,
    errno.EDQUOT: NO_SPACE,
    errno.EFBIG: f"raise the limit on the size of files (ulimit -f), {GO_ON}",
    errno.EROFS: READ_ONLY,
    errno.EACCES: READ_ONLY,
    errno.EPERM: READ_ONLY,
    errno.ENOENT: "was it removed or moved? Put it back, or run the same command to make anew what it makes",
    errno.ESTALE: f"was the file system taken away? Mount it, {GO_ON}",
    errno.EIO: f"the disk fails, or was taken away; {GO_ON} on another copy",
    errno.EMFILE: f"raise the limit on open files (ulimit -n), {GO_ON}",
}
"""Error of the system -> what to do about it."""


def execute(loaded: Loaded, *, dry_run: bool, part: Part = WHOLE) -> int:
    """Run the experiment, hand it to its launcher, or report what either would mean.

    Args:
        loaded: what to run.
        dry_run: leave nothing.
        part: of the work.

    Returns:
        The process's exit code: 0 finished, 1 failed, 130 interrupted.

    Raises:
        ConfigError: a required experiment's settings, or settings that differ from the folder's.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    name = loaded.experiment.name
    stop_alike()
    keep_freed_memory()
    same_numbers()
    threading.excepthook = unless_told_again
    tell_notes(loaded, part)
    try:
        with doing(f"{name}: getting ready"):
            context = carried_out(loaded, dry_run=dry_run, part=part)
    except (KeyboardInterrupt, SystemExit):
        if is_first():
            print(f"{name}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        let_first_leave()
        return 130
    except ConfigError:
        raise
    except EXPECTED as error:
        print(printable_lines(f"{name}: {told(error)}"), file=sys.stderr)
        leave_the_others()
        return 1
    except BaseException:
        leave_the_others()
        raise
    if context is not None and is_first():
        where(context)
    return 0


def tell_notes(loaded: Loaded, part: Part) -> None:
    """Say what is in order and should be known; processes that do a share of the work leave it to the first one."""
    if part == WHOLE and not loaded.experiment.only and is_first():
        for note in loaded.all_notes:
            print(note, flush=True)


def carried_out(loaded: Loaded, *, dry_run: bool, part: Part) -> ExperimentContext | None:
    """Do what `execute` is asked for; its errors are those of all that this calls.

    Returns:
        The experiment, where this command brought it to its end and has to say what lies where.
    """
    context = assemble(loaded)
    # An agent starts from a merge, which is made beneath it before it trains.
    integrates = any(member.integrates for member in context.lineage)
    beneath = Part(merges_only=True) if part.trains_only and integrates else part
    for member in context.lineage:
        member.part = part if member is context else beneath
    if loaded.experiment.launcher is not None:
        launch(context, dry_run=dry_run)
        return None
    if dry_run:
        print(dry_run_report(context))
        return None
    run_lineage(context)
    return context if part == WHOLE else None


def add_experiment(parser: ArgumentParser, what: str) -> None:
    """Take the experiment that a program beside train.py is about, as train.py takes it.

    Args:
        parser: of the program.
        what: must be true of the experiment; ends the help of --config.
    """
    parser.add_argument("--config", required=True, help=f"experiment file, as train.py takes it; {what}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted settings of the experiment")


def ended(name: str, work: Callable[[], str], left: str) -> int:
    """Do the work of a program beside train.py, print what it returns, and say how it ended.

    Args:
        name: of the program.
        work: returns what is shown.
        left: after an interruption, in words.

    Returns:
        0; 1 if it failed; 2 if the configuration or an option is refused; 130 if it was interrupted.
    """
    stop_alike()
    try:
        same_numbers()
        print(printable_whole(work()), flush=True)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {left}", file=sys.stderr)
        return 130
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except EXPECTED as error:
        print(printable_lines(f"{name}: {told(error)}"), file=sys.stderr)
        return 2 if type(error) is ValueError else 1
    return 0


def unless_told_again(arguments: threading.ExceptHookArgs) -> None:
    """Show what a thread died of, unless it writes curves: that is raised again where the next one is drawn."""
    if not (isinstance(arguments.exc_value, OSError) and type(arguments.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(arguments)


def told(error: Exception) -> str:
    """What went wrong, and for an error of the system what to do about it.

    Examples:
        >>> told(OSError(28, "No space left on device", "runs/x"))
        "OSError: [Errno 28] No space left on device: 'runs/x'; free space there, and the same command goes on"
    """
    remedy = REMEDIES.get(error.errno or 0, "") if isinstance(error, OSError) else ""
    parts = [f"{type(error).__name__}: {error}", remedy, *getattr(error, "__notes__", ())]
    return "; ".join(part for part in parts if part)


def leave_the_others() -> None:
    """After a failure: let the other devices of the run, which wait for this one, fail too instead of waiting on.

    The first one then records the failure before it is ended for that of the process that it started.

    Choice: with NCCL the connection is left as it is, as closing it waits for what is under way; there the process
        that started this one ends the others when this one is gone.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()
        let_first_leave()


def where(context: ExperimentContext) -> None:
    """Say what lies where, and what to do next."""
    folder = context.folder
    lines = [f"Everything of this experiment lies in {folder.path}/"]
    if (folder.evaluation / "matrix.csv").exists():
        lines.append(f"  matrix and answers   {folder.evaluation}/matrix.csv, predictions.jsonl, scores.json")
    if (folder.path / "merged").exists():
        lines.append(f"  merged agents        {folder.path}/merged/<method>/adapter, with recipe and conflict report")
        lines += [f"  rejected by gates    {told}" for told in rejections(folder.path / "merged")]
    if context.provides != "nothing":
        what, run = ("agent", AGENT) if context.provides == "agent" else ("experts", "<specialty>")
        lines.append(f"  {what:<20} {folder.path}/{run}/adapter, samples.jsonl, provenance.json")
    lines.append("Next")
    lines.append(
        f"  curves and cards     make board   (tensorboard --logdir {shlex.quote(context.experiment.runs_dir)})"
    )
    if (folder.evaluation / "matrix.csv").exists():
        report = f"python -m evaluation.report {shlex.quote(str(folder.path))} --out report"
        lines.append(f"  a page with cases    {report}")
    if context.provides in ("expert", "agent"):
        asked = shlex.quote(str(folder.path / context.runs[0]))
        lines.append(f'  ask it               python -m answering ask {asked} --image FILE "..."')
    print("\n".join(lines), flush=True)


def rejections(merged: Path) -> list[str]:
    """Folder and reason of every merge that its gates rejected."""
    found = []
    for file in sorted(merged.glob(f"*/{REJECTED}/{CONFLICT_JSON}")):
        gates = json.loads(file.read_text("utf-8"))["gates"]["gates"]
        reasons = "; ".join(gate["text"] for gate in gates if gate["verdict"] == "reject")
        found.append(f"{file.parent}/adapter: {reasons}")
    return found
