# Reference: divergences and loops by hand, torch's kl_div. Run: pytest tests/merge/test_smoke.py
import math

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from merge.gates import KL_RATIO, Answers, gates_on_answers, gates_on_smoke, summary
from merge.smoke import Smoke, kl_to_base, repeats


def logits_of(*probabilities):
    """(1, T, V) of given distributions; a shift changes nothing."""
    return torch.tensor([probabilities]).log() + 3.0


def test_kl_by_hand():
    model, base = logits_of((0.75, 0.25), (0.5, 0.5)), logits_of((0.5, 0.5), (0.25, 0.75))
    first = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # 0.1308
    second = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)  # 0.1438
    both, one = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    assert kl_to_base(model, base, both).item() == pytest.approx((first + second) / 2, rel=1e-5)
    assert kl_to_base(model, base, one).item() == pytest.approx(first, rel=1e-5)


def test_kl_is_torchs_row_by_row_and_zero_at_equality():
    generator = torch.Generator().manual_seed(0)
    model, base = (torch.randn(3, 5, 11, generator=generator) for _ in range(2))
    mask = torch.arange(5) < torch.tensor([5, 1, 3])[:, None]
    found = kl_to_base(model, base, mask)
    for row, length in enumerate((5, 1, 3)):
        p, q = (log_softmax(each[row, :length], dim=-1) for each in (model, base))
        torch.testing.assert_close(found[row], kl_div(q, p, log_target=True, reduction="sum") / length)
    assert kl_to_base(model, model, mask).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_shows_where_it_counts_and_only_there(value):
    model = torch.zeros(2, 2, 4)
    model[0, 1, 2] = value
    for pair in ((model, torch.zeros(2, 2, 4)), (torch.zeros(2, 2, 4), model)):
        first, second = kl_to_base(*pair, torch.ones(2, 2, dtype=torch.bool)).tolist()
        assert (math.isfinite(first), second) == (False, 0.0)
        assert kl_to_base(*pair, torch.tensor([[True, False], [True, True]])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("tokens", "loops"),
    [
        ((5, 6, 7) + (1,) * 12, True),
        ((5, 6, 7) + (1,) * 11, False),  # too short to tell
        ((1,) * 40 + (2,), False),  # it ended by itself
        ((9,) + (1, 2, 3, 4) * 3, True),
        ((9,) + (1, 2, 3, 4) * 3 + (1, 2), True),  # cut off within the fourth
        ((1, 2, 3, 4, 5, 6, 7) * 2, False),  # twice is no loop
        (tuple(range(20)) * 3, True),
        (tuple(range(20)) * 3 + (7,), False),
        ((), False),
    ],
)
def test_loops_by_hand(tokens, loops):
    assert repeats(tokens) is loops
    assert repeats(list(tokens)) is loops


def spoken(kl=0.5, expert_kl=1.0, loops=0, expert_loops=0, n=40):
    return Smoke(kl, expert_kl, [i < loops for i in range(n)], [i < expert_loops for i in range(n)])


@pytest.mark.parametrize(
    ("smoke", "verdict", "text"),
    [
        (spoken(), "accept", "s 0.5 (expert 1), t 0.5 (expert 2); 0 of 80 replies end in a loop (experts: 0)"),
        (spoken(kl=0.99 * KL_RATIO * 2), "accept", ""),  # the largest expert's counts, t's 2
        (spoken(kl=1.01 * KL_RATIO * 2), "warn", "s: KL to the base is"),
        (spoken(kl=math.nan), "reject", "s: logits of the merged agent hold NaN"),
        (spoken(kl=math.inf), "reject", "s: logits of the merged agent hold NaN"),
        (spoken(kl=math.nan, expert_kl=math.nan), "reject", "s: logits of the base or the expert hold NaN"),
        (spoken(loops=1), "accept", "1 of 80"),  # one in forty is chance
        (spoken(kl=2.00001, expert_kl=1.0), "accept", ""),  # rounding is no distance
        (spoken(kl=0.5, expert_kl=float("nan")), "warn", "s: logits of the expert hold NaN"),
        (spoken(loops=8), "warn", "s: 0.200 of the replies end in a loop, 0.000 of the expert's"),
        (spoken(loops=30), "reject", "s: 0.750 of the replies"),
        (spoken(loops=30, expert_loops=29), "accept", "30 of 80 replies end in a loop (experts: 29)"),
    ],
)
def test_gates_on_smoke(smoke, verdict, text):
    gates = gates_on_smoke({"s": smoke, "t": spoken(expert_kl=2.0)})
    assert summary(gates)["verdict"] == verdict
    assert any(text in gate.text for gate in gates)
    assert [gate.verdict for gate in gates] == ([verdict] if verdict != "accept" else []) + ["accept"]


def test_an_expert_that_is_the_base_leaves_room_for_rounding():
    assert [gate.verdict for gate in gates_on_smoke({"s": spoken(kl=1e-9, expert_kl=0.0)})] == ["accept"]


def test_few_questions_do_not_reject():
    right = [True] * 5
    assert [g.verdict for g in gates_on_answers({"s": Answers(right, right, [True] * 2 + [False] * 3)})] == [
        "warn",
        "note",
    ]
    right = [True] * 10
    worse = gates_on_answers({"s": Answers(right, right, [True] * 4 + [False] * 6)})  # 2 / 2^6 < 0.05
    assert [gate.verdict for gate in worse] == ["reject", "note"]


def test_smoke_joins_the_gates_on_answers():
    right = [True] * 40
    heard = {"s": Answers(right, right, right, spoken(loops=40)), "t": Answers(right, right, right)}
    assert [gate.verdict for gate in gates_on_answers(heard)] == ["reject", "accept"]
    assert gates_on_answers({"t": heard["t"]}) == []
