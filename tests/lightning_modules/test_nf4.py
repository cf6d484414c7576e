"""Reference: the same layers with the dense matrices that the packed ones stand for, and PEFT's own forward.

Run: pytest tests/lightning_modules/test_nf4.py.
"""

import copy

import pytest
import torch

from datamodules.batch import Batch
from lightning_modules.adapters import LoRASettings
from lightning_modules.families.nf4 import is_packed, numbers, pack, unpacked
from lightning_modules.families.tiny import TinyQwen2_5_VL
from lightning_modules.functional.lora import lora_linear
from lightning_modules.policy import Policy
from lightning_modules.rollout import sample
from lightning_modules.schedule import adamw
from lightning_modules.sft_lora import SFTLoRA
from lightning_modules.stage import StageContext
from tests.conftest import randomise_adapter
from tests.lightning_modules.rl_harness import GUIDED, fit, loader, run
from tests.lightning_modules.test_low_lora import drawn, held_bytes, off

BF16 = torch.bfloat16


def wide_policy(intermediate=128):
    """A tiny policy with rows of whole blocks."""
    sizes = {"hidden": 64, "layers": 2, "heads": 4, "vision_hidden": 32, "vision_layers": 2}
    config = TinyQwen2_5_VL.Config(corpus="tests.conftest.corpus", intermediate=intermediate, **sizes)
    return Policy(TinyQwen2_5_VL(config))


def packed_policy():
    """One of them whose language model is in NF4, and what its parameters were before."""
    policy = wide_policy()
    policy.family.to(BF16)
    before = {name: p.detach().clone() for name, p in policy.family.named_parameters()}
    pack(policy.family.model, policy.family.lora_targets)
    return policy, before


def test_only_the_language_model_s_linear_layers_are_packed():
    policy, before = packed_policy()
    now = dict(policy.family.named_parameters())
    packed = {name for name, p in now.items() if is_packed(p)}
    assert packed == {n for n in before if "language_model.layers" in n and n.endswith("proj.weight")}
    assert len(packed) == 14  # seven of each of two layers
    assert all(torch.equal(now[name], before[name]) for name in before if name not in packed)
    for name in packed:
        assert off(unpacked(now[name], BF16), before[name].double()) < 0.2
        assert now[name].nbytes == before[name].numel() // 2
        assert numbers(now[name]) == before[name].numel()
    assert policy.linears(pictures=False) == wide_policy().linears(pictures=False)


def test_what_cannot_be_packed_is_refused():
    targets = TinyQwen2_5_VL.lora_targets
    with pytest.raises(ValueError, match=r"in torch\.float32; set the model's dtype to bfloat16"):
        pack(wide_policy().family.model, targets)
    with pytest.raises(ValueError, match=r"down_proj takes 96; set quantize to none"):
        pack(wide_policy(96).family.to(BF16).model, targets)
    with pytest.raises(ValueError, match="found no linear layer"):
        pack(wide_policy().family.model, "nothing")


def test_an_update_over_a_packed_layer_is_that_over_its_dense_matrix():
    policy, _ = packed_policy()
    for seed, name in enumerate(("dsa", "gba")):
        policy.add_adapter(name, LoRASettings(rank=4))
        randomise_adapter(policy, name, seed)
    for layer in list(policy._layers)[:7]:
        policy.activate(["dsa", "gba"], trainable="gba")
        x = drawn(1, 9, layer.in_features, dtype=BF16).requires_grad_()
        dense = unpacked(layer.base_layer.weight, BF16)
        updates = [(layer.lora_A[n].weight, layer.lora_B[n].weight, layer.scaling[n]) for n in ("dsa", "gba")]
        leaves = [x, *(p for p in layer.parameters() if p.requires_grad)]
        held, ours = held_bytes(lambda layer=layer, x=x: layer(x), without=(x, *layer.parameters()))
        assert held == 2 * 9 * 4 * 4  # x A_iᵀ of two updates in fp32, and no matrix
        upstream = drawn(2, *ours.shape, dtype=BF16)
        found = torch.autograd.grad(ours, leaves, upstream)
        for other in (lora_linear(x, dense, layer.base_layer.bias, updates), type(layer).forward(layer, x)):
            assert off(ours.detach(), other.detach().double()) < 2**-6
            for a, b in zip(found, torch.autograd.grad(other, leaves, upstream), strict=True):
                assert off(a, b.double()) < 2**-6
        layer.lora_B["dsa"].weight.data.zero_()
        layer.lora_B["gba"].weight.data.zero_()
        assert torch.equal(layer(x), layer.base_layer(x))


def sft(policy, examples, steps, **settings):
    """Losses of training on the same rows again and again."""
    texts = ("heart 62 of 110, so the answer is wide.", "so wide", "narrow", "so both")
    config = SFTLoRA.Config(guidelines=("intuitive",), lora_rank=4, warmup=0, learning_rate=0.01, **settings)
    stage, losses = SFTLoRA(config, context=StageContext(policy)), []
    stage.report = lambda metrics, shown=(): losses.append(metrics["train/loss"])
    run(stage, steps, loader([Batch(tuple(examples), ("neutral",) * 4, texts)] * (2 * steps)))
    return losses


@pytest.mark.parametrize(
    "settings", [{}, {"checkpoint_layers": True, "optimizer": "paged_adamw8bit"}, {"optimizer": "adamw8bit"}]
)
def test_the_loss_falls_also_after_a_pass_in_evaluation_mode(mixed_examples, settings):
    policy, _ = packed_policy()
    prompts = [policy.prompt(example, "") for example in mixed_examples]
    policy.family.eval()
    written = sample(policy, prompts, max_new_tokens=3, temperature=0)  # bitsandbytes would repack the weights here
    with torch.no_grad():
        scored = policy.score(prompts, [one.ids for one in written]).logps
    for row, one in zip(scored, written, strict=True):
        torch.testing.assert_close(row[: len(one.ids)], torch.tensor(one.logps), atol=0.1, rtol=0)
    losses = sft(policy, mixed_examples, 8, **settings)
    assert losses[-1] < 0.92 * losses[0]


def test_the_first_step_of_reinforcement_learning_has_no_distance_to_its_reference(mixed_examples):
    policy, _ = packed_policy()
    found = fit(policy, mixed_examples[:2], **GUIDED, acting=False, steps=1)
    assert found.metrics[0]["train/kl/ref_nats"] == 0.0
    assert found.gradients[0].abs().max() > 0
    before = {name: p.detach().clone() for name, p in policy.family.named_parameters()}
    with policy.folded():  # updates would be lost in four bits
        assert all(torch.equal(p, before[name]) for name, p in policy.family.named_parameters())


def test_moments_in_eight_bits_are_restored_to_the_bit():
    made = {}
    for kind in ("adamw", "adamw8bit", "paged_adamw8bit"):
        parameter = torch.nn.Parameter(drawn(0, 64, 128))
        optimizer = adamw([parameter], 0.01, betas=(0.9, 0.99), weight_decay=0.1, kind=kind)
        for step in range(4):
            if step == 2:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = adamw([parameter], 0.01, betas=(0.9, 0.99), weight_decay=0.1, kind=kind)
                optimizer.load_state_dict(state)
            parameter.grad = drawn(step + 1, 64, 128)
            optimizer.step()
        made[kind] = parameter.detach()
    assert torch.equal(made["adamw8bit"], made["paged_adamw8bit"])
    assert 0 < float((made["adamw8bit"] - made["adamw"]).abs().max()) < 0.01  # a quarter of the way
