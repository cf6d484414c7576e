"""`python -m judging run|report|compare`: judges of medical answers on Med-RewardBench."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from artifacts.interrupts import as_program, stop_alike
from configs.problems import ConfigError
from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole

UNFINISHED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, report or compare.

    Returns:
        0; 1 if it failed; 2 for a wrong command or configuration; 3 if replies are missing and the same command goes
        on; 130 when it was interrupted, likewise.
    """
    parser = Parser(prog="python -m judging", description=__doc__)
    parser.add_argument(
        "command",
        choices=("run", "report", "compare"),
        help="run: put a release's cases to a judge, or go on; report: measure judges' replies, each into its folder; "
        "compare: judges against each other on the same cases",
    )
    parser.add_argument("words", nargs="*", metavar="key=value | FOLDER", help="settings; else folders of judges")
    parser.add_argument("--config", help="with run: a YAML file, or one below configs/")
    parser.add_argument("--baseline", default="", help="with compare: name of the folder that others are compared with")
    parser.add_argument("--alpha", type=float, default=0.05, help="with compare: family-wise error rate")
    parser.add_argument("--out", type=Path, help="with compare: folder for compare.md, .csv, .tex and .png")
    given = parser.parse_intermixed_args(arguments)
    if given.command == "run" and not given.config:
        parser.error("run needs --config")
    if given.command != "run" and len(given.words) < (needed := 1 + (given.command == "compare")):
        parser.error(f"{given.command} takes {needed} or more folders of judges, got {given.words}")
    if not 0 < given.alpha < 1:
        parser.error(f"--alpha must lie in (0, 1), got {given.alpha}")
    folders = [Path(word) for word in given.words]
    try:
        if given.command == "run":
            return execute(given.config, given.words)
        from judging.sheet import load_sheets

        sheets = load_sheets(folders)
        if given.command == "compare":
            from judging.compare import compare

            print(printable_whole(compare(sheets, given.baseline, given.alpha, given.out)))
            return 0
        from judging.report import write_report

        for sheet, folder in zip(sheets, folders, strict=True):
            print(printable_whole(write_report(sheet, folder)))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(printable_lines(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 1
    return 0


def execute(config: str, overrides: Sequence[str]) -> int:
    """Ask a judge; exit codes as of `main`."""
    from judging.run import UnfinishedError, run
    from judging.settings import load_settings

    settings = load_settings(config, overrides)
    warnings.filterwarnings("ignore", category=FutureWarning)
    stop_alike()
    try:
        held = run(settings)
    except (KeyboardInterrupt, SystemExit):
        print("interrupted; every reply that came is kept, and the same command goes on", file=sys.stderr)
        return 130
    except UnfinishedError as error:
        print(f"unfinished: {error}", file=sys.stderr)
        return UNFINISHED
    except RuntimeError as error:
        print(printable_lines(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 1
    print(f"{held} replies in {settings.out}; `python -m judging report {settings.out}` measures them")
    return 0


if __name__ == "__main__":
    as_program(main)
