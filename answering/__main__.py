"""Work with what was trained: experts, merged and integrated agents, bases.

    python -m answering ask   runs/rl_gba/pediatrics --image film.png "How severe is it?" --options mild severe
    python -m answering chat  runs/integrate/agent
    python -m answering serve runs/rl_gba runs/integrate/agent

Each finds the base and the chain of adapters by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from answering import ask_command, chat_command
from answering.serving import serve_command
from artifacts.interrupts import as_program, stop_alike
from guards.arguments import Parser
from guards.printable import printable_lines

COMMANDS = {
    "ask": (ask_command, "ask one question, and see the answer taken apart"),
    "chat": (chat_command, "talk, over several turns and pictures"),
    "serve": (serve_command, "answer over HTTP, as OpenAI's chat completions"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 if a file cannot be read; 2 if what is named, or an option, is refused; 130 if it was interrupted.
    """
    parser = Parser(
        prog="python -m answering", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(command)
    given = parser.parse_args(arguments)
    stop_alike()
    try:
        return COMMANDS[given.command][0].run(given)
    except KeyboardInterrupt:
        print(f"\n{given.command}: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(printable_lines(f"{given.command}: {error}"), file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


if __name__ == "__main__":
    as_program(main)
