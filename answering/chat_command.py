"""`python -m answering chat`: a conversation with what was trained, with pictures wherever they belong."""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from answering.ask_command import decoding_of, guideline_of, say
from answering.conversation import Turn, chat_prompt, reply
from answering.decoding import Decoding
from answering.live_model import LiveModel
from answering.model_commands import add_drawing_options, add_model_options, live_model
from answering.trained import Trained, one
from datamodules.batch import BadExampleError, load_image
from guards.printable import printable, printable_lines

HELP = """Write a line, and the model answers.
/image FILE       show a picture with the next line; may be repeated
/guideline NAME   reason from another perspective from now on; neutral for none
/reset            begin anew
/quit             leave (or Ctrl-D)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("run", help="folder of a run, a merged agent or an adapter; or a base: folder or hub id")
    add_drawing_options(parser)
    add_model_options(parser)


def run(given: Namespace) -> int:
    """Talk until the user leaves."""
    decoding, perspective = decoding_of(given), guideline_of(given.guideline)
    trained = one(given.run, given.base)
    chat = Chat(live_model(given, [trained]), trained, decoding, perspective)
    print(f"{printable(trained.name)}, guideline {perspective[0]}. /help lists the commands.", flush=True)
    chat.talk(typed_lines())
    return 0


def typed_lines() -> Iterable[str]:
    """What the user types, line by line, to its end."""
    while True:
        if sys.stdin.isatty():
            print("\n> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.strip()


@dataclass
class Chat:
    """A conversation under way.

    Attributes:
        model: on the base.
        trained: who answers.
        decoding: how.
        guideline: name and instruction.
        turns: so far.
        pictures: that go with the next line.
    """

    model: LiveModel
    trained: Trained
    decoding: Decoding
    guideline: tuple[str, str]
    turns: list[Turn] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)

    def talk(self, lines: Iterable[str]) -> None:
        """Take lines until one of them leaves; a mistake costs its line and nothing else."""
        with self.model.acting(self.trained.adapters) as policy:
            for line in lines:
                try:
                    if line == "/quit":
                        return
                    if line.startswith("/"):
                        print(self.command(line), flush=True)
                    elif line:
                        self.turn(policy, line)
                except (BadExampleError, ValueError) as error:
                    print(printable_lines(error), flush=True)

    def command(self, line: str) -> str:
        """Do what a line with a slash says, and return what to tell of it.

        Raises:
            ValueError: there is no such guideline.
            BadExampleError: a picture cannot be read.
        """
        name, _, rest = line.partition(" ")
        if name == "/image" and rest.strip():
            file = Path(rest.strip()).expanduser()
            load_image(file)  # so that it is told now
            self.pictures.append(file)
            return f"{len(self.pictures)} picture(s) go with the next line"
        if name == "/guideline" and rest.strip():
            self.guideline = guideline_of(rest.strip())
            return f"guideline {self.guideline[0]}"
        if name == "/reset":
            self.turns, self.pictures = [], []
            return "begun anew"
        return HELP

    def turn(self, policy, text: str) -> None:
        """Answer a line; the turn counts only when it was answered.

        Raises:
            BadExampleError: a picture cannot be read, or there is no room for an answer.
        """
        instruction = self.guideline[1]
        asked = Turn("user", (*self.pictures, f"{text}\n{instruction}" if instruction else text))
        turns = [*self.turns, asked]
        answer = reply(policy, chat_prompt(policy, turns), self.decoding, say)
        print("  (cut off at the limit of tokens)" if answer.truncated else "", flush=True)
        self.turns, self.pictures = [*turns, Turn("assistant", (answer.completion,))], []
