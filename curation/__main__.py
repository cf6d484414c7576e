"""`python -m curation run|audit|report`: from pools of questions to a set with worked traces."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from artifacts.interrupts import as_program
from curation.settings import Settings, load_settings
from endpoints.command import add_words, ended
from experiment.launchers.part import Part
from guards.arguments import Parser

COMMANDS = {
    "run": "make a set, or go on making it",
    "audit": "assign specialties by the rules and write a sample to look at",
    "report": "print a finished set's counts and check them against its files",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, audit or report.

    Returns:
        0, also when jobs were submitted; 1 if it failed, kept no question, or a finished set is damaged; the rest as
        of `endpoints.command.ended`, and 2 for a wrong command.
    """
    parser = Parser(prog="python -m curation", description=__doc__)
    add_words(parser, COMMANDS)
    parser.add_argument(
        "--part",
        default="",
        metavar="I/N|finish",
        help="with run: ask about a share of the questions alone, as a launcher deals them out; or make the set from "
        "what shares have asked for",
    )
    parser.add_argument("--csv", type=Path, default=Path("audit.csv"), help="with audit: where the sample goes")
    options = parser.parse_intermixed_args(arguments)
    if options.command == "report" and len(options.words) != 1:
        parser.error(f"report takes the folder of one set, got {options.words}")
    if options.command != "report" and not options.config:
        parser.error(f"{options.command} needs --config")
    try:
        share = Part.read(options.part).share if options.part not in ("", "finish") else None
    except ValueError as error:
        parser.error(f"--part: {error}")
    known = share is not None or options.part == "finish"
    if options.part and (not known or options.command != "run" or options.dry_run):
        parser.error(f"--part goes with run, without --dry-run, and is I/N or finish; got {options.part!r}")
    return ended(lambda: execute(options, share))


def execute(options: Namespace, share: tuple[int, int] | None) -> int:
    """Do what the command asks for; exit codes as of `main`.

    Args:
        options: of the command line.
        share: (index from 0, count) of the questions to ask about; None for the whole.
    """
    if options.command == "report":
        return show(Path(options.words[0]))
    settings = load_settings(options.config, options.words)
    if options.command == "audit":
        write_sample(settings, options.csv)
        return 0
    from curation.run import NothingKeptError

    try:
        work(settings, options, share)
    except NothingKeptError as error:
        print("\n".join(summary({"gates": error.ledger.gates, "traces": error.ledger.traces, "kept": {}})))
        raise
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
        print("\n".join(summary(curate(settings, after_shares=bool(options.part)))))
        reader = "datamodules.mmedexpert.MMedExpert"
        print(f"written: {settings.out}/ (data/ is what {reader} reads; datasheet.md tells the rest)")


def write_sample(settings: Settings, path: Path) -> None:
    """Write the sample for a person to look at, and print how many questions each specialty gets by the rules."""
    from collections import Counter

    from curation.output import write_audit
    from curation.run import prepare

    run = prepare(settings)
    rows = run.candidates()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audit(path, run.audited(rows))
    for specialty, count in sorted(Counter(row.specialty for row in rows).items()):
        print(f"{specialty:<18} {count}")
    print(f"written: {path}")


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
