"""Run a sweep: arms x seeds of one question, settings tuned alike, one comparison fixed before the first run.

    python -m experiment.sweep sweeps/gba_against_grpo.yaml --dry-run       what would run, and how long it would take
    python -m experiment.sweep sweeps/gba_against_grpo.yaml workers=4       everything, or whatever of it is missing
    python -m experiment.sweep sweeps/gba_against_grpo.yaml launcher=slurm launcher.init_args.partition=gpu
    python -m experiment.sweep sweeps/gba_against_grpo.yaml --report        the report, once all runs have ended
    python -m experiment.sweep sweeps/gba_against_grpo.yaml --report --contrast nudge gba       explored beside it

Going on after an interruption is repeating the command. docs/sweeps.md says what the file may hold.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from artifacts.interrupts import as_program
from configs.problems import ConfigError, did_you_mean
from experiment.sweep.checks import check
from experiment.sweep.reading import read_sweep
from experiment.sweep.runs import Runs
from guards.arguments import Parser


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when everything that was asked for is finished or submitted, 1 when it failed, 2 for a bad configuration, 130
        when it was interrupted.
    """
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", help="a YAML file, or the name of one in configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted settings, such as workers=4")
    does = parser.add_mutually_exclusive_group()
    does.add_argument("--dry-run", action="store_true", help="say what would run and what it would take; leave nothing")
    does.add_argument("--report", action="store_true", help="write the report of a sweep whose runs have all ended")
    does.add_argument("--part", default="", metavar="LABEL", help="one run, or the report, as a launcher deals it out")
    parser.add_argument(
        "--contrast",
        nargs=2,
        action="append",
        default=[],
        metavar=("ARM", "AGAINST"),
        help="with --report: a further contrast, which is exploratory",
    )
    options = parser.parse_intermixed_args(given)
    if options.contrast and not options.report:
        parser.error("--contrast goes with --report")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        runs = Runs(read_sweep(options.sweep, options.overrides))
        for name in (name for pair in options.contrast for name in pair):
            if name not in runs.file.sweep.arms:
                near = did_you_mean(name, runs.file.sweep.arms)
                parser.error(f"--contrast: no arm {name!r} among {', '.join(runs.file.sweep.arms)}; {near}")
        if not options.part:
            check(runs)
        from experiment.sweep import work  # imports torch, which a bad configuration need not wait for

        return work.execute(runs, options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    as_program(main)
