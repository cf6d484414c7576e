# Reference: each method's published formula on dense fp64 matrices. Run: pytest tests/merge/test_factor_space.py
import pytest
import torch

from merge.cores import Cores, singular_of_product
from merge.factors import Factors
from merge.methods.ace import ace
from merge.methods.core_ties import core_ties
from merge.methods.interface import Experts
from merge.methods.iso_c import iso_c
from merge.methods.knots import Knots, aligned
from merge.methods.regmean import regmean
from merge.methods.swudi import participation_ratio, swudi
from merge.methods.ties import ties
from merge.methods.tsv_m import tsv_m
from merge.methods.wudi import wudi
from merge.products import Stack

M, N, RANKS = 320, 256, (8, 3, 12, 8)
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 1.5], dtype=torch.float64)


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def factors():
    """Four experts of different ranks and norms that share some of what they read."""
    shared = random(0, 2, N)
    made = []
    for seed, (rank, scale) in enumerate(zip(RANKS, (1.0, 2.0, 0.1, 1.0), strict=True), start=1):
        A = random(seed, rank, N)
        A[:2] = shared[:2] + 0.3 * A[:2]
        made.append(Factors(A, scale * random(10 + seed, M, rank)))
    return made


@pytest.fixture(scope="module")
def deltas(factors):
    """(4, 320, 256) fp64."""
    return torch.stack([f.B.double() @ f.A.double() for f in factors])


def in_core(factors, rule, *args, **options):
    joint = Cores.of(Stack.of(factors))
    found = rule(joint, *args, **options)
    core = found if isinstance(found, torch.Tensor) else (found[0] * found[1]) @ found[2].T
    return joint.left @ core @ joint.right.dense().T


def same(a, b, tolerance=1e-10):
    assert ((a - b).norm() / b.norm()).item() < tolerance


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_tsv_m(factors, deltas, share):
    U, S, V = [], [], []
    for delta, rank, weight in zip(deltas, RANKS, WEIGHTS, strict=True):
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        k = rank if share else -(-rank // 4)
        U, S, V = [*U, u[:, :k]], [*S, weight * s[:k]], [*V, vh[:k]]
    (pu, _, qu), (pv, _, qv) = (torch.linalg.svd(x, full_matrices=False) for x in (torch.cat(U, 1), torch.cat(V, 0)))
    expected = pu @ qu @ torch.diag(torch.cat(S)) @ pv @ qv
    experts = [singular_of_product(*pair) for pair in Cores.of(Stack.of(factors)).pairs]
    same(in_core(factors, lambda _: tsv_m(experts, WEIGHTS, share=share)), expected)


def test_a_zero_expert_changes_nothing_in_tsv_m(factors):
    joint = Cores.of(Stack.of([*factors, Factors(random(50, 5, N), torch.zeros(M, 5))]))
    U, S, V = tsv_m([singular_of_product(*pair) for pair in joint.pairs], torch.cat([WEIGHTS, torch.ones(1)]))
    result = joint.left @ (U * S) @ V.T @ joint.right.dense().T
    same(result, in_core(factors, lambda own: tsv_m([singular_of_product(*p) for p in own.pairs], WEIGHTS)))


def interference(deltas, weights, M):
    w = weights / weights.mean() / deltas.square().sum((1, 2))
    return (w * ((M - deltas) @ deltas.mT).square().sum((1, 2))).sum()


def test_wudi_is_the_minimum_of_its_loss(factors, deltas):
    result = in_core(factors, wudi, WEIGHTS).requires_grad_()
    loss = interference(deltas, WEIGHTS, result)
    (slope,) = torch.autograd.grad(loss, result)
    start = deltas.mean(0).requires_grad_()
    (steep,) = torch.autograd.grad(interference(deltas, WEIGHTS, start), start)
    assert slope.norm() < 1e-10 * steep.norm()
    C = torch.einsum("kpq,kpr->qr", deltas * (WEIGHTS / deltas.square().sum((1, 2)))[:, None, None], deltas)
    N_ = sum(w * D @ D.T @ D / D.square().sum() for w, D in zip(WEIGHTS, deltas, strict=True))
    same(result, N_ @ torch.linalg.pinv(C, hermitian=True, rtol=1e-12), 1e-9)


@pytest.mark.parametrize("init", ["mean", "sum"])
def test_swudi_is_the_gradient_flow_after_a_time(factors, deltas, init):
    # dM = -(M C - N) dt, so M(t) = M0 exp(-tC) + N times the integral of exp(-sC), which stands beside exp(-tC) in the
    # exponential of [[-C, 1], [0, 0]] t.
    w = WEIGHTS / WEIGHTS.mean() / deltas.square().sum((1, 2))
    C = torch.einsum("k,kpq,kpr->qr", w, deltas, deltas)
    target = torch.einsum("k,kpq,krq,krs->ps", w, deltas, deltas, deltas)
    start = torch.einsum("k,kpq->pq", WEIGHTS / (WEIGHTS.sum() if init == "mean" else 1), deltas)
    generator = torch.zeros(2 * N, 2 * N, dtype=torch.float64)
    generator[:N, :N], generator[:N, N:] = -C, torch.eye(N)
    flow = torch.linalg.matrix_exp(5.0 * generator)
    expected = start @ flow[:N, :N] + target @ flow[:N, N:]
    same(in_core(factors, swudi, WEIGHTS, time=5.0, init=init), expected)


def test_swudi_without_end_is_wudi(factors):
    same(in_core(factors, swudi, WEIGHTS, time=1e9), in_core(factors, wudi, WEIGHTS), 1e-6)


def test_swudi_a_follows_as_many_directions_as_the_spectrum_has_in_effect(factors, deltas):
    assert participation_ratio(torch.tensor([1.0, 1, 1, 0])) == 3
    assert participation_ratio(torch.tensor([1.0, 0, 0])) == 1
    assert participation_ratio(torch.zeros(3)) == 1
    w = WEIGHTS / WEIGHTS.mean() / deltas.square().sum((1, 2))
    E, V = torch.linalg.eigh(torch.einsum("k,kpq,kpr->qr", w, deltas, deltas))
    K = participation_ratio(E.flip(0))
    assert 1 < K < sum(RANKS)
    P = V[:, -K:] @ V[:, -K:].T
    start = torch.einsum("k,kpq->pq", WEIGHTS / WEIGHTS.sum(), deltas)
    result = in_core(factors, swudi, WEIGHTS, time=1e9, directions="participation")
    same(result @ (torch.eye(N) - P), start @ (torch.eye(N) - P))
    target = torch.einsum("k,kpq,krq,krs->ps", w, deltas, deltas, deltas)
    same(result @ V[:, -K:], target @ V[:, -K:] / E[-K:], 1e-9)


def test_knots_aligns_as_the_full_decomposition_does(factors, deltas):
    U, parts = aligned(Cores.of(Stack.of(factors)))
    _, S, _ = torch.linalg.svd(torch.cat(list(deltas), dim=1), full_matrices=False)
    torch.testing.assert_close(torch.cat(list(parts), dim=1).norm(dim=1), S[: len(U.T)], rtol=1e-10, atol=1e-10)
    for part, delta in zip(parts, deltas, strict=True):
        same(U @ part, delta)


def test_knots_equals_the_full_space_formula(factors, deltas):
    weights = WEIGHTS.float()
    U, S, Vh = torch.linalg.svd(torch.cat(list(deltas), dim=1), full_matrices=False)
    p = int((S > 1e-9 * S[0]).sum())
    parts = torch.stack((S[:p, None] * Vh[:p]).chunk(4, dim=1)).float()
    expected = U[:, :p] @ ties(parts, weights, density=0.4).double()
    experts = Experts({str(i): {"layer": f} for i, f in enumerate(factors)}, WEIGHTS.tolist())
    merged = Knots(Knots.Config(density=0.4)).merge(experts)("layer").value
    same((merged.B @ merged.A).double(), expected, 1e-5)
    merged = Knots(Knots.Config(consensus="sum")).merge(experts)("layer").value
    same((merged.B @ merged.A).double(), torch.einsum("k,kpq->pq", WEIGHTS, deltas), 1e-5)


def test_iso_c_equals_the_full_space_formula_on_the_directions_there_are_and_bears_noise(factors, deltas):
    total = torch.einsum("k,kpq->pq", WEIGHTS, deltas)
    U, S, Vh = torch.linalg.svd(total, full_matrices=False)
    R = sum(RANKS)
    result = in_core(factors, lambda joint: iso_c(joint.cores, WEIGHTS))
    same(result, S[:R].mean() * U[:, :R] @ Vh[:R], 1e-9)
    # In full space the singular values of 0 take part: most of the result is arbitrary.
    full = S.mean() * U @ Vh
    noisy = torch.linalg.svd(total + 1e-12 * random(9, M, N), full_matrices=False)
    assert ((S.mean() * noisy[0] @ noisy[2] - full).norm() / full.norm()) > 0.5
    shaken = [Factors(f.A, f.B + 1e-12 * random(20 + i, *f.B.shape)) for i, f in enumerate(factors)]
    same(in_core(shaken, lambda joint: iso_c(joint.cores, WEIGHTS)), result, 1e-8)


def test_core_ties_is_ties_in_the_joint_singular_bases(factors, deltas):
    R = sum(RANKS)
    U = torch.linalg.svd(torch.cat(list(deltas), dim=1), full_matrices=False)[0][:, :R]
    V = torch.linalg.svd(torch.cat(list(deltas), dim=0), full_matrices=False)[2][:R].T
    turned = torch.stack([U.T @ delta @ V for delta in deltas]).float()
    expected = U @ ties(turned, WEIGHTS.float(), density=0.3).double() @ V.T
    options = {"density": 0.3, "lambda_": 1.0, "elect": "mass", "disjoint": "weighted"}
    same(in_core(factors, core_ties, WEIGHTS, **options), expected, 1e-5)


def test_regmean_minimises_the_error_on_all_inputs(factors, deltas):
    inputs = [random(30 + i, 600, N).double() @ random(40 + i, N, N).double() / 16 for i in range(4)]
    grams = [X.T @ X / len(X) for X in inputs]
    merged = regmean(factors, grams, WEIGHTS.tolist(), off_diagonal=1.0, ridge=1e-12)
    result = merged.B.double() @ merged.A.double()
    expected = sum(w * D @ G for w, D, G in zip(WEIGHTS, deltas, grams, strict=True)) @ torch.linalg.inv(
        sum(w * G for w, G in zip(WEIGHTS, grams, strict=True))
    )
    same(result, expected, 1e-5)
    # Least squares over the stacked, weighted inputs, solved another way.
    X = torch.cat([(w / len(x)).sqrt() * x for w, x in zip(WEIGHTS, inputs, strict=True)])
    Y = torch.cat([(w / len(x)).sqrt() * x @ D.T for w, x, D in zip(WEIGHTS, inputs, deltas, strict=True)])
    same(result, torch.linalg.lstsq(X, Y).solution.T, 1e-5)
    assert merged.rank == sum(RANKS)
    with pytest.raises(ValueError, match=r"shape \(3, 3\) for a module with 256 inputs"):
        regmean(factors, [*grams[:3], torch.eye(3)], [1.0] * 4)


def test_regmean_without_off_diagonal_entries_averages_input_by_input(factors, deltas):
    grams = [random(50 + i, N, N).double() for i in range(4)]
    grams = [G @ G.T for G in grams]
    merged = regmean(factors, grams, [1.0] * 4, off_diagonal=0.0, ridge=1e-12)
    diagonals = torch.stack([G.diagonal() for G in grams])
    expected = (deltas * diagonals[:, None, :]).sum(0) / diagonals.sum(0)
    same(merged.B.double() @ merged.A.double(), expected, 1e-5)


def dense_ace(deltas, weights, epsilon, prior):
    """The published formula on n x n matrices, every covariance by the samples' definition."""
    energies = [D.square().sum() for D in deltas]
    S = [(D - D.mean(0)).T @ (D - D.mean(0)) / E for D, E in zip(deltas, energies, strict=True)]
    mean = sum(energies) / len(energies)
    R = [w * (s + epsilon * mean / E * torch.eye(N)) for w, s, E in zip(weights, S, energies, strict=True)]
    C = torch.ones(N, 1, dtype=torch.float64) @ sum(w * s for w, s in zip(weights, S, strict=True)).mean(0)[None]
    return sum(D @ r for D, r in zip(deltas, R, strict=True)) @ torch.linalg.inv(sum(R) + prior * C)


@pytest.mark.parametrize("prior", ["collective", "none"])
@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
def test_ace_equals_the_full_space_formula(factors, epsilon, prior):
    # rows with a mean, so that centring tells; inputs with one too, so that the prior does
    moved = [Factors(f.A + 0.5, f.B + 0.3 * f.B.std()) for f in factors]
    deltas = torch.stack([f.B.double() @ f.A.double() for f in moved])
    result = in_core(moved, ace, WEIGHTS, epsilon=epsilon, prior=prior)
    same(result, dense_ace(deltas, WEIGHTS, epsilon, prior == "collective"), 1e-7)
    off = dense_ace(deltas - deltas.mean(1, keepdim=True), WEIGHTS, epsilon, prior == "collective")
    assert (result - off).norm() > 0.01 * result.norm()


def test_ace_lies_between_wudi_and_the_mean_over_energies(factors, deltas):
    mean_free = [Factors(f.A, f.B - f.B.mean(0)) for f in factors]  # WUDI does not centre
    same(in_core(mean_free, ace, WEIGHTS, epsilon=1e-12, prior="none"), in_core(mean_free, wudi, WEIGHTS), 1e-6)
    shares = WEIGHTS / deltas.square().sum((1, 2))
    mean = torch.einsum("k,kpq->pq", shares / shares.sum(), deltas)
    same(in_core(factors, ace, WEIGHTS, epsilon=1e9), mean, 1e-6)
