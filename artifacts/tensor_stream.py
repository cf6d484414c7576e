"""safetensors files written one tensor at a time, where the library would want all of them in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from artifacts.durable import flush

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""safetensors' names of floating-point types."""


@dataclass(frozen=True)
class Planned:
    """A tensor that will be made when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """safetensors' name, such as F32."""
    n_bytes: int
    make: Callable[[], Tensor | bytes]
    """Its contents; a tensor must have the shape and dtype promised."""


def planned(name: str, shape: Iterable[int], make: Callable[[], Tensor], dtype: str = "F32") -> Planned:
    """A floating-point tensor in waiting."""
    shape = tuple(shape)
    return Planned(name, shape, dtype, torch.Size(shape).numel() * DTYPES[dtype].itemsize, make)


def write_tensors(path: Path, plan: Iterable[Planned], metadata: Mapping[str, str], *, durable: bool = True) -> str:
    """Write a safetensors file, each tensor's contents made, written and dropped in turn.

    Args:
        path: the file; its folder exists.
        plan: what goes in; the order of the names decides the layout.
        metadata: text beside the tensors.
        durable: return only once the bytes are on the disk.

    Returns:
        sha256 of the bytes, as they were handed over.

    Raises:
        ValueError: a tensor is not of the size promised.
        OSError: the disk is full.
    """
    entries = sorted(plan, key=lambda entry: entry.name)
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for entry in entries:
        end = offset + entry.n_bytes
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        start = len(text).to_bytes(8, "little") + text
        digest.update(start)
        file.write(start)
        for entry in entries:
            content = entry.make()
            if isinstance(content, Tensor):
                content = content.contiguous().reshape(-1).view(torch.uint8).numpy().data
            if len(content) != entry.n_bytes:
                raise ValueError(f"{path}: {entry.name} has {len(content)} bytes, {entry.n_bytes} were promised")
            digest.update(content)
            file.write(content)
    if durable:
        flush(path)
    return digest.hexdigest()
