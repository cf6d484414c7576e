"""Which tokens of a row see which, where that is more or less than "all before": windows and whole pictures.

A layer with a window of W tokens lets a token see itself and the W - 1 before it. Where a picture is seen whole, its
tokens also see the tokens of the same picture that stand after them, in every layer. Both in places of the row's own
sequence, the shared prefix counted: what a token sees does not depend on how rows are packed.

Source: Gemma 3, arXiv:2503.19786, section 2; transformers' `create_masks_for_vision_model`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def sees(
    query_places: Tensor,
    key_places: Tensor,
    window: int | None = None,
    query_pictures: Tensor | None = None,
    key_pictures: Tensor | None = None,
) -> Tensor:
    """Who sees whom within one sequence.

    Args:
        query_places: (..., Q) places of the tokens that look.
        key_places: (..., K) places of the tokens that are looked at.
        window: W, or None where every token sees all before it.
        query_pictures: (..., Q) number of the picture that a token is part of, -1 for text; None: no picture is whole.
        key_pictures: (..., K), likewise.

    Returns:
        (..., Q, K) bool.
    """
    query, key = query_places[..., :, None], key_places[..., None, :]
    seen = key <= query
    if query_pictures is not None and key_pictures is not None:
        own = query_pictures[..., :, None]
        seen = seen | (own.ge(0) & own.eq(key_pictures[..., None, :]))
    return seen if window is None else seen & (key > query - window)


def number_pictures(inside: Sequence[bool], starts: Sequence[int]) -> list[int]:
    """Number the pictures of a line: a run of neighbouring picture tokens of one span is one picture.

    Args:
        inside: (N,) True at the tokens of pictures.
        starts: where a span begins, which ends the run before it.

    Examples:
        >>> number_pictures([True, True, False, True, True], starts=[0, 4])
        [0, 0, -1, 1, 2]
    """
    begins, numbers, last = set(starts), [], -1
    for place, is_picture in enumerate(inside):
        if is_picture and (place in begins or not inside[place - 1]):
            last += 1
        numbers.append(last if is_picture else -1)
    return numbers
