"""What is merged: sources with their hashes, method, weights, rank, versions. The same recipe gives the same agent."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from merge.methods.interface import MergeMethod
from merge.truncation import parse_rank

FORMAT = "merge-recipe/1"


class RecipeError(ValueError):
    """A recipe that cannot be carried out; the message lists every problem."""


@dataclass(frozen=True)
class Source:
    """One adapter folder."""

    path: Path
    sha256: str | None = None
    """Of its weights; where given, another content is refused."""


@dataclass(frozen=True)
class Recipe:
    """A merge, ready to run."""

    sources: dict[str, list[Source]]
    """Name -> chain of adapters that are summed into one task vector, e.g. a DSA expert and the GBA expert on it."""
    method: MergeMethod
    out: Path
    base_fingerprint: str | None = None
    """None: whatever base the sources agree on."""
    rank: int | str = "sum"
    """Rank of the merged adapter: an integer, "sum", "max" or "energy:0.95"."""
    weights: dict[str, float] = field(default_factory=dict)
    """Name -> factor; 1 where not given."""


def method_settings(method: MergeMethod) -> dict[str, Any]:
    """The class path and all resolved options of a method."""
    return {
        "class_path": f"{type(method).__module__}.{type(method).__qualname__}",
        "init_args": asdict(method.config),
    }


def build_method(class_path: str, init_args: Mapping[str, Any]) -> MergeMethod:
    """Build a merge method from its class path.

    Raises:
        RecipeError: no such class, it is no merge method, or an option is unknown or out of range.
    """
    module_name, _, class_name = class_path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"method.class_path: {class_path!r} cannot be imported: {error}") from error
    config_class = getattr(cls, "Config", None)
    if config_class is None or not hasattr(cls, "merge"):
        raise RecipeError(f"method.class_path: {class_path!r} is no merge method: it needs `Config` and `merge`")
    try:
        options = OmegaConf.merge(OmegaConf.structured(config_class), dict(init_args))
        return cls(OmegaConf.to_object(options))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        accepts = ", ".join(f.name for f in fields(config_class))
        first_line = str(error).splitlines()[0]
        raise RecipeError(f"method.init_args: {first_line} ({class_name} accepts: {accepts})") from error


def load_recipe(path: Path) -> Recipe:
    """Read a recipe written by hand or by an earlier merge.

        sources: {pediatrics: [runs/dsa/pediatrics/adapter], pediatrics.rl: [runs/gba/pediatrics/adapter]}
        method: {class_path: merge.methods.ties.Ties, init_args: {density: 0.2}}
        out: runs/merged/ties

    `base_fingerprint`, `rank` and `weights` may be added. Relative paths start at the recipe's own folder.

    Raises:
        RecipeError: lists every problem found.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected a mapping with the keys sources, method and out")
    allowed = {f.name for f in fields(Recipe)}
    # `format` and `versions` are written by a merge for the reader; they are no settings.
    problems = [
        f"unknown key {k!r}; allowed: {sorted(allowed)}" for k in content.keys() - allowed - {"format", "versions"}
    ]
    problems += [f"key {key!r} is missing" for key in ("sources", "method", "out") if not content.get(key)]
    values: dict[str, Any] = {}

    def attempt(key: str, read: Any) -> None:
        if content.get(key) is None:
            return
        try:
            values[key] = read(content[key])
        except (ValueError, TypeError) as error:
            problems.append(f"{key}: {error}" if not isinstance(error, RecipeError) else str(error))

    attempt("sources", lambda value: read_sources(value, path.parent))
    attempt("method", read_method)
    attempt("out", lambda value: path.parent / value)
    attempt("base_fingerprint", str)
    attempt("rank", lambda value: parse_rank(value) and value)
    attempt("weights", lambda value: checked_weights(value, values.get("sources", value)))
    if problems:
        raise RecipeError("\n".join(f"{path}: {problem}" for problem in problems))
    return Recipe(**values)


def read_sources(value: Any, root: Path) -> dict[str, list[Source]]:
    """Read `name: folder`, `name: [folder, ...]` or `name: [{path: folder, sha256: ...}, ...]`."""
    if not isinstance(value, dict):
        raise RecipeError("sources: expected a mapping of expert names to adapter folders")
    sources = {}
    for name, chain in value.items():
        chain = chain if isinstance(chain, list) else [chain]
        entries = [entry if isinstance(entry, dict) else {"path": entry} for entry in chain]
        if not entries or any(not isinstance(e.get("path"), str) or set(e) - {"path", "sha256"} for e in entries):
            raise RecipeError(f"sources.{name}: expected adapter folders, or {{path, sha256}} each; got {chain!r}")
        sources[str(name)] = [Source(root / entry["path"], entry.get("sha256")) for entry in entries]
    return sources


def read_method(value: Any) -> MergeMethod:
    """Read `{class_path: ..., init_args: {...}}`."""
    if not isinstance(value, dict) or "class_path" not in value or set(value) - {"class_path", "init_args"}:
        raise RecipeError(f"method: expected class_path and init_args, got {value!r}")
    return build_method(value["class_path"], value.get("init_args") or {})


def checked_weights(weights: Mapping[str, float] | None, names: Mapping[str, Any]) -> dict[str, float]:
    """One finite weight per source, 1 where none is given.

    Raises:
        RecipeError: a weight for an unknown source, or not a finite number.
    """
    weights = dict(weights or {})
    if unknown := sorted(set(weights) - set(names)):
        raise RecipeError(f"weights: no sources named {unknown}; sources: {sorted(names)}")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise RecipeError(f"weights.{name}: expected a finite number, got {weight!r}")
    return {name: float(weights.get(name, 1.0)) for name in sorted(names)}


def identity(recipe: Mapping[str, Any]) -> str:
    """A hash of all that decides the result: everything in a written recipe but where things lie."""
    sources = {name: [entry["sha256"] for entry in chain] for name, chain in recipe["sources"].items()}
    essence = {key: value for key, value in recipe.items() if key != "out"} | {"sources": sources}
    return hashlib.sha256(json.dumps(essence, sort_keys=True).encode()).hexdigest()


def written_form(recipe: Recipe, base_fingerprint: str, hashes: Mapping[str, list[str]]) -> dict[str, Any]:
    """The content of recipe.yaml: every default resolved, every source with its hash, paths relative to it."""
    return {
        "format": FORMAT,
        "sources": {
            name: [
                {"path": os.path.relpath(source.path, recipe.out), "sha256": sha256}
                for source, sha256 in zip(recipe.sources[name], hashes[name], strict=True)
            ]
            for name in sorted(recipe.sources)
        },
        "method": method_settings(recipe.method),
        "weights": checked_weights(recipe.weights, recipe.sources),
        "rank": recipe.rank,
        "base_fingerprint": base_fingerprint,
        "out": ".",
        "versions": {name: version(name) for name in ("torch", "safetensors")} | {"python": platform.python_version()},
    }
