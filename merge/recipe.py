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
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from merge.dense import Dense
from merge.live import Live
from merge.methods.interface import MergeMethod
from merge.truncation import parse_rank

FORMAT = "merge-recipe/2"
PRESETS = Path(__file__).resolve().parent.parent / "configs" / "merge"
"""Folder of method settings that a recipe may name instead of spelling them out."""


class RecipeError(ValueError):
    """A recipe that cannot be carried out; the message lists every problem."""


@dataclass(frozen=True)
class Source:
    """One adapter folder."""

    path: Path
    sha256: str | None = None
    """Of its weights; where given, another content is refused."""
    relative_to: Path | None = None
    """An adapter to subtract: where training went on inside a copy of the parent, the update since then is meant."""
    relative_to_sha256: str | None = None
    """Of that adapter's weights; where given, another content is refused."""


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
    missing: str = "error"
    """A module that only some experts have: "error" refuses it, "zero" takes it as unchanged by the others."""
    gate: str = "reject"
    """What becomes of a merge that the gates reject: "reject" keeps it apart, "warn" lets it through, recorded."""
    grams: dict[str, Path] = field(default_factory=dict)
    """Name -> safetensors file of input Gram matrices, for methods that need them; see `merge.grams`."""
    gram_sha256: dict[str, str] = field(default_factory=dict)
    """Name -> what that file must hash to, where it is known."""
    live: Live | None = None
    """A model to ask where the method needs Gram matrices and none are given, and for `auto`."""
    dense: Dense | None = None
    """Also write a dense checkpoint, to out/dense/, of an accepted merge; changes nothing of the adapter."""


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
    if config_class is None or not (isinstance(cls, type) and issubclass(cls, MergeMethod)):
        raise RecipeError(
            f"method.class_path: {class_path!r} is no merge method: a subclass of MergeMethod with a `Config`"
        )
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
        method: {class_path: merge.methods.ties.Ties, init_args: {density: 0.2}}    # or a preset's name: caci
        out: runs/merged/ties

    `base_fingerprint`, `rank`, `weights`, `missing`, `gate`, `grams`, `live` and `dense` may be added, and a source may
    be `{path, sha256, relative_to}`. Relative paths start at the recipe's own folder.

    Raises:
        RecipeError: lists every problem found.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        rejected = path.parent / "rejected" / "recipe.yaml"
        hint = f"; the gates rejected this merge, see {rejected}" if rejected.is_file() else ""
        raise RecipeError(f"{path}: there is no such file{hint}") from error
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
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problems.append(f"{key}: {error}" if not isinstance(error, RecipeError) else str(error))

    attempt("sources", lambda value: read_sources(value, path.parent))
    attempt("method", read_method)
    attempt("out", lambda value: path.parent / value)
    attempt("base_fingerprint", str)
    attempt("rank", lambda value: parse_rank(value) and value)
    attempt("weights", lambda value: checked_weights(value, values.get("sources", value)))
    attempt("gate", lambda value: one_of("gate", value, ("reject", "warn")))
    attempt("missing", lambda value: one_of("missing", value, ("error", "zero")))
    attempt("live", lambda value: Live(**{**value, "overrides": tuple(value.get("overrides") or ())}))
    attempt("dense", lambda value: Dense(**{**value, "base": path.parent / value["base"]}))
    attempt("grams", lambda value: read_grams(value, path.parent))
    attempt("gram_sha256", dict)
    if isinstance(content.get("grams"), dict):
        entries = {str(name): entry for name, entry in content["grams"].items() if isinstance(entry, dict)}
        hashes = {name: str(entry["sha256"]) for name, entry in entries.items() if entry.get("sha256")}
        values["gram_sha256"] = values.get("gram_sha256", {}) | hashes
    if problems:
        raise RecipeError("\n".join(f"{path}: {problem}" for problem in problems))
    return Recipe(**values)


def read_sources(value: Any, root: Path) -> dict[str, list[Source]]:
    """Read `name: folder`, `name: [folder, ...]` or `name: [{path: folder, sha256: ...}, ...]`."""
    if not isinstance(value, dict):
        raise RecipeError("sources: expected a mapping of expert names to adapter folders")
    if barred := [name for name in value if "|" in str(name)]:
        raise RecipeError(f"sources: {barred[0]!r}: a name must not hold '|', which stands between pairs in the report")
    sources = {}
    for name, chain in value.items():
        chain = chain if isinstance(chain, list) else [chain]
        entries = [entry if isinstance(entry, dict) else {"path": entry} for entry in chain]
        allowed = {"path", "sha256", "relative_to", "relative_to_sha256"}
        if not entries or any(not isinstance(e.get("path"), str) or set(e) - allowed for e in entries):
            raise RecipeError(
                f"sources.{name}: expected adapter folders, or {{path, sha256, relative_to}} each; got {chain!r}"
            )
        sources[str(name)] = [
            Source(
                root / e["path"],
                e.get("sha256"),
                root / e["relative_to"] if e.get("relative_to") else None,
                e.get("relative_to_sha256"),
            )
            for e in entries
        ]
    return sources


def read_grams(value: Any, root: Path) -> dict[str, Path]:
    """Read `name: file` or `name: {path: file, sha256: ...}`."""
    if not isinstance(value, dict):
        raise RecipeError(f"grams: expected a mapping of expert names to safetensors files, got {value!r}")
    return {str(n): root / (entry["path"] if isinstance(entry, dict) else entry) for n, entry in value.items()}


def one_of(key: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Read one of some words."""
    if value not in allowed:
        raise RecipeError(f"{key}: expected one of {', '.join(allowed)}; got {value!r}")
    return value


def read_method(value: Any) -> MergeMethod:
    """Read `{class_path: ..., init_args: {...}}`, or the name of a preset."""
    if isinstance(value, str):
        value = preset(value)
    if not isinstance(value, dict) or "class_path" not in value or set(value) - {"class_path", "init_args"}:
        raise RecipeError(f"method: expected class_path and init_args, got {value!r}")
    return build_method(value["class_path"], value.get("init_args") or {})


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset: a file of `configs/merge/`.

    Raises:
        RecipeError: there is none of this name.
    """
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        raise RecipeError(f"method: no preset {name!r} in configs/merge; there are {', '.join(names)}")
    return yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))


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
    sources = {
        name: [{key: value for key, value in entry.items() if key not in ("path", "relative_to")} for entry in chain]
        for name, chain in recipe["sources"].items()
    }
    grams = {name: entry["sha256"] for name, entry in recipe["grams"].items()}
    essence = {key: value for key, value in recipe.items() if key != "out"} | {"sources": sources, "grams": grams}
    return hashlib.sha256(json.dumps(essence, sort_keys=True).encode()).hexdigest()


@cache
def code_sha256() -> str:
    """Of this package's sources: what another version of a method made is made again."""
    root = Path(__file__).resolve().parent
    files = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py"))}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def written_form(
    recipe: Recipe, base_fingerprint: str, sources: Mapping[str, list[dict[str, Any]]], grams: Mapping[str, str]
) -> dict[str, Any]:
    """The content of recipe.yaml: every default resolved, every source with its hash, paths relative to it.

    Args:
        recipe: what is carried out.
        base_fingerprint: that the sources agree on.
        sources: name -> hashes of its chain: `sha256`, and `relative_to_sha256` where something is subtracted.
        grams: name -> sha256 of the file.
    """

    def entry(source: Source, hashes: Mapping[str, Any]) -> dict[str, Any]:
        beneath = {"relative_to": os.path.relpath(source.relative_to, recipe.out)} if source.relative_to else {}
        return {"path": os.path.relpath(source.path, recipe.out), **beneath, **hashes}

    return {
        "format": FORMAT,
        "sources": {
            name: [entry(*pair) for pair in zip(recipe.sources[name], sources[name], strict=True)]
            for name in sorted(recipe.sources)
        },
        "method": method_settings(recipe.method),
        "weights": checked_weights(recipe.weights, recipe.sources),
        "rank": recipe.rank,
        "missing": recipe.missing,
        "gate": recipe.gate,
        "grams": {
            name: {"path": os.path.relpath(recipe.grams[name], recipe.out), "sha256": grams[name]}
            for name in sorted(grams)
        },
        "base_fingerprint": base_fingerprint,
        "out": ".",
        "versions": {name: version(name) for name in ("torch", "safetensors")}
        | {"python": platform.python_version(), "merge": code_sha256()},
    }
