"""A specialty that joins those of an experiment's files: `specialty=dental data=dental` on the command line.

A file that takes one says so by the key `specialty`, and has no other use of it. Experiments that it requires, and that
say so too, are given the same; all others stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.files import choices, layer_of
from configs.problems import Problem, did_you_mean
from configs.shared import options_of, trusted
from configs.tree import COMMAND_LINE, Branch, Leaf, TreeReader, merge_trees, plain

KEY = "specialty"


def takes_further(file: Branch) -> bool:
    """Whether an experiment's file takes a further specialty."""
    return KEY in file.children


def names_further(argument: str) -> bool:
    """Whether a command-line setting names a further specialty, or the file that describes it."""
    return argument.partition("=")[0].strip() == KEY or "data" in choices([argument], ("data",))[0]


def asked_for(overrides: Sequence[str], problems: list[Problem]) -> tuple[list[str], str | None]:
    """The names of the specialties that are asked for, and the file that describes them; None: one of their name."""
    names: list[str] = []
    for argument in overrides:
        key, _, text = argument.partition("=")
        if key.strip() == KEY:
            value = plain(TreeReader(COMMAND_LINE, problems).read(text))
            names = [value] if isinstance(value, str) else value if isinstance(value, list) else [str(value)]
    return [str(name) for name in names], choices(overrides, ("data",))[0].get("data")


def joined(file: Branch, names: Sequence[str], described_in: str | None, problems: list[Problem]) -> Branch:
    """An experiment's tree with further specialties beside its own.

    Args:
        file: of the experiment.
        names: of the further ones.
        described_in: file of configs/data/, or a path; None takes for each the file of its own name.
        problems: takes what is wrong.
    """
    kept = {key: child for key, child in file.children.items() if key != KEY}
    if not names:
        message = "missing; name it, and the file that describes it: specialty=NAME data=FILE"
        hint = "python -m datamodules new NAME --from TABLE writes such a file"
        note(problems, KEY, None, message, hint)
        return Branch(kept, file.place)
    own = kept.get("specialties")
    entries = dict(own.children) if isinstance(own, Branch) else {}
    for name in names:
        if name in entries:
            message = f"{name!r} is one of those that are there already ({', '.join(entries)}); call it otherwise"
            note(problems, KEY, name, message)
        elif (entry := described(name, described_in or name, problems)) is not None:
            entries[name] = entry
    return Branch({**kept, "specialties": Branch(entries, own.place if own else file.place)}, file.place)


def described(name: str, file: str, problems: list[Problem]) -> Branch | None:
    """One specialty as a file of configs/data/ describes it, with those options that the file's sets share."""
    layer = layer_of("data", file, problems)
    if layer is None:
        return None
    known = plain(layer.children.get("specialties"))
    entry: Any = layer.children["specialties"].children.get(name) if isinstance(known, dict) else None
    if not isinstance(entry, Branch):
        there = list(known) if isinstance(known, dict) else []
        message = f"{layer.place} describes no specialty {name!r}; there are {', '.join(there) or 'none'}"
        note(problems, KEY, name, message, did_you_mean(name, there))
        return None
    shared = layer.children.get("data")
    if not isinstance(shared, Branch):
        return entry
    taken = {one: options_of(component, trusted(plain(layer))) for one, component in known.items()}
    others = {key for key in shared.children if any(own is not None and key in own for own in taken.values())}
    fit = {k: v for k, v in shared.children.items() if taken[name] is None or k in taken[name] or k not in others}
    below = {
        "class_path": entry.children.get("class_path", Leaf(None, entry.place)),
        "init_args": Branch(fit, shared.place),
    }
    return merge_trees(Branch(below, entry.place), entry)


def note(problems: list[Problem], key: str, value: Any, message: str, suggestion: str = "") -> None:
    """Note what is wrong with the command line, once for all the experiments that it is handed on to."""
    problem = Problem(COMMAND_LINE, key, value, message, suggestion)
    if problem not in problems:
        problems.append(problem)
