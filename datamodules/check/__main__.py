"""Check data before training: one set by its class, or every set of configuration files.

    python -m datamodules.check datamodules.medxpertqa.MedXpertQA root=DIR --json out.json --html out.html
    python -m datamodules.check --config rl_gba.yaml --config data/benchmarks.yaml

Several sets are also compared: what one trains on may stand in no test split of any.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

from configs.build import build
from configs.check import Checker
from configs.load import read, trusted, with_data
from configs.problems import ConfigError, Problem, Report
from configs.schema import Component, Slot
from configs.tree import COMMAND_LINE, plain, read_overrides
from datamodules.base import VQADataModule
from datamodules.batch import Example
from datamodules.check.audit import audit
from datamodules.check.overlap import overlaps
from datamodules.check.report import as_html, as_json, as_lines, may_start
from datamodules.check.sheet import sheet
from datamodules.loading import Demand
from datamodules.prompts import question_text
from datamodules.sight import Sight
from guards.arguments import Parser
from guards.printable import printable_whole


def main(arguments: Sequence[str]) -> int:
    """Check and report.

    Returns:
        0 when training may start, 1 when it may not, 2 for a wrong command or configuration.
    """
    parser = Parser(prog="python -m datamodules.check", description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", metavar="class.path | key=value", help="a DataModule, and its options")
    parser.add_argument("--config", action="append", default=[], help="a YAML file with specialties; may be repeated")
    parser.add_argument("--json", type=Path, help="write everything that was found")
    parser.add_argument("--html", type=Path, help="write a page with a sheet of samples")
    parser.add_argument(
        "--sheet", type=Path, help="write a PNG of samples: pictures as the model gets them, prompt, target"
    )
    parser.add_argument("--pictures", type=int, help="open at most so many picture files per set; default all")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json, or the folder of a model that has one")
    parser.add_argument("--max-tokens", type=int, default=2048, help="longer prompts with traces count as cut off")
    parser.add_argument("--image-tokens", type=int, default=0, help="tokens that a picture adds to a prompt")
    options = parser.parse_intermixed_args(arguments)
    try:
        components, model_folder = asked_for(options.words, options.config)
        tokens = counter(options.tokenizer or model_folder, options.image_tokens)
        sight = sight_of(options.config, options.words)
        sets: list[VQADataModule] = [build(one, specialty=name) for name, one in components.items()]
    except ConfigError as error:
        print(printable_whole(error), file=sys.stderr)
        return 2
    audits = [
        audit(one, limit=options.pictures, tokens=tokens, max_tokens=options.max_tokens, sight=sight) for one in sets
    ]
    found = overlaps(audits)
    if options.json:
        write(options.json, json.dumps(as_json(audits, found), indent=1, ensure_ascii=False) + "\n")
    if options.html:
        write(options.html, as_html(audits, found))
    if options.sheet:
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet(audits).save(options.sheet, "PNG")
    print(printable_whole("\n".join(as_lines(audits, found))))
    return 0 if may_start(audits, found) else 1


def asked_for(words: Sequence[str], configs: Sequence[str]) -> tuple[dict[str, Component], Path | None]:
    """The sets by name, and the folder of the model where a configuration names a local one.

    Raises:
        ConfigError: everything that is wrong with the command or the files.
    """
    problems: list[Problem] = []
    paths, overrides = [w for w in words if "=" not in w], [w for w in words if "=" in w]
    if bool(configs) == bool(paths) or len(paths) > 1:
        message = f"expected one DataModule's class path or --config, got {[*paths, *configs]}"
        raise ConfigError([Problem(COMMAND_LINE, "", None, message)])
    found: dict[str, Component] = {}
    model: Path | None = None
    if paths:
        options = plain(read_overrides(overrides, problems))
        checker = Checker(lambda *fault: problems.append(Problem(COMMAND_LINE, *fault)), trusted(options))
        component = {"class_path": paths[0], "init_args": {n: v for n, v in options.items() if n != "trust"}}
        name = paths[0].rpartition(".")[2]
        checked = checker.component(component, DATA, name)
        found[name] = Component("" if problems else checked["class_path"], {} if problems else checked["init_args"])
    for name in configs:
        try:
            sets = read(Sets, name, overrides, named_sets)
        except ConfigError as error:
            problems += error.problems
            continue
        taken = {key if key not in found else f"{Path(name).stem}.{key}": one for key, one in sets.specialties.items()}
        found.update(taken)
        path = (sets.model or {}).get("init_args", {}).get("path")
        model = model or (Path(path) if isinstance(path, str) and (Path(path) / "tokenizer.json").is_file() else None)
    if problems or not found:
        raise ConfigError(problems or [Problem(COMMAND_LINE, "--config", None, "no specialty is named there")])
    return found, model


DATA = Slot("datamodules.base.VQADataModule")
MODEL = Slot("lightning_modules.families.base.VisionLanguageFamily")


@dataclass(frozen=True)
class Modelled:
    """The model of an experiment's file."""

    model: Annotated[Component, MODEL] | None = None
    trust: list[str] = field(default_factory=list)


def sight_of(configs: Sequence[str], words: Sequence[str]) -> Sight | None:
    """The first model that a configuration names, without its weights, and all traces as its targets; None without one.

    How long an answer may be is the stage's business, and known to `train.py --dry-run`.

    Args:
        configs: files.
        words: of the command, of which `key=value` are settings.

    Raises:
        ConfigError: the model's settings are wrong.
    """
    overrides = [word for word in words if "=" in word]
    for name in configs:
        model = read(Modelled, name, overrides, named_model).model
        if model is not None:
            return Sight(cache(partial(build, model, outline=True)), {"train": Demand(traces=None)})
    return None


def named_model(given: dict[str, Any], report: Report) -> dict[str, Any]:
    """The part of a file that `Modelled` reads."""
    return {name: value for name, value in given.items() if name in ("model", "trust") and value}


@dataclass(frozen=True)
class Sets:
    """What is looked at of an experiment's file."""

    specialties: dict[str, Annotated[Component, DATA]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    model: Any = None
    trust: list[str] = field(default_factory=list)


def named_sets(given: dict[str, Any], report: Report) -> dict[str, Any]:
    """The sets that a file names under `specialties`, with the options that `data` shares, and its model."""
    kept = {name: value for name, value in given.items() if name in ("specialties", "data", "trust") and value}
    if isinstance(given.get("model"), dict) and isinstance(given["model"].get("init_args"), dict):
        kept["model"] = {"init_args": {"path": given["model"]["init_args"].get("path")}}
    return with_data(kept)


def counter(path: Path | None, image_tokens: int) -> Callable[[Example], int] | None:
    """A function that counts the tokens of an example's prompt and longest trace; None without a tokenizer.

    Raises:
        ConfigError: the file is missing or is no tokenizer.
    """
    if path is None:
        return None
    file = path / "tokenizer.json" if path.is_dir() else path
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises plain Exception
        raise ConfigError(
            [Problem(COMMAND_LINE, "--tokenizer", str(path), f"{file}: no tokenizer: {error}")]
        ) from error

    def length(example: Example) -> int:
        traces: Mapping[str, str] = example.reasoning
        texts = [question_text(example), *(example.trace(name) for name in traces)]
        lengths = [len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False)]
        return lengths[0] + max(lengths[1:], default=0) + image_tokens * len(example.images)

    return length


def write(path: Path, text: str) -> None:
    """Write a report, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # file names may hold any byte


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
