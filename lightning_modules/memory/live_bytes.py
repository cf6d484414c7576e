"""Bytes of the tensors that are alive, counted while code runs: on any device, and on none."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override


class LiveBytes(TorchDispatchMode):
    """While active, counts the memory of every tensor that is made, each storage once, until it is let go.

    Attributes:
        now: bytes alive, of what was made since the start.
        peak: the most at a time.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """Start at zero; `known` are tensors from before, of which views are made."""
        super().__init__()
        self.now = self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    @override
    def __torch_dispatch__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return out

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


class _Attention(torch.autograd.Function):
    """What an attention kernel that never holds all scores keeps: its three inputs, its result, a number per query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def attention_by_shapes() -> Iterator[None]:
    """Let attention keep on tensors without contents what a card's kernels keep, and not all scores."""
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda query, key, value, **_: _Attention.apply(query, key, value)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original
