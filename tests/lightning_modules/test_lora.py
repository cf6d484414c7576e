# Oracle: PEFT's own forward and autograd. Run: pytest <this file>
import pytest
import torch
from torch.nn import functional as F

from lightning_modules.adapters import LoRASettings, _lora_forward
from lightning_modules.functional.lora import lora_linear, lora_stacked, stacked
from tests.conftest import randomise_adapter


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_value_and_derivatives_are_those_of_the_definition():
    x, weight, bias = drawn(2, 5, 4, seed=1).requires_grad_(), drawn(3, 4, seed=2), drawn(3, seed=3)
    factors = (
        [drawn(r, 4, seed=4 + r).requires_grad_() for r in (2, 1)],
        [drawn(3, r, seed=7 + r).requires_grad_() for r in (2, 1)],
    )
    scales = (0.5, 2.0)
    ours = lora_linear(x, weight, bias, [*zip(*factors, scales, strict=True)])
    dense = weight + sum(s * b @ a for a, b, s in zip(*factors, scales, strict=True))
    torch.testing.assert_close(ours, x @ dense.t() + bias)
    leaves = [x, *factors[0], *factors[1]]
    upstream = drawn(2, 5, 3, seed=9)
    for a, b in zip(
        torch.autograd.grad(ours, leaves, upstream),
        torch.autograd.grad(x @ dense.t() + bias, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_an_update_of_zero_changes_no_bit():
    x, weight, bias = (drawn(*shape, seed=i).float() for i, shape in enumerate([(50, 24), (40, 24), (40,)]))
    first = (drawn(16, 24, seed=4).float(), drawn(40, 16, seed=5).float(), 2.0)
    fresh = (drawn(16, 24, seed=6).float(), torch.zeros(40, 16), 2.0)
    assert torch.equal(lora_linear(x, weight, bias, [first, fresh]), lora_linear(x, weight, bias, [first]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stacked_factors_round_once(dtype):
    x, weight = drawn(5, 7, 64, seed=1).bfloat16(), drawn(48, 64, seed=2).bfloat16()
    updates = [
        (drawn(r, 64, seed=r).to(dtype), drawn(48, r, seed=9 + r).to(dtype), scale) for r, scale in ((4, 0.5), (3, 2.0))
    ]
    base = F.linear(x, weight)
    found = lora_stacked(x, lambda rows: F.linear(rows, weight), *stacked(updates))
    exact = base.double() + sum(scale * x.double() @ a.double().t() @ b.double().t() for a, b, scale in updates)
    assert (found != exact.bfloat16()).float().mean() < 0.005  # two bf16 numbers for one in fp32 lose 2⁻¹⁶
    zero = [(a, torch.zeros_like(b), scale) for a, b, scale in updates]
    assert torch.equal(lora_stacked(x, lambda rows: F.linear(rows, weight), *stacked(zero)), base)


def test_gradcheck():
    weight = drawn(3, 4, seed=2)
    inputs = (
        drawn(5, 4, seed=1).requires_grad_(),
        drawn(2, 4, seed=3).requires_grad_(),
        drawn(3, 2, seed=4).requires_grad_(),
    )
    assert torch.autograd.gradcheck(lambda x, a, b: lora_linear(x, weight, None, [(a, b, 0.7)]), inputs)


def test_equals_peft_with_one_and_two_adapters(tiny_policy):
    for name, rank in (("dsa", 4), ("gba", 2)):
        tiny_policy.add_adapter(name, LoRASettings(rank=rank, alpha=6))
    layer = next(iter(tiny_policy._layers))
    for seed, name in enumerate(("dsa", "gba")):
        layer.lora_B[name].weight.data = drawn(*layer.lora_B[name].weight.shape, seed=seed).float()
    x = drawn(1, 7, layer.in_features, seed=5).float().requires_grad_()
    for names in ([], ["dsa"], ["dsa", "gba"]):
        tiny_policy.activate(names, trainable=names[-1] if names else None)
        leaves = [x, *(p for n, p in layer.named_parameters() if p.requires_grad)]
        ours, theirs = layer(x), type(layer).forward(layer, x)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        for a, b in zip(
            torch.autograd.grad(ours.square().sum(), leaves),
            torch.autograd.grad(theirs.square().sum(), leaves),
            strict=True,
        ):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_weights_that_learn_keep_their_gradient(tiny_policy):
    tiny_policy.add_adapter("dsa", LoRASettings(rank=2))
    tiny_policy.activate(["dsa"], trainable="dsa")
    layer = next(iter(tiny_policy._layers))
    layer.base_layer.weight.requires_grad_(True)
    _lora_forward(layer, torch.ones(1, 2, layer.in_features)).sum().backward()
    assert layer.base_layer.weight.grad.any()


def test_low_precision_and_autocast_are_near_full_precision(tiny_policy, mixed_examples):
    for name, rank in (("dsa", 4), ("gba", 2)):
        tiny_policy.add_adapter(name, LoRASettings(rank=rank))
        randomise_adapter(tiny_policy, name)
    tiny_policy.activate(["dsa", "gba"], trainable="gba")
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples]
    exact = tiny_policy.score(prompts, [[25, 26]] * 4).logps.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = tiny_policy.score(prompts, [[25, 26]] * 4).logps
    rough.sum().backward()
    torch.testing.assert_close(rough.detach(), exact, atol=0.1, rtol=0.1)
    tiny_policy.family.model.to(torch.bfloat16)  # the base in half, the adapters in full
    for key, parameter in tiny_policy.family.model.named_parameters():
        if ".lora_" in key:
            parameter.data = parameter.data.float()
    tiny_policy.zero_grad()
    half = tiny_policy.score(prompts, [[25, 26]] * 4).logps
    half.sum().backward()
    torch.testing.assert_close(half.detach(), exact, atol=0.1, rtol=0.1)
    before = {name: p.detach().clone() for name, p in tiny_policy.family.named_parameters()}
    with torch.no_grad(), tiny_policy.acting(()):
        bare = tiny_policy.score(prompts, [[25, 26]] * 4).logps
    with torch.no_grad(), tiny_policy.folded():
        assert tiny_policy.active == ("dsa", "gba")  # not folded: updates would be lost in the weights' rounding
        stacked_up = tiny_policy.score(prompts, [[25, 26]] * 4).logps
        with tiny_policy.acting(()):
            assert torch.equal(tiny_policy.score(prompts, [[25, 26]] * 4).logps, bare)
        with tiny_policy.acting(["dsa"]):
            alone = tiny_policy.score(prompts, [[25, 26]] * 4).logps
    torch.testing.assert_close(stacked_up, exact, atol=0.1, rtol=0.1)
    with torch.no_grad(), tiny_policy.acting(["dsa"]):
        assert torch.equal(tiny_policy.score(prompts, [[25, 26]] * 4).logps, alone)
    assert all(torch.equal(p, before[name]) for name, p in tiny_policy.family.named_parameters())
