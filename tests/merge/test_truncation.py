# Reference: torch.linalg.svd of the dense fp64 matrix. Run: pytest tests/merge/test_truncation.py
import pytest
import torch

from merge.cores import Core, Cores
from merge.factors import Factors, add
from merge.methods.dare import Dare
from merge.methods.interface import Experts
from merge.methods.ties import Ties
from merge.products import Stack
from merge.truncation import choose_rank, compress, cut, parse_rank


def whole(vector, rank):
    """Every module cut, as name -> (factors, energy kept)."""
    found = {}
    for name in vector:
        factors, kept, total = cut(vector[name], rank, [vector[name].rank])
        found[name] = (factors, kept / total)
    return found


def test_truncation_is_the_best_of_its_rank_and_reports_its_energy(vector):
    total = add([vector(1), vector(2, rank=6), vector(3)])
    for k in (1, 3, 8):
        for name, (factors, energy) in whole(total, k).items():
            U, S, Vh = torch.linalg.svd(total.delta(name).double(), full_matrices=False)
            expected = ((U[:, :k] * S[:k]) @ Vh[:k]).float()
            torch.testing.assert_close(factors.B @ factors.A, expected, rtol=1e-5, atol=1e-4)
            assert energy == pytest.approx((S[:k].square().sum() / S.square().sum()).item(), abs=1e-6)
            assert energy < 1
            assert factors.rank == k


def test_sum_keeps_everything_even_above_the_size_of_the_matrix(vector):
    # Ranks add to 20, more than the 12 rows of down_proj.
    total = add([vector(1, rank=10), vector(2, rank=10)])
    found = whole(total, "sum")
    assert [f.rank for f, _ in found.values()] == [16, 12]
    for name, (factors, energy) in found.items():
        assert energy == 1.0
        torch.testing.assert_close(factors.B @ factors.A, total.delta(name), rtol=1e-4, atol=1e-4)


def test_repeated_directions_are_not_stored_twice(vector):
    for factors, energy in whole(add([vector(1)] * 3), "sum").values():
        assert factors.rank == 4
        assert energy == pytest.approx(1)


def test_energy_keeps_the_fewest_directions_that_reach_it(vector):
    total = add([vector(1), vector(2)])
    for name, (factors, energy) in whole(total, "energy:0.9").items():
        assert energy >= 0.9
        S = torch.linalg.svdvals(total.delta(name).double())[: factors.rank - 1]
        assert S.square().sum() < 0.9 * total.delta(name).double().square().sum()
    assert all(energy == 1.0 for _, energy in whole(total, "energy:1").values())


def test_factors_are_balanced(vector):
    for f, _ in whole(vector(1, scale=1e-6), 4).values():
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


@pytest.mark.parametrize("rank", [3, "sum", "max", "energy:0.8"])
def test_a_matrix_its_factors_and_its_core_are_cut_alike(vector, rank):
    total = add([vector(1), vector(2)])
    for f in total.values():
        joint = Cores.of(Stack.of([f]))
        core = Core(joint.left, joint.cores[0], joint.right)
        cuts = [cut(update, rank, [4, 4]) for update in (f, core, f.B @ f.A, core.factors())]
        for factors, kept, whole in cuts[1:]:
            assert factors.rank == cuts[0][0].rank
            assert kept / whole == pytest.approx(cuts[0][1] / cuts[0][2], abs=1e-6)
            torch.testing.assert_close(factors.B @ factors.A, cuts[0][0].B @ cuts[0][0].A, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [1, "sum", "energy:0.95"])
def test_a_zero_update_stays_zero_and_finite(rank):
    for update in (Factors(torch.ones(2, 5), torch.zeros(4, 2)), torch.zeros(4, 5)):
        factors, kept, total = cut(update, rank, [2])
        assert (factors.rank, kept, total) == (1, 0, 0)
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


@pytest.mark.parametrize("decay", [1.0, 0.7])
@pytest.mark.parametrize("method", [Ties(), Dare()])
def test_a_large_dense_update_is_cut_from_what_the_experts_read_with_nearly_all_the_energy_there_is(method, decay):
    # TIES and DARE of four random experts of rank 8: spectra without a gap, and full of noise, the worst for a search.
    generator = torch.Generator().manual_seed(0)
    factors = [
        Factors(
            torch.randn(8, 200, generator=generator) * decay ** torch.arange(8)[:, None],
            torch.randn(260, 8, generator=generator),
        )
        for _ in range(4)
    ]
    delta = method.merge(Experts({str(i): {"layer": f} for i, f in enumerate(factors)}))("layer").value
    joint = Cores.of(Stack.of(factors))
    S = torch.linalg.svdvals(delta.double()).square()
    for k in (4, 8, 16):
        found, kept, whole = cut(delta, k, [8] * 4, joint)
        assert found.rank == k
        assert kept / whole > 0.998 * (S[:k].sum() / S.sum()).item()
        assert whole == pytest.approx(S.sum().item())
        left = (delta.double() - found.B.double() @ found.A.double()).square().sum().item()
        assert left == pytest.approx(whole - kept, rel=1e-4)  # the energy stated is that of the factors
        again = cut(delta, k, [8] * 4, joint)[0]
        assert torch.equal(again.A, found.A)
        assert torch.equal(again.B, found.B)
    # Where all that is asked for is asked exactly, it is exact.
    assert cut(delta, "energy:0.9", [8] * 4, joint)[0].rank == cut(delta, "energy:0.9", [8] * 4)[0].rank
