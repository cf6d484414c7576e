"""What a merge method is given and hands back. A new method is one more file: a pure function and a class."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from merge.cores import Core, Cores, Triples
from merge.factors import Factors
from merge.products import Stack

BLOCK_ENTRIES = 2**17
"""Entries handled at once: what is made of a block stays in the processor's cache."""
CARD_BLOCK_ENTRIES = 2**26
"""The same on a card, where a small block is done before the next is launched."""


@dataclass(frozen=True)
class Tile:
    """A block of rows of one module's dense updates."""

    module: str
    rows: slice
    deltas: Tensor
    """(K, rows, n) fp32."""


class Experts:
    """K named experts over the same modules; what was made of the last module asked for is kept."""

    def __init__(
        self,
        vectors: Mapping[str, Mapping[str, Factors]],
        weights: Sequence[float] | None = None,
        grams: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        """Keep the experts.

        Args:
            vectors: name -> module -> factors; K names.
            weights: K factors; None means 1 each.
            grams: name -> module -> (n, n) Gram matrix of the module's inputs on the expert's own data, per token.

        Raises:
            ValueError: not one finite weight per expert.
        """
        self.names = list(vectors)
        self.vectors = vectors
        self.weights = [1.0] * len(self.names) if weights is None else list(weights)
        if not self.names or len(self.weights) != len(self.names):
            raise ValueError(
                f"got {len(self.weights)} weights for {len(self.names)} experts; "
                "expected one for each of at least one expert"
            )
        if not all(map(math.isfinite, self.weights)):
            raise ValueError(f"weights must be finite, got {self.weights}")
        self.grams = grams
        self.modules = list(next(iter(vectors.values())))
        self._module = ""
        self._factors: list[Factors] = []
        self._stack: Stack | None = None
        self._cores: Cores | None = None

    def __len__(self) -> int:
        return len(self.names)

    def factors(self, module: str) -> list[Factors]:
        """The K updates of a module."""
        if module != self._module:
            self._factors = [vector[module] for vector in self.vectors.values()]
            self._module, self._stack, self._cores = module, None, None
        return self._factors

    def stack(self, module: str) -> Stack:
        """The K updates of a module side by side."""
        factors = self.factors(module)
        if self._stack is None:
            self._stack = Stack.of(factors)
        return self._stack

    def cores(self, module: str) -> Cores:
        """The K updates of a module in joint bases."""
        stack = self.stack(module)
        if self._cores is None:
            self._cores = Cores.of(stack)
        return self._cores

    def tiles(self, module: str) -> Iterator[Tile]:
        """The dense updates of a module by blocks of rows, which together take the place of (K, m, n) in memory.

        The blocks are always the same: other shapes round B A differently, and an entry could cross its threshold
        between the pass that finds it and the one that applies it.
        """
        factors = self.factors(module)
        for rows in blocks_of(factors[0].B, factors[0].shape[1]):
            deltas = torch.empty(len(factors), len(factors[0].B[rows]), factors[0].shape[1])
            for i, f in enumerate(factors):
                torch.mm(f.B[rows], f.A, out=deltas[i])
            yield Tile(module, rows, deltas)

    def squared_norms(self, module: str) -> Tensor:
        """(K,) fp64."""
        return self.stack(module).products.gram().diagonal()


@dataclass(frozen=True)
class Update:
    """One module's merged update."""

    value: Factors | Core | Tensor
    """Factors, or a core in orthonormal bases, from a method that stays low-rank, else a dense (m, n) fp32 matrix."""
    kept: Sequence[float] | None = None
    """Share of each expert's entries that survived; None for methods that drop none."""


class MergeMethod(ABC):
    """Built as `Method(Method.Config(...))`; `Config` is a nested frozen dataclass."""

    Config: ClassVar[type]
    needs_grams: ClassVar[bool] = False
    """Whether `merge` asks for the Gram matrices of the modules' inputs."""
    positive_weights: ClassVar[bool] = False
    """Whether weights of 0 and below are refused."""

    def __init__(self, config: Any = None) -> None:
        """Keep the configuration; None means the defaults."""
        self.config = config if config is not None else self.Config()

    def merge(self, experts: Experts) -> Callable[[str], Update]:
        """Prepare the merge of K experts.

        Args:
            experts: with their weights and, where `needs_grams`, Gram matrices.

        Returns:
            A function from a module's name to its merged update; modules may be asked for in any order.

        Raises:
            ValueError: weights that this method cannot use, or no Gram matrices.
        """
        if self.positive_weights and min(experts.weights) <= 0:
            raise ValueError(f"{type(self).__name__}: weights must be above 0, got {experts.weights}")
        if self.needs_grams and experts.grams is None:
            raise ValueError(
                f"{type(self).__name__} needs Gram matrices of the inputs, and none are given; "
                "run it where the experts' data are at hand, or give `grams`"
            )
        return self.prepare(experts)

    @abstractmethod
    def prepare(self, experts: Experts) -> Callable[[str], Update]:
        """What `merge` does once the experts are checked."""


class CoreMethod(MergeMethod):
    """A rule on cores: exact in factor space, and of the experts' joint rank at most."""

    @abstractmethod
    def core(self, joint: Cores, weights: Tensor) -> Tensor | Triples:
        """The merged core, (p, q) fp64, or its singular value decomposition where the rule gives that.

        Args:
            joint: one module's experts; `joint.cores` is (K, p, q) fp64.
            weights: (K,) fp64.
        """

    @override
    def prepare(self, experts: Experts) -> Callable[[str], Update]:
        weights = torch.tensor(experts.weights, dtype=torch.float64)

        def module(name: str) -> Update:
            joint = experts.cores(name)
            found = self.core(joint, weights)
            if isinstance(found, Tensor):
                return Update(Core(joint.left, found, joint.right))
            U, S, V = found
            return Update(Core(joint.left, (U * S) @ V.T, joint.right, found))

        return module


class EntryMethod(MergeMethod):
    """A rule on entries: sparsify each expert, then fuse. Dense, one matrix in memory at a time."""

    def shared(self, experts: Experts) -> Any:
        """What all modules need to know, such as thresholds over the whole model; None where nothing."""
        return None

    def of_module(self, experts: Experts, module: str, shared: Any) -> Any:
        """What all tiles of a module need to know."""
        return shared

    @abstractmethod
    def sparsify(self, experts: Experts, tile: Tile, known: Any) -> Tensor:
        """(K, rows, n), with zeros where an expert's entry is dropped."""

    @abstractmethod
    def fuse(self, sparse: Tensor, weights: Tensor, known: Any) -> Tensor:
        """(K, rows, n) and (K,) -> (rows, n)."""

    @override
    def prepare(self, experts: Experts) -> Callable[[str], Update]:
        shared = self.shared(experts)

        def module(name: str) -> Update:
            known = self.of_module(experts, name, shared)
            merged = torch.empty(experts.factors(name)[0].shape)
            kept = [0] * len(experts)
            for tile in experts.tiles(name):
                sparse = self.sparsify(experts, tile, known)
                kept = [k + entries_left(x) for k, x in zip(kept, sparse, strict=True)]
                merged[tile.rows] = self.fuse(sparse, sparse.new_tensor(experts.weights), known)
            return Update(merged, [k / merged.numel() for k in kept])

        return module


def entries_left(sparse: Tensor) -> int:
    """How many entries are not zero; on a processor by numpy, which takes a third of the time."""
    return int(np.count_nonzero(sparse.numpy() != 0) if sparse.device.type == "cpu" else sparse.count_nonzero())


def blocks_of(B: Tensor, width: int) -> list[slice]:
    """Rows of B A, of so many columns, in blocks of some `BLOCK_ENTRIES`, or `CARD_BLOCK_ENTRIES` where B is there."""
    entries = BLOCK_ENTRIES if B.device.type == "cpu" else CARD_BLOCK_ENTRIES
    step = max(1, entries // width)
    return [slice(start, min(start + step, len(B))) for start in range(0, len(B), step)]


def expert_tiles(vector: Mapping[str, Factors], modules: Sequence[str]) -> Iterator[Tensor]:
    """One expert's dense updates in the blocks of rows that `Experts.tiles` makes."""
    for module in modules:
        f = vector[module]
        yield from (f.B[rows] @ f.A for rows in blocks_of(f.B, f.shape[1]))


def expert_sample(vector: Mapping[str, Factors], modules: Sequence[str], entries: int = 2**18) -> Tensor:
    """Some `entries` of one expert's dense updates, of every module in proportion to its size.

    Choice: where evenly spaced rows and columns cross. Entries of a row share its norm, and so do those of a column, so
        that many rows with few entries of each tell more than a few whole rows.
    """
    sizes = {module: math.prod(vector[module].shape) for module in modules}
    found = []
    for module, size in sizes.items():
        f, count = vector[module], max(1, entries * size // sum(sizes.values()))
        m, n = f.shape
        height = min(m, math.isqrt(count) + 1)
        width = min(n, count // height + 1)
        rows, columns = torch.arange(height) * m // height, torch.arange(width) * n // width
        found.append((f.B[rows] @ f.A[:, columns]).flatten())
    return torch.cat(found)
