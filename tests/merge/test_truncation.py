# Reference: torch.linalg.svd of the dense fp64 matrix. Run: pytest tests/merge/test_truncation.py
import pytest
import torch

from merge.factors import Factors, TaskVector, add
from merge.truncation import choose_rank, compress, compress_stream, parse_rank, truncate


def test_truncation_is_the_best_of_its_rank_and_reports_its_energy(vector):
    total = add([vector(1), vector(2, rank=6), vector(3)])
    for k in (1, 3, 8):
        cut, energy = truncate(total, k)
        kept, whole = 0.0, 0.0
        for name in total:
            U, S, Vh = torch.linalg.svd(total.delta(name).double(), full_matrices=False)
            expected = (U[:, :k] * S[:k]) @ Vh[:k]
            torch.testing.assert_close(cut.delta(name).double(), expected, rtol=1e-5, atol=1e-4)
            part, all_ = S[:k].square().sum().item(), S.square().sum().item()
            assert energy.per_module[name] == pytest.approx(part / all_, abs=1e-6)
            kept, whole = kept + part, whole + all_
            assert cut[name].rank == k
        assert energy.total == pytest.approx(kept / whole, abs=1e-6)
        assert energy.total < 1


def test_sum_keeps_everything_even_above_the_size_of_the_matrix(vector):
    # Ranks add to 20, more than the 12 rows of down_proj.
    total = add([vector(1, rank=10), vector(2, rank=10)])
    cut, energy = truncate(total, "sum")
    assert energy.total == 1.0
    assert [f.rank for f in cut.values()] == [16, 12]
    for name in total:
        torch.testing.assert_close(cut.delta(name), total.delta(name), rtol=1e-4, atol=1e-4)


def test_repeated_directions_are_not_stored_twice(vector):
    cut, energy = truncate(add([vector(1)] * 3), "sum")
    assert {f.rank for f in cut.values()} == {4}
    assert energy.total == pytest.approx(1)


def test_energy_keeps_the_fewest_directions_that_reach_it(vector):
    total = add([vector(1), vector(2)])
    cut, energy = truncate(total, "energy:0.9")
    for name in total:
        assert energy.per_module[name] >= 0.9
        S = torch.linalg.svdvals(total.delta(name).double())[: cut[name].rank - 1]
        assert S.square().sum() < 0.9 * total.delta(name).double().square().sum()
    assert truncate(total, "energy:1")[1].total == 1.0


def test_factors_are_balanced(vector):
    cut, _ = truncate(vector(1, scale=1e-6), 4)
    for f in cut.values():
        torch.testing.assert_close(f.A.norm(dim=1), f.B.norm(dim=0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
def test_compressing_a_dense_matrix_is_the_truncated_svd(shape):
    delta = torch.randn(*shape, generator=torch.Generator().manual_seed(3))
    U, S, Vh = torch.linalg.svd(delta.double(), full_matrices=False)
    for k in (1, 5, 12):
        factors, kept, total = compress(delta, k, [4])
        expected = ((U[:, :k] * S[:k]) @ Vh[:k]).float()
        torch.testing.assert_close(factors.B @ factors.A, expected, rtol=1e-4, atol=1e-5)
        assert kept / total == pytest.approx((S[:k].square().sum() / S.square().sum()).item(), abs=1e-9)


def test_compressing_a_low_rank_matrix_equals_truncating_its_factors(vector):
    total = add([vector(1), vector(2)])
    ranks = {name: [4, 4] for name in total}
    for rank in (3, "sum", "max", "energy:0.8"):
        by_factors, energy = truncate(total, rank, ranks)
        by_matrix, energy_dense = compress_stream(((n, total.delta(n)) for n in total), rank, ranks)
        assert energy_dense.total == pytest.approx(energy.total, abs=1e-6)
        for name in total:
            assert by_matrix[name].rank == by_factors[name].rank
            torch.testing.assert_close(by_matrix.delta(name), by_factors.delta(name), rtol=1e-4, atol=1e-4)


def test_a_zero_update_stays_zero_and_finite():
    zero = TaskVector({"layer": Factors(torch.ones(2, 5), torch.zeros(4, 2))})
    for rank in (1, "sum", "energy:0.95"):
        cut, energy = truncate(zero, rank)
        assert (cut["layer"].rank, energy.total) == (1, 1.0)
        assert not cut.delta("layer").any()
    factors, kept, total = compress(torch.zeros(4, 5), "sum", [2])
    assert (kept, total) == (0, 0)
    assert torch.isfinite(factors.A).all()
    assert not (factors.B @ factors.A).any()


def test_rank_settings_by_hand():
    S = torch.tensor([3.0, 2, 1, 0], dtype=torch.float64)  # energies 9, 4, 1 of 14
    assert choose_rank("sum", S, [1, 1]) == 2
    assert choose_rank("sum", S, [3, 3]) == 3
    assert choose_rank("max", S, [1, 2]) == 2
    assert choose_rank("energy:0.92", S, [1]) == 2  # 13 / 14 = 0.9286
    assert choose_rank("energy:0.93", S, [1]) == 3
    assert choose_rank(9, S, [1]) == 3


@pytest.mark.parametrize("rank", [0, -1, True, 2.5, "all", "energy:", "energy:0", "energy:1.1", "energy:nan", None])
def test_other_rank_settings_are_refused(rank):
    with pytest.raises(ValueError, match=r"energy:0\.95"):
        parse_rank(rank)
