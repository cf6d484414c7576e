# Reference: transformers' own mask functions and a plain softmax, row by row, nothing shared. Run: pytest <this file>
import random

import pytest
import torch
from transformers.masking_utils import (
    and_masks,
    blockwise_overlay,
    causal_mask_function,
    or_masks,
    sliding_window_overlay,
)
from transformers.models.gemma3.modeling_gemma3 import get_block_sequence_ids_for_mask

from lightning_modules.packing import Packing, packed_attention
from lightning_modules.row_cache import FixedRowCache, RowCache
from lightning_modules.seeing import number_pictures

HEADS, KV_HEADS, WIDTH = 4, 2, 8


def drawn(rng: random.Random, length: int, pictures: bool) -> list[bool]:
    """True at the tokens of pictures: runs of one to four of them among text, the last token being text."""
    inside: list[bool] = []
    while len(inside) < length:
        inside += [rng.random() < 0.4] * rng.randint(1, 4) + [False]
    return [pictures and inside[i] for i in range(length - 1)] + [False]


def plainly(query, key, value, window, inside):
    """(T, heads, d) attention of one whole sequence under transformers' masks."""
    mask = causal_mask_function
    if any(inside):
        mask = or_masks(mask, blockwise_overlay(get_block_sequence_ids_for_mask(torch.tensor([inside]).int())))
    if window is not None:
        mask = and_masks(sliding_window_overlay(window), mask)
    places = torch.arange(len(query))
    seen = mask(torch.tensor(0), torch.tensor(0), places[:, None], places[None]).expand(len(query), -1)
    key, value = (tensor.repeat_interleave(HEADS // KV_HEADS, dim=1) for tensor in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * 0.3
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), value)


def tensors(seed, *sizes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, heads, WIDTH, generator=generator, requires_grad=True) for n, heads in sizes]


@pytest.mark.parametrize("seed", range(40))
def test_any_line_sees_what_its_rows_see_alone(seed):
    # prefixes and rows of any length, shared or not, windows that bind and do not, pictures in prefixes and in rows
    rng = random.Random(seed)
    window, pictures = rng.choice([None, 1, 3, 7, 200]), rng.random() < 0.7
    prefixes = [rng.randint(1, 14) for _ in range(rng.randint(0, 3))]
    owners = [rng.choice([None, *range(len(prefixes))]) for _ in range(rng.randint(1, 6))]
    even = rng.choice([None, 5])  # spans of one length go through one call
    rows = [(owner, even or rng.randint(1, 9)) for owner in owners]
    spans = [drawn(rng, n, pictures) for n in [*prefixes, *(n for _, n in rows)]]
    inside = [token for span in spans for token in span]
    packing = Packing(prefixes, rows, whole_pictures=inside)
    q, k, v = tensors(seed, (len(packing), HEADS), (len(packing), KV_HEADS), (len(packing), KV_HEADS))
    found = packing.attend(0, q, k, v, 0.3, window)
    wanted = torch.zeros_like(found)
    expected = found.new_zeros(())
    for row in range(len(rows)):
        places = packing.row_places(row)
        whole = plainly(q[places], k[places], v[places], window, [inside[place] for place in places])
        start, length = packing.row_starts[row], packing.row_lengths[row]
        torch.testing.assert_close(found[start : start + length], whole[-length:], atol=1e-5, rtol=1e-5)
        expected = expected + whole[-length:].square().sum()
        wanted[start : start + length] = 1
    for start, length in zip(packing.prefix_starts, prefixes, strict=True):
        whole = plainly(*(t[start : start + length] for t in (q, k, v)), window, inside[start : start + length])
        torch.testing.assert_close(found[start : start + length], whole, atol=1e-5, rtol=1e-5)
    ours = torch.autograd.grad((found.square() * wanted).sum(), (q, k, v))
    for one, other in zip(ours, torch.autograd.grad(expected, (q, k, v)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [RowCache, FixedRowCache])
@pytest.mark.parametrize("window", [None, 1, 4, 9])
def test_a_new_token_sees_its_window(window, kind):
    # prompts of several lengths, pictures in the shared prefix, rows that finish early
    prefixes, rows, steps = [6, 3], [(0, 2), (1, 1), (None, 11), (0, 1)], 5
    packing = Packing(prefixes, rows, keep=True, whole_pictures=[1, 1, 0, 1, 1, 0] + [0] * 18)
    q, k, v = tensors(0, (len(packing), HEADS), (len(packing), KV_HEADS), (len(packing), KV_HEADS))
    packing.attend(0, q, k, v, 0.3, window)
    cache, slots = kind(packing, range(4), steps), list(range(4))
    lines = {row: [t[packing.row_places(row)].detach() for t in (q, k, v)] for row in slots}
    for step in range(steps):
        if step == 2:
            slots = [slots[slot] for slot in cache.drop([0, 2])]
        cache.next_token()
        new = tensors(step + 1, (len(slots), HEADS), (len(slots), KV_HEADS), (len(slots), KV_HEADS))
        with torch.no_grad():
            found = cache.attend(0, *new, 0.3, window)
        for slot, row in enumerate(slots):
            lines[row] = [torch.cat([old, t[slot : slot + 1]]).detach() for old, t in zip(lines[row], new, strict=True)]
            last = plainly(*lines[row], window, [False])[-1]
            torch.testing.assert_close(found[slot], last, atol=1e-5, rtol=1e-5)


def test_pictures_are_numbered_by_hand():
    # two pictures, text, then a span that begins with the picture that another span ends with
    assert number_pictures([1, 1, 0, 1, 0, 1, 1, 1], starts=[0, 6]) == [0, 0, -1, 1, -1, 2, 3, 3]


def test_a_picture_on_both_sides_of_a_prefix_is_refused():
    Packing([2], [(0, 2)], whole_pictures=[False, True, False, True])
    with pytest.raises(ValueError, match="row 0 begins with picture tokens and so ends its prefix 0"):
        Packing([2], [(0, 2)], whole_pictures=[False, True, True, False])


def test_attention_of_another_kind_is_refused():
    layer = torch.nn.Identity()
    layer.layer_idx, packing = 3, Packing([], [(None, 1)])
    line = [torch.ones(1, 1, 1, 2)] * 3
    packed_attention(layer, *line, None, scaling=1.0, packing=packing)
    with pytest.raises(ValueError, match=r"layer 3 \(Identity\) caps its scores at 50.0"):
        packed_attention(layer, *line, None, scaling=1.0, packing=packing, softcap=50.0)
    layer.is_causal = False
    with pytest.raises(ValueError, match="sees the text after a token"):
        packed_attention(layer, *line, None, scaling=1.0, packing=packing)
