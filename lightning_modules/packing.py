"""Rows without padding that share their prompts: the layout, and the attention that goes with it.

A packed batch is one line of N tokens, shared prefixes first, then the rows:

    [ prefix 0 | prefix 1 | … | row 0 | row 1 | … ]

A prefix attends causally within itself; a row attends to all of its prefix and causally within itself. Every linear
layer runs on N tokens and none of them is padding; only attention, a small share of the work, is laid out as a
rectangle. Gradients reach a prefix from all rows that share it, so values and gradients are those of the rows taken
one by one with their full prompts.

Source: sharing a group's prompt in training, Prefix Grouper, arXiv:2506.05433; in decoding, arXiv:2402.05099.
Choice: keys and values of the prefix are gathered per row instead of masking one long line: fewer products of queries
    and keys, and no change to the model's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

from lightning_modules.seeing import number_pictures, sees

ATTENTION = "packed"
"""Name under which transformers knows `packed_attention`."""


class Attention(Protocol):
    """What decides which tokens of a line see which."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None = None
    ) -> Tensor:
        """(N, heads, d), (N, kv heads, d), (N, kv heads, d) -> (N, heads, d); the layer's window as of `seeing`."""


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    packing: Attention,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: hand the line's queries, keys and values to its `packing`.

    Args:
        module: the layer, which knows its index.
        query: (1, heads, N, d).
        key: (1, kv heads, N, d).
        value: (1, kv heads, N, d).
        attention_mask: unused; `packing` says who sees whom.
        scaling: of the scores.
        packing: given to the language model's forward, which hands it on.
        sliding_window: of the layer, or None.
        softcap: bound of the scores; such a layer is refused.

    Raises:
        ValueError: the layer's attention is of a kind that packed rows do not have.
    """
    if softcap is not None or not getattr(module, "is_causal", True):
        kind = f"caps its scores at {softcap}" if softcap is not None else "sees the text after a token"
        raise ValueError(
            f"layer {module.layer_idx} ({type(module).__name__}) {kind}, which packed rows do not do; such a model is "
            "not supported"
        )
    line = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return packing.attend(module.layer_idx, *line, scaling, sliding_window)[None], None


AttentionInterface.register(ATTENTION, packed_attention)


class Packing:
    """Layout of prefixes and rows in one line, and the attention over it."""

    def __init__(
        self,
        prefix_lengths: Sequence[int],
        rows: Sequence[tuple[int | None, int]],
        *,
        device: torch.device | str = "cpu",
        keep: bool = False,
        whole_pictures: Sequence[bool] | None = None,
    ) -> None:
        """Lay out a batch.

        Args:
            prefix_lengths: tokens of each shared prefix, at least 1.
            rows: (index of the row's prefix or None, tokens of the row, at least 1).
            device: of the indices.
            keep: remember keys and values of every layer, for decoding.
            whole_pictures: (N,) True at the tokens of pictures, where these see each other; None: they are as text.

        Raises:
            ValueError: a picture that is seen whole is cut by the end of a shared prefix.
        """
        self.prefix_lengths = tuple(prefix_lengths)
        self.row_lengths = tuple(length for _, length in rows)
        self.prefix_of = tuple(prefix for prefix, _ in rows)
        self.device = torch.device(device)
        self.prefix_starts = _starts(self.prefix_lengths, 0)
        self.prefix_tokens = sum(self.prefix_lengths)
        self.row_starts = _starts(self.row_lengths, self.prefix_tokens)
        self.kept: dict[int, tuple[Tensor, Tensor]] | None = {} if keep else None
        self.longest = max(
            [*self.prefix_lengths, *(n + self._before(row) for row, n in enumerate(self.row_lengths))], default=0
        )
        self.pictures: Tensor | None = None
        if whole_pictures is not None and any(whole_pictures):
            self._refuse_cut_pictures(whole_pictures)
            numbers = number_pictures(whole_pictures, [*self.prefix_starts, *self.row_starts])
            self.pictures = torch.tensor(numbers, device=self.device)
        self._masks: dict[tuple[int, torch.dtype, int | None], Tensor] = {}
        self._alone: dict[tuple[bool, int | None], list[Tensor]] = {}

    def __len__(self) -> int:
        """N."""
        return self.prefix_tokens + sum(self.row_lengths)

    @property
    def row_ends(self) -> list[int]:
        """Place of the last token of every row."""
        return [start + length - 1 for start, length in zip(self.row_starts, self.row_lengths, strict=True)]

    def row_places(self, row: int) -> list[int]:
        """Places of everything that the row's last token sees, in order: its prefix, then itself."""
        prefix = self.prefix_of[row]
        seen = [] if prefix is None else range(self.prefix_starts[prefix], self._prefix_end(prefix))
        return [*seen, *range(self.row_starts[row], self.row_starts[row] + self.row_lengths[row])]

    def _prefix_end(self, prefix: int) -> int:
        return self.prefix_starts[prefix] + self.prefix_lengths[prefix]

    def _before(self, row: int) -> int:
        """Tokens that a row's first one comes after."""
        prefix = self.prefix_of[row]
        return 0 if prefix is None else self.prefix_lengths[prefix]

    def _refuse_cut_pictures(self, inside: Sequence[bool]) -> None:
        for row, prefix in enumerate(self.prefix_of):
            if prefix is not None and inside[self.row_starts[row]] and inside[self._prefix_end(prefix) - 1]:
                raise ValueError(
                    f"row {row} begins with picture tokens and so ends its prefix {prefix}: a picture that is seen "
                    "whole must stand on one side; share up to its first token, or beyond its last"
                )

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None = None
    ) -> Tensor:
        """Attention of the whole line; see `Attention.attend`."""
        if self.kept is not None:
            self.kept[layer] = (key, value)
        if window is not None and window >= self.longest:
            window = None  # it hides nothing, and the plain causal kernel is the faster one
        pieces = []
        if self.prefix_lengths:
            pieces.append(self._prefixes.attend(query, key, value, scaling, self._alone_masks(True, window)))
        if any(prefix is not None for prefix in self.prefix_of):
            pieces.append(self._rows_with_prefixes(query, key, value, scaling, window))
        elif self.row_lengths:
            pieces.append(self._rows.attend(query, key, value, scaling, self._alone_masks(False, window)))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _alone_masks(self, prefixes: bool, window: int | None) -> list[Tensor] | None:
        """(T, T) bool for each prefix, or for each row, that sees nothing before itself; None where all are causal."""
        if window is None and self.pictures is None:
            return None
        if (prefixes, window) not in self._alone:
            spans, masks = self._prefixes if prefixes else self._rows, []
            for start, length in zip(spans.starts, spans.lengths, strict=True):
                places = torch.arange(length, device=self.device)
                pictures = None if self.pictures is None else self.pictures[start : start + length]
                masks.append(sees(places, places, window, pictures, pictures))
            self._alone[prefixes, window] = masks
        return self._alone[prefixes, window]

    @cached_property
    def _prefixes(self) -> Rectangle:
        return Rectangle(self.prefix_starts, self.prefix_lengths, self.device)

    @cached_property
    def _rows(self) -> Rectangle:
        return Rectangle(self.row_starts, self.row_lengths, self.device)

    @cached_property
    def _seen(self) -> Rectangle:
        """The prefix of every row; a row without one has length 0."""
        starts = [0 if prefix is None else self.prefix_starts[prefix] for prefix in self.prefix_of]
        lengths = [0 if prefix is None else self.prefix_lengths[prefix] for prefix in self.prefix_of]
        return Rectangle(starts, lengths, self.device)

    def _rows_with_prefixes(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        rows, width, kv_heads = len(self.row_lengths), self._rows.width, key.shape[1]
        fold = query.shape[1] // kv_heads  # query heads that share a key head stand one after the other
        q = self._rows.of(query).transpose(1, 2)  # (B, heads, width, d)
        q = q.reshape(rows, kv_heads, fold * width, -1)
        k, v = (
            tensor.index_select(0, self._key_places).unflatten(0, (rows, -1)).transpose(1, 2) for tensor in (key, value)
        )
        mask = self._mask(fold, q.dtype, window)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
        return self._rows.back(out.reshape(rows, kv_heads * fold, width, -1).transpose(1, 2))

    @cached_property
    def _key_places(self) -> Tensor:
        """(B · (prefix width + row width),) places of the keys that a row may see."""
        return torch.cat([self._seen.places, self._rows.places], dim=1).flatten()

    def _mask(self, fold: int, dtype: torch.dtype, window: int | None) -> Tensor:
        """(B, 1, fold · width, prefix width + width): 0 where a row's token sees a key, else minus infinity.

        The same for every layer of a window, so it is made once.
        """
        if (fold, dtype, window) not in self._masks:
            before = torch.tensor([self._before(row) for row in range(len(self.row_lengths))], device=self.device)
            own = before[:, None] + torch.arange(self._rows.width, device=self.device)
            prefix = torch.arange(self._seen.width, device=self.device).expand(len(before), -1)
            pictures: tuple[Tensor, ...] = ()
            if self.pictures is not None:  # padding is part of no picture: a picture's tokens do not see it
                numbers = self.pictures[self._rows.places].masked_fill(~self._rows.real, -1)
                pictures = (numbers, torch.cat([self.pictures[self._seen.places], numbers], dim=1))
            seen = sees(own, torch.cat([prefix, own], dim=1), window, *pictures)
            seen[:, :, : self._seen.width] &= self._seen.real[:, None]
            mask = torch.zeros(seen.shape, dtype=dtype, device=self.device).masked_fill(~seen, -torch.inf)
            self._masks[fold, dtype, window] = mask.repeat(1, fold, 1)[:, None]
        return self._masks[fold, dtype, window]


class Rectangle:
    """Spans of a line as a padded (B, width) rectangle and back.

    Padding repeats some real token: it is computed and thrown away, so it can neither be seen nor be infinite.
    """

    def __init__(self, starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> None:
        """Lay out spans.

        Args:
            starts: of each span in the line.
            lengths: of each span, 0 allowed.
            device: of the indices.
        """
        self.starts, self.lengths = tuple(starts), tuple(lengths)
        self.shape = (len(lengths), max(lengths, default=0))
        self.width = self.shape[1]
        start, length = torch.tensor(starts, device=device)[:, None], torch.tensor(lengths, device=device)[:, None]
        column = torch.arange(self.width, device=device)
        self.real = column < length
        """(B, width) bool."""
        self.places = start + torch.where(self.real, column, 0)
        """(B, width) places in the line."""
        self.even = all(other == self.width for other in lengths)
        line = [place for begin, size in zip(starts, lengths, strict=True) for place in range(begin, begin + size)]
        self.contiguous = self.even and line == list(range(line[0], line[0] + len(line))) if line else False
        self.first = starts[0] if starts else 0

    def of(self, line: Tensor) -> Tensor:
        """(N, …) -> (B, width, …)."""
        if self.contiguous:
            return line[self.first : self.first + self.shape[0] * self.width].unflatten(0, self.shape)
        return line.index_select(0, self.places.flatten()).unflatten(0, self.shape)

    def back(self, rectangle: Tensor) -> Tensor:
        """(B, width, …) -> the spans' tokens one after the other."""
        line = rectangle.flatten(0, 1)
        return line if self.even else line.index_select(0, self.real.flatten().nonzero()[:, 0])

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, masks: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Attention within each span, all at once if they are of one length, else one after the other.

        The spans follow each other in the line, without a gap.

        Args:
            query: (N, heads, d) of the whole line.
            key: (N, kv heads, d), likewise.
            value: (N, kv heads, d), likewise.
            scaling: of the scores.
            masks: (T, T) bool for each span; None where all are causal.
        """
        if self.contiguous:
            spans = [tuple(self.of(tensor) for tensor in (query, key, value))]
        else:
            # split, because the gradient of each slice by itself would be as long as the whole line
            whole = slice(self.first, self.first + sum(self.lengths))
            split = (tensor[whole].split(self.lengths) for tensor in (query, key, value))
            spans = [tuple(part[None] for part in parts) for parts in zip(*split, strict=True)]
        if masks is not None and self.contiguous:
            masks = [torch.stack(list(masks))[:, None]]
        pairs = zip(spans, masks if masks is not None else [None] * len(spans), strict=True)
        return torch.cat([_alone(*span, scaling, mask).flatten(0, 1) for span, mask in pairs])


def _alone(query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
    """(B, T, heads, d), twice (B, T, kv heads, d) -> (B, T, heads, d); causal where there is no (…, T, T) mask."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    if mask is None:
        grouped = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
    else:  # query heads are folded into rows: no kernel but the slow one takes a mask together with shared key heads
        fold = q.shape[1] // k.shape[1]
        mask = mask.repeat(*[1] * (mask.ndim - 2), fold, 1)
        out = F.scaled_dot_product_attention(
            q.reshape(len(q), k.shape[1], -1, q.shape[-1]), k, v, attn_mask=mask, scale=scaling
        ).reshape(q.shape)
    return out.transpose(1, 2)


def _starts(lengths: Sequence[int], first: int) -> list[int]:
    starts = []
    for length in lengths:
        starts.append(first)
        first += length
    return starts
