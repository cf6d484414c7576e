"""The command line of a program: argparse, but what it says of a wrong word is short and safe to print."""

from __future__ import annotations

import argparse
from typing import NoReturn

from typing_extensions import override

from guards.printable import printable_lines


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose refusals pass `printable`."""

    @override
    def error(self, message: str) -> NoReturn:
        super().error(printable_lines(message))
