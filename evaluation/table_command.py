"""A command that reads folders of experiments and makes one table of them: printed, and written where asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Made:
    """What a command made of the folders.

    Attributes:
        text: the table in Markdown, with its caption.
        csv: every number in full.
        figure: draws the same; None where there is nothing to draw.
        others: further files, name -> content.
    """

    text: str
    csv: str
    figure: Callable[[], Figure] | None = None
    others: Mapping[str, str] = field(default_factory=dict)


def table_command(
    name: str,
    module: str,
    about: str | None,
    place: str,
    make: Callable[..., Made],
    arguments: Sequence[str] | None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Run the command line: print the table, and write it with its figure.

    Args:
        name: of the files, without their ending.
        module: as which it is called.
        about: what is said of it by `--help`.
        place: what folders of one name, or in one folder, are to each other.
        make: folders, and by name the value of each option, None where it is not given -> table. Raises OSError where
            a file is missing, ValueError where one cannot be used.
        arguments: of the command line.
        options: name -> what is said of it by `--help`.

    Returns:
        0; 1 if a file is missing; 2 if one cannot be used.
    """
    parser = Parser(prog=f"python -m {module}", description=about)
    parser.add_argument("experiments", nargs="+", type=Path, help=f"folders of experiments; {place}")
    parser.add_argument("--out", type=Path, help=f"folder for {name}.md, {name}.csv and, where it is drawn, {name}.png")
    for option, told in options.items():
        parser.add_argument(f"--{option}", help=told)
    given = parser.parse_args(arguments)
    try:
        made = make(given.experiments, **{option: getattr(given, option) for option in options})
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
            (given.out / f"{name}.md").write_text(made.text + "\n", encoding="utf-8")
            (given.out / f"{name}.csv").write_text(made.csv, encoding="utf-8")
            for file, content in made.others.items():
                (given.out / file).write_text(content, encoding="utf-8")
            if made.figure is not None:
                made.figure().savefig(given.out / f"{name}.png", dpi=150)
    except (ValueError, OSError) as error:
        print(printable_lines(error), file=sys.stderr)
        return 1 if isinstance(error, OSError) else 2
    print(printable_whole(made.text))
    return 0
