"""`python -m curation run|audit|report`: from pools of questions to a set with worked traces."""

from __future__ import annotations

import json
import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from artifacts.interrupts import as_program, stop_alike
from configs.problems import ConfigError
from curation.settings import Settings, load_settings
from experiment.launchers.part import Part
from guards.arguments import Parser
from guards.printable import printable_lines

UNFINISHED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, audit or report.

    Returns:
        0, also when jobs were submitted; 1 if it failed, kept no question, or a finished set is damaged; 2 for a wrong
        command or configuration; 3 if replies are missing and the same command goes on; 130 when it was interrupted,
        likewise.
    """
    parser = Parser(prog="python -m curation", description=__doc__)
    parser.add_argument(
        "command",
        choices=("run", "audit", "report"),
        help="run: make a set, or go on making it; audit: assign specialties by the rules and write a sample to look "
        "at; report: print a finished set's counts and check them against its files",
    )
    parser.add_argument("words", nargs="*", metavar="key=value | FOLDER", help="settings; for report the set's folder")
    parser.add_argument("--config", help="a YAML file, or one below configs/; for run and audit")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="with run: count what would be asked, and ask nobody; or show the jobs of a launcher",
    )
    parser.add_argument(
        "--part",
        default="",
        metavar="I/N",
        help="with run: ask about a share of the questions alone, as a launcher deals them out",
    )
    parser.add_argument("--csv", type=Path, default=Path("audit.csv"), help="with audit: where the sample goes")
    options = parser.parse_intermixed_args(arguments)
    if options.command == "report" and len(options.words) != 1:
        parser.error(f"report takes the folder of one set, got {options.words}")
    if options.command != "report" and not options.config:
        parser.error(f"{options.command} needs --config")
    try:
        share = Part.read(options.part).share if options.part else None
    except ValueError as error:
        parser.error(f"--part: {error}")
    if options.part and (share is None or options.command != "run" or options.dry_run):
        parser.error(f"--part goes with run, without --dry-run, and is I/N; got {options.part!r}")
    try:
        if options.command == "report":
            return show(Path(options.words[0]))
        settings = load_settings(options.config, options.words)
        if options.command == "audit":
            return write_sample(settings, options.csv)
        return execute(settings, options, share)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def execute(settings: Settings, options: Namespace, share: tuple[int, int] | None) -> int:
    """Do what `run` asks for; exit codes as of `main`.

    Args:
        settings: of the curation.
        options: of the command line.
        share: (index from 0, count) of the questions to ask about; None for the whole.
    """
    from curation.run import NothingKeptError
    from endpoints.answerer import UnusableError
    from endpoints.asking import UnfinishedError

    warnings.filterwarnings("ignore", category=FutureWarning)
    stop_alike()
    try:
        work(settings, options, share)
    except (KeyboardInterrupt, SystemExit):
        print("interrupted; every reply that came is kept, and the same command goes on", file=sys.stderr)
        return 130
    except UnfinishedError as error:
        print(f"unfinished: {error}", file=sys.stderr)
        return UNFINISHED
    except NothingKeptError as error:
        print("\n".join(summary({"gates": error.ledger.gates, "traces": error.ledger.traces, "kept": {}})))
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except ConfigError:
        raise
    except (UnusableError, ValueError, OSError, RuntimeError) as error:
        print(printable_lines(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 1
    return 0


def work(settings: Settings, options: Namespace, share: tuple[int, int] | None) -> None:
    """Make the set, ask about a share of it, hand it to a launcher, or tell what any of these would take."""
    from curation.jobs import launch
    from curation.run import ask_share, curate, most

    if share is not None:
        print(f"share {options.part}: every reply about its {ask_share(settings, *share)} questions is kept")
    elif settings.launcher is not None:
        launch(settings, options.config, options.words, dry_run=options.dry_run)
    elif options.dry_run:
        for what, requests, known, tokens in most(settings):
            print(f"{what:<12} at most {requests} requests, {known} of them known; at most {tokens} tokens")
    else:
        print("\n".join(summary(curate(settings))))
        reader = "datamodules.mmedexpert.MMedExpert"
        print(f"written: {settings.out}/ (data/ is what {reader} reads; datasheet.md tells the rest)")


def write_sample(settings: Settings, path: Path) -> int:
    """Write the sample for a person to look at, and print how many questions each specialty gets by the rules."""
    from collections import Counter

    from curation.output import write_audit
    from curation.run import prepare

    try:
        run = prepare(settings)
        rows = run.candidates()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audit(path, run.audited(rows))
    except ConfigError:
        raise
    except (ValueError, OSError) as error:
        print(printable_lines(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 1
    for specialty, count in sorted(Counter(row.specialty for row in rows).items()):
        print(f"{specialty:<18} {count}")
    print(f"written: {path}")
    return 0


def summary(counts: dict) -> list[str]:
    """The counts of every gate in lines."""
    from curation.datasheet import reasons

    lines = [f"{'gate':<12} {'in':>8} {'out':>8}  rejected"]
    for gate, entry in counts["gates"].items():
        lines.append(f"{gate:<12} {entry['in']:>8} {entry['out']:>8}  {reasons(entry['rejected'])}")
    for name, entry in counts["traces"].items():
        told = f"rejected: {reasons(entry['rejected'])}; unknown: {reasons(entry['unknown'])}"
        lines.append(f"traces of {name}: {entry['accepted']} of {entry['in']} accepted; {told}")
    return [*lines, "kept: " + (reasons(counts["kept"]))]


def show(folder: Path) -> int:
    """Print a finished set's counts; 1 where they do not fit its files."""
    from curation.output import COUNTS, verify

    wrong = verify(folder)
    if wrong:
        print("\n".join([f"{folder}: not as it was written:", *wrong]), file=sys.stderr)
        return 1
    print("\n".join(summary(json.loads((folder / COUNTS).read_text(encoding="utf-8")))))
    print(f"the counts add up, and every row of {folder} loads")
    return 0


if __name__ == "__main__":
    as_program(main)
