# Reference: arithmetic by hand, PEFT 0.21.2's `ties` on dense deltas. Run: pytest tests/merge/test_ties.py
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.merge_utils import ties as peft_ties

from merge.factors import TaskVector
from merge.methods import interface, threshold
from merge.methods.interface import Experts
from merge.methods.threshold import kept_threshold
from merge.methods.ties import Ties
from merge.methods.ties import ties as weighted_ties


def dense(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ties(vectors, weights=None, **options):
    return weighted_ties(vectors, torch.tensor(weights or [1.0] * len(vectors)), **options)


def merged(vectors, weights=None, **options):
    """Module -> result, and module -> share kept per expert."""
    module = Ties(Ties.Config(**options)).merge(Experts(dict(enumerate(vectors)), weights))
    updates = {name: module(name) for name in vectors[0]}
    return {name: u.value for name, u in updates.items()}, {name: u.kept for name, u in updates.items()}


def test_ties_by_hand():
    # entry 0: +3 and -2 sum to +1, elect +, mean of {3} = 3
    # entry 1: -1 and -4 agree, mean -2.5; entry 2: 2 and 1 agree, mean 1.5
    vectors = torch.tensor([[3.0, -1, 2], [-2, -4, 1]])
    torch.testing.assert_close(ties(vectors, density=1.0), torch.tensor([3.0, -2.5, 1.5]))


def test_ties_by_hand_trims_and_scales():
    # floor(0.5 * 4) = 2 kept: {4, -3} of the first, {5, 2} of the second (of 1, 5, -1, 2)
    # entry 0: {4} -> 4; entry 1: -3 and 5 sum to +2, {5} -> 5; entry 2: nothing; entry 3: {2} -> 2; all times 0.5
    vectors = torch.tensor([[4.0, -3, 1, 2], [1, 5, -1, 2]])
    result = ties(vectors, density=0.5, lambda_=0.5)
    torch.testing.assert_close(result, torch.tensor([2.0, 2.5, 0, 1]))


def test_weights_apply_before_the_election_and_divide_by_the_agreeing_weight():
    # entry 0: 0.9 * 1 - 0.1 * 2 = +0.7, elect +, {1} -> 1 (PEFT elects unweighted: -0.2)
    # entry 1: (0.9 * 1 + 0.1 * 2) / 1.0 = 1.1 (PEFT divides by 2: 0.55)
    vectors = torch.tensor([[1.0, 1], [-2, 2]])
    torch.testing.assert_close(ties(vectors, density=1.0, weights=[0.9, 0.1]), torch.tensor([1.0, 1.1]))


def test_election_by_frequency_by_hand():
    # Two small positives against one large negative: frequency elects +, mean (1 + 2) / 2; mass elects -, {-9}
    vectors = torch.tensor([[1.0], [2], [-9]])
    assert ties(vectors, density=1.0, elect="frequency").item() == 1.5
    assert ties(vectors, density=1.0, elect="mass").item() == -9


@pytest.mark.parametrize("elect", ["mass", "frequency"])
@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 1.0])
def test_equals_peft_at_equal_weights(density, elect):
    vectors = dense(1, 4, 37, 23)
    method = {"mass": "total", "frequency": "frequency"}[elect]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PEFT warns at density 1.
        expected = peft_ties(list(vectors), torch.ones(4), density, method)
    torch.testing.assert_close(ties(vectors, density=density, elect=elect), expected, rtol=1e-6, atol=1e-7)


def test_per_tensor_trim_of_task_vectors_equals_peft(vector):
    vectors = [vector(seed, rank) for seed, rank in [(1, 2), (2, 4), (3, 6)]]
    results, _ = merged(vectors, trim="tensor", density=0.3)
    for name, result in results.items():
        expected = peft_ties([v.delta(name) for v in vectors], torch.ones(3), 0.3)
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


def test_global_trim_equals_one_flat_tensor(vector):
    # The second expert's layers differ in norm, so that a global and a per-tensor threshold keep different entries.
    vectors = [vector(1), vector(2, scale=3.0) + vector(2, scale=0.1), vector(3)]
    vectors[1] = TaskVector({name: (vectors[1] * (5.0 if "q_proj" in name else 1.0))[name] for name in vectors[1]})
    names = list(vectors[0])
    flat = torch.stack([torch.cat([v.delta(name).flatten() for name in names]) for v in vectors])
    results, kept = merged(vectors, density=0.2)
    expected = peft_ties(list(flat), torch.ones(3), 0.2)
    torch.testing.assert_close(torch.cat([results[name].flatten() for name in names]), expected, rtol=1e-6, atol=1e-6)
    by_tensor, _ = merged(vectors, density=0.2, trim="tensor")
    assert not torch.allclose(torch.cat([by_tensor[name].flatten() for name in names]), expected)
    assert max(kept[name][1] for name in names) > 0.3
    assert min(kept[name][1] for name in names) < 0.05


@pytest.mark.parametrize("trim", ["global", "tensor"])
def test_blocks_of_rows_change_nothing_but_rounding(vector, monkeypatch, trim):
    vectors = [vector(1), vector(2), vector(3, rank=7)]
    whole, kept = merged(vectors, trim=trim)
    monkeypatch.setattr(interface, "BLOCK_ENTRIES", 50)
    in_blocks, kept_in_blocks = merged(vectors, trim=trim)
    assert kept == kept_in_blocks
    for name in whole:
        torch.testing.assert_close(whole[name], in_blocks[name], rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50),
    st.integers(1, 4),
    st.floats(0, 1, allow_nan=False),
)
def test_threshold_is_the_kth_largest_magnitude(values, pieces, density):
    entries = torch.tensor(values)
    k = int(density * len(values))
    found = kept_threshold(lambda: entries.chunk(pieces), density)
    with pytest.MonkeyPatch.context() as patch:  # as on a card, where numpy cannot look
        patch.setattr(threshold, "on_processor", lambda _: False)
        assert kept_threshold(lambda: entries.chunk(pieces), density, sample=entries) == found
    if density == 1:
        assert found == 0
    elif k == 0:
        assert found == math.inf
    else:
        assert found == entries.abs().sort(descending=True).values[k - 1].item()


def test_density_ends(vector):
    vectors = [vector(1), vector(2)]
    nothing, kept = merged(vectors, density=0.0)
    assert all(not result.any() for result in nothing.values())
    assert all(shares == [0.0, 0.0] for shares in kept.values())
    everything, kept = merged(vectors, density=1.0)
    assert all(shares == [1.0, 1.0] for shares in kept.values())
    for name, result in everything.items():
        expected = ties(torch.stack([v.delta(name) for v in vectors]), density=1.0)
        torch.testing.assert_close(result, expected)


def test_one_expert_alone_comes_back_at_density_one_and_as_its_largest_fifth_at_the_default(vector):
    alone = vector(7)
    for weight in (1.0, 0.3):
        results, _ = merged([alone], [weight], density=1.0)
        for name, result in results.items():
            torch.testing.assert_close(result, alone.delta(name))
    results, _ = merged([alone])
    flat = torch.cat([alone.delta(name).flatten() for name in alone])
    merged_flat = torch.cat([results[name].flatten() for name in alone])
    kept = merged_flat != 0
    assert kept.sum() == int(0.2 * flat.numel())
    torch.testing.assert_close(merged_flat[kept], flat[kept])
    assert flat[kept].abs().min() > flat[~kept].abs().max()


def test_copies_of_an_expert_are_the_expert_and_order_does_not_matter():
    vectors = dense(5, 3, 11, 13)
    one = ties(vectors[:1], density=0.4)
    torch.testing.assert_close(ties(vectors[:1].expand(4, 11, 13), density=0.4), one)
    weights = [0.5, 1.0, 2.0]
    forward = ties(vectors, density=0.4, weights=weights)
    torch.testing.assert_close(ties(vectors.flip(0), density=0.4, weights=weights[::-1]), forward)
    torch.testing.assert_close(ties(vectors * 7, density=0.4, weights=weights), forward * 7)
    torch.testing.assert_close(ties(vectors, density=0.4, weights=[5.0, 10.0, 20.0]), forward)


def test_inputs_are_not_written_to():
    vectors = dense(6, 3, 5, 5)
    before = vectors.clone()
    ties(vectors, density=0.3, weights=[1.0, 2.0, 3.0])
    assert torch.equal(vectors, before)


BAD = [{"density": 1.1}, {"density": -0.1}, {"lambda_": 0.0}, {"trim": "layer"}, {"elect": "vote"}, {"disjoint": "max"}]


@pytest.mark.parametrize("options", BAD)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Ties.Config(**options)


def retention(vectors, results):
    return [
        sum((results[n] * v.delta(n)).sum() for n in v) / sum(v.delta(n).square().sum() for n in v) for v in vectors
    ]


def test_ties_turns_against_a_small_expert_and_unit_election_or_the_sum_repairs_it(vector):
    # The paper's own setting, four SFT experts and an RL vector of a tenth of their norm. Where the small one agrees
    # it halves a large value's mean; where it is outvoted, the large value stays whole: it is reversed.
    vectors = [vector(seed) for seed in (1, 2, 3, 4)] + [vector(5, scale=0.1)]
    for options in ({"density": 1.0}, {"density": 0.2}):
        plain = retention(vectors, merged(vectors, **options)[0])
        assert min(plain[:4]) > 0.3
        assert plain[4] < 0
        unit = retention(vectors, merged(vectors, **options, elect="unit", disjoint="sum")[0])
        assert min(unit) > 0.3


def test_divisors_by_hand():
    # weights 1, 3, 1 on +2, +1, -1: elected +, agreeing 2 * 1 + 1 * 3 = 5; agreeing weight 4, number 2
    vectors = torch.tensor([[2.0], [1], [-1]])
    for disjoint, expected in (("weighted", 1.25), ("mean", 2.5), ("sum", 5.0)):
        assert ties(vectors, [1.0, 3.0, 1.0], density=1.0, disjoint=disjoint).item() == expected


def test_election_at_unit_norm_by_hand():
    # entry 0: +4 against -1 and -1. Norms 5, sqrt 2, sqrt 2: 0.8 - 0.707 - 0.707 < 0 elects -, mass +4 - 2 elects +
    vectors = torch.tensor([[4.0, 3], [-1, 1], [-1, 1]])
    assert ties(vectors, density=1.0, elect="unit")[0].item() == -1
    assert ties(vectors, density=1.0, elect="mass")[0].item() == 4
