"""Reference: the definition in fp64 on the same rounded weights, and PEFT's own forward.

Run: pytest tests/lightning_modules/test_low_lora.py.
"""

import pytest
import torch

from lightning_modules.adapters import LoRASettings
from lightning_modules.functional.lora import lora_linear
from lightning_modules.functional.wide_product import add_wide_product, wide_product
from tests.conftest import new_tiny_policy, randomise_adapter

BF16 = torch.bfloat16
SHAPES = [(1, 64, 64, 1), (7, 96, 64, 4), (50, 64, 160, 16), (33, 129, 65, 3)]


def drawn(seed, *shape, dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


def layer(seed, shape, dtypes, strength=0.1):
    """x, W, b, updates of a layer in bf16, a factor pair for each of `dtypes`."""
    rows, into, out, rank = shape
    x = drawn(seed, rows, into, dtype=BF16).requires_grad_()
    weight, bias = drawn(seed + 1, out, into, dtype=BF16, scale=into**-0.5), drawn(seed + 2, out, dtype=BF16)
    updates = [
        (
            drawn(seed + 3 + 2 * i, rank, into, dtype=a, scale=into**-0.5).requires_grad_(),
            drawn(seed + 4 + 2 * i, out, rank, dtype=b, scale=strength).requires_grad_(),
            1.5 + i,
        )
        for i, (a, b) in enumerate(dtypes)
    ]
    return x, weight, bias, updates


def in_double(x, weight, bias, updates, upstream):
    """Value and derivatives by x and the factors, in fp64."""
    leaves = [t.detach().double().requires_grad_() for t in (x, *(f for a, b, _ in updates for f in (a, b)))]
    y = leaves[0] @ weight.double().t() + bias.double()
    for i, (*_, scale) in enumerate(updates):
        y = y + scale * leaves[0] @ leaves[1 + 2 * i].t() @ leaves[2 + 2 * i].t()
    return y, torch.autograd.grad(y, leaves, upstream.double())


def off(found, exact):
    """Largest error relative to the largest entry."""
    return float((found.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "dtypes", [[(torch.float32,) * 2], [(BF16, BF16)], [(torch.float32,) * 2, (BF16, torch.float32)]]
)
def test_value_and_derivatives_are_those_of_fp64_within_one_rounding(shape, dtypes):
    x, weight, bias, updates = layer(sum(shape), shape, dtypes)
    factors = [f for a, b, _ in updates for f in (a, b)]
    y = lora_linear(x, weight, bias, updates)
    upstream = drawn(9, *y.shape, dtype=BF16)
    exact, wanted = in_double(x, weight, bias, updates, upstream)
    found = torch.autograd.grad(y, [x, *factors], upstream)
    assert [g.dtype for g in found] == [t.dtype for t in (x, *factors)]
    # each addition to a result in bf16 rounds by at most 2⁻⁹ of it
    assert off(y.detach(), exact.detach()) < (1 + len(updates)) * 2**-8
    assert off(found[0], wanted[0]) < (1 + len(updates)) * 2**-8
    for factor, got, want in zip(factors, found[1:], wanted[1:], strict=True):
        assert off(got, want) < (2**-8 if factor.dtype == BF16 else 1e-5)


def test_products_keep_what_bf16_would_lose():
    left, right = drawn(0, 5, 64), drawn(1, 64, 40, dtype=BF16)
    exact = left.double() @ right.double()
    assert off(wide_product(left, right), exact) < 1e-6
    out, more = torch.zeros(5, 40, dtype=BF16), drawn(2, 64, 40)
    add_wide_product(out, left.t().contiguous(), more)
    rounded = (left.double() @ more.double()).to(BF16)
    # all but the entries that stand next to a boundary round as the exact sum does
    assert float((out != rounded).double().mean()) < 0.02


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_an_update_of_zero_changes_no_bit(rows):
    x, weight, bias, (first, fresh) = layer(3, (rows, 64, 96, 8), [(torch.float32,) * 2] * 2)
    fresh = (fresh[0], torch.zeros_like(fresh[1]), fresh[2])
    assert torch.equal(lora_linear(x, weight, bias, [fresh]), torch.nn.functional.linear(x, weight, bias))
    assert torch.equal(lora_linear(x, weight, bias, [first, fresh]), lora_linear(x, weight, bias, [first]))


def test_an_update_below_the_factors_own_bf16_still_acts():
    # B = 1 + 2⁻¹² is 1 in bf16; against a weight of zero the difference shows.
    x, a = torch.ones(1, 4, dtype=BF16), torch.eye(1, 4)
    weight = torch.zeros(1, 4, dtype=BF16)
    minus = (a, -torch.ones(1, 1), 1.0)
    y = lora_linear(x, weight, None, [minus, (a, torch.full((1, 1), 1 + 2.0**-12), 1.0)])
    assert float(y) == 2.0**-12


def held_bytes(function, *, without=()):
    """Bytes of distinct storages that autograd keeps for a backward pass, parameters and inputs left out."""
    kept, known = {}, {t.untyped_storage().data_ptr() for t in without}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = function()
    return sum(kept.values()), out


def test_no_wide_copy_of_input_or_output_is_kept():
    rows, _, _, rank = shape = (40, 256, 192, 4)
    x, weight, bias, updates = layer(0, shape, [(torch.float32,) * 2] * 2)
    own = [x, weight, bias, *(f for a, b, _ in updates for f in (a, b))]
    held, _ = held_bytes(lambda: lora_linear(x, weight, bias, updates), without=own)
    assert held == 2 * rows * rank * 4  # x A_iᵀ of two updates; x itself is the layer's before


@pytest.fixture
def low_policy():
    """A tiny policy in bf16 with two adapters that act; the first frozen in bf16 or fp32."""
    policy = new_tiny_policy()
    for parameter in policy.family.parameters():
        parameter.data = parameter.data.to(BF16)
    for seed, (name, rank) in enumerate((("dsa", 4), ("gba", 2))):
        policy.add_adapter(name, LoRASettings(rank=rank))
        randomise_adapter(policy, name, seed)
    policy.activate(["dsa", "gba"], trainable="gba")
    return policy


@pytest.mark.parametrize("frozen", [torch.float32, BF16])
def test_every_layer_is_served_and_agrees_with_peft(low_policy, frozen, mixed_examples, monkeypatch):
    for key, parameter in low_policy.family.model.named_parameters():
        if ".lora_" in key and ".dsa." in key:
            parameter.data = parameter.data.to(frozen)
    layers = list(low_policy._layers)
    assert {p.dtype for n, p in low_policy.named_parameters() if ".gba." in n} == {torch.float32}
    for one in layers[:4]:
        x = drawn(1, 9, one.in_features, dtype=BF16).requires_grad_()
        leaves = [x, *(p for p in one.parameters() if p.requires_grad)]
        ours, theirs = one(x), type(one).forward(one, x)
        assert ours.dtype == BF16
        upstream = drawn(2, *ours.shape, dtype=BF16)
        assert off(ours.detach(), theirs.detach().double()) < 2**-6
        for a, b in zip(
            torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(theirs, leaves, upstream), strict=True
        ):
            assert off(a, b.double()) < 2**-6
    called = []
    for one in layers:
        monkeypatch.setattr(type(one), "forward", lambda *_: called.append(1))
    prompts = [low_policy.prompt(example, "") for example in mixed_examples]
    low_policy.score(prompts, [[25, 26]] * 4).logps.sum().backward()
    assert called == []  # PEFT's own forward is never asked


def test_decoding_never_rounds_an_adapter_into_low_weights(low_policy):
    before = {name: p.detach().clone() for name, p in low_policy.family.named_parameters()}
    with low_policy.folded():
        assert low_policy.active == ("dsa", "gba")
        assert all(torch.equal(p, before[name]) for name, p in low_policy.family.named_parameters())
