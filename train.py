"""Run an experiment: `python train.py --config rl_gba.yaml [key=value ...] [--print-config] [--dry-run]`."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext

from artifacts.interrupts import as_program
from artifacts.ranks import is_first
from configs.complete import SCRIPTS, PrintScript
from configs.load import load
from configs.problems import ConfigError
from configs.show import format_resolved
from experiment.launchers.part import WHOLE, Part
from guards.arguments import Parser
from guards.telling import doing, telling


def main(arguments: list[str]) -> int:
    """Load, build, run.

    Returns:
        0 when everything that was asked for is finished, 1 when it failed, 2 for a bad configuration, 130 when it was
        interrupted.
    """
    parser = Parser(description=__doc__)
    parser.add_argument("--config", required=True, help="a YAML file, or the bare name of one in configs/")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="dotted settings, e.g. trainer.max_steps=10; sft_dsa:seed=1 sets a required one",
    )
    parser.add_argument("--print-config", action="store_true", help="show every setting and where it comes from")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="take a step of each stage, leave nothing, tell the time",
    )
    parser.add_argument(
        "--part",
        default="",
        metavar="train|merge|I/N",
        help="one job's part of the work, as a launcher deals it out: training; what is made in one place; a share of "
        "the questions",
    )
    parser.add_argument(
        "--completion",
        choices=list(SCRIPTS),
        action=PrintScript,
        help='what completes names and keys on the command line; eval "$(python train.py --completion bash)"',
    )
    options = parser.parse_intermixed_args(arguments)
    try:
        part = Part.read(options.part) if options.part else WHOLE
    except ValueError as error:
        parser.error(f"--part: {error}")
    # Idle OpenMP threads sleep instead of spinning: on cores shared with other work, spinning costs more than it saves.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with telling() if is_first() else nullcontext(), doing("reading the settings, and loading what they name"):
            loaded = load(options.config, options.overrides)
            if options.print_config:
                print(format_resolved(loaded))
                return 0
            from experiment.command import execute  # imports torch, which a bad configuration need not wait for

            return execute(loaded, dry_run=options.dry_run, part=part)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    as_program(lambda: main(sys.argv[1:]))
