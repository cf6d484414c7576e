"""Configuration files: where they are found, what they extend, and the files that stand for a part of an experiment."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from configs.checkpoints import CheckpointError, model_of, names_checkpoint
from configs.problems import Problem, did_you_mean
from configs.tree import COMMAND_LINE, MAX_BYTES, Branch, Leaf, TreeReader, merge_trees, plain
from guards.printable import shown

CONFIGS = Path(__file__).resolve().parent
OWN = ("name", "description")
"""Keys that a file does not hand down through `extends`."""
GROUPS = {"model": ("model",), "data": ("specialties", "data"), "launcher": ("launcher",)}
"""Folder of configs/ -> the sections that `model=NAME`, `data=NAME` or `launcher=NAME` takes from a file in it, in
place of all that the experiment says there."""


def choices(overrides: Sequence[str], groups: Collection[str] = tuple(GROUPS)) -> tuple[dict[str, str], list[str]]:
    """The files that overrides choose per group, and the other overrides.

    Examples:
        >>> choices(["data=real", "data.root=films", "model={class_path: a.B}"])
        ({'data': 'real'}, ['data.root=films', 'model={class_path: a.B}'])
    """
    chosen: dict[str, str] = {}
    others = []
    for argument in overrides:
        key, _, text = argument.partition("=")
        value = plain(TreeReader(COMMAND_LINE, []).read(text)) if key.strip() in groups else None
        if isinstance(value, str) and value:
            chosen[key.strip()] = value
        else:
            others.append(argument)
    return chosen, others


def with_choice(below: Branch, group: str, name: str, problems: list[Problem], asked_by: str = COMMAND_LINE) -> Branch:
    """An experiment's tree with the sections of a group taken from one file, and from it alone.

    A model may be a checkpoint too; see `configs.checkpoints`.
    """
    path = chosen_file(group, name)
    if path is None and group == "model" and names_checkpoint(name):
        model = checkpoint(name, asked_by, problems)
        return below if model is None else Branch({**below.children, group: model}, below.place)
    layer = layer_of(group, name, problems, asked_by)
    if layer is None:
        return below
    taken = {key: child for key, child in layer.children.items() if key in GROUPS[group]}
    if not taken:
        message = f"{spelled(path)} says nothing about {' or '.join(GROUPS[group])}"
        problems.append(Problem(asked_by, group, name, message))
    kept = {key: child for key, child in below.children.items() if key not in GROUPS[group]}
    return Branch({**kept, **taken}, below.place)


def layer_of(group: str, name: str, problems: list[Problem], asked_by: str = COMMAND_LINE) -> Branch | None:
    """What a file of a group says; None, and a problem, where there is none."""
    path = chosen_file(group, name)
    if path is None:
        known = sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))
        more = ", a checkpoint's folder or a hub id of the form organisation/name" if group == "model" else ""
        message = f"no such file: {name!r}; there are {', '.join(known)}, or give a path{more}"
        problems.append(Problem(asked_by, group, name, message, did_you_mean(name, known)))
        return None
    return read_file(path, (), problems)


def chosen_file(group: str, name: str) -> Path | None:
    """The file of a group that a name stands for; None where there is none."""
    places = [folder / file for folder in (CONFIGS / group, Path.cwd()) for file in (name, f"{name}.yaml")]
    return next((place.resolve() for place in places if is_file(place)), None)


def checkpoint(name: str, place: str, problems: list[Problem]) -> Branch | None:
    """The model that a checkpoint's name stands for; None, and a problem, where it stands for none."""
    try:
        model = model_of(name)
    except CheckpointError as error:
        problems.append(Problem(place, "model", name, str(error)))
        return None
    settings = Branch({key: Leaf(value, place) for key, value in model["init_args"].items()}, place)
    return Branch({"class_path": Leaf(model["class_path"], place), "init_args": settings}, place)


def with_checkpoint(tree: Branch, problems: list[Problem]) -> Branch:
    """A file's tree in which a model that is a text is the checkpoint of that name."""
    model = tree.children.get("model")
    if not isinstance(model, Leaf) or not isinstance(model.value, str):
        return tree
    if not names_checkpoint(model.value):
        message = f"expected a checkpoint's folder or a hub id of the form organisation/name, got {shown(model.value)}"
        hint = f"extends: [model/{model.value}.yaml]" if chosen_file("model", model.value) else ""
        problems.append(Problem(model.place, "model", model.value, message, f"write {hint}" if hint else ""))
        found = None
    else:
        found = checkpoint(model.value, model.place, problems)
    others = {key: child for key, child in tree.children.items() if key != "model"}
    return Branch(others if found is None else {**others, "model": found}, tree.place)


def with_own_folder(tree: Branch, beside: Path) -> Branch:
    """A file's tree in which a model's `path` that is a folder beside the file names that folder from anywhere.

    With a `revision` the path is a hub's: a folder has none.
    """
    model = tree.children.get("model")
    settings = model.children.get("init_args") if isinstance(model, Branch) else None
    path = settings.children.get("path") if isinstance(settings, Branch) else None
    if (
        not isinstance(path, Leaf)
        or not isinstance(path.value, str)
        or not path.value
        or "revision" in settings.children
        or not is_folder(beside / path.value)
    ):
        return tree
    named = {**settings.children, "path": Leaf(spelled(beside / path.value), path.place)}
    model = Branch({**model.children, "init_args": Branch(named, settings.place)}, model.place)
    return Branch({**tree.children, "model": model}, tree.place)


def read_file(path: Path, chain: tuple[Path, ...], problems: list[Problem]) -> Branch | None:
    """A file laid over the files that it extends, left to right.

    Args:
        path: an existing file.
        chain: the files that extend this one, outermost first.
        problems: takes what is wrong.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(spelled(path), "", None, f"cannot be read: {error}"))
        return None
    tree = TreeReader(spelled(path), problems).read(text)
    if tree is None:
        return None
    if not isinstance(tree, Branch):
        problems.append(Problem(tree.place, "", tree.value, "expected a mapping of keys and values at the top level"))
        return None
    tree = with_own_folder(with_checkpoint(tree, problems), path.parent)
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
    message = f"expected a file name or a list of them, got {shown(names)}"
    problems.append(Problem(extends.place, "extends", names, message))
    return []


def find(name: str, folder: Path, asked_by: str, key: str, problems: list[Problem]) -> Path | None:
    """A file by name: in a folder, then in `configs/`, with or without `.yaml`."""
    places = [folder / name, CONFIGS / name]
    for place in places:
        for candidate in (place, place.with_name(f"{place.name}.yaml")) if place.name else ():
            if is_file(candidate):
                return candidate.resolve()
    folders = dict.fromkeys(place.parent for place in places)
    found = [file for parent in folders if parent.is_dir() for file in sorted(parent.glob("*.yaml"))]
    files = [name for file in found for name in (file.name, file.stem)]
    looked = ", ".join(spelled(place) for place in dict.fromkeys(places))
    message = f"no such file: {name!r} (looked for {looked})"
    problems.append(Problem(asked_by, key, name, message, did_you_mean(Path(name).name, files)))
    return None


def is_file(path: Path) -> bool:
    """Whether a path leads to a file; one that no file can have leads to none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder; one that no folder can have leads to none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def spelled(path: Path) -> str:
    """The path as the user would type it: relative to the working folder where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def ring(chain: tuple[Path, ...], path: Path) -> str:
    """A cycle of files in words."""
    return " -> ".join(spelled(file) for file in [*chain[chain.index(path) :], path])
