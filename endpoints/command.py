"""What the commands that ask models share: the words of their command line, and how they end."""

from __future__ import annotations

import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Mapping

from artifacts.interrupts import stop_alike
from guards.printable import printable_lines

UNFINISHED = 3


def add_words(parser: ArgumentParser, commands: Mapping[str, str]) -> None:
    """Take a command, its words, --config and --dry-run.

    Args:
        parser: of the program.
        commands: name -> what it does; `run` is the one that asks.
    """
    told = "; ".join(f"{name}: {what}" for name, what in commands.items())
    parser.add_argument("command", choices=tuple(commands), help=told)
    parser.add_argument("words", nargs="*", metavar="key=value | FOLDER", help="settings; for report and such, folders")
    parser.add_argument("--config", help="a YAML file, or one below configs/; where something is read or asked")
    parser.add_argument(
        "--dry-run", action="store_true", help="with run: tell what would be asked, and take at most; ask nobody"
    )


def ended(work: Callable[[], int | None]) -> int:
    """Do the work and say how it ended.

    Returns:
        What the work returns, else 0; 1 if it failed; 2 for a wrong configuration; 3 if replies are missing and the
        same command goes on; 130 when it was interrupted, likewise.
    """
    from configs.problems import ConfigError
    from endpoints.asking import UnfinishedError

    warnings.filterwarnings("ignore", category=FutureWarning)
    stop_alike()
    try:
        return work() or 0
    except (KeyboardInterrupt, SystemExit):
        print("interrupted; every reply that came is kept, and the same command goes on", file=sys.stderr)
        return 130
    except UnfinishedError as error:
        print(f"unfinished: {error}", file=sys.stderr)
        return UNFINISHED
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (ValueError, OSError, RuntimeError) as error:
        print(printable_lines(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 1
