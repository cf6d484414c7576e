"""Reference pages of everything that a configuration may set, made from the classes themselves.

    python -m configs.reference --out .docs/reference        # as `make docs` does

Each page is Markdown: per class its summary, and per setting type, default, range and meaning, as they stand in the
code. The pages are made whenever the site is, and kept nowhere. Slow libraries are stood in for, as when a
configuration is checked.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

from configs.build import imported_config
from configs.check import as_plain
from configs.classes import ROOT, named, world_of
from configs.schema import Slot
from configs.show import flow
from configs.words import bare, expected, kind_of, marked
from guards.arguments import Parser
from guards.ranges import Matches, Range, Ranged, rules_of


@dataclasses.dataclass(frozen=True)
class Page:
    """One page: classes of some files and folders."""

    title: str
    intro: str
    sources: tuple[str, ...]
    """Python files, or folders that are read with all below them, from the project's root."""


PAGES = {
    "experiment": Page(
        "Experiment files",
        "What stands at the top level of a file that `train.py` reads, and in its sections `fit`, `replay`, `trainer` "
        "and `launcher`.",
        ("configs/schema.py", "configs/trainer.py", "experiment/launchers"),
    ),
    "stages": Page(
        "Training stages",
        "The `module` of an experiment. The page [Training](../training.md) says when to change what.",
        ("lightning_modules/*.py",),
    ),
    "rl_parts": Page(
        "Parts of reinforcement learning",
        "Advantages, losses, transfer, engines and reward terms: what goes into the slots of `GBA` and "
        "`PolicyGradient`. [Extend](../extend.md) shows how to write one.",
        tuple(f"lightning_modules/{name}" for name in ("advantages", "losses", "transfer", "engines", "rewards")),
    ),
    "models": Page(
        "Models",
        "The `model` of an experiment: a family of vision-language models, or a model behind an endpoint.",
        ("lightning_modules/families", "endpoints"),
    ),
    "data": Page(
        "Data sets",
        "The `specialties` of an experiment. Options that all of them share stand under `data`.",
        ("datamodules",),
    ),
    "callbacks": Page(
        "Callbacks", "What happens beside the training steps, and after the last of them.", ("callbacks",)
    ),
    "merging": Page(
        "Merge recipes and methods",
        "What `python -m merge run` reads, and the methods that a recipe or the callback `merge` may name.",
        ("merge/recipe.py", "merge/live.py", "merge/methods"),
    ),
    "other_commands": Page(
        "Sweeps, curation, judging",
        "What `python -m experiment.sweep`, `python -m curation` and `python -m judging` read.",
        ("experiment/sweep/spec.py", "curation", "judging"),
    ),
}
"""File name -> page."""


def files(source: str) -> list[Path]:
    """The Python files of a page's source."""
    found = sorted(ROOT.glob(source)) if source.endswith(".py") else sorted((ROOT / source).rglob("*.py"))
    return [path for path in found if path.name not in ("__init__.py", "__main__.py")]


def classes(page: Page) -> Iterator[type]:
    """The classes of a page that have settings, in the order of their files."""
    for path in (path for source in page.sources for path in files(source)):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found = named(f"{module}.{node.name}")
                if settings_of(found) is not None:
                    yield found


def settings_of(cls: type) -> type | None:
    """The dataclass of a class's settings: its `Config`, or itself where it checks ranges."""
    if dataclasses.is_dataclass(cls):
        return cls if issubclass(cls, Ranged) else None
    config = imported_config(cls)
    return config if config and dataclasses.fields(config) else None


@cache
def texts(config: type) -> Mapping[str, str]:
    """Field -> the text that stands below it in the source of the class."""
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(config))).body[0].body
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def meaning(config: type, name: str) -> str:
    """The text of a field, from the nearest class that has one."""
    found = (texts(base).get(name) for base in config.__mro__ if dataclasses.is_dataclass(base))
    return " ".join(next(filter(None, found), "").split())


def kind(hint: Any) -> str:
    """A field's type in words.

    A slot is told by the class that goes into it.
    """
    if slot := marked(hint, Slot):
        names = slot.interface if isinstance(slot.interface, tuple) else (slot.interface,)
        names = [name.rpartition(".")[2] if isinstance(name, str) else name.__name__ for name in names]
        return " or ".join(f"{'an' if name[0] in 'AEIO' else 'a'} `{name}`" for name in names)
    inner = [argument for argument in get_args(bare(hint)) if marked(argument, Slot)]
    if not inner:
        return expected(hint)
    if kind_of(hint) is dict:
        return f"a mapping: {kind(inner[-1])} by name"
    return expected(hint).replace("a mapping", kind(inner[0]))


def written_default(field: dataclasses.Field) -> str:
    """A default as it is written in YAML; of a component, its class alone where it has no options."""
    if "told" in field.metadata:
        return field.metadata["told"]
    if field.default is field.default_factory is dataclasses.MISSING:
        return "required"
    value = as_plain(field.default if field.default is not dataclasses.MISSING else field.default_factory())
    return code(flow(shortened(value)) if value != "" else '""')


def shortened(value: Any) -> Any:
    """A value in which components without options are told by their class path."""
    if isinstance(value, dict):
        alone = "class_path" in value and not value.get("init_args")
        return value["class_path"] if alone else {name: shortened(item) for name, item in value.items()}
    return [shortened(item) for item in value] if isinstance(value, list) else value


def allowed(config: type, name: str) -> str:
    """A field's range in words; empty where its type says all."""
    words = []
    for rule in rules_of(config)[name]:
        if isinstance(rule, Range):
            words.append(str(rule).removeprefix("be ").removeprefix("lie in ") + ("" if rule.finite else ", or `.inf`"))
        elif isinstance(rule, Matches):
            words.append(rule.words)
    return "; ".join(words)


def code(text: str) -> str:
    """Text between marks of code, whatever marks it holds itself."""
    marks = "``" if "`" in text else "`"
    return f"{marks}{text}{marks}" if text else ""


def cell(text: str) -> str:
    """Text that a table's cell can hold, and that no browser takes as markup."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def path_of(cls: type) -> str:
    """The dotted path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def section(cls: type, places: Mapping[type, str]) -> str:
    """A class with its own settings, and links to those that it inherits.

    Args:
        cls: the class.
        places: settings -> page and anchor of the class that they are shown with.
    """
    config = settings_of(cls)
    path = path_of(cls)
    summary = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())
    lines = [f"## {cls.__name__} {{ #{path} }}", "", f"`{path}`", "", cell(summary), ""]
    hints = get_type_hints(config, include_extras=True)
    inherited = [base for base in config.__mro__[1:] if base in places]
    elsewhere = {name for base in inherited for name in base.__dataclass_fields__}
    own = set(inspect.get_annotations(config)) if places[config].endswith(f"#{path}") else set()
    shown = [f for f in dataclasses.fields(config) if f.init and (f.name in own or f.name not in elsewhere)]
    if not own:
        shown = []
        inherited = inherited if places[config].endswith(f"#{path}") else [config]
    if shown:
        lines += ["| setting | type | default | range | meaning |", "|---|---|---|---|---|"]
    for field in shown:
        row = (kind(hints[field.name]), written_default(field), allowed(config, field.name))
        cells = [code(field.name), *row, meaning(config, field.name)]
        lines.append("| " + " | ".join(cell(text) for text in cells) + " |")
    nearest = [b for b in inherited if not any(b is not o and issubclass(o, b) for o in inherited)]
    if nearest:
        links = " and ".join(f"[{places[base].rpartition('.')[2]}]({places[base]})" for base in nearest)
        lines += ["", f"{'It also takes' if shown else 'It takes'} the settings of {links}."]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """File name -> Markdown of every page."""
    with world_of(path_of(Ranged)):
        found = {name: list(classes(page)) for name, page in PAGES.items()}
        places: dict[type, str] = {}
        for name, some in found.items():
            for cls in sorted(some, key=lambda cls: len(cls.__mro__)):
                places.setdefault(settings_of(cls), f"{name}.md#{path_of(cls)}")
        made = {}
        for name, some in found.items():
            page = PAGES[name]
            head = f"# {page.title}\n\n{page.intro} This page is made from the code.\n"
            made[f"{name}.md"] = "\n".join([head, *(section(cls, places) for cls in some)])
    return made


def main() -> None:
    """Write the pages."""
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the pages")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (out / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
