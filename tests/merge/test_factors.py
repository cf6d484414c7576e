# Reference: the same algebra on dense fp64 matrices. Run: pytest tests/merge/test_factors.py
import pytest
import torch

from merge.cores import Basis, Core, Cores, singular
from merge.factors import Factors, LazyVector, TaskVector, add
from merge.products import Mixture, Stack
from merge.truncation import cut


def rotated(vector, seed):
    """The same updates in other factors: B G and G^-1 A with a random invertible G."""
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for name, f in vector.items():
        G, _ = torch.linalg.qr(torch.randn(f.rank, f.rank, generator=generator, dtype=torch.float64))
        modules[name] = Factors((G.T @ f.A.double()).float(), (f.B.double() @ G).float())
    return TaskVector(modules)


def gram(factors):
    return Stack.of(factors).products.gram()


def of_module(vectors, name="model.layers.1.down_proj"):
    return [vector[name] for vector in vectors]


def test_gram_equals_dense_inner_products(vector):
    vectors = [vector(1, rank=2), vector(2, rank=7), vector(3, rank=3)]
    for name in vectors[0]:
        flat = torch.stack([v.delta(name).double().flatten() for v in vectors])
        torch.testing.assert_close(gram(of_module(vectors, name)), flat @ flat.T, rtol=1e-5, atol=1e-4)


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "stack",
    [
        random(1, 50, 8),  # far from dependent
        random(2, 8, 50),  # more columns than rows
        torch.cat([random(3, 50, 4), random(3, 50, 4)], dim=1),  # each column twice
        random(4, 50, 8) * 10.0 ** -torch.arange(8),  # badly scaled
        torch.zeros(9, 3),
    ],
)
def test_a_basis_is_orthonormal_reveals_the_rank_and_holds_the_columns(stack):
    basis, R = Basis.of(stack)
    Q = basis.dense()
    assert Q.shape[1] == R.shape[0] == max(1, torch.linalg.matrix_rank(stack.double(), rtol=1e-9).item())
    torch.testing.assert_close(Q.T @ Q, torch.eye(Q.shape[1], dtype=Q.dtype), rtol=0, atol=1e-9)
    torch.testing.assert_close(Q @ R, stack.double(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("columns", [random(5, 1300, 6), random(6, 6, 1300).T])
def test_products_by_blocks_of_rows_are_those_of_the_whole(columns):
    X = columns.double()
    a, b = Factors(random(7, 2, 1300), columns[:, :2]), Factors(random(8, 4, 1300), columns[:, 2:])
    products = Stack.of([a, b]).products
    torch.testing.assert_close(products.outputs, X.T @ X, rtol=1e-12, atol=1e-9)
    A = torch.cat([a.A, b.A]).double()
    torch.testing.assert_close(products.inputs, A @ A.T, rtol=1e-12, atol=1e-9)
    beside, together = Stack.of([a, b]).beside(a), Stack.of([a, b, a]).products
    torch.testing.assert_close(beside.outputs, together.outputs, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(beside.inputs, together.inputs, rtol=1e-12, atol=1e-9)
    assert beside.blocks == together.blocks


@pytest.mark.parametrize(
    "matrix",
    [
        random(9, 7, 12),  # any shape
        random(9, 12, 7),
        random(10, 9, 3) @ random(11, 3, 9),  # of lower rank
        torch.diag(10.0 ** -torch.arange(8)),  # too wide a spectrum to be squared
        torch.zeros(3, 4),
    ],
)
def test_singular_values_and_vectors_are_lapacks(matrix):
    matrix = matrix.double()
    U, S, V = singular(matrix)
    expected = torch.linalg.svdvals(matrix)
    torch.testing.assert_close(S, expected[: len(S)], rtol=1e-10, atol=1e-14)
    assert (expected[len(S) :] <= 1e-6 * expected[0]).all()
    torch.testing.assert_close((U * S) @ V.T, matrix, rtol=0, atol=1e-6 * expected[0].item())
    for basis in (U, V):
        torch.testing.assert_close(basis.T @ basis, torch.eye(len(S), dtype=S.dtype), rtol=0, atol=1e-9)


@pytest.mark.parametrize("rank", [2, "sum"])
def test_a_mixtures_products_are_those_of_its_factors(vector, rank):
    a, b = vector(1), vector(2)
    for name in a:
        factors = [a[name], b[name]]
        stack = Stack.of(factors)
        joint = Cores.of(stack)
        made, _, _ = cut(Core(joint.left, joint.cores.sum(0), joint.right), rank, [4, 4])
        assert isinstance(made, Mixture)
        told, measured = stack.beside(made), stack.beside(Factors(made.A, made.B))
        torch.testing.assert_close(told.outputs, measured.outputs, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(told.inputs, measured.inputs, rtol=1e-5, atol=1e-5)
    twice = [a[name], a[name]]  # dependent columns: the basis is of others, and nothing is told from the mixture
    joint = Cores.of(Stack.of(twice))
    assert not isinstance(cut(Core(joint.left, joint.cores.sum(0), joint.right), 2, [4, 4])[0], Mixture)


def test_cores_between_their_bases_are_the_updates(vector):
    vectors = [vector(1, rank=2), vector(2, rank=7), vector(2, rank=7), vector(3) * 0.0]
    v_in = {name: f.shape[1] for name, f in vectors[0].items()}
    for name in vectors[0]:
        joint = Cores.of(Stack.of(of_module(vectors, name)))
        # 2 + 7 directions; the copy adds none, the zero writes nowhere though it reads 4 more
        assert joint.cores.shape[1:] == (9, min(13, v_in[name]))
        for core, v in zip(joint.cores, vectors, strict=True):
            expected = v[name].B.double() @ v[name].A.double()
            torch.testing.assert_close(joint.left @ core @ joint.right.dense().T, expected, rtol=1e-10, atol=1e-10)


def test_a_lazy_vector_makes_a_module_when_it_is_asked_for(vector):
    whole, asked = vector(1), []

    def make(name):
        asked.append(name)
        return whole[name]

    lazy = LazyVector({name: whole[name].shape for name in reversed(list(whole))}, make)
    assert (list(lazy), asked) == (list(whole), [])
    total = add([lazy, whole])
    assert total["model.layers.1.down_proj"].rank == 8
    assert asked.count("model.layers.0.q_proj") == 0  # its shape is known
    with pytest.raises(KeyError):
        lazy["model.layers.9"]


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
    for name in vectors[0]:
        a, b = gram(of_module(turned, name)), gram(of_module(vectors, name))
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
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
    for name in a:
        G = gram([a[name], padded[name]])
        torch.testing.assert_close(G[0, 0], G[0, 1])
        assert Cores.of(Stack.of([padded[name]])).cores.shape == (1, 4, 4)


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
