"""Reference: by hand, and the page that shows the tables. Run: pytest tests/benchmarks/test_sizing.py."""

from pathlib import Path

import pytest

from benchmarks.sizing import Assumptions, decode_seconds, memory, reduced, sharded_memory, tables, train_seconds

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"


def test_weights_of_the_published_7b_by_hand():
    a = Assumptions()
    # q and o 3584 x 3584, k and v 3584 x 512, gate, up and down 3584 x 18944
    assert a.layer_parameters == 2 * 12_845_056 + 2 * 1_835_008 + 3 * 67_895_296
    assert a.parameters == pytest.approx(8.29e9, rel=1e-3)
    # rank 64: 28 x 64 x (2 x 7168 + 2 x 4096 + 3 x 22528)
    assert a.trained == 28 * 64 * 90_112


def test_a_small_case_by_hand():
    # one layer, width 2, keys 1, inner 4, 10 words: linear 2*4 + 2*2 + 3*8 = 36, head 20
    sizes = {"layers": 1, "hidden": 2, "key_value": 1, "intermediate": 4, "vocabulary": 10, "vision_parameters": 0}
    work = {"rank": 1, "prefix": 3, "completion": 2, "group": 2, "questions_per_card": 1}
    a = Assumptions(**sizes, **work, bandwidth=100.0, read=0.5, peak=100.0, used=0.5)
    assert (a.language, a.parameters, a.trained, a.cache_per_token) == (56, 76, 2 * 4 + 2 * 3 + 3 * 6, 4)
    # 152 of weights, 4 x 32 of the expert beneath, 16 x 32 of training, 4 x 2 rows x (3 + 2) of cache
    assert memory(a) == 152 + 128 + 512 + 40
    # of the weights 2 x 36 are the block, and there is only one to gather, counted twice as of two
    assert sharded_memory(a, 1) == 152 + 512
    assert sharded_memory(a, 2) == 152 - 72 + 36 + 2 * 72 + 512
    # two tokens, each 112 of weights and 40 of cache, at 50 a second
    assert decode_seconds(a) == pytest.approx(2 * (112 + 40) / 50)
    # 3 + 2 x 2 tokens, 8 x 56 each, at 50 a second
    assert train_seconds(a) == pytest.approx(8 * 56 * 7 / 50)
    assert reduced(a, 4) == 2 * 3 / 4 * 4 * 32


def test_the_page_shows_what_is_computed():
    assert tables(1e8) in PAGE.read_text()
