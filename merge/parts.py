"""Finished parts of something unfinished: what was computed before an interruption is verified and kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from artifacts.manifest import file_sha256
from artifacts.tensor_stream import Planned, planned, write_tensors
from merge.factors import Factors
from merge.peft_layout import tensor_name

PREFIX = ".parts-"


class Parts:
    """One module's factors per file, beside a note of its hash and of what the report needs."""

    def __init__(self, out: Path, identity: str, modules: Sequence[str]) -> None:
        """Take up the parts of the same recipe; those of other recipes are removed.

        Args:
            out: folder of the merged agent.
            identity: of the recipe.
            modules: all that there will be.
        """
        self.folder = folder_of(out / PREFIX, identity)
        self.places = {module: self.folder / f"{number:05d}" for number, module in enumerate(modules)}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.facts: dict[str, dict[str, Any]] = {}
        for module, place in self.places.items():
            if (found := whole(place)) is not None:
                self.facts[module] = found

    def put(self, module: str, factors: Factors, facts: dict[str, Any]) -> None:
        """Keep a module; see `keep`."""
        shapes = {side: list(getattr(factors, side).shape) for side in "AB"}
        plan = [planned(s, shapes[s], lambda s=s: getattr(factors, s)) for s in "AB"]
        told = {"shapes": shapes, "facts": facts}
        self.facts[module] = keep(self.places[module], lambda path: write_tensors(path, plan, {}, durable=False), told)

    def plan(self) -> list[Planned]:
        """The merged adapter's tensors, to be read one at a time."""

        def tensor(module: str, side: str) -> Tensor:
            with safe_open(self.places[module].with_suffix(".safetensors"), framework="pt") as file:
                return file.get_tensor(side)

        return [
            planned(tensor_name(module, side), note["shapes"][side], lambda m=module, s=side: tensor(m, s))
            for module, note in self.facts.items()
            for side in "AB"
        ]


def folder_of(prefix: Path, identity: str) -> Path:
    """Where the parts of something lie; those of others that were made for the same place are removed.

    Args:
        prefix: beginning of the folder's path.
        identity: of what the parts belong to; at least its first 16 characters tell it from others.
    """
    folder = prefix.with_name(f"{prefix.name}{identity[:16]}")
    for other in prefix.parent.iterdir() if prefix.parent.is_dir() else ():
        if other.name.startswith(prefix.name) and other != folder:
            shutil.rmtree(other)
    return folder


def keep(place: Path, write: Callable[[Path], str], told: Mapping[str, Any]) -> dict[str, Any]:
    """Put a part; it counts from the moment its note stands.

    Nothing waits for the disk: a part that a power cut tears does not have the hash that its note says.

    Args:
        place: path without a suffix, in a folder that exists.
        write: writes a safetensors file to the path given, and returns the bytes' sha256.
        told: what else the note shall say.

    Returns:
        The note.
    """
    aside = place.with_suffix(f".{os.getpid()}.tmp")
    try:
        note = {"sha256": write(aside), **told}
        os.replace(aside, place.with_suffix(".safetensors"))
        aside.write_text(json.dumps(note, sort_keys=True, allow_nan=False), encoding="utf-8")
        os.replace(aside, place.with_suffix(".json"))
    finally:
        aside.unlink(missing_ok=True)
    return note


def whole(place: Path) -> dict[str, Any] | None:
    """The note of a part whose file is as it was written, or None."""
    try:
        note = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        return note if file_sha256(place.with_suffix(".safetensors")) == note["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        # Whatever is wrong with a part, computing it again sets it right.
        return None
