"""The experts of a recipe: opened, verified, and bound to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from artifacts.adapter_checks import check_reading
from artifacts.adapter_files import AdapterError, StoredAdapter, open_adapter
from artifacts.adoption import Base, check_shapes
from artifacts.manifest import file_sha256
from merge.base_weights import base_weights, targets_of
from merge.factors import Factors, LazyVector, TaskVector, add, check_same_modules
from merge.grams import StoredGrams, check_stored
from merge.methods.interface import Experts
from merge.peft_layout import CARRIED, task_vector_of
from merge.recipe import Recipe, Source, checked_weights

NAME = "base_model_name_or_path"


@dataclass(frozen=True)
class Opened:
    """The sources of a recipe, on disk, verified."""

    experts: Experts
    fingerprint: str
    """Of the base that all of them belong to."""
    hashes: dict[str, list[dict[str, Any]]]
    """Name -> per link of the chain `sha256`, and `relative_to_sha256` where something is subtracted."""
    gram_hashes: dict[str, str]
    """Name -> sha256 of the Gram matrices' file."""
    template: dict[str, Any]
    """PEFT configuration of one of them, for the settings that the merged adapter keeps."""
    reading: dict[str, str]
    """Hashes of the tokenizer and the chat template that all share, where all record them."""
    unrecorded: list[str]
    """Experts that do not record them."""
    origin: Any = None
    """Where their base is from, see `artifacts.base_origin`; None where they do not all say the same."""


def open_sources(recipe: Recipe, base: Base | None = None) -> Opened:
    """Open all sources, sorted by name, and check that they belong together.

    Args:
        recipe: names them; where it asks for a dense checkpoint, their layers are looked up in its base's files too.
        base: in memory, to hold their layers against; None where there is none.

    Raises:
        AdapterError: another base, or layers that it has not; another content than the recipe names, a child without
            its parent before it in the chain, another tokenizer or chat template, or settings that cannot be carried
            into one adapter.
        ValueError: modules or weights do not fit.
    """
    if not recipe.sources or not all(recipe.sources.values()):
        raise ValueError(f"every expert needs at least one adapter folder; got {dict(recipe.sources)!r:.500}")
    links: list[tuple[Source, StoredAdapter]] = []
    vectors: dict[str, TaskVector] = {}
    hashes: dict[str, list[dict[str, Any]]] = {}
    read: list[tuple[str, Path, StoredAdapter]] = []  # whatever is added or subtracted
    for name in sorted(recipe.sources):
        chain: list[StoredAdapter] = []
        terms: list[TaskVector] = []
        signs: list[float] = []
        hashes[name] = []
        for source in recipe.sources[name]:
            fingerprint = links[0][1].manifest["base_fingerprint"] if links else recipe.base_fingerprint
            adapter = opened(source, fingerprint)
            check_parent(name, source, adapter, chain)
            chain.append(adapter)
            links.append((source, adapter))
            read.append((name, source.path, adapter))
            terms.append(task_vector_of(adapter, str(source.path)))
            signs.append(1.0)
            hashes[name].append({"sha256": adapter.sha256})
            if source.relative_to is not None:
                parent = beneath(source, adapter)
                read.append((name, source.relative_to, parent))
                terms.append(task_vector_of(parent, str(source.relative_to)))
                signs.append(-1.0)
                hashes[name][-1]["relative_to_sha256"] = parent.sha256
        vectors[name] = terms[0] if len(terms) == 1 else add(terms, signs)
    check_carried(links)
    check_layers(recipe, base, [(path, adapter) for _, path, adapter in read])
    reading, silent = check_reading({str(path): adapter.manifest["extra"] for _, path, adapter in read})
    unrecorded = sorted({name for name, path, _ in read if str(path) in silent})
    if recipe.missing == "zero":
        vectors = filled(vectors)
    check_same_modules(list(vectors.values()))
    weights = list(checked_weights(recipe.weights, vectors).values())
    gram_hashes = checked_grams(recipe)
    grams = {name: StoredGrams(path) for name, path in sorted(recipe.grams.items())} or None
    return Opened(
        Experts(vectors, weights, grams),
        links[0][1].manifest["base_fingerprint"],
        hashes,
        gram_hashes,
        links[0][1].config | {NAME: shared([adapter.config.get(NAME) for _, adapter in links])},
        {} if unrecorded else reading,
        unrecorded,
        shared([(adapter.manifest["extra"] or {}).get("base") for _, _, adapter in read]),
    )


def check_layers(recipe: Recipe, base: Base | None, read: Sequence[tuple[Path, StoredAdapter]]) -> None:
    """Hold the adapters' layers against the base in memory, and against the files that a dense checkpoint needs.

    Raises:
        AdapterError: a layer that the base has not, or has in another shape.
    """
    for path, adapter in read if base is not None else ():
        check_shapes(adapter.shapes, base, str(path))
    if recipe.dense is not None:
        layers = {module: shape for _, adapter in read for module, shape in adapter.shapes.items()}
        targets_of(layers, base_weights(recipe.dense.base))


def checked_grams(recipe: Recipe) -> dict[str, str]:
    """Expert -> sha256 of its Gram matrices' file.

    Raises:
        AdapterError: a file that is damaged, or is not the one that the recipe names.
    """
    for path in recipe.grams.values():
        check_stored(path)
    found = {name: file_sha256(path) for name, path in sorted(recipe.grams.items())}
    for name, sha256 in found.items():
        if recipe.gram_sha256.get(name, sha256) != sha256:
            named = recipe.gram_sha256[name]
            raise AdapterError(f"{recipe.grams[name]}: has sha256 {sha256}, the recipe names {named}")
    return found


def shared(values: Sequence[Any]) -> Any:
    """What all say, or None."""
    return values[0] if all(value == values[0] for value in values) else None


def filled(vectors: Mapping[str, TaskVector]) -> dict[str, TaskVector]:
    """The same experts over all modules that any of them has; a module that one lacks is a zero update."""
    shapes = {module: vector.shape(module) for vector in vectors.values() for module in vector}

    def factors(vector: TaskVector, module: str) -> Factors:
        m, n = shapes[module]
        return vector[module] if module in set(vector) else Factors(torch.zeros(1, n), torch.zeros(m, 1))

    return {name: LazyVector(shapes, partial(factors, vector)) for name, vector in vectors.items()}


def opened(source: Source, fingerprint: str | None) -> StoredAdapter:
    """One adapter, of the base and with the content that are asked for."""
    adapter = open_adapter(source.path, base_fingerprint=fingerprint)
    if source.sha256 not in (None, adapter.sha256):
        raise AdapterError(f"{source.path}: weights have sha256 {adapter.sha256}, the recipe names {source.sha256}")
    return adapter


def parent_of(adapter: StoredAdapter) -> str | None:
    """The hash of the adapter that this one grew from, as its manifest records it."""
    return (adapter.manifest["parent"] or {}).get("sha256")


def check_parent(name: str, source: Source, adapter: StoredAdapter, before: list[StoredAdapter]) -> None:
    """Refuse a link of a chain that did not grow from the one before it."""
    if before and parent_of(adapter) not in (None, before[-1].sha256):
        raise AdapterError(
            f"{source.path}: grew from the adapter with sha256 {parent_of(adapter)}, but follows {before[-1].sha256} "
            f"in the chain of {name!r}; only an expert and its own parent may be summed"
        )


def beneath(source: Source, adapter: StoredAdapter) -> StoredAdapter:
    """The adapter that a source is relative to: its own parent."""
    parent = open_adapter(source.relative_to, base_fingerprint=adapter.manifest["base_fingerprint"])
    if source.relative_to_sha256 not in (None, parent.sha256):
        raise AdapterError(
            f"{source.relative_to}: weights have sha256 {parent.sha256}, the recipe names {source.relative_to_sha256}"
        )
    if parent_of(adapter) not in (None, parent.sha256):
        raise AdapterError(
            f"{source.path}: grew from the adapter with sha256 {parent_of(adapter)}, but relative_to names "
            f"{source.relative_to} with {parent.sha256}; only its own parent may be subtracted"
        )
    return parent


def check_carried(links: list[tuple[Source, StoredAdapter]]) -> None:
    """Refuse settings that differ and cannot both be carried into one adapter."""

    def settings(config: Mapping[str, Any]) -> dict[str, Any]:
        return {key: config.get(key) or None for key in CARRIED if key != NAME}

    first = settings(links[0][1].config)
    for source, adapter in links[1:]:
        if settings(adapter.config) != first:
            raise AdapterError(f"{source.path}: {settings(adapter.config)} differs from the other experts' {first}")
