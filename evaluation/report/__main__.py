"""One folder to look at and to show: what experiments found, how they got there, and every case.

    python -m evaluation.report runs/rl_gba --out report
    python -m evaluation.report runs/rl_gba runs/rl_grpo --out report      two beside each other
    python -m evaluation.report runs/rl_gba --out report --cases 0         all cases

The folder opens without a server: report/index.html, and report/cases.html with pictures, answers and verdicts. It
holds pictures and texts of the data, so it is as confidential as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.problems import ConfigError
from evaluation.report.folder import Folder
from evaluation.report.pages import write_pages
from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 if an experiment cannot be read, or the folder cannot be written.
    """
    parser = Parser(
        prog="python -m evaluation.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="+", type=Path, help="experiment folders that have been evaluated")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pages; an earlier report is replaced")
    parser.add_argument("--cases", type=int, default=500, help="questions in the gallery; 0 takes all")
    parser.add_argument("--side", type=int, default=512, help="longest side of a picture, in pixels")
    parser.add_argument("--scorer", action="append", default=[], help="a further scorer, such as official:medevalkit")
    parser.add_argument("--trust", nargs="+", default=[], help="packages of your own whose data sets may be read")
    given = parser.parse_args(arguments)
    try:
        if given.cases < 0 or given.side < 16:
            raise ValueError(f"--cases must be at least 0 and --side at least 16, got {given.cases} and {given.side}")
        with Folder(given.out, given.side) as folder:
            told = write_pages(given.experiments, folder, given.cases, given.scorer, given.trust)
    except (OSError, ValueError, ConfigError) as error:
        print(printable_lines(f"report: {error}"), file=sys.stderr)
        return 2
    print(printable_whole("\n".join([*told, f"open {given.out / 'index.html'}"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
