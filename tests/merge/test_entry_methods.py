# Reference: arithmetic by hand, statistics of the draws; mergekit 0.1.5 on the same tensors where installed.
# Run: pytest tests/merge/test_entry_methods.py
import math
from types import SimpleNamespace

import pytest
import torch

from merge.factors import Factors
from merge.methods import draws, interface
from merge.methods.breadcrumbs import Breadcrumbs
from merge.methods.dare import Dare
from merge.methods.della import Della, keep_probabilities
from merge.methods.interface import Experts
from merge.methods.magmax import MagMax, magmax
from merge.methods.ram import Ram, ram
from merge.methods.ties import Ties


def dense(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def experts(deltas, weights=None):
    """Experts whose updates are exactly the given matrices: B the matrix, A the identity."""
    eye = torch.eye(deltas[0].shape[1])
    return Experts({f"e{i}": {"layer": Factors(eye, d)} for i, d in enumerate(deltas)}, weights)


def run(method, deltas, weights=None):
    return method.merge(experts(deltas, weights))("layer")


def test_uniform_numbers_are_uniform_independent_and_depend_on_their_place_alone():
    u = draws.uniform(0, "a", "layer", slice(0, 200), 500)
    assert u.shape == (200, 500)
    assert 0 <= u.min()
    assert u.max() < 1
    # 1e5 draws: the standard error of the mean is 0.289 / sqrt(1e5) = 9e-4, of a bin of a tenth 9.5e-4
    assert abs(u.mean() - 0.5) < 4 * 9.2e-4
    assert (torch.histc(u, 10, 0, 1) / u.numel() - 0.1).abs().max() < 4.5 * 9.5e-4
    assert torch.equal(draws.uniform(0, "a", "layer", slice(50, 60), 500), u[50:60])
    others = [draws.uniform(*key, slice(0, 200), 500) for key in ((1, "a", "layer"), (0, "b", "layer"), (0, "a", "l"))]
    for other in [*others, u.roll(1, 0), u.roll(1, 1)]:
        correlation = torch.corrcoef(torch.stack([u.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 4.5 / math.sqrt(u.numel())


def test_splitmix_gives_the_published_sequence(monkeypatch):
    # The reference implementation's first outputs for seed 1234567; each number keeps the upper 24 bits.
    digest = (1234567).to_bytes(8, "little")
    monkeypatch.setattr(draws, "hashlib", SimpleNamespace(sha256=lambda _: SimpleNamespace(digest=lambda: digest)))
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    u = draws.uniform(0, "a", "b", slice(0, 1), 3)[0]
    assert u.tolist() == [(value >> 40) / 2**24 for value in expected]


def test_dare_keeps_expectation_and_variance():
    delta = dense(1, 40, 50)
    results = torch.stack([run(Dare(Dare.Config(density=0.25, seed=s)), [delta]).value for s in range(200)])
    kept = (results != 0).double().mean()
    assert abs(kept - 0.25) < 4 * math.sqrt(0.25 * 0.75 / results.numel())
    # Each entry is d / p with probability p: mean d, variance d^2 (1 - p) / p = 3 d^2
    z = (results.mean(0) - delta) / (delta.abs() * math.sqrt(3 / 200))
    assert z.abs().max() < 5
    assert z.std() == pytest.approx(1, abs=0.1)


def test_what_dare_drops_depends_on_seed_and_names_alone(monkeypatch):
    a, b = dense(1, 30, 50), dense(2, 30, 50)
    method = Dare(Dare.Config(density=0.5))
    named = {"x": {"layer": Factors(torch.eye(50), a)}, "y": {"layer": Factors(torch.eye(50), b)}}
    first = method.merge(Experts(named))("layer").value
    turned = method.merge(Experts(dict(reversed(named.items()))))("layer").value
    assert torch.equal(first, turned)
    monkeypatch.setattr(interface, "BLOCK_ENTRIES", 150)
    assert torch.equal(method.merge(Experts(named))("layer").value, first)
    assert not torch.equal(Dare(Dare.Config(density=0.5, seed=1)).merge(Experts(named))("layer").value, first)


def test_dare_with_ties_elects_among_what_is_left():
    deltas = [dense(seed, 20, 30) for seed in (1, 2, 3)]
    known = experts(deltas)
    tile = next(known.tiles("layer"))
    method = Dare(Dare.Config(density=0.5, consensus="ties"))
    sparse = method.sparsify(known, tile, None)
    expected = Ties(Ties.Config(density=1.0)).fuse(sparse, torch.ones(3), interface_known())
    torch.testing.assert_close(run(method, deltas).value, expected)


def interface_known():
    from merge.methods.ties import Known

    return Known(torch.zeros(3), None)


def test_della_keeps_large_entries_more_often():
    p = keep_probabilities(torch.tensor([[[3.0, -1.0, 2.0], [0.5, 0.0, -9.0]]]), 0.5, 0.2)
    torch.testing.assert_close(p, torch.tensor([[[0.7, 0.3, 0.5], [0.5, 0.3, 0.7]]]))
    delta = dense(3, 10, 101)
    results = torch.stack([run(Della(Della.Config(consensus="sum", seed=s)), [delta]).value for s in range(300)])
    expected = keep_probabilities(delta[None], 0.5, 0.15)[0]
    found = (results != 0).float().mean(0)
    assert ((found - expected) / (expected * (1 - expected) / 300).sqrt()).abs().max() < 5
    torch.testing.assert_close(results[0][results[0] != 0], (delta / expected)[results[0] != 0])


def test_breadcrumbs_by_hand():
    # Of ten magnitudes 1 to 10 the largest 20 % are dropped, the next 50 % kept: 4 to 8.
    delta = torch.tensor([[1.0, -2, 3, -4, 5], [-6, 7, -8, 9, -10]])
    result = run(Breadcrumbs(Breadcrumbs.Config(density=0.5, gamma=0.2, lambda_=2.0)), [delta])
    assert result.value.tolist() == [[0, 0, 0, -8, 10], [-12, 14, -16, 0, 0]]
    assert list(result.kept) == [0.5]


def test_magmax_by_hand():
    vectors = torch.tensor([[1.0, -5, 2, -3], [-2, 4, 2, 3]])
    assert magmax(vectors, torch.ones(2)).tolist() == [-2, -5, 2, 3]
    assert magmax(vectors.flip(0), torch.ones(2)).tolist() == [-2, -5, 2, 3]
    assert magmax(vectors, torch.tensor([1.0, 0.5]), 2.0).tolist() == [2, -10, 4, -6]  # 1 beats 0.5 * 2 by its sign
    assert list(run(MagMax(), [vectors[:1], vectors[1:]]).value[0]) == [-2, -5, 2, 3]


def test_ram_by_hand():
    # entry 0 is shared: mean of 4 and 2; entry 1 only the first's; entry 2 nobody's (0.05 is below epsilon)
    vectors = torch.tensor([[4.0, 3, 0.05], [2.0, 0.01, 0]])
    method = Ram(Ram.Config(epsilon=0.1))
    torch.testing.assert_close(run(method, list(vectors[:, None])).value, torch.tensor([[3.0, 3, 0]]))
    torch.testing.assert_close(ram(vectors.round(), torch.tensor([1.5, 1.0])), torch.tensor([3.0, 4.5, 0]))


def test_ram_on_dense_loras_is_the_average():
    deltas = [dense(seed, 40, 60) for seed in (1, 2, 3)]
    assert (run(Ram(), deltas).value - torch.stack(deltas).mean(0)).norm() < 1e-3 * deltas[0].norm()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (Della, {"density": 0.9, "epsilon": 0.2}),
        (Della, {"density": 0.1, "epsilon": 0.2}),
        (Breadcrumbs, {"density": 0.9, "gamma": 0.2}),
        (Breadcrumbs, {"density": 0.0}),
        (Dare, {"density": 0.0}),
        (Ram, {"epsilon": -1.0}),
    ],
)
def test_options_out_of_range_are_refused(method, options):
    with pytest.raises(ValueError, match="|".join(options)):
        method.Config(**options)


# -- mergekit on the same tensors: difference 0 -----------------------------------------------------------------------


def by_mergekit(name, deltas, weights, **parameters):
    """mergekit's method on (zeros, D_1 .. D_K), fp32."""
    why = "mergekit is no requirement; install mergekit==0.1.5 to compare with it"
    merge_tensors = pytest.importorskip("mergekit.merge_methods", reason=why).merge_tensors
    tensors = [torch.zeros_like(deltas[0]), *deltas]
    parameters = {"weight": list(weights)} | parameters
    if name.startswith("ram"):
        del parameters["weight"]
    return merge_tensors(tensors, name, base_index=0, parameters=parameters)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.5, 2.0, 1.0, 0.25)])
@pytest.mark.parametrize(
    ("name", "parameters", "method"),
    [
        ("ties", {"density": 0.2}, Ties(Ties.Config(trim="tensor"))),
        ("ties", {"density": 0.55, "lambda": 0.5}, Ties(Ties.Config(trim="tensor", density=0.55, lambda_=0.5))),
        ("breadcrumbs", {"density": 0.7, "gamma": 0.05}, Breadcrumbs(Breadcrumbs.Config(density=0.7, gamma=0.05))),
        (
            "breadcrumbs_ties",
            {"density": 0.7, "gamma": 0.05, "normalize": True},
            Breadcrumbs(Breadcrumbs.Config(density=0.7, gamma=0.05, consensus="ties")),
        ),
        ("ram", {"epsilon": 0.5}, Ram(Ram.Config(epsilon=0.5))),
        ("ramplus_tl", {"epsilon": 0.5, "r": 0.3, "alpha": 2.0}, Ram(Ram.Config(epsilon=0.5, r=0.3, alpha=2.0))),
    ],
)
def test_equals_mergekit_on_the_same_tensors(name, parameters, method, weights):
    deltas = [dense(seed, 96, 80) * (0.3 if seed == 4 else 1.0) for seed in (1, 2, 3, 4)]
    if name.startswith("ram"):
        weights = (1.0,) * 4
    expected = by_mergekit(name, deltas, weights, **parameters)
    ours = run(method, deltas, list(weights)).value
    assert (ours - expected).abs().max() <= 4 * torch.finfo(torch.float32).eps * expected.abs().max()
    assert torch.equal(ours == 0, expected == 0)


def test_ties_over_a_whole_model_equals_mergekit_on_one_flat_tensor():
    shapes, sizes = {"a": (40, 30), "b": (20, 50)}, (5.0, 1.0)
    vectors = {}
    for i in range(3):
        matrices = {n: x * dense(10 * i + s[0], *s) for (n, s), x in zip(shapes.items(), sizes, strict=True)}
        vectors[f"e{i}"] = {n: Factors(torch.eye(d.shape[1]), d) for n, d in matrices.items()}
    flat = [torch.cat([f.B.flatten() for f in v.values()])[None] for v in vectors.values()]
    expected = by_mergekit("ties", flat, (1.0, 2.0, 1.0), density=0.2)[0]
    module = Ties().merge(Experts(vectors, [1.0, 2.0, 1.0]))
    ours = torch.cat([module(name).value.flatten() for name in shapes])
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)


def test_a_given_mask_makes_mergekits_dare_and_ours_alike(monkeypatch):
    # mergekit draws its own mask: ours takes the place of torch.bernoulli. Its rescaling to the L1 norm is left out.
    deltas = [dense(seed, 50, 60) for seed in (1, 2, 3)]
    known = experts(deltas)
    masks = iter([draws.uniform(0, name, "layer", slice(0, 50), 60) < 0.4 for name in known.names])
    pytest.importorskip("mergekit.merge_methods")
    monkeypatch.setattr(torch, "bernoulli", lambda p: next(masks).to(p.dtype))
    expected = by_mergekit("dare_linear", deltas, (1.0, 1.0, 1.0), density=0.4, rescale=False)
    ours = run(Dare(Dare.Config(density=0.4)), deltas).value
    torch.testing.assert_close(ours, expected / 0.4, rtol=1e-6, atol=1e-6)
