"""A merged agent as a dense checkpoint: the base's shards with the update added, and what rounding takes from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from merge.adapter_files import (
    PICKLES,
    AdapterError,
    StoredAdapter,
    adapter_sha256,
    base_fingerprint,
    file_sha256,
    open_adapter,
    read_json,
)
from merge.durable import flush, folder_in_one_step
from merge.factors import TaskVector
from merge.peft_layout import task_vector_of
from merge.report import to_json
from merge.tensor_stream import DTYPES, Planned, planned, write_tensors

MAX_LOSS = 0.05
"""Largest share of a tensor's update that rounding may take, unless it is accepted expressly."""
MANIFEST, INDEX = "merge_manifest.json", "model.safetensors.index.json"


@dataclass(frozen=True)
class Dense:
    """What a dense checkpoint shall be."""

    base: Path
    """Folder of the base: safetensors shards, tokenizer, configuration."""
    dtype: str = "base"
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
class Weight:
    """One tensor of the base."""

    shard: Path
    name: str
    dtype: str
    """safetensors' name."""
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """Its contents."""
        with safe_open(self.shard, framework="pt") as file:
            return file.get_tensor(self.name)


def write_dense(adapter: Path, settings: Dense, out: Path) -> dict[str, Any]:
    """Add a merged adapter to its base's weights, shard by shard and one tensor in memory at a time.

        W' = round(fp32(W) + M), once, to the dtype wanted

    Everything in the base's folder that is no weight (tokenizer, processor, chat template, generation settings) is
    copied byte for byte.

    Args:
        adapter: folder of the merged adapter.
        settings: the base, and how to round.
        out: the checkpoint's folder, replaced in one step.

    Returns:
        What `merge_manifest.json` says: sha256 of every input and output, and per tensor the share of the update that
        rounding takes, |round(W + M) - W - M| / |M|.

    Raises:
        AdapterError: the adapter is damaged, or a module has no weight of its shape in the base.
        ValueError: rounding takes more than `MAX_LOSS` of an update, and that is not accepted.
        OSError: the disk is full.

    Choice: rounding to nearest. Stochastic rounding is unbiased, but loses more.
    """
    stored = open_adapter(adapter, base_fingerprint=None)
    if stored.config.get("fan_in_fan_out"):
        raise AdapterError(f"{adapter}: fan_in_fan_out: the base stores these weights transposed; keep the LoRA")
    vector = task_vector_of(stored, str(adapter))
    weights = base_weights(settings.base)
    check_base(weights, stored, settings)
    targets = {weight_of(module, vector[module].shape, weights): module for module in vector}
    if len(targets) != len(vector):
        raise AdapterError(f"{settings.base}: {len(vector)} modules of the adapter meet {len(targets)} weights there")
    losses = {targets[w]: rounding_loss(w.read(), vector.delta(targets[w]), stored_dtype(w, settings)) for w in targets}
    worst = max(losses, key=lambda module: losses[module])
    if losses[worst] > MAX_LOSS and not settings.accept_rounding:
        raise ValueError(
            f"{settings.base}: rounding takes {losses[worst]:.1%} of the update of {worst} (limit {MAX_LOSS:.0%}); "
            'keep the LoRA, choose dense.dtype "float32", or set dense.accept_rounding'
        )
    with folder_in_one_step(out) as aside:
        for path in sorted(settings.base.iterdir()):
            if path.is_file() and path.suffix != ".safetensors" and path.name not in (INDEX, MANIFEST):
                shutil.copyfile(path, aside / path.name)
                flush(aside / path.name)
        by_shard: dict[Path, list[Weight]] = {}
        for weight in weights:
            by_shard.setdefault(weight.shard, []).append(weight)
        for shard, held in by_shard.items():
            plan = [changed(w, targets.get(w), vector, settings) for w in held]
            write_tensors(aside / shard.name, plan, metadata_of(shard))
        if len(by_shard) > 1:
            (aside / INDEX).write_text(index(weights, targets, settings), encoding="utf-8")
        manifest = {
            "adapter_sha256": adapter_sha256(adapter),
            "base": {path.name: file_sha256(path) for path in sorted(by_shard)},
            "dtype": settings.dtype,
            "rounding_loss": losses,
            "files": {path.name: file_sha256(path) for path in sorted(aside.iterdir())},
        }
        (aside / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
        flush(aside / MANIFEST)
    return manifest


def check_base(weights: list[Weight], adapter: StoredAdapter, settings: Dense) -> None:
    """Refuse weights that are not those that the adapter was made for.

    Raises:
        AdapterError: the fingerprints differ, and that is not accepted.
    """
    found, expected = base_fingerprint((w.name, w.read()) for w in weights), adapter.manifest["base_fingerprint"]
    if found != expected and not settings.accept_other_base:
        raise AdapterError(
            f"{settings.base}: its weights have the fingerprint {found}, the adapter is for {expected}. If it is the "
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


def base_weights(base: Path) -> list[Weight]:
    """Every tensor of a checkpoint's safetensors files.

    Raises:
        AdapterError: none, an unreadable file, or a pickle, which is not opened.
    """
    if any((base / name).exists() for name in PICKLES):
        raise AdapterError(f"{base}: holds pickled weights, which can run code when read; convert it to safetensors")
    found = []
    for shard in sorted(base.glob("*.safetensors")):
        try:
            with safe_open(shard, framework="pt") as file:
                for name in file.keys():
                    piece = file.get_slice(name)
                    found.append(Weight(shard, name, piece.get_dtype(), tuple(piece.get_shape())))
        except SafetensorError as error:
            raise AdapterError(f"{shard}: not a valid safetensors file: {error}") from error
    if not found:
        raise AdapterError(f"{base}: no safetensors files; is this the folder of the base's checkpoint?")
    return found


def weight_of(module: str, shape: tuple[int, int], weights: list[Weight]) -> Weight:
    """The base's weight of a module: the one whose name ends with the module's, or with most of it.

    Raises:
        AdapterError: there is none of this shape, or there are several.
    """
    ends = (f"{module}.weight", f"{module.removeprefix('model.')}.weight")
    for end in ends:
        found = [w for w in weights if w.name == end or w.name.endswith(f".{end}")]
        if len(found) == 1 and found[0].shape == shape and found[0].dtype in DTYPES:
            return found[0]
    have = [f"{w.name} {w.shape} {w.dtype}" for w in weights if w.name.endswith(f".{module.rpartition('.')[2]}.weight")]
    raise AdapterError(
        f"{module} of shape {shape} has no weight of its own in the base, or several: {have[:3]}; "
        "is this the base that the experts were trained on? Quantised weights cannot be added to"
    )


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


def metadata_of(shard: Path) -> dict[str, str]:
    """The text beside a shard's tensors."""
    with safe_open(shard, framework="pt") as file:
        return dict(file.metadata() or {"format": "pt"})


def index(weights: list[Weight], targets: Mapping[Weight, str], settings: Dense) -> str:
    """Which shard holds which tensor, as transformers reads it."""

    def sizes() -> Iterator[int]:
        for w in weights:
            dtype = stored_dtype(w, settings) if w in targets else w.dtype
            yield torch.Size(w.shape).numel() * (DTYPES[dtype].itemsize if dtype in DTYPES else w.read().itemsize)

    table = {w.name: w.shard.name for w in weights}
    return json.dumps({"metadata": {"total_size": sum(sizes())}, "weight_map": table}, indent=2, sort_keys=True) + "\n"
