"""Gram matrices of the modules' inputs on disk: one safetensors file per expert, read one module at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from typing_extensions import override

from artifacts.durable import folder_in_one_step
from artifacts.manifest import MANIFEST, entry_of, read_manifest, standing, verify, write_manifest
from artifacts.tensor_stream import planned, write_tensors

FILE, FORMAT = "grams.safetensors", "grams/1"
BUDGET_MIB = 4096
"""Memory for the matrices that are collected together; the widest of a model of 7B, 18944 x 18944, takes 2738."""


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


def passes(sizes: Mapping[str, int], budget_mib: float = BUDGET_MIB) -> list[list[str]]:
    """Which modules' matrices are collected in one pass over the samples: as many as fit in fp64, by name.

    Args:
        sizes: module -> n, the number of its inputs.
        budget_mib: for the matrices of one pass; one that takes more has a pass of its own.

    Choice: modules that read the same (q, k and v; gate and up) each have a matrix: in a model of 7B the down
        projections take nine tenths of memory and time, and sharing the others would save no pass.
    """
    found: list[list[str]] = []
    room = 0.0
    for name, n in sorted(sizes.items()):
        if not found or 8 * n * n > room:
            found.append([])
            room = budget_mib * 2**20
        found[-1].append(name)
        room -= 8 * n * n
    return found


def write_grams(
    folder: Path,
    sizes: Mapping[str, int],
    collect: Callable[[Sequence[str]], Mapping[str, Tensor]],
    made_from: Mapping[str, str],
    *,
    budget_mib: float = BUDGET_MIB,
) -> Path:
    """Collect one expert's Gram matrices, some at a time, and write a file that is either whole or absent.

    Args:
        folder: gets the file `FILE` and its manifest; replaced if it stands.
        sizes: module -> n.
        collect: the matrices (n, n) of some modules, from one pass over the samples.
        made_from: all that they depend on; stands in the manifest.
        budget_mib: see `passes`; changes no byte.

    Returns:
        The file.

    Choice: sums in fp64, stored in fp32. Every entry loses at most 6e-8 of itself, which moved RegMean's update of the
        embedded experts by 7e-7 of its norm: what fp32 factors lose anyway.
    """
    together = {name: names for names in passes(sizes, budget_mib) for name in names}
    held: dict[str, Tensor] = {}

    def matrix(name: str) -> Tensor:
        if name not in held:
            held.update(collect(together[name]))
        return held.pop(name).float().cpu()

    with folder_in_one_step(folder) as aside:
        plan = [planned(name, (n, n), lambda name=name: matrix(name)) for name, n in sizes.items()]
        sha256 = write_tensors(aside / FILE, plan, {})
        write_manifest(aside / MANIFEST, {FILE: entry_of(aside / FILE, sha256)}, format=FORMAT, made_from=made_from)
    return folder / FILE


def check_stored(path: Path) -> None:
    """Refuse matrices that were collected here and are not as they were written; foreign files are taken as they are.

    Raises:
        DamagedError: names the file.
    """
    if path.name == FILE and (path.parent / MANIFEST).is_file():
        verify(path.parent / MANIFEST)


def made_before(folder: Path, made_from: Mapping[str, str]) -> bool:
    """Whether a folder holds Gram matrices that were made from these things.

    Raises:
        DamagedError: it does, and the file is not as it was written.
    """
    found = read_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    return found.get("made_from") == made_from and standing(folder / MANIFEST) is not None
