"""YAML as a tree that remembers where each value was written. Texts, numbers, true, false and null; nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from configs.problems import Problem
from guards.printable import shown

COMMAND_LINE = "command line"
MAX_NODES, MAX_BYTES, MAX_TEXT, MAX_DEPTH = 20_000, 2**17, 100_000, 40
"""Values and bytes per file, characters of a text, mappings and lists in each other: far above any configuration, far
below what nested aliases can expand to."""
NOWHERE = "described nowhere, unlike "
"""Begins what stands for an entry that a list names and nothing below describes; those that are follow."""
REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}", re.ASCII)
"""The one interpolation there is: `${seed}`, `${data.root}`."""
UNPRINTED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
TAG = "tag:yaml.org,2002:"
SCALARS = ("str", "int", "float", "bool", "null")
TAGS = {yaml.MappingNode: ("map",), yaml.SequenceNode: ("seq",), yaml.ScalarNode: SCALARS}
"""What each kind of node may be."""


class Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` that reads 1e-6 as the number it is, and dates as the texts that they are."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Carry out `<<`; of entries with one key the last one counts, so that merges of merges stay small."""
        super().flatten_mapping(node)
        node.value = list({(key.tag, str(key.value)): (key, value) for key, value in node.value}.values())


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in some if tag != f"{TAG}timestamp"]
    for first, some in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    f"{TAG}float",
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
        loader = None
        try:
            if len(text) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} characters")
            loader = Loader(text)
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
            if loader is not None:
                loader.dispose()
        return None

    def tree(self, loader: Loader, node: yaml.Node, path: tuple[str, ...], place: str) -> Tree:
        """One node with everything below it."""
        if not isinstance(node, yaml.MappingNode):
            return Leaf(self.plain(loader, node, path), place)
        self.note_entry(node, path)
        self.refuse_duplicates(node, path)
        loader.flatten_mapping(node)
        children = {}
        for key_node, value_node in node.value:
            key, where = key_node.value, self.place(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != f"{TAG}str":
                name = key if isinstance(key_node, yaml.ScalarNode) else "a list or a mapping"
                message = f"keys are texts, got {name}; YAML reads on, off, yes, no and numbers as values"
                self.problems.append(Problem(where, ".".join(path), name, message, "put the key in quotes"))
            elif not key or len(key) > 200 or not key.isprintable():
                message = f"expected a key of 1 to 200 printable characters, got {shown(key)}"
                self.problems.append(Problem(where, ".".join(path), key, message))
            else:
                children[key] = self.tree(loader, value_node, (*path, key), where)
        return Branch(children, place)

    def plain(self, loader: Loader, node: yaml.Node, path: tuple[str, ...]) -> Any:
        """A scalar or a list with all that is in it, of which no place is kept."""
        if isinstance(node, yaml.MappingNode):
            return plain(self.tree(loader, node, path, self.place(node.start_mark)))
        self.note_entry(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(loader, item, (*path, str(i))) for i, item in enumerate(node.value)]
        try:
            value = loader.construct_object(node)
        except (ValueError, LookupError):  # `!!int x`, a number of thousands of digits
            raise refusal(node, f"cannot be read: {shown(node.value)}") from None
        if isinstance(value, str) and (len(value) > MAX_TEXT or UNPRINTED.search(value)):
            raise refusal(node, f"at most {MAX_TEXT} characters and no control characters make a text: {shown(value)}")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise refusal(node, f"a whole number lies between -2**63 and 2**63, got {shown(value)}")
        return value

    def note_entry(self, node: yaml.Node, path: tuple[str, ...]) -> None:
        """Count a value as often as aliases repeat it, and how deep it lies; refuse what is none of plain data."""
        if node.tag not in [TAG + name for name in TAGS[type(node)]]:
            raise refusal(node, f"the tag {shown(node.tag.replace(TAG, '!!'))} is not taken")
        self.count += 1
        if self.count > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} values; do aliases repeat aliases?")
        if len(path) > MAX_DEPTH:
            raise RecursionError

    def refuse_duplicates(self, node: yaml.MappingNode, path: tuple[str, ...]) -> None:
        """Note every key that one mapping gives twice: YAML would silently keep the last."""
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key_node.tag == f"{TAG}merge":
                continue
            if key in first:
                message = f"given twice in one mapping, first on line {first[key]}"
                dotted, value = ".".join((*path, key)), getattr(value_node, "value", None)
                self.problems.append(Problem(self.place(key_node.start_mark), dotted, value, message, "remove one"))
            first.setdefault(key, key_node.start_mark.line + 1)


def refusal(node: yaml.Node, message: str) -> yaml.YAMLError:
    """The error for a node that is no plain data."""
    return yaml.constructor.ConstructorError(None, None, message, node.start_mark)


def read_overrides(overrides: Sequence[str], problems: list[Problem], place: str = COMMAND_LINE) -> Branch:
    """Turn `a.b=value` arguments into one tree; the value is YAML, a later argument wins over an earlier one."""
    layer = Branch({}, place)
    for argument in overrides:
        key, equals, text = argument.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(part.isprintable() and part for part in parts) or key.startswith("-"):
            hint = "write it without the leading dashes" if key.startswith("-") else ""
            problems.append(Problem(place, "", argument, f"expected key=value, got {shown(argument)}", hint))
            continue
        value = None if len(parts) > MAX_DEPTH else TreeReader(place, problems).read(text)
        if value is None:
            continue
        for part in reversed(parts):
            value = Branch({part: value}, place)
        layer = merge_trees(layer, value)
    return layer


def merge_trees(below: Tree, above: Tree) -> Tree:
    """Lay one tree over another: mappings merge key by key, everything else is replaced.

    A mapping that names another `class_path` drops the `init_args` below: they belong to the class that it replaces. A
    list of names under `specialties` takes those of the ones below.
    """
    if not isinstance(below, Branch) or not isinstance(above, Branch):
        return above
    children = dict(below.children)
    replaced, by = (plain(tree.children.get("class_path")) for tree in (below, above))
    if replaced is not None and by not in (None, replaced):
        children.pop("init_args", None)
    for key, child in above.children.items():
        listed = key == "specialties" and isinstance(child, Leaf) and isinstance(child.value, list)
        over = part_of if listed else merge_trees
        children[key] = over(children[key], child) if key in children else child
    return Branch(children, below.place if above.place.startswith(COMMAND_LINE) else above.place)


def part_of(below: Tree, above: Leaf) -> Tree:
    """Those entries of a mapping that a list names, in its order; a name that has none leads nowhere."""
    if not isinstance(below, Branch) or not all(isinstance(name, str) for name in above.value):
        return above
    nowhere = Leaf(NOWHERE + ", ".join(name for name, child in below.children.items() if plain(child)), above.place)
    return Branch({name: below.children.get(name, nowhere) for name in above.value}, above.place)


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


def interpolated(tree: Branch, problems: list[Problem]) -> dict[str, Any]:
    """The values of a merged tree, each `${key}` replaced by the plain value that is written at that key.

    No reference leads to another one, to a list or to a mapping, and OmegaConf's resolvers (`${oc.env:…}`) are
    refused: a configuration reads nothing but itself, and its size is bounded by what is written.
    """
    values, texts = plain(tree), []

    def look(value: Any, key: str) -> None:
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            below = f"{key}.{name}" if key else str(name)
            if isinstance(item, dict | list):
                look(item, below)
            elif isinstance(item, str) and "${" in item:
                texts.append((below, item))

    look(values, "")
    faults = [(key, text, reference_fault(text, values)) for key, text in texts]
    found = [Problem(place_of(tree, key), key, text, fault) for key, text, fault in faults if fault]
    problems += found
    if len(texts) > 1000:
        problems.append(Problem(tree.place, "", None, "more than 1000 references"))
    if not texts or found or len(texts) > 1000:
        return values
    from omegaconf import OmegaConf  # where there are references, and nowhere else: the project runs without it

    config = OmegaConf.create(values)
    OmegaConf.resolve(config)
    return OmegaConf.to_container(config)


def reference_fault(text: str, values: Mapping[str, Any]) -> str:
    """What is wrong with the references in a text; empty where all of them can be replaced."""
    if "${" in REFERENCE.sub("", text).replace("\\", "${"):
        return "expected ${key} with the dotted key of a value in this configuration; nothing else is looked up or run"
    for name in REFERENCE.findall(text):
        target: Any = values
        for part in name.split("."):
            target = target.get(part, target) if isinstance(target, dict) else values
        if isinstance(target, dict | list) or (isinstance(target, str) and ("${" in target or len(target) > 1000)):
            return f"${{{name}}} must name a number, a short text, true, false or null that is written here"
    return ""
