"""The proposal as a whole, and as the YAML file that it becomes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from datamodules.cells import SEVERAL, written_list
from datamodules.columns import Columns
from datamodules.proposal.answers import UnclearError, find_answers
from datamodules.proposal.roles import Draft, find_roles, find_tags
from datamodules.proposal.sample import Sample, distinct

ASK = "What does the picture show?"
CLASS = "datamodules.table.Table"
MOST_NAMES = 200
"""Names of pictures that are looked for in a folder."""
ROLES = tuple(field.name for field in fields(Columns))
"""What a column may hold."""


def propose(sample: Sample, images: Path | None, given: Mapping[str, Any]) -> Draft:
    """What the columns of a table are likely to hold.

    Args:
        sample: of the table.
        images: folder of the pictures; None looks for it.
        given: settings that somebody has said, `columns` among them; they stand.

    Raises:
        UnclearError: no question or answer can be told, or two ways of reading say different things.
    """
    draft = Draft(columns_in(given), {name: one for name, one in given.items() if name != "columns"})
    unknown = [name for name in draft.used if name and name not in sample.columns]
    if unknown:
        raise UnclearError(f"there is no column {unknown[0]!r}; there are {', '.join(map(repr, sample.columns))}")
    draft.reasons |= dict.fromkeys(draft.columns, "as you said")
    draft.why |= dict.fromkeys(draft.settings, "as you said")
    find_roles(sample, draft)
    find_answers(sample, draft)
    if not draft.columns.get("question") and "ask" not in draft.settings:
        if not draft.columns.get("images"):
            raise UnclearError(
                f"no column is called question or holds questions; there are {', '.join(map(repr, sample.columns))}. "
                "Say which: columns.question=NAME, or what all rows are asked: ask='…'"
            )
        draft.settings["ask"] = ASK
        draft.unsure.append(f"ask: no column holds questions, so that every row is asked {ASK!r}; write a better one")
    draft.columns.setdefault("question", "")
    if "tags" not in draft.columns:
        find_tags(sample, draft)
    find_folder(sample, draft, images)
    left = [name for name in sample.columns if name and name not in draft.used]
    draft.unsure += [f"not used: {', '.join(map(repr, left))}"] if left else []
    if "reasoning" not in draft.columns:
        draft.unsure.append(
            "reasoning: no column has worked chains, so that DSA teaches the answers alone; python -m curation has a "
            "teacher write chains (docs/curation.md)"
        )
    return draft


def columns_in(given: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that somebody has named.

    Raises:
        UnclearError: something else than names stands there.
    """
    columns = given.get("columns", {})
    for role, held in columns.items() if isinstance(columns, dict) else [("", columns)]:
        names = held.values() if isinstance(held, dict) else held if isinstance(held, list) else [held]
        if role and role not in ROLES:
            near = get_close_matches(role, ROLES, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(ROLES)}"
            raise UnclearError(f"there is no columns.{role}{hint}")
        if not role or not all(isinstance(name, str) for name in names):
            raise UnclearError(f"columns.{role} is {held!r}, expected the name of a column, or several")
    return dict(columns)


def find_folder(sample: Sample, draft: Draft, images: Path | None) -> None:
    """The folder that holds the pictures, and the suffix that their names lack.

    Raises:
        UnclearError: a folder was given, and holds none of them.
    """
    names = [name for column in draft.columns.get("images", ()) for name in names_in(sample, column)][:MOST_NAMES]
    root = sample.path.parent
    if not names:
        return
    beside = [root, *sorted(path for path in root.iterdir() if path.is_dir())] if images is None else [images]
    found = {folder: there(folder, names) for folder in beside}
    folder = max(found, key=lambda one: found[one][0])
    count, suffix = found[folder]
    if not count and images is not None:
        raise UnclearError(f"--images {images}: holds none of the pictures that the table names, such as {names[0]!r}")
    if count < len(names):
        draft.unsure.append(f"images: {count} of {len(names)} names of pictures were found in {folder}")
    if suffix:
        draft.settings.setdefault("image_suffix", suffix)
        draft.why["image_suffix"] = "names lack it, and files have it"
    if count and folder != root:
        inside = folder.resolve().is_relative_to(root.resolve())
        draft.settings["images"] = os.path.relpath(folder, root) if inside else str(folder.resolve())
        draft.why["images"] = f"{count} of {len(names)} names of pictures were found there"


def names_in(sample: Sample, column: str) -> list[str]:
    """Names of picture files in a column."""
    found: list[str] = []
    for one in sample.filled(column):
        listed = written_list(one) if isinstance(one, str) else one
        parts = SEVERAL.split(one) if isinstance(one, str) else ()
        found += [name for name in (listed if isinstance(listed, list) else parts) if isinstance(name, str)]
    return found


def there(folder: Path, names: list[str]) -> tuple[int, str]:
    """How many files a folder has by their names, and the suffix that has to be added to them."""
    bare = [name.replace("\\", "/") for name in names]
    endings = ["", *distinct([path.suffix for path in sorted(folder.glob("*.*"))[:MOST_NAMES]])][:5]
    counts = {ending: sum(is_file(folder / f"{name}{ending}") for name in bare) for ending in endings}
    best = max(counts, key=lambda ending: counts[ending])
    return counts[best], best


def is_file(path: Path) -> bool:
    """Whether a path leads to a file; one that no file can have leads to none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def settings_of(sample: Sample, draft: Draft) -> dict[str, Any]:
    """The options of the set, in the order in which a reader wants them."""
    root = sample.path.parent.resolve()
    below = root.is_relative_to(Path.cwd()) and root != Path.cwd()
    columns = {role: draft.columns[role] for role in ROLES if draft.columns.get(role) or role == "question"}
    encoding = {"encoding": sample.encoding} if sample.encoding != "utf-8" else {}
    return {
        "root": str(root.relative_to(Path.cwd())) if below else str(root),
        "file": sample.path.name,
        **encoding,
        **draft.settings,
        "columns": columns,
    }


def as_yaml(name: str, sample: Sample, draft: Draft, command: str) -> str:
    """The file of configs/data/ that describes the specialty."""
    lines = [f"# Written by: {command}", *(f"# unsure: {one}" for one in draft.unsure)]
    lines += ["specialties:", f"  {name}:", f"    class_path: {CLASS}", "    init_args:"]
    for key, held in settings_of(sample, draft).items():
        if key != "columns":
            lines.append(f"      {key}: {flow(held)}{comment(draft.why, key)}")
            continue
        lines.append("      columns:")
        lines += [f"        {role}: {flow(one)}{comment(draft.reasons, role)}" for role, one in held.items()]
    return "\n".join(lines) + "\n"


def flow(held: Any) -> str:
    """A value as one line of YAML."""
    text = yaml.safe_dump(held, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()


def comment(reasons: Mapping[str, str], key: str) -> str:
    """Why, as a comment of YAML."""
    why = reasons.get(key, "")
    return f"  # {' '.join(why.split())}" if why else ""
