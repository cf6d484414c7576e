"""Reads a sweep's file by the rules of all configurations, and each arm's experiment with what the sweep sets in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.build import construct
from configs.check import Checker
from configs.files import choices, find, read_file, spelled, with_choice
from configs.load import reporter, with_short_launcher
from configs.problems import ConfigError, Problem
from configs.tree import COMMAND_LINE, Branch, Leaf, interpolated, merge_trees, place_of, read_overrides
from experiment.sweep.spec import Sweep


@dataclass(frozen=True)
class SweepFile:
    """A sweep as it was read.

    Attributes:
        sweep: what it says.
        path: the file.
        named: the file as the command named it.
        overrides: of the command line.
        tree: every value with its place.
    """

    sweep: Sweep
    path: Path
    named: str
    overrides: tuple[str, ...]
    tree: Branch

    @property
    def root(self) -> Path:
        """Where everything of the sweep lies."""
        return Path(self.sweep.runs_dir) / self.sweep.name

    def config_of(self, arm: str) -> Path:
        """The experiment file of an arm.

        Raises:
            ConfigError: there is none of that name.
        """
        own = self.sweep.arms[arm].config
        key = f"arms.{arm}.config" if own else "config"
        problems: list[Problem] = []
        path = find(own or self.sweep.config, self.path.parent, place_of(self.tree, key), key, problems)
        if path is None:
            raise ConfigError(problems)
        return path

    def placed(self, error: ConfigError, arm: str, place: str = "settings") -> Iterator[Problem]:
        """What is wrong with an arm's experiment, at the line of the sweep's file that says it.

        Args:
            error: of the experiment, for which the sweep's settings are a command line.
            arm: which.
            place: the key below which the tried values stand, `settings` or `grid`.
        """
        for problem in error.problems:
            if not problem.place.startswith(COMMAND_LINE):
                yield problem
                continue
            where = [f"arms.{arm}.{place}", "settings" if place == "settings" else "tuning.grid", f"arms.{arm}", "arms"]
            found = next((key for key in where if self.has(key, problem.key)), None)
            if found is None:
                found = next(key for key in where if key == "arms" or self.has(key, ""))
            key = f"{found}.{problem.key}" if problem.key else found
            message = problem.message if found.startswith(f"arms.{arm}") else f"{problem.message} (for arm {arm})"
            yield replace(problem, place=self.line_of(found, problem.key), key=key, message=message)

    def has(self, key: str, inner: str) -> bool:
        """Whether the file has a mapping at a dotted key, and in it an entry that sets `inner`."""
        node = node_at(self.tree, key)
        return isinstance(node, Branch) and (not inner or entry_for(node, inner) is not None)

    def line_of(self, key: str, inner: str) -> str:
        """Where that entry was written."""
        node = node_at(self.tree, key)
        entry = entry_for(node, inner) if isinstance(node, Branch) else None
        return (entry or node or self.tree).place


def node_at(tree: Branch, key: str) -> Branch | Leaf | None:
    """What stands at a dotted key."""
    node: Branch | Leaf | None = tree
    for part in key.split("."):
        node = node.children.get(part) if isinstance(node, Branch) else None
    return node


def entry_for(node: Branch, key: str) -> Branch | Leaf | None:
    """The entry of a mapping of dotted settings that sets a key, or something above or below it."""
    if key in node.children:
        return node.children[key]
    for name, child in node.children.items():
        own = name.rpartition(":")[2]
        if key == own or key.startswith((f"{own}.", f"{own}[")) or own.startswith(f"{key}."):
            return child
    return None


def read_sweep(name: str, overrides: Sequence[str] = ()) -> SweepFile:
    """Read and check a sweep's own file; its arms' experiments are looked for and not read yet.

    Args:
        name: a path, or the name of a file in the working folder or in configs/.
        overrides: dotted `key=value` arguments; `launcher=NAME` chooses a file of configs/launcher/.

    Raises:
        ConfigError: everything that is wrong with file and command line.
    """
    problems: list[Problem] = []
    path = find(name, Path.cwd(), COMMAND_LINE, "sweep", problems)
    tree = read_file(path, (), problems) if path else None
    if path is None or tree is None:
        raise ConfigError(problems)
    tree = merge_trees(Branch({"name": Leaf(path.stem, "file name")}, tree.place), tree)
    tree = with_short_launcher(tree, problems)
    chosen, others = choices(overrides, ("launcher",))
    for group, choice in chosen.items():
        tree = with_choice(tree, group, choice, problems)
    tree = merge_trees(tree, read_overrides(others, problems))
    given, report = shaped(interpolated(tree, problems)), reporter(tree, problems)
    good = Checker(report).fields(Sweep, given, "", "a sweep")
    if problems:
        raise ConfigError(problems)
    made = SweepFile(construct(Sweep, good), path, spelled(path), tuple(overrides), tree)
    for arm in made.sweep.arms:
        try:
            made.config_of(arm)
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise ConfigError(problems)
    return made


def shaped(given: dict[str, Any]) -> dict[str, Any]:
    """The values of a file; an arm of which nothing is said is the sweep's experiment as it stands."""
    arms = given.get("arms")
    if not isinstance(arms, dict):
        return given
    return {**given, "arms": {name: {} if arm is None else arm for name, arm in arms.items()}}
