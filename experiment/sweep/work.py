"""What the command does with a good sweep: plan it, run it, do one part of it, or report it."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Sequence

from artifacts.interrupts import stop_alike
from configs.load import load
from configs.problems import ConfigError, Problem
from evaluation.report_files import points
from experiment import command
from experiment.sweep.choice import choice_of
from experiment.sweep.claim import claim, fixed, recorded, refuse_changed
from experiment.sweep.costs import counted, estimate
from experiment.sweep.jobs import REPORT, jobs_of, launcher_of, planned_arms
from experiment.sweep.questions import too_few
from experiment.sweep.report import planned_detectable, write_report
from experiment.sweep.results import results_of
from experiment.sweep.runs import Run, Runs
from experiment.sweep.standing import faults, is_finished
from guards.printable import printable_lines, printable_whole


def execute(runs: Runs, options: Namespace) -> int:
    """Do what was asked for.

    Returns:
        The exit code, as of `experiment.sweep.__main__.main`.

    Raises:
        ConfigError: the sweep, or what lies in a run's folder, is not what was fixed.
    """
    name = runs.file.sweep.name
    stop_alike()
    try:
        if options.part and options.part != REPORT:
            return one_run(runs, options.part)
        refuse_changed(runs.file)
        if options.part or options.report:
            more = ["--report", *(word for pair in options.contrast for word in ("--contrast", *pair))]
            return report(runs, [tuple(pair) for pair in options.contrast], more if options.contrast else [])
        return plan(runs) if options.dry_run else start(runs)
    except (KeyboardInterrupt, SystemExit):
        print(f"{name}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except ConfigError:
        raise
    except command.EXPECTED as error:
        print(printable_lines(f"{name}: {command.told(error)}"), file=sys.stderr)
        return 1


def everything(runs: Runs) -> list[Run]:
    """Every run of the sweep, in the order of the work."""
    tried = [run for arm in runs.file.sweep.arms for run in runs.tried_of(arm)]
    return [*runs.required(), *tried, *planned_arms(runs)]


def refuse_strangers(found: Sequence[Run], problems: Sequence[Problem] = ()) -> None:
    """Refuse folders that hold what was made otherwise.

    Args:
        found: runs.
        problems: what else is wrong.

    Raises:
        ConfigError: everything that differs.
    """
    problems = list(problems)
    for run in found:
        problems += [problem for problem in faults(run) if problem not in problems]
    if problems:
        raise ConfigError(problems)


def start(runs: Runs) -> int:
    """Run what is missing, to its end or by a launcher."""
    found = everything(runs)
    refuse_strangers(found, list(too_few(runs)))
    claim(runs.file, sum(run.kind == "arm" and is_finished(run) for run in found))
    launcher = launcher_of(runs)
    jobs = jobs_of(runs, launcher.config)
    print(launcher.start(jobs, (runs.file.root / "jobs").absolute()), flush=True)
    if all(map(is_finished, everything(runs))):
        print(f"{runs.file.sweep.name}: finished; the report is {runs.file.root}/{REPORT}.md", flush=True)
    return 0


def plan(runs: Runs) -> int:
    """Say what would run, and what it would take."""
    sweep, found = runs.file.sweep, everything(runs)
    refuse_strangers(found, list(too_few(runs)))
    done = [run for run in found if is_finished(run)]
    left = [run for run in found if run not in done]
    print(f"{sweep.name}: {sweep.question}")
    for kind, what in (
        ("required", "required runs, shared by all arms"),
        ("tuning", "tuning"),
        ("arm", "arms x seeds"),
    ):
        of = [run for run in found if run.kind == kind]
        if of:
            print(f"  {what}: {len(of)} runs, {sum(run in done for run in of)} finished")
    by = sweep.primary
    seen = points(planned_detectable(by.spread, len(sweep.seeds), by.confidence))
    print(
        f"  primary: {by.arm} against {by.against}, {len(sweep.seeds)} seeds x {sweep.questions} questions per "
        f"specialty; shows differences from {seen} points on with 80 %, at a spread of {100 * by.spread:g} points "
        "between seeds"
    )
    workers = sweep.workers if sweep.launcher is None else max(1, len(left))
    print(f"  {estimate(runs.file.root, done, left, workers)}")
    launcher = launcher_of(runs)
    jobs = jobs_of(runs, launcher.config)
    print(printable_lines(launcher.describe(jobs, (runs.file.root / "jobs").absolute()), 20_000, 20_000))
    print("Nothing was started.")
    return 0


def one_run(runs: Runs, label: str) -> int:
    """Do one run; what is finished is left alone.

    Raises:
        ConfigError: there is none of this name, or its settings cannot be used.
    """
    run = run_named(runs, label)
    if is_finished(run):
        print(f"{label} has ended already", flush=True)
        return 0
    with counted(runs.file.root, label):
        return command.execute(load(run.config, run.arguments), dry_run=False)


def run_named(runs: Runs, label: str) -> Run:
    """The run of a label.

    Raises:
        ConfigError: there is none.
        RuntimeError: what it needs has not ended.
    """
    sweep, found = runs.file.sweep, None
    if arm := re.fullmatch(r"arm-(.+)-seed(\d+)", label, re.ASCII):
        name, seed = arm[1], int(arm[2])
        if name in sweep.arms and seed in sweep.seeds:
            choice = choice_of(runs, name)
            found = runs.arm(name, seed, choice.values if choice else None)
    elif tried := re.fullmatch(r"tuning-(.+)-\d+-seed\d+", label, re.ASCII):
        found = next(
            (run for run in (runs.tried_of(tried[1]) if tried[1] in sweep.arms else ()) if run.label == label), None
        )
    else:
        found = next((run for run in runs.required() if run.label == label), None)
    if found is None:
        raise ConfigError([Problem("command line", "--part", label, "no run of this sweep is called so")])
    return found


def report(runs: Runs, asked: Sequence[tuple[str, str]], more: Sequence[str]) -> int:
    """Write the report; its first table is printed."""
    held = recorded(runs.file.root)
    if held is None or held["fixed"] != fixed(runs.file.sweep):
        what = "holds no sweep yet" if held is None else "does not have on record what was added to the file"
        raise RuntimeError(
            f"{runs.file.root} {what}; give the command without --report and --part once, which records it and starts "
            "only what is missing"
        )
    found = results_of(runs, asked)
    refuse_strangers(found.runs)
    path = write_report(runs, found, held, more)
    text = path.read_text("utf-8").partition("\n## Arms")[0]
    print(f"{printable_whole(text)}\n{path}", flush=True)
    return 0
