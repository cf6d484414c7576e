"""Keys and values of rows that are being written: one new token per row and call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from lightning_modules.packing import Packing

ALIGNED = 16
"""Columns of fixed shapes are a multiple of this, as kernels that take a mask want it."""


class RowCache:
    """Keys and values of rows that are being written: one new token per row and call.

    Buffers are allocated once; prompts stand flush right, so that a step's keys go into one column for all rows. A
    finished row's slot is taken by the last one, which moves one row's memory instead of copying all.
    """

    def __init__(self, packing: Packing, prompts: Sequence[int], new_tokens: int) -> None:
        """Start from a packing whose keys and values were kept.

        Args:
            packing: the prompts' forward pass.
            prompts: for each of B slots, the row of `packing` that it continues.
            new_tokens: room for so many tokens.
        """
        seen = [packing.row_places(row) for row in range(len(packing.row_lengths))]
        self.length = max(map(len, seen))
        places = torch.tensor([[0] * (self.length - len(row)) + row for row in seen], device=packing.device)
        start = torch.tensor([self.length - len(seen[row]) for row in prompts], device=packing.device)
        slots = torch.tensor(prompts, device=packing.device)
        self.buffers: dict[int, tuple[Tensor, Tensor]] = {}
        for layer in list(packing.kept or ()):
            pair = []
            for line in packing.kept.pop(layer):
                buffer = self._buffer(line, (len(prompts), line.shape[1], self.length + new_tokens, line.shape[2]))
                prompt = line.index_select(0, places.flatten()).unflatten(0, places.shape).transpose(1, 2)
                buffer[:, :, : self.length] = prompt[slots]
                pair.append(buffer)
            self.buffers[layer] = (pair[0], pair[1])
        self.rows = len(prompts)
        self.mask: Tensor | None = None  # (B, 1, 1, columns) float, only where prompts differ in length
        if bool(start.any()):
            column = torch.arange(self.length + new_tokens, device=packing.device)
            hidden = (column < start[:, None])[:, None, None]
            like = next(iter(self.buffers.values()))[0]
            self.mask = like.new_zeros(hidden.shape).masked_fill(hidden, -torch.inf)

    @staticmethod
    def _buffer(line: Tensor, shape: tuple[int, ...]) -> Tensor:
        return line.new_empty(shape)

    @property
    def filled(self) -> int:
        """Columns that hold something."""
        return self.length

    def next_token(self) -> None:
        """Make room for one more token in every row."""
        self.length += 1

    def drop(self, slots: Sequence[int]) -> list[int]:
        """Give up finished slots.

        Returns:
            The old slot of every slot that is left, in their new order.
        """
        order = list(range(self.rows))
        for slot in sorted(slots, reverse=True):
            moved = order.pop()
            self.rows -= 1
            if slot == self.rows:
                continue
            order[slot] = moved
            for pair in self.buffers.values():
                for buffer in pair:
                    buffer[slot, :, : self.filled] = buffer[self.rows, :, : self.filled]
            if self.mask is not None:
                self.mask[slot] = self.mask[self.rows]
        return order

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None = None
    ) -> Tensor:
        """(B, heads, d) queries of one new token per row; see `Attention.attend`.

        Prompts stand flush right, so that the first column of the window is the same for all rows.
        """
        first = 0 if window is None else max(0, self.length - window)
        keys, values = self.buffers[layer]
        keys[: self.rows, :, self.length - 1] = key
        values[: self.rows, :, self.length - 1] = value
        rows, heads, width = query.shape
        out = F.scaled_dot_product_attention(
            query.view(rows, keys.shape[1], heads // keys.shape[1], width),
            keys[: self.rows, :, first : self.length],
            values[: self.rows, :, first : self.length],
            attn_mask=None if self.mask is None else self.mask[: self.rows, ..., first : self.length],
            scale=scaling,
        )
        return out.reshape(rows, heads, width)


class FixedRowCache(RowCache):
    """The same in shapes that never change, as a step needs that is recorded once and replayed for every token.

    Every step reads all columns, those of tokens that are still to come too; which of them a row sees is said on the
    device, and so is the column of the newest token.
    """

    def __init__(self, packing: Packing, prompts: Sequence[int], new_tokens: int) -> None:
        """As `RowCache`."""
        longest = max(len(packing.row_places(row)) for row in range(len(packing.row_lengths)))
        room = new_tokens + -(longest + new_tokens) % ALIGNED
        super().__init__(packing, prompts, room)
        self.columns = torch.arange(self.length + room, device=packing.device)
        self.newest = torch.tensor([self.length - 1], device=packing.device)
        self._masks: dict[int | None, Tensor] = {}

    @staticmethod
    @override
    def _buffer(line: Tensor, shape: tuple[int, ...]) -> Tensor:
        return line.new_zeros(shape)  # what is hidden is multiplied by 0, so that it must be a number

    @property
    @override
    def filled(self) -> int:
        return len(self.columns)

    @override
    def next_token(self) -> None:
        self.newest.add_(1)
        self._masks.clear()

    @override
    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None = None
    ) -> Tensor:
        keys, values = (buffer[: self.rows] for buffer in self.buffers[layer])
        rows, heads, width = query.shape
        place = self.newest.expand(rows, keys.shape[1], 1, width)
        with each_place_once():
            keys.scatter_(2, place, key[:, :, None])
            values.scatter_(2, place, value[:, :, None])
        if window not in self._masks:
            self._masks[window] = self._seen(window, query.dtype)
        out = F.scaled_dot_product_attention(
            query.view(rows, keys.shape[1], heads // keys.shape[1], width),
            keys,
            values,
            attn_mask=self._masks[window],
            scale=scaling,
        )
        return out.reshape(rows, heads, width)

    def _seen(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """(1 or B, 1, 1, columns): 0 where a row's newest token sees a column, else minus infinity; one per step."""
        hidden = self.columns > self.newest
        if window is not None:
            hidden = hidden | (self.columns <= self.newest - window)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, -torch.inf)
        return mask[None, None, None] if self.mask is None else self.mask[: self.rows] + mask


@contextmanager
def each_place_once() -> Iterator[None]:
    """Let numbers be written in any order: no place is written twice, and sorting them first, as PyTorch would, costs.

    Seen on a card: two sorts per layer and token.
    """
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warns)
