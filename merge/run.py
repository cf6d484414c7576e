"""Merge adapters into one: read, combine, cut, report, write. Nothing is cached by path, everything by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from merge.adapter_files import Adapter, AdapterError, adapter_sha256, is_complete, read_adapter, write_adapter
from merge.conflict import conflict_report, to_json, to_markdown
from merge.durable import write_text
from merge.factors import add, check_same_modules
from merge.methods.interface import MergeMethod
from merge.peft_layout import CARRIED, adapter_parts, task_vector_of
from merge.recipe import Recipe, Source, checked_weights, identity, written_form
from merge.truncation import compress_stream, parse_rank, truncate

ADAPTER, RECIPE, CONFLICT_JSON, CONFLICT_MD = "adapter", "recipe.yaml", "conflict.json", "conflict.md"


@dataclass(frozen=True)
class MergeSummary:
    """What a merge did."""

    out: Path
    sha256: str
    """Of the merged adapter's weights."""
    skipped: bool
    """True: the same recipe had been carried out before, and its files were verified."""
    retained_energy: float
    """Share of the merged update that the chosen rank keeps, in [0, 1]."""
    report: dict[str, Any]
    """See `merge.conflict.conflict_report`."""


def merge_adapters(
    sources: Mapping[str, Sequence[Path]],
    method: MergeMethod,
    out: Path,
    *,
    base_fingerprint: str | None,
    rank: int | str = "sum",
    weights: Mapping[str, float] | None = None,
    manifest_extra: Mapping[str, Any] | None = None,
) -> MergeSummary:
    """Merge experts and write out/{adapter/, recipe.yaml, conflict.json, conflict.md}.

    The result depends on the names and contents of the sources, not on their order or place. Where `out` already holds
    the result of the same recipe, it is verified and left; anything else there is replaced.

    Args:
        sources: expert name -> chain of adapter folders, summed into one task vector before the method sees them.
        method: an instance of a class in `merge.methods`.
        out: folder of the merged agent; the adapter is written last.
        base_fingerprint: of the base that the agent is for; None takes the one that the sources agree on.
        rank: of the merged adapter: an integer, "sum", "max" or "energy:0.95".
        weights: expert name -> factor; 1 where not given.
        manifest_extra: manifest keys (e.g. experiment, git) for the merged adapter; its `extra` is added to ours.

    Returns:
        What was done.

    Raises:
        AdapterError: a source is incomplete, unsafe, of another base, or not the child of its forerunner.
        ValueError: experts, weights or rank do not fit.
        OSError: the disk is full.
    """
    chains = {name: [Source(Path(path)) for path in chain] for name, chain in sources.items()}
    recipe = Recipe(chains, method, Path(out), base_fingerprint, rank, dict(weights or {}))
    return run_recipe(recipe, manifest_extra=manifest_extra)


def run_recipe(recipe: Recipe, *, manifest_extra: Mapping[str, Any] | None = None) -> MergeSummary:
    """Carry out a recipe; see `merge_adapters`."""
    parse_rank(recipe.rank)
    if not recipe.sources or not all(recipe.sources.values()):
        raise ValueError(f"every expert needs at least one adapter folder; got {dict(recipe.sources)!r:.500}")
    chains = read_chains(recipe)
    everything = [adapter for chain in chains.values() for adapter in chain]
    fingerprint = everything[0].manifest["base_fingerprint"]
    hashes = {name: [weights_sha256(adapter) for adapter in chain] for name, chain in chains.items()}
    written = written_form(recipe, fingerprint, hashes)
    if (earlier := finished_before(recipe.out, identity(written))) is not None:
        return earlier

    vectors = {
        name: add([task_vector_of(a, str(s.path)) for a, s in zip(chain, recipe.sources[name], strict=True)])
        for name, chain in chains.items()
    }
    check_same_modules(list(vectors.values()))
    weights = list(checked_weights(recipe.weights, vectors).values())
    result = recipe.method.merge(list(vectors.values()), weights)
    ranks = {module: [vector[module].rank for vector in vectors.values()] for module in next(iter(vectors.values()))}
    if result.vector is not None:
        merged, energy = truncate(result.vector, recipe.rank, ranks)
    else:
        merged, energy = compress_stream(result.dense, recipe.rank, ranks)
    report = conflict_report(vectors, merged, energy) | {"method": result.diagnostics}

    texts = {
        CONFLICT_JSON: to_json(report),
        CONFLICT_MD: to_markdown(report),
        RECIPE: yaml.safe_dump(written, sort_keys=False, allow_unicode=True),
    }
    config, tensors = adapter_parts(merged, everything[0].config)
    manifest = merged_manifest(manifest_extra or {}, fingerprint, identity(written), texts, energy.total)
    recipe.out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(recipe.out / name, text)
    write_adapter(recipe.out / ADAPTER, config, tensors, manifest)
    return MergeSummary(recipe.out, adapter_sha256(recipe.out / ADAPTER), False, energy.total, report)


def read_chains(recipe: Recipe) -> dict[str, list[Adapter]]:
    """Load all sources, sorted by name, and check that they belong together.

    Raises:
        AdapterError: another base, another content than the recipe names, a child without its parent before it in the
            chain, or settings that cannot be carried into one adapter.
    """
    fingerprint, chains = recipe.base_fingerprint, {}
    carried: dict[str, Any] = {}
    for name in sorted(recipe.sources):
        chains[name] = []
        for source in recipe.sources[name]:
            adapter = read_adapter(source.path, base_fingerprint=fingerprint)
            fingerprint = adapter.manifest["base_fingerprint"]
            found = weights_sha256(adapter)
            if source.sha256 not in (None, found):
                raise AdapterError(f"{source.path}: weights have sha256 {found}, the recipe names {source.sha256}")
            parent = (adapter.manifest["parent"] or {}).get("sha256")
            before = [weights_sha256(earlier) for earlier in chains[name]]
            if before and parent not in (None, before[-1]):
                raise AdapterError(
                    f"{source.path}: grew from the adapter with sha256 {parent}, but follows {before[-1]} in the chain "
                    f"of {name!r}; only an expert and its own parent may be summed"
                )
            settings = {key: adapter.config.get(key) or None for key in CARRIED if key != "base_model_name_or_path"}
            if carried and settings != carried:
                raise AdapterError(f"{source.path}: {settings} differs from the other experts' {carried}")
            carried = settings
            chains[name].append(adapter)
    return chains


def weights_sha256(adapter: Adapter) -> str:
    """The hash of an adapter's weights, verified when it was read."""
    return adapter.manifest["files"]["adapter_model.safetensors"]["sha256"]


def merged_manifest(
    given: Mapping[str, Any], fingerprint: str, recipe_sha256: str, texts: Mapping[str, str], energy: float
) -> dict[str, Any]:
    """The manifest of a merged adapter: what the caller knows, and what ties it to its recipe and reports."""
    reports = {name: text_sha256(text) for name, text in texts.items()}
    return dict(given) | {
        "kind": "merged",
        "base_fingerprint": fingerprint,
        "config_sha256": recipe_sha256,
        "metrics": dict(given.get("metrics") or {}) | {"retained_energy": energy},
        "extra": dict(given.get("extra") or {}) | {"reports": reports},
    }


def finished_before(out: Path, recipe_sha256: str) -> MergeSummary | None:
    """The summary of an earlier run of the same recipe whose every file is as it was written, or None."""
    if not is_complete(out / ADAPTER):
        return None
    try:
        manifest = read_adapter(out / ADAPTER, base_fingerprint=None).manifest
        if manifest["config_sha256"] != recipe_sha256:
            return None
        for name, sha256 in manifest["extra"]["reports"].items():
            if name not in (RECIPE, CONFLICT_JSON, CONFLICT_MD) or text_sha256((out / name).read_text()) != sha256:
                return None
        report = json.loads((out / CONFLICT_JSON).read_text(encoding="utf-8"))
    except (AdapterError, OSError, KeyError, TypeError, AttributeError, ValueError):
        # Whatever is wrong with an earlier result, making it anew from verified sources sets it right.
        return None
    energy = manifest["metrics"]["retained_energy"]
    return MergeSummary(out, adapter_sha256(out / ADAPTER), True, energy, report)


def text_sha256(text: str) -> str:
    """Sixty-four hexadecimal digits over UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
