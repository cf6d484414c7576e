"""YAML as a tree that remembers where each value was written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from configs.problems import Problem

COMMAND_LINE = "command line"
MAX_NODES = 100_000
"""Values per file: far above any configuration, far below what nested aliases can expand to."""


class Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` that reads 1e-6 as the number it is; YAML 1.1 wants 1.0e-6 and makes a text of the other."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class Leaf:
    """A scalar or a list, and the place it was written."""

    value: Any
    place: str


@dataclass(frozen=True)
class Branch:
    """A mapping, and the place it was written."""

    children: Mapping[str, Leaf | Branch]
    place: str


Tree = Leaf | Branch


def shown(path: Path) -> str:
    """The path as the user would type it: relative to the working folder where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


class TreeReader:
    """Turns one YAML text into a tree, collecting what is wrong with it."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.name = name
        self.problems = problems
        self.count = 0

    def place(self, mark: yaml.Mark | None) -> str:
        """The place of a node: file and line, or the command line."""
        return self.name if mark is None or self.name.startswith(COMMAND_LINE) else f"{self.name}:{mark.line + 1}"

    def read(self, text: str) -> Tree | None:
        """Parse; None (and a problem) when the text is not YAML."""
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            return Leaf(None, self.name) if node is None else self.tree(loader, node, (), self.place(node.start_mark))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            reason = getattr(error, "problem", None) or str(error).splitlines()[0]
            self.problems.append(Problem(self.place(mark), "", None, f"not valid YAML: {reason}"))
        except RecursionError:
            self.problems.append(Problem(self.name, "", None, "nested too deeply, or an alias that contains itself"))
        except ValueError as error:
            self.problems.append(Problem(self.name, "", None, f"not valid YAML: {error}"))
        finally:
            loader.dispose()
        return None

    def tree(self, loader: Loader, node: yaml.Node, path: tuple[str, ...], place: str) -> Tree:
        """One node with everything below it."""
        if not isinstance(node, yaml.MappingNode):
            self.refuse_bombs(node)
            return Leaf(loader.construct_object(node, deep=True), place)
        self.refuse_duplicates(node, path)
        loader.flatten_mapping(node)
        children = {}
        for key_node, value_node in node.value:
            key, where = key_node.value, self.place(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                shown_key = key if isinstance(key_node, yaml.ScalarNode) else "a list or a mapping"
                message = f"keys are texts, got {shown_key}; YAML reads on, off, yes, no and numbers as values"
                self.problems.append(Problem(where, ".".join(path), shown_key, message, "put the key in quotes"))
                continue
            children[key] = self.tree(loader, value_node, (*path, key), where)
        return Branch(children, place)

    def refuse_bombs(self, node: yaml.Node) -> None:
        """Count a value, and every value below it as often as aliases repeat it."""
        self.count += 1
        if self.count > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} values; do aliases repeat aliases?")
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        for child in children:
            for part in child if isinstance(child, tuple) else (child,):
                self.refuse_bombs(part)

    def refuse_duplicates(self, node: yaml.MappingNode, path: tuple[str, ...]) -> None:
        """Note every key that one mapping gives twice: YAML would silently keep the last."""
        self.count += 1
        if self.count > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} values; do aliases repeat aliases?")
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key in first:
                message = f"given twice in one mapping, first on line {first[key]}"
                dotted = ".".join((*path, key))
                place = self.place(key_node.start_mark)
                self.problems.append(Problem(place, dotted, getattr(value_node, "value", None), message, "remove one"))
            first.setdefault(key, key_node.start_mark.line + 1)


def read_overrides(overrides: Sequence[str], problems: list[Problem], place: str = COMMAND_LINE) -> Branch:
    """Turn `a.b=value` arguments into one tree; the value is YAML, a later argument wins over an earlier one."""
    layer = Branch({}, place)
    for argument in overrides:
        key, equals, text = argument.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts) or key.startswith("-"):
            message = f"expected key=value, got {argument!r}"
            hint = "write it without the leading dashes" if key.startswith("-") else ""
            problems.append(Problem(place, "", argument, message, hint))
            continue
        value = TreeReader(place, problems).read(text)
        if value is None:
            continue
        for part in reversed(parts):
            value = Branch({part: value}, place)
        layer = merge_trees(layer, value)
    return layer


def merge_trees(below: Tree, above: Tree) -> Tree:
    """Lay one tree over another: mappings merge key by key, everything else is replaced.

    A mapping that names another `class_path` drops the `init_args` below: they belong to the class that it replaces.
    """
    if not isinstance(below, Branch) or not isinstance(above, Branch):
        return above
    children = dict(below.children)
    replaced, by = (plain(tree.children.get("class_path")) for tree in (below, above))
    if replaced is not None and by not in (None, replaced):
        children.pop("init_args", None)
    for key, child in above.children.items():
        children[key] = merge_trees(children[key], child) if key in children else child
    return Branch(children, above.place)


def plain(tree: Tree | None) -> Any:
    """The values without their places."""
    if isinstance(tree, Branch):
        return {key: plain(child) for key, child in tree.children.items()}
    return None if tree is None else tree.value


def place_of(tree: Tree, key: str) -> str:
    """Where a dotted key, or the nearest mapping above it, was written."""
    for part in key.split("."):
        if not isinstance(tree, Branch) or part not in tree.children:
            break
        tree = tree.children[part]
    return tree.place
