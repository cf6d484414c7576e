"""Gram matrices of the modules' inputs on disk: one safetensors file per expert, read one module at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from typing_extensions import override

from merge.durable import folder_in_one_step
from merge.tensor_stream import planned, write_tensors

FILE = "grams.safetensors"


class StoredGrams(Mapping[str, Tensor]):
    """Module -> (n, n) fp32, the mean of x x^T over tokens; read when asked for."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            ValueError: it is no such file, or a matrix is not square and finite.
        """
        self.path = path
        try:
            self._file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: cannot be read as Gram matrices: {error}") from error
        self._names = sorted(self._file.keys())
        for name in self._names:
            G = self[name]
            if G.dim() != 2 or G.shape[0] != G.shape[1] or not torch.isfinite(G).all():
                raise ValueError(f"{path}: {name} of shape {tuple(G.shape)} is no finite square matrix")

    @override
    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    @override
    def __len__(self) -> int:
        return len(self._names)


def write_grams(folder: Path, grams: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write one expert's Gram matrices so that the file is either whole or absent.

    Args:
        folder: gets the file `FILE`; replaced if it stands.
        grams: module -> (n, n).
        metadata: what they were made from.

    Returns:
        The file.
    """
    with folder_in_one_step(folder) as aside:
        plan = [planned(name, G.shape, lambda G=G: G.float()) for name, G in grams.items()]
        write_tensors(aside / FILE, plan, metadata)
    return folder / FILE


def metadata_of(path: Path) -> dict[str, str]:
    """What a file says that it was made from; empty where there is no readable file."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}
