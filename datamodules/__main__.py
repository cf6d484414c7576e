"""Describe a table of questions as a specialty, without code: propose the columns, show what is read, check it.

    python -m datamodules new dental --from questions.csv --images films
    python -m datamodules new dental --from questions.csv columns.answer=label answer_as=index_from_1

Writes configs/data/NAME.yaml, which it never writes over, and a picture of samples. Every other setting of
`datamodules.table.Table` may be given as key=value.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.check import Checker
from configs.files import CONFIGS, spelled
from configs.problems import ConfigError, Problem
from configs.schema import TAKEN, Slot, check_name
from configs.tree import COMMAND_LINE, plain, read_overrides
from datamodules.batch import BadExampleError
from datamodules.check.__main__ import main as check
from datamodules.proposal.answers import UnclearError
from datamodules.proposal.draft import CLASS, as_yaml, propose, settings_of
from datamodules.proposal.roles import Draft
from datamodules.proposal.sample import Sample, sample_of
from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole

WRONG = 2
"""Exit code of a wrong command, of a table that cannot be read, and where nothing can be proposed."""


def main(arguments: Sequence[str]) -> int:
    """Propose, write, show and check.

    Returns:
        As the check: 0 when training may start, 1 when it may not; 2 where nothing was written.
    """
    parser = Parser(prog="python -m datamodules", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new", help="describe a table as a specialty")
    new.add_argument("name", help="of the specialty: letters, digits, '_' and '-'")
    new.epilog = "key=value says what is known already, such as columns.answer=label"
    new.add_argument("--from", dest="table", type=Path, required=True, help="a .csv, .tsv, .json(l) or .parquet file")
    new.add_argument("--images", type=Path, help="folder of the pictures; else it is looked for beside the table")
    new.add_argument("--out", type=Path, help="the YAML file; configs/data/NAME.yaml without it")
    new.add_argument("--sheet", type=Path, help="the picture of samples; NAME-sheet.png without it")
    words = [word for word in arguments if "=" in word and not word.startswith("-")]
    options = parser.parse_args([word for word in arguments if word not in words])
    out = options.out or CONFIGS / "data" / f"{options.name}.yaml"
    try:
        sample, draft = proposed(options.name, options.table, options.images, words, out)
        command = f"python -m datamodules {shlex.join(arguments)}"
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as file:  # never over another one
            file.write(as_yaml(options.name, sample, draft, command))
    except ConfigError as error:
        print(printable_whole(error), file=sys.stderr)
        return WRONG
    except (BadExampleError, UnclearError, OSError, ValueError) as error:
        print(printable_lines(f"nothing is written: {error}"), file=sys.stderr)
        return WRONG
    print(printable_whole("\n".join(told(sample, draft, out))), flush=True)
    sheet = options.sheet or Path(f"{options.name}-sheet.png")
    code = check(["--config", str(out), "--sheet", str(sheet)])
    print(printable_whole("\n".join(next_steps(options.name, out, sheet, code))))
    return code


def proposed(name: str, table: Path, images: Path | None, words: Sequence[str], out: Path) -> tuple[Sample, Draft]:
    """The table and what is proposed for it.

    Raises:
        ConfigError: a setting is wrong.
        UnclearError: nothing can be proposed.
        BadExampleError: the table cannot be read.
        ValueError: the name is none.
        OSError: the file is there already.
    """
    check_name("specialty", name)
    if name in TAKEN:
        raise ValueError(f"specialty {name!r} is the name of another folder of an experiment: {', '.join(TAKEN)}")
    if "." in name:
        raise ValueError(f"specialties are addressed by dotted keys, so {name!r} must not have a dot")
    if out.exists():
        raise FileExistsError(
            f"{spelled(out)} is there already, and is not written over; choose another name, or delete it"
        )
    if images is not None and not images.is_dir():
        raise NotADirectoryError(f"--images {images}: no such folder")
    problems: list[Problem] = []
    given = plain(read_overrides(words, problems))
    sample = sample_of(table)
    draft = propose(sample, images, given if not problems else {})
    checker = Checker(lambda *fault: problems.append(Problem(COMMAND_LINE, *fault)))
    component = {"class_path": CLASS, "init_args": settings_of(sample, draft)}
    checker.component(component, Slot("datamodules.base.VQADataModule"), name)
    if problems:
        raise ConfigError(problems)
    return sample, draft


def told(sample: Sample, draft: Draft, out: Path) -> list[str]:
    """What was found, why, and what remains unsure."""
    lines = [f"{sample.path}: {len(sample.rows)} rows, {len(sample.columns)} columns"]
    lines += [f"  {one}" for one in sample.said]
    lines += [f"  {len(sample.faults)} rows could not be read, such as {sample.faults[0]}"] if sample.faults else []
    found = [(role, held, draft.reasons.get(role, "")) for role, held in draft.columns.items() if held]
    found += [(key, held, draft.why.get(key, "")) for key, held in draft.settings.items()]
    lines += [f"  {name:12} {held!s:36} {why}".rstrip() for name, held, why in found]
    lines += [f"  UNSURE: {one}" for one in draft.unsure]
    return [*lines, f"written: {spelled(out)}", ""]


def next_steps(name: str, out: Path, sheet: Path, code: int) -> list[str]:
    """What to do with it."""
    file = name if out.parent.resolve() == CONFIGS / "data" else spelled(out)
    lines = ["", f"look at {sheet}: pictures, prompts and targets as the model gets them"]
    if code:
        return [*lines, f"then mend the rows above, or leave them out by on_bad_row: skip in {spelled(out)}"]
    return [
        *lines,
        f"then beside finished experts: python train.py --config add_specialty.yaml specialty={name} data={file}",
        f"or alone: python train.py --config sft_dsa.yaml name=sft_{name} data={file} data.answer_with=text",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
