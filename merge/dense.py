"""A merged agent as a dense checkpoint: the base's shards with the update added, and what rounding takes from it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor

from artifacts.adapter_files import (
    AdapterError,
    StoredAdapter,
    adapter_sha256,
    open_adapter,
    read_json,
)
from artifacts.durable import flush, folder_in_one_step
from artifacts.manifest import file_sha256
from artifacts.tensor_stream import DTYPES, Planned, planned, write_tensors
from merge.base_weights import INDEX, MANIFEST, Weight, base_weights, beside, metadata_of, targets_of
from merge.factors import TaskVector
from merge.parts import PREFIX, folder_of, keep, whole
from merge.peft_layout import task_vector_of
from merge.reload import CONFIG, check_reloaded, fingerprints, written_config
from merge.report import to_json

MAX_LOSS = 0.05
"""Largest share of a tensor's update that rounding may take, unless it is accepted expressly."""


@dataclass(frozen=True)
class Dense:
    """What a dense checkpoint shall be."""

    base: Path
    """Folder of the base: safetensors shards, tokenizer, configuration."""
    dtype: Literal["base", "float32"] = "base"
    """Of the changed weights: "base" keeps each weight's own, "float32" loses nothing."""
    accept_rounding: bool = False
    """Write it although rounding takes more than `MAX_LOSS` of an update."""
    accept_other_base: bool = False
    """Take the folder's weights for the base's although their fingerprint differs: where the file's names are not
    those that the model has in memory, the fingerprint cannot tell."""

    def __post_init__(self) -> None:
        if self.dtype not in ("base", "float32"):
            raise ValueError(f'dense.dtype must be "base" or "float32", got {self.dtype!r}')


@dataclass(frozen=True)
class Work:
    """An adapter, and the weights that it is added to."""

    settings: Dense
    adapter: StoredAdapter
    vector: TaskVector
    shards: dict[Path, list[Weight]]
    targets: dict[Weight, str]
    """Weights that change -> the adapter's module."""

    def made_of(self) -> dict[str, Any]:
        """All that decides the checkpoint's bytes, in JSON's types."""
        return {
            "adapter_sha256": self.adapter.sha256,
            "base": {path.name: file_sha256(path) for path in (*beside(self.settings.base), *self.shards)},
            "dtype": self.settings.dtype,
            "versions": {"torch": version("torch")},
        }

    def losses(self, shard: Path) -> dict[str, float]:
        """Module -> share of its update that rounding takes, of one shard."""
        found = {}
        for w in self.shards[shard]:
            if (module := self.targets.get(w)) is not None:
                found[module] = rounding_loss(w.read(), self.vector.delta(module), stored_dtype(w, self.settings))
        return found

    def expected(self, weight: Weight) -> tuple[Tensor, bool]:
        """A tensor of the checkpoint, and whether it has an update."""
        if (module := self.targets.get(weight)) is None:
            return weight.read(), False
        return rounded(weight.read(), self.vector.delta(module), stored_dtype(weight, self.settings)), True

    def write(self, shard: Path, path: Path) -> str:
        """Write a shard with the updates added, and return its sha256."""
        plan = [changed(w, self.targets.get(w), self.vector, self.settings) for w in self.shards[shard]]
        return write_tensors(path, plan, metadata_of(shard), durable=False)


def opened(adapter: Path, settings: Dense) -> Work:
    """Match an adapter's modules with its base's weights.

    Raises:
        AdapterError: the adapter is damaged, or a module has no weight of its shape in the base.
    """
    stored = open_adapter(adapter, base_fingerprint=None)
    if stored.config.get("fan_in_fan_out"):
        raise AdapterError(f"{adapter}: fan_in_fan_out: the base stores these weights transposed; keep the LoRA")
    vector = task_vector_of(stored, str(adapter))
    weights = base_weights(settings.base)
    check_base(weights, stored, settings)
    targets = targets_of({module: vector.shape(module) for module in vector}, weights)
    shards: dict[Path, list[Weight]] = {}
    for weight in weights:
        shards.setdefault(weight.shard, []).append(weight)
    return Work(settings, stored, vector, shards, targets)


def write_dense(adapter: Path, settings: Dense, out: Path) -> dict[str, Any]:
    """Add a merged adapter to its base's weights, shard by shard and one tensor in memory at a time.

        W' = round(fp32(W) + M), once, to the dtype wanted

    Everything in the base's folder that is no weight (tokenizer, processor, chat template, generation settings) is
    copied byte for byte, but for the precision that config.json declares: it is that of the changed weights, so that
    loading does not round what was written. Before the folder takes its place it is read again and compared, see
    `merge.reload`. Shards that were finished before an interruption are verified and taken; a checkpoint that
    stands whole, made of the same things, is left.

    Args:
        adapter: folder of the merged adapter.
        settings: the base, and how to round.
        out: the checkpoint's folder, replaced in one step.

    Returns:
        What `merge_manifest.json` says: sha256 of every input and output, and per tensor the share of the update that
        rounding takes, |round(W + M) - W - M| / |M|.

    Raises:
        AdapterError: the adapter is damaged, or a module has no weight of its shape in the base, or the checkpoint is
            not read as it was written.
        ValueError: rounding takes more than `MAX_LOSS` of an update, and that is not accepted; or `out` is the base.
        OSError: the disk is full.

    Choice: rounding to nearest. Stochastic rounding is unbiased, but loses more.
    """
    if (out.resolve() / "x").is_relative_to(settings.base.resolve()):
        raise ValueError(f"{out}: lies in dense.base, {settings.base}; write the checkpoint somewhere else")
    work = opened(adapter, settings)
    made_of = work.made_of()
    if (stands := finished_before(out, adapter, made_of)) is not None:
        check_losses(stands["rounding_loss"], settings)
        return stands
    identity = hashlib.sha256(to_json(made_of).encode()).hexdigest()
    folder = folder_of(out.with_name(f".{out.name}{PREFIX}"), identity)
    places = {shard: folder / f"{number:05d}" for number, shard in enumerate(work.shards)}
    notes = {shard: whole(place) for shard, place in places.items()}
    losses = {shard: note["losses"] if note else work.losses(shard) for shard, note in notes.items()}
    rounding = {module: loss for of_shard in losses.values() for module, loss in of_shard.items()}
    check_losses(rounding, settings)
    folder.mkdir(parents=True, exist_ok=True)
    for shard, place in places.items():
        notes[shard] = notes[shard] or keep(place, partial(work.write, shard), {"losses": losses[shard]})
    shards = {s.name: (place.with_suffix(".safetensors"), notes[s]["sha256"]) for s, place in places.items()}
    manifest = assemble(work, out, shards, made_of | {"rounding_loss": rounding})
    shutil.rmtree(folder)
    return manifest


def assemble(
    work: Work, out: Path, shards: Mapping[str, tuple[Path, str]], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Move finished shards to where they belong, beside copies of the base's other files.

    Args:
        work: what is written.
        out: the checkpoint's folder, replaced in one step.
        shards: name -> where it lies, and its sha256. They are on the disk before they move, so that little time is
            left in which a kill would lose them.
        manifest: but for `files`.

    Returns:
        The manifest as written.

    Raises:
        AdapterError: read again, it is not the base with the update.
    """
    for place, _ in shards.values():
        flush(place)
    with folder_in_one_step(out) as aside:
        for path in beside(work.settings.base):
            shutil.copyfile(path, aside / path.name)
        if (aside / CONFIG).is_file():
            dtypes = {stored_dtype(weight, work.settings) for weight in work.targets}
            if (text := written_config(aside / CONFIG, dtypes)) is not None:
                (aside / CONFIG).write_text(text, encoding="utf-8")
        if len(shards) > 1:
            (aside / INDEX).write_text(index(work), encoding="utf-8")
        files = {path.name: file_sha256(path) for path in aside.iterdir()}
        for name, (place, sha256) in shards.items():
            os.replace(place, aside / name)
            files[name] = sha256
        weights = (weight for held in work.shards.values() for weight in held)
        read_with = check_reloaded(aside, weights, work.expected)
        manifest = dict(manifest) | {"files": files, "reloaded_with": read_with}
        (aside / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
        for path in aside.iterdir():
            flush(path)
    return manifest


def check_losses(losses: Mapping[str, float], settings: Dense) -> None:
    """Refuse what rounding takes too much of.

    Raises:
        ValueError: names the worst module, unless it is accepted.
    """
    worst = max(losses, key=lambda module: losses[module])
    if losses[worst] > MAX_LOSS and not settings.accept_rounding:
        raise ValueError(
            f"{settings.base}: rounding takes {losses[worst]:.1%} of the update of {worst} (limit {MAX_LOSS:.0%}); "
            'keep the LoRA, choose dense.dtype "float32", or set dense.accept_rounding'
        )


def finished_before(out: Path, adapter: Path, made_of: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of a checkpoint that stands there whole, made of the same things, or None."""
    try:
        manifest = read_json(out / MANIFEST)
        if {key: manifest[key] for key in made_of} == made_of:
            verify_dense(out, adapter)
            return manifest
    except (AdapterError, OSError, KeyError, TypeError, AttributeError):
        pass  # whatever is wrong with it, writing it anew sets it right
    return None


def check_base(weights: list[Weight], adapter: StoredAdapter, settings: Dense) -> None:
    """Refuse weights that are not those that the adapter was made for.

    Raises:
        AdapterError: the fingerprints differ, and that is not accepted.
    """
    if settings.accept_other_base:
        return
    expected, tried = adapter.manifest["base_fingerprint"], []
    for found in fingerprints(settings.base, weights):
        if found == expected:
            return
        tried.append(found)
    raise AdapterError(
        f"{settings.base}: its weights have the fingerprint {tried[0]}, the adapter is for {expected}. If it is the "
        "right base, under other names in the file than in memory, set dense.accept_other_base"
    )


def verify_dense(folder: Path, adapter: Path) -> None:
    """Check every file of a dense checkpoint against its manifest.

    Raises:
        AdapterError: a file is missing or changed, or it was made of another adapter.
    """
    manifest = read_json(folder / MANIFEST)
    if manifest.get("adapter_sha256") != adapter_sha256(adapter):
        raise AdapterError(f"{folder}: made of an adapter with sha256 {manifest.get('adapter_sha256')}")
    for name, sha256 in manifest["files"].items():
        path = folder / Path(name).name
        if not path.is_file() or file_sha256(path) != sha256:
            raise AdapterError(f"{path}: missing or not what the manifest recorded; changed after it was written?")


def stored_dtype(weight: Weight, settings: Dense) -> str:
    """Safetensors' name of the type that a changed weight is written in."""
    return weight.dtype if settings.dtype == "base" else "F32"


def rounded(weight: Tensor, delta: Tensor, dtype: str) -> Tensor:
    """round(fp32(W) + M), once."""
    return (weight.float() + delta).to(DTYPES[dtype])


def rounding_loss(weight: Tensor, delta: Tensor, dtype: str) -> float:
    """|round(W + M) - W - M| / |M|; 0 for an update that is zero."""
    exact = weight.double() + delta.double()
    size = delta.double().norm().item()
    return (rounded(weight, delta, dtype).double() - exact).norm().item() / size if size > 0 else 0.0


def changed(weight: Weight, module: str | None, vector: TaskVector, settings: Dense) -> Planned:
    """A tensor of the new checkpoint: with its update, or as it was, byte for byte."""
    if module is not None:
        dtype = stored_dtype(weight, settings)
        return planned(
            weight.name, weight.shape, lambda: rounded(weight.read(), vector.delta(module), dtype), dtype=dtype
        )

    def content() -> bytes:
        return weight.read().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()

    with safe_open(weight.shard, framework="pt") as file:
        n_bytes = file.get_tensor(weight.name).nbytes
    return Planned(weight.name, weight.shape, weight.dtype, n_bytes, content)


def index(work: Work) -> str:
    """Which shard holds which tensor, as transformers reads it."""
    weights = [w for held in work.shards.values() for w in held]

    def sizes() -> Iterator[int]:
        for w in weights:
            dtype = stored_dtype(w, work.settings) if w in work.targets else w.dtype
            yield torch.Size(w.shape).numel() * (DTYPES[dtype].itemsize if dtype in DTYPES else w.read().itemsize)

    table = {w.name: w.shard.name for w in weights}
    return json.dumps({"metadata": {"total_size": sum(sizes())}, "weight_map": table}, indent=2, sort_keys=True) + "\n"
