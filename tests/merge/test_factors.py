# Reference: the same algebra on dense fp64 matrices. Run: pytest tests/merge/test_factors.py
import pytest
import torch

from merge.factors import Factors, TaskVector, add, gram


def rotated(vector, seed):
    """The same updates in other factors: B G and G^-1 A with a random invertible G."""
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for name, f in vector.items():
        G, _ = torch.linalg.qr(torch.randn(f.rank, f.rank, generator=generator, dtype=torch.float64))
        modules[name] = Factors((G.T @ f.A.double()).float(), (f.B.double() @ G).float())
    return TaskVector(modules)


def test_gram_equals_dense_inner_products(vector):
    vectors = [vector(1, rank=2), vector(2, rank=7), vector(3, rank=3)]
    flat = torch.stack([torch.cat([v.delta(n).double().flatten() for n in v]) for v in vectors])
    torch.testing.assert_close(gram(vectors), flat @ flat.T, rtol=1e-5, atol=1e-4)
    name = "model.layers.1.down_proj"
    one = torch.stack([v.delta(name).double().flatten() for v in vectors])
    torch.testing.assert_close(gram(vectors, name), one @ one.T, rtol=1e-5, atol=1e-4)


def test_sum_is_exact_for_mixed_ranks(vector):
    vectors = [vector(1, rank=2), vector(2, rank=7)]
    total = add(vectors, [0.25, -2.0])
    for name in total:
        assert total[name].rank == 9
        expected = 0.25 * vectors[0].delta(name).double() - 2 * vectors[1].delta(name).double()
        torch.testing.assert_close(total.delta(name).double(), expected, rtol=1e-5, atol=1e-5)


def test_operators_are_the_sum(vector):
    a, b = vector(1), vector(2)
    for name in a:
        torch.testing.assert_close((0.5 * a + b * 2.0).delta(name), add([a, b], [0.5, 2.0]).delta(name))


def test_rotating_the_factors_changes_nothing(vector):
    vectors = [vector(1), vector(2, rank=6)]
    turned = [rotated(v, seed) for seed, v in enumerate(vectors)]
    torch.testing.assert_close(gram(turned), gram(vectors), rtol=1e-5, atol=1e-4)
    for name in vectors[0]:
        torch.testing.assert_close(add(turned).delta(name), add(vectors).delta(name), rtol=1e-4, atol=1e-4)


def test_padding_a_rank_with_zeros_changes_nothing(vector):
    a = vector(1)
    padded = TaskVector(
        {
            name: Factors(
                torch.cat([f.A, torch.zeros(3, f.A.shape[1])]), torch.cat([f.B, torch.zeros(f.B.shape[0], 3)], dim=1)
            )
            for name, f in a.items()
        }
    )
    torch.testing.assert_close(gram([a, padded])[0, 0], gram([a, padded])[0, 1])


def test_order_of_the_modules_does_not_matter(vector):
    a = vector(1)
    assert list(TaskVector(dict(reversed(list(a.items()))))) == list(a) == sorted(a)


def test_experts_that_do_not_fit_are_refused_by_name(vector):
    a = vector(1)
    fewer = TaskVector({"model.layers.0.q_proj": a["model.layers.0.q_proj"]})
    with pytest.raises(ValueError, match="down_proj"):
        add([a, fewer])
    other = TaskVector({name: Factors(f.A[:, :-1], f.B) for name, f in a.items()})
    with pytest.raises(ValueError, match="different bases"):
        add([a, other])
    with pytest.raises(ValueError, match="2 weights for 1"):
        add([a], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least one module"):
        TaskVector({})
    with pytest.raises(ValueError, match="not \\(r, n\\) and \\(m, r\\)"):
        Factors(torch.zeros(3, 5), torch.zeros(7, 4))
