"""`python -m judging run|report|compare`: judges of medical answers on Med-RewardBench."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from artifacts.interrupts import as_program
from endpoints.command import add_words, ended
from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole

COMMANDS = {
    "run": "put a release's cases to a judge, or go on",
    "report": "measure judges' replies, each into its folder",
    "compare": "judges against each other on the same cases",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, report or compare.

    Returns:
        As `endpoints.command.ended`; 2 for a wrong command too.
    """
    parser = Parser(prog="python -m judging", description=__doc__)
    add_words(parser, COMMANDS)
    parser.add_argument("--baseline", default="", help="with compare: name of the folder that others are compared with")
    parser.add_argument("--alpha", type=float, default=0.05, help="with compare: family-wise error rate")
    parser.add_argument("--out", type=Path, help="with compare: folder for compare.md, .csv, .tex and .png")
    given = parser.parse_intermixed_args(arguments)
    if given.command == "run" and not given.config:
        parser.error("run needs --config")
    if given.command != "run" and len(given.words) < (needed := 1 + (given.command == "compare")):
        parser.error(f"{given.command} takes {needed} or more folders of judges, got {given.words}")
    if given.dry_run and given.command != "run":
        parser.error(f"--dry-run goes with run, got {given.command}")
    if not 0 < given.alpha < 1:
        parser.error(f"--alpha must lie in (0, 1), got {given.alpha}")
    return ended(lambda: judge(given) if given.command == "run" else measure(given))


def judge(given: Namespace) -> None:
    """Ask a judge, or tell what that would take."""
    from judging.run import cost, run
    from judging.settings import load_settings

    settings = load_settings(given.config, given.words)
    if given.dry_run:
        print(printable_lines(f"{cost(settings)}. Nobody was asked"))
        return
    held = run(settings)
    print(f"{held} replies in {settings.out}; `python -m judging report {settings.out}` measures them")


def measure(given: Namespace) -> None:
    """Report on judges, or compare them."""
    from judging.sheet import load_sheets

    folders = [Path(word) for word in given.words]
    sheets = load_sheets(folders)
    if given.command == "compare":
        from judging.compare import compare

        print(printable_whole(compare(sheets, given.baseline, given.alpha, given.out)))
        return
    from judging.report import write_report

    for sheet, folder in zip(sheets, folders, strict=True):
        print(printable_whole(write_report(sheet, folder)))


if __name__ == "__main__":
    as_program(main)
