"""The head of a reward model, a file beside the adapter that it belongs to.

It is written before the adapter, whose manifest holds its hash and what its rows mean: an adapter that is whole has
its head, and a head of another run does not pass for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from artifacts.adapter_files import AdapterError, read_manifest
from artifacts.durable import flush, named

HEAD = "head.safetensors"
KEY = "head"
"""Of the adapter's manifest, in `extra`."""


def write_head(adapter: Path, tensors: Mapping[str, Tensor], meaning: Mapping[str, Any]) -> dict[str, Any]:
    """Write the head of an adapter that is about to be written.

    Args:
        adapter: the adapter's folder; the head lies beside it.
        tensors: its weights.
        meaning: what they stand for, as JSON.

    Returns:
        What the adapter's manifest must say under `KEY`.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    path = adapter.parent / HEAD
    content = save({name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with named(path):
            aside.write_bytes(content)
        flush(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    flush(path.parent)
    return {**meaning, "sha256": sha256(content).hexdigest()}


def read_head(adapter: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights, meaning) of an adapter's head, unchanged since it was written.

    Raises:
        AdapterError: the adapter has none, or it is not there, or is another one.
    """
    told = (read_manifest(adapter).get("extra") or {}).get(KEY)
    if not isinstance(told, dict):
        raise AdapterError(
            f"{adapter}: is no reward model (its manifest names no head); train one with "
            "lightning_modules.reward_model.RewardModel, as configs/judge_tiny.yaml does"
        )
    path = adapter.parent / HEAD
    try:
        content = path.read_bytes()
        if sha256(content).hexdigest() != told.get("sha256"):
            raise AdapterError(f"{path}: is not the head that was trained with {adapter}; was it copied or damaged?")
        return load(content), told
    except FileNotFoundError as error:
        raise AdapterError(f"{path}: is not there; the head of a reward model lies beside its adapter") from error
    except SafetensorError as error:
        raise AdapterError(f"{path}: not a valid safetensors file: {error}") from error
