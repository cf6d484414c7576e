"""Reads an experiment: dataclass defaults <- YAML files (`extends`) <- dotted command line.

    loaded = load("rl_gba.yaml", ["module.init_args.temperature=0.7", "sft_dsa:trainer.max_steps=60"])

Every problem is reported at once, before torch is imported where the source files tell what a class takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from configs.adding import asked_for, joined, names_further, takes_further
from configs.build import construct
from configs.check import Checker, as_plain
from configs.files import CONFIGS, choices, find, read_file, ring, with_choice
from configs.problems import ConfigError, Problem, Report, did_you_mean
from configs.schema import Experiment
from configs.shared import trusted, with_data
from configs.show import flattened
from configs.trainer import check_trainer
from configs.tree import COMMAND_LINE, NOWHERE, Branch, Leaf, interpolated, merge_trees, place_of, plain, read_overrides

SECTIONS = ("specialties", "data", "callbacks", "trainer", "fit")
"""Keys under which nothing (`callbacks:`) counts as no entries."""
__all__ = ["CONFIGS", "Loaded", "find", "load", "read", "trusted", "with_data"]
HANDED_ON = (
    *("seed", "runs_dir", "workers", "threads", "budget", "feature_cache", "trust"),
    *(f"trainer.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy")),
)
"""Command-line keys that hold for required experiments too: where, how much and by which seed, never what."""
ENOUGH = 500
"""Problems that are kept; nobody reads more."""


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
        notes: what is in order and should be known all the same, a line each.
    """

    experiment: Experiment
    resolved: dict[str, Any]
    origins: dict[str, str]
    path: Path
    required: tuple[Loaded, ...] = ()
    called: str = ""
    arguments: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def all_notes(self) -> list[str]:
        """Those of the whole lineage, each once, behind the names of the experiments that it is about."""
        told: dict[str, list[str]] = {}
        for one in (*self.beneath.values(), self):
            for note in one.notes:
                told.setdefault(note, []).append(one.experiment.name)
        return [f"{', '.join(names)}: {note}" for note, names in told.items()]

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
            or any other by its path; `model=` also takes a checkpoint's folder or hub id. Those named in `HANDED_ON`
            reach required experiments too; the seed only where they do not state their own. `NAME:dotted.key=value`
            is for the experiment of the lineage that is called NAME, and goes over what is handed on.
            `specialty=NAME data=FILE` adds a specialty; see `configs.adding`.

    Raises:
        ConfigError: everything that is wrong, one line each.
    """
    reading = Reading()
    loaded = load_one(str(path), Path.cwd(), "command line", overrides, (), reading)
    check_addresses(overrides, list(reading.names.values()), reading.problems)
    if reading.problems or loaded is None:
        raise ConfigError(reading.problems)
    return loaded


def read(
    config: type, name: str, overrides: Sequence[str] = (), shape: Callable[[dict[str, Any], Report], Any] | None = None
) -> Any:
    """Read another kind of configuration, such as a merge's recipe or a curation's settings, by the same rules.

    Args:
        config: dataclass of what the file may say; its field `trust`, if any, as of `Experiment`.
        name: a path, or the name of a file in the working folder or in configs/.
        overrides: dotted `key=value` arguments.
        shape: writes short forms out; takes the values, and a report for what is wrong with them.

    Returns:
        The dataclass, with `Component`s or mappings of `class_path` and `init_args` where it has slots.

    Raises:
        ConfigError: everything that is wrong with file and command line.
    """
    problems: list[Problem] = []
    path = find(name, Path.cwd(), COMMAND_LINE, "--config", problems)
    tree = read_file(path, (), problems) if path else None
    if tree is None:
        raise ConfigError(problems)
    groups = [one.name for one in fields(config) if one.name in ("model", "launcher")]
    tree = with_short_launcher(tree, problems) if "launcher" in groups else tree
    chosen, overrides = choices(overrides, groups)
    for group, choice in chosen.items():
        tree = with_choice(tree, group, choice, problems)
    tree = merge_trees(tree, read_overrides(overrides, problems))
    given, report = interpolated(tree, problems), reporter(tree, problems)
    good = Checker(report, trusted(given)).fields(config, shape(given, report) if shape else given, "")
    if problems:
        raise ConfigError(problems)
    return construct(config, good)


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
    called, name, adding = str(plain(below.children.get("name")) or path.stem), path.stem, takes_further(below)
    reading.names[path] = called
    if chain and "seed" in below.children:  # a required experiment that states its seed keeps it
        overrides = [argument for argument in overrides if argument.partition("=")[0].strip() != "seed"]
    if chain and not adding:
        overrides = [argument for argument in overrides if not names_further(argument)]
    plainly = [argument for argument in overrides if not addressee(argument)]
    if adding:
        further, described_in = asked_for(plainly, problems)
        below, name = joined(below, further, described_in, problems), "_".join([path.stem, *further])
        plainly = [argument for argument in plainly if not names_further(argument)]
    tree = merge_trees(Branch({"name": Leaf(name, "file name")}, below.place), below)
    tree = with_short_launcher(tree, problems)
    by_name = [argument.partition(":")[2] for argument in overrides if addressee(argument) == called]
    for own, place in ((plainly, COMMAND_LINE), (by_name, f"{COMMAND_LINE} for {called}")):
        chosen, others = choices(own)
        for group, choice in chosen.items():
            tree = with_choice(tree, group, choice, problems)
        tree = merge_trees(tree, read_overrides(others, problems, place))
    given = interpolated(tree, problems)
    required = load_required(tree, path, handed_on(overrides, adding), (*chain, path), reading)
    checker = Checker(reporter(tree, problems), trusted(given))
    notes: list[str] = []
    experiment = checked_experiment(given, checker, notes)
    if experiment is None or len(problems) > before:
        return None
    check_models(experiment, required, tree, problems)
    whole = checker.with_defaults(as_plain(experiment))
    loaded = Loaded(experiment, whole, origins(whole, tree), path, required, called, notes=tuple(notes))
    here = {"", called, *loaded.beneath}
    return replace(loaded, arguments=tuple(argument for argument in overrides if addressee(argument) in here))


def with_short_launcher(tree: Branch, problems: list[Problem]) -> Branch:
    """A file's tree in which `launcher: slurm` is what configs/launcher/slurm.yaml says."""
    short = plain(tree.children.get("launcher"))
    if not isinstance(short, str):
        return tree
    return with_choice(tree, "launcher", short, problems, tree.children["launcher"].place)


def checked_experiment(given: dict[str, Any], checker: Checker, notes: list[str]) -> Experiment | None:
    """The experiment, or None when something is wrong with it; `notes` takes what a reader should know."""
    given = {key: {} if value is None and key in SECTIONS else value for key, value in given.items()}
    given = with_data(given, notes)
    if refuse_nowhere(given.get("specialties"), checker.report):
        return None
    if isinstance(given.get("trainer"), dict):
        training = given.get("module") is not None
        given["trainer"] = check_trainer(given["trainer"], checker, checker.report, training=training)
    elif given.get("module") is not None:
        check_trainer({}, checker, checker.report, training=True)
    good = checker.fields(Experiment, given, "", "an experiment")
    try:
        return construct(Experiment, good)
    except Exception:  # said already
        return None


def refuse_nowhere(sets: Any, report: Report) -> bool:
    """Note the specialties that a list names and nothing describes; True where there are any."""
    entries = sets.items() if isinstance(sets, dict) else ()
    nowhere = {name: one for name, one in entries if isinstance(one, str) and one.startswith(NOWHERE)}
    for name, one in nowhere.items():
        known = one.removeprefix(NOWHERE)
        message = f"is described nowhere here; a list takes some of those that are: {known}"
        report(f"specialties.{name}", name, message, did_you_mean(name, known.split(", ")))
    return bool(nowhere)


def reporter(tree: Branch, problems: list[Problem]) -> Report:
    """Notes each fault once, at the place where its key was written; of options that `data` shares, there."""

    def note(key: str, value: Any, message: str, suggestion: str = "") -> None:
        written = key.partition("[")[0]
        parts = written.split(".")
        if parts[0] == "specialties" and parts[2:3] == ["init_args"] and len(parts) > 3:
            shared = ".".join(["data", *parts[3:]])
            if origin_of(".".join(parts[:4]), tree) is None and origin_of(".".join(["data", parts[3]]), tree):
                key, written, message = shared + key[len(written) :], shared, f"{message} (for specialty {parts[1]})"
        problem = Problem(place_of(tree, written), key, value, message, suggestion)
        if len(problems) < ENOUGH and problem not in problems:
            problems.append(problem)

    return note


def origin_of(key: str, tree: Branch) -> str | None:
    """The place where a dotted key was written, in a list's case where the list was; None where it was not."""
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, Branch) or part not in node.children:
            return None
        node = node.children[part]
    return node.place


def origins(whole: Mapping[str, Any], tree: Branch) -> dict[str, str]:
    """Dotted key of every resolved value -> "file:line", "command line" or "default of X"."""
    found = {}
    for key in flattened(whole):
        parts = key.split(".")
        start = (
            2 if parts[0] in ("specialties", "callbacks") else 1 if parts[0] in ("model", "module", "launcher") else 0
        )
        inside = start and len(parts) > start
        component = reduce(getitem, parts[:start], whole)
        owner = component["class_path"].rpartition(".")[2] if inside else "Experiment"
        shared = origin_of(".".join(["data", *parts[3:]]), tree) if parts[0] == "specialties" and parts[3:] else None
        found[key] = origin_of(key, tree) or shared or f"default of {owner}"
    return found


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


def handed_on(overrides: Sequence[str], adding: bool = False) -> list[str]:
    """The command-line settings that may concern required experiments too.

    Args:
        overrides: of the experiment that requires them.
        adding: whether it takes a further specialty, which is then handed on too.

    Examples:
        >>> handed_on(["runs_dir=/tmp/runs", "seed=3", "budget=0.1", "name=b", "base:seed=1"])
        ['runs_dir=/tmp/runs', 'seed=3', 'budget=0.1', 'base:seed=1']
    """
    return [
        given
        for given in overrides
        if addressee(given) or given.partition("=")[0].strip() in HANDED_ON or (adding and names_further(given))
    ]


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
            continue
        own, other = (one.model.init_args.get("path") for one in (experiment, parent.experiment))
        if own != other:
            message = (
                f"{own} cannot start from {parent.experiment.name}, which is of {other}; give both the same model, on "
                f"the command line by {parent.called}:model={own}"
            )
            problems.append(Problem(place_of(tree, "model.init_args.path"), "model.init_args.path", own, message))


def load_required(
    tree: Branch, path: Path, handed: Sequence[str], chain: tuple[Path, ...], reading: Reading
) -> tuple[Loaded, ...]:
    """The experiments that `requires` names, with the settings that are handed on to them."""
    names, node = plain(tree.children.get("requires")), tree.children.get("requires")
    found = []
    for name in names if isinstance(names, list) else []:
        if isinstance(name, str):
            found.append(load_one(name, path.parent, node.place, handed, chain, reading))
    return tuple(loaded for loaded in found if loaded is not None)
