"""Reads an experiment: dataclass defaults <- YAML files (`extends`) <- dotted command line.

    loaded = load("rl_gba.yaml", ["module.init_args.temperature=0.7", "sft_dsa:trainer.max_steps=60"])

Every problem is reported at once, before torch is imported where the source files tell what a class takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from configs.problems import ConfigError, Problem, did_you_mean
from configs.resolve import Resolver, origins, resolved
from configs.schema import Experiment
from configs.show import changed_settings, format_resolved
from configs.tree import COMMAND_LINE, Branch, Leaf, TreeReader, merge_trees, place_of, plain, read_overrides, shown

__all__ = ["Loaded", "changed_settings", "format_resolved", "load"]

CONFIGS = Path(__file__).resolve().parent
OWN = ("name", "description")
"""Keys that a file does not hand down through `extends`."""
GROUPS = {"model": ("model",), "data": ("specialties", "data")}
"""Folder of configs/ -> the sections that `model=NAME` or `data=NAME` takes from a file in it, in place of all that
the experiment says there."""
HANDED_ON = (
    *("seed", "runs_dir", "workers", "threads", "budget", "feature_cache"),
    *(f"trainer.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy")),
)
"""Command-line keys that hold for required experiments too: where, how much and by which seed, never what."""


@dataclass(frozen=True)
class Loaded:
    """A checked experiment.

    Attributes:
        experiment: what to run.
        resolved: the same as plain data with every default filled in.
        origins: dotted key of `resolved` -> "file:line", "command line", "file name" or "default of X".
        path: the file.
        required: the experiments it starts from, in the order of `requires`.
        called: the name that the file gives it, by which command-line settings address it.
        arguments: the part of the command line that makes this experiment of the file, and those that it requires.
    """

    experiment: Experiment
    resolved: dict[str, Any]
    origins: dict[str, str]
    path: Path
    required: tuple[Loaded, ...] = ()
    called: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def beneath(self) -> dict[str, Loaded]:
        """Every experiment that this one stands on, oldest first, by what it is called."""
        found: dict[str, Loaded] = {}
        for one in self.required:
            found |= one.beneath | {one.called: one}
        return found


@dataclass(frozen=True)
class Reading:
    """What the reading of one lineage has found so far.

    Attributes:
        problems: everything that is wrong.
        names: experiment by file -> the name that the file gives it, by which overrides address it.
    """

    problems: list[Problem] = field(default_factory=list)
    names: dict[Path, str] = field(default_factory=dict)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read, merge and check an experiment and everything it requires.

    Args:
        path: a file; a bare name is looked up in the working folder, then in `configs/`, with or without `.yaml`.
        overrides: `dotted.key=value` with a YAML value; a key of a component is written out
            (`module.init_args.kl=null`). `model=NAME` and `data=NAME` choose a file of configs/model/ or configs/data/,
            or any other by its path. Those named in `HANDED_ON` reach required experiments too; the seed only where
            they do not state their own. `NAME:dotted.key=value` is for the experiment of the lineage that is called
            NAME, and goes over what is handed on.

    Raises:
        ConfigError: everything that is wrong, one line each.
    """
    reading = Reading()
    loaded = load_one(str(path), Path.cwd(), "command line", overrides, (), reading)
    check_addresses(overrides, list(reading.names.values()), reading.problems)
    if reading.problems or loaded is None:
        raise ConfigError(reading.problems)
    return loaded


def load_one(
    name: str, folder: Path, asked_by: str, overrides: Sequence[str], chain: tuple[Path, ...], reading: Reading
) -> Loaded | None:
    """One experiment and, recursively, those it requires; `chain` holds the experiments that require it."""
    problems = reading.problems
    before = len(problems)
    path = find(name, folder, asked_by, "requires" if chain else "", problems)
    if path is None:
        return None
    if path in chain:
        problems.append(Problem(asked_by, "requires", name, f"experiments require each other: {ring(chain, path)}"))
        return None
    below = read_file(path, (), problems)
    if below is None:
        return None
    called = str(plain(below.children.get("name")) or path.stem)
    reading.names[path] = called
    if chain and "seed" in below.children:  # a required experiment that states its seed keeps it
        overrides = [argument for argument in overrides if argument.partition("=")[0].strip() != "seed"]
    tree = merge_trees(Branch({"name": Leaf(path.stem, "file name")}, below.place), below)
    plainly = [argument for argument in overrides if not addressee(argument)]
    by_name = [argument.partition(":")[2] for argument in overrides if addressee(argument) == called]
    for own, place in ((plainly, COMMAND_LINE), (by_name, f"{COMMAND_LINE} for {called}")):
        chosen, others = choices(own)
        for group, choice in chosen.items():
            tree = with_choice(tree, group, choice, problems)
        tree = merge_trees(tree, read_overrides(others, problems, place))
    resolver = Resolver(tree, problems)
    experiment = resolver.experiment()
    required = load_required(tree, path, overrides, (*chain, path), reading)
    if experiment is None or len(problems) > before:
        return None
    check_models(experiment, required, tree, problems)
    whole = resolved(experiment)
    loaded = Loaded(experiment, whole, origins(whole, tree), path, required, called)
    here = {"", called, *loaded.beneath}
    return replace(loaded, arguments=tuple(argument for argument in overrides if addressee(argument) in here))


def addressee(argument: str) -> str:
    """The experiment that a command-line setting is for by name; empty where it names none.

    Examples:
        >>> addressee("sft_dsa:trainer.max_steps=60"), addressee("model={class_path: a.B}")
        ('sft_dsa', '')
    """
    name, colon, _ = argument.partition("=")[0].partition(":")
    return name.strip() if colon else ""


def check_addresses(overrides: Sequence[str], names: Sequence[str], problems: list[Problem]) -> None:
    """Note every command-line setting that is for an experiment which is not in the lineage."""
    for argument in overrides:
        name = addressee(argument)
        if name and name not in names:
            message = f"no experiment of this lineage is called {name!r}; there are {', '.join(names)}"
            problems.append(Problem(COMMAND_LINE, argument.partition("=")[0], name, message, did_you_mean(name, names)))


def handed_on(overrides: Sequence[str]) -> list[str]:
    """The command-line settings that may concern required experiments too.

    Examples:
        >>> handed_on(["runs_dir=/tmp/runs", "seed=3", "budget=0.1", "name=b", "base:seed=1"])
        ['runs_dir=/tmp/runs', 'seed=3', 'budget=0.1', 'base:seed=1']
    """
    return [given for given in overrides if addressee(given) or given.partition("=")[0].strip() in HANDED_ON]


def choices(overrides: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The files that overrides choose per group, and the other overrides.

    Examples:
        >>> choices(["data=real", "data.root=films", "model={class_path: a.B}"])
        ({'data': 'real'}, ['data.root=films', 'model={class_path: a.B}'])
    """
    chosen: dict[str, str] = {}
    others = []
    for argument in overrides:
        key, _, text = argument.partition("=")
        value = plain(TreeReader(COMMAND_LINE, []).read(text)) if key.strip() in GROUPS else None
        if isinstance(value, str) and value:
            chosen[key.strip()] = value
        else:
            others.append(argument)
    return chosen, others


def with_choice(below: Branch, group: str, name: str, problems: list[Problem]) -> Branch:
    """An experiment's tree with the sections of a group taken from one file, and from it alone."""
    places = [folder / file for folder in (CONFIGS / group, Path.cwd()) for file in (name, f"{name}.yaml")]
    path = next((place.resolve() for place in places if place.is_file()), None)
    if path is None:
        known = sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))
        message = f"no such file: {name!r}; there are {', '.join(known)}, or give a path"
        problems.append(Problem(COMMAND_LINE, group, name, message, did_you_mean(name, known)))
    layer = read_file(path, (), problems) if path else None
    if layer is None:
        return below
    taken = {key: child for key, child in layer.children.items() if key in GROUPS[group]}
    if not taken:
        message = f"{shown(path)} says nothing about {' or '.join(GROUPS[group])}"
        problems.append(Problem(COMMAND_LINE, group, name, message))
    kept = {key: child for key, child in below.children.items() if key not in GROUPS[group]}
    return Branch({**kept, **taken}, below.place)


def check_models(experiment: Experiment, required: Sequence[Loaded], tree: Branch, problems: list[Problem]) -> None:
    """Note required experiments whose weights belong to another kind of model."""
    for parent in required:
        own, other = (one.model.class_path for one in (experiment, parent.experiment))
        if own != other:
            message = (
                f"{own} cannot start from {parent.experiment.name}, which is of {other}; name another experiment in "
                "requires, or requires=[] to take the model's weights as they are published"
            )
            problems.append(Problem(place_of(tree, "model"), "model", own, message))


def load_required(
    tree: Branch, path: Path, overrides: Sequence[str], chain: tuple[Path, ...], reading: Reading
) -> tuple[Loaded, ...]:
    """The experiments that `requires` names."""
    names, node = plain(tree.children.get("requires")), tree.children.get("requires")
    found = []
    for name in names if isinstance(names, list) else []:
        if isinstance(name, str):
            found.append(load_one(name, path.parent, node.place, handed_on(overrides), chain, reading))
    return tuple(loaded for loaded in found if loaded is not None)


def read_file(path: Path, chain: tuple[Path, ...], problems: list[Problem]) -> Branch | None:
    """A file laid over the files that it extends, left to right.

    Args:
        path: an existing file.
        chain: the files that extend this one, outermost first.
        problems: takes what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(shown(path), "", None, f"cannot be read: {error}"))
        return None
    tree = TreeReader(shown(path), problems).read(text)
    if tree is None:
        return None
    if not isinstance(tree, Branch):
        problems.append(Problem(tree.place, "", tree.value, "expected a mapping of keys and values at the top level"))
        return None
    below = Branch({}, tree.place)
    extends = tree.children.get("extends")
    for name in parents(extends, problems):
        parent = find(name, path.parent, extends.place, "extends", problems)
        if parent is not None and parent in (*chain, path):
            message = f"files extend each other: {ring((*chain, path), parent)}"
            problems.append(Problem(extends.place, "extends", name, message))
        elif parent is not None:
            layer = read_file(parent, (*chain, path), problems) or below
            below = merge_trees(below, Branch({k: v for k, v in layer.children.items() if k not in OWN}, layer.place))
    return merge_trees(below, Branch({k: v for k, v in tree.children.items() if k != "extends"}, tree.place))


def parents(extends: Leaf | Branch | None, problems: list[Problem]) -> list[str]:
    """The file names under `extends`: one, or a list."""
    names = plain(extends)
    names = [names] if isinstance(names, str) else [] if names is None else names
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    problems.append(Problem(extends.place, "extends", names, f"expected a file name or a list of them, got {names!r}"))
    return []


def find(name: str, folder: Path, asked_by: str, key: str, problems: list[Problem]) -> Path | None:
    """A file by name: in a folder, then in `configs/`, with or without `.yaml`."""
    places = [folder / name, CONFIGS / name]
    for place in places:
        for candidate in (place, place.with_name(f"{place.name}.yaml")) if place.name else ():
            if candidate.is_file():
                return candidate.resolve()
    folders = dict.fromkeys(place.parent for place in places)
    found = [file for parent in folders if parent.is_dir() for file in sorted(parent.glob("*.yaml"))]
    files = [name for file in found for name in (file.name, file.stem)]
    looked = ", ".join(shown(place) for place in dict.fromkeys(places))
    message = f"no such file: {name!r} (looked for {looked})"
    problems.append(Problem(asked_by, key, name, message, did_you_mean(Path(name).name, files)))
    return None


def ring(chain: tuple[Path, ...], path: Path) -> str:
    """A cycle of files in words."""
    return " -> ".join(shown(file) for file in [*chain[chain.index(path) :], path])
