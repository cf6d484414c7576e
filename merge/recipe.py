"""What is merged: sources with their hashes, method, weights, rank, versions. The same recipe gives the same agent."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from configs.build import build
from configs.check import Checker
from configs.load import read
from configs.problems import ConfigError, Problem, Report, did_you_mean
from configs.schema import Checked, Component, Slot
from guards.printable import shown
from guards.ranges import FINITE, Ranged
from merge.dense import Dense
from merge.live import Live
from merge.methods.interface import MergeMethod
from merge.truncation import parse_rank

FORMAT = "merge-recipe/2"
PRESETS = Path(__file__).resolve().parent.parent / "configs" / "merge"
"""Folder of method settings that a recipe may name instead of spelling them out."""


@dataclass(frozen=True)
class Source:
    """One adapter folder."""

    path: Path
    sha256: str | None = None
    """The sha256 of its weights; where it is given, another content is refused."""
    relative_to: Path | None = None
    """An adapter to subtract: where training went on inside a copy of the parent, the update since then is meant."""
    relative_to_sha256: str | None = None
    """The sha256 of that adapter's weights; where it is given, another content is refused."""


def source_faults(sources: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the sources besides their form."""
    for name, chain in sources.items():
        if "|" in name:
            yield f"{name!r}: a name must not hold '|', which stands between pairs in the report"
        if not chain:
            yield f"{name!r}: expected adapter folders, or {{path, sha256, relative_to}} each, got none"


def rank_faults(rank: int | str) -> Iterator[str]:
    """What is wrong with a rank."""
    try:
        parse_rank(rank)
    except ValueError as error:
        yield str(error)


@dataclass(frozen=True)
class Recipe(Ranged):
    """A merge, ready to run, and what its YAML may say."""

    sources: Annotated[dict[str, list[Source]], Checked(source_faults)]
    """Name -> chain of adapters that are summed into one task vector, e.g. a DSA expert and the GBA expert on it."""
    method: Annotated[Any, Slot(MergeMethod)]
    """A `MergeMethod`; in YAML its class_path and init_args, or a preset's name."""
    out: Path
    """Folder of the merged adapter, its report and its recipe."""
    base_fingerprint: str | None = None
    """None: whatever base the sources agree on."""
    rank: Annotated[int | str, Checked(rank_faults)] = "sum"
    """Rank of the merged adapter: an integer, "sum", "max" or "energy:0.95"."""
    weights: dict[str, Annotated[float, FINITE]] = field(default_factory=dict)
    """Name -> factor; 1 where not given."""
    missing: Literal["error", "zero"] = "error"
    """A module that only some experts have: "error" refuses it, "zero" takes it as unchanged by the others."""
    gate: Literal["reject", "warn"] = "reject"
    """What becomes of a merge that the gates reject: "reject" keeps it apart, "warn" lets it through, recorded."""
    grams: dict[str, Path] = field(default_factory=dict)
    """Name -> safetensors file of input Gram matrices, for methods that need them; see `merge.grams`."""
    gram_sha256: dict[str, str] = field(default_factory=dict)
    """Name -> what that file must hash to, where it is known."""
    live: Live | None = None
    """A model to ask where the method needs Gram matrices and none are given, and for `auto`."""
    dense: Dense | None = None
    """Also write a dense checkpoint, to out/dense/, of an accepted merge; changes nothing of the adapter."""
    trust: list[str] = field(default_factory=list)
    """Top-level packages besides this project's whose merge methods may be named, and so run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := sorted(set(self.weights) - set(self.sources)):
            raise ValueError(f"weights: no sources named {unknown}; sources: {sorted(self.sources)}")


def method_settings(method: MergeMethod) -> dict[str, Any]:
    """The class path and all resolved options of a method."""
    return {
        "class_path": f"{type(method).__module__}.{type(method).__qualname__}",
        "init_args": asdict(method.config),
    }


def build_method(class_path: str, init_args: Mapping[str, Any], trust: Sequence[str] = ()) -> MergeMethod:
    """Build a merge method from its class path.

    Raises:
        ConfigError: no such class, it is no merge method, or an option is unknown or out of range.
    """
    problems: list[Problem] = []
    checker = Checker(lambda *fault: problems.append(Problem("merge method", *fault)), trust)
    good = checker.component({"class_path": class_path, "init_args": dict(init_args)}, Slot(MergeMethod), "method")
    if problems:
        raise ConfigError(problems)
    return build(Component(**good))


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe written by hand or by an earlier merge.

        sources: {pediatrics: [runs/dsa/pediatrics/adapter], pediatrics.rl: [runs/gba/pediatrics/adapter]}
        method: {class_path: merge.methods.ties.Ties, init_args: {density: 0.2}}    # or a preset's name: caci
        out: runs/merged/ties

    The other fields of `Recipe` may be added, a source may be `{path, sha256, relative_to}`, and Gram matrices
    `name: {path, sha256}`. Relative paths start at the recipe's own folder.

    Raises:
        ConfigError: lists every problem found.
    """
    rejected = path.parent / "rejected" / "recipe.yaml"
    if not path.is_file() and rejected.is_file():
        message = f"there is no such file; the gates rejected this merge, see {rejected}"
        raise ConfigError([Problem(str(path), "", None, message)])
    recipe, root = read(Recipe, str(path), overrides, written_out), path.parent
    chains = {n: [located(source, root) for source in chain] for n, chain in sorted(recipe.sources.items())}
    return replace(
        recipe,
        sources={name: chains[name] for name in recipe.sources},
        method=build(Component(**recipe.method)),
        out=root / recipe.out,
        grams={name: root / file for name, file in recipe.grams.items()},
        dense=recipe.dense and replace(recipe.dense, base=root / recipe.dense.base),
        weights=checked_weights(recipe.weights, recipe.sources),
    )


def located(source: Source, root: Path) -> Source:
    """A source with its paths from the recipe's folder on."""
    return replace(source, path=root / source.path, relative_to=source.relative_to and root / source.relative_to)


def written_out(given: dict[str, Any], report: Report) -> dict[str, Any]:
    """A recipe's short forms in full: folders as sources, files as Gram matrices, a preset's name as the method."""
    # `format` and `versions` are written by a merge for the reader; they are no settings
    given = {key: value for key, value in given.items() if key not in ("format", "versions")}
    if isinstance(given.get("method"), str):
        try:
            given["method"] = preset(given["method"])
        except ConfigError as error:
            report("method", given.pop("method"), error.problems[0].message, error.problems[0].suggestion)
            given["method"] = preset("default")
    if isinstance(given.get("sources"), dict):
        chains = {name: chain if isinstance(chain, list) else [chain] for name, chain in given["sources"].items()}
        given["sources"] = {n: [{"path": x} if isinstance(x, str) else x for x in c] for n, c in chains.items()}
    if isinstance(grams := given.get("grams"), dict):
        hashed = {n: e for n, e in grams.items() if isinstance(e, dict) and set(e) <= {"path", "sha256"}}
        hashes = {name: entry["sha256"] for name, entry in hashed.items() if entry.get("sha256")}
        given["grams"] = grams | {name: entry.get("path") for name, entry in hashed.items()}
        if isinstance(given.get("gram_sha256", {}), dict):
            given["gram_sha256"] = given.get("gram_sha256", {}) | hashes
    return given


def read_method(value: str | Mapping[str, Any]) -> MergeMethod:
    """Build what `{class_path: ..., init_args: {...}}` or the name of a preset says."""
    spec = preset(value) if isinstance(value, str) else value
    return build_method(spec["class_path"], spec.get("init_args") or {})


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset: a file of `configs/merge/`.

    Raises:
        ConfigError: there is none of this name.
    """
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        message = f"no preset {shown(name)} in configs/merge; there are {', '.join(names)}"
        raise ConfigError([Problem("merge method", "method", name, message, did_you_mean(name, names))])
    return yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))


def preset_faults(names: Sequence[str]) -> Iterator[str]:
    """What is wrong with presets' names, or with their files."""
    for name in names:
        try:
            read_method(name)
        except ConfigError as error:
            yield from (f"{problem.message}; {problem.suggestion}".rstrip("; ") for problem in error.problems)


def checked_weights(weights: Mapping[str, float] | None, names: Mapping[str, Any]) -> dict[str, float]:
    """One finite weight per source, 1 where none is given.

    Raises:
        ValueError: a weight for an unknown source, or not a finite number.
    """
    weights = dict(weights or {})
    if unknown := sorted(set(weights) - set(names)):
        raise ValueError(f"weights: no sources named {unknown}; sources: {sorted(names)}")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise ValueError(f"weights.{name}: expected a finite number, got {weight!r}")
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
