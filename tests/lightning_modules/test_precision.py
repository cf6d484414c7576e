# Reference: fp32 arithmetic on the same rounded weights; for steps, the same module in fp32. Run: pytest <this file>
import math

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.functional.head import fp32_logits
from tests.lightning_modules.rl_harness import GUIDED, fit


def as_bf16(policy):
    """Frozen weights as `precision: bf16` of an experiment leaves them."""
    for parameter in policy.family.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    return policy


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_logits_of_a_low_precision_head_are_those_of_fp32(dtype):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 3, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(40_000, 16, generator=generator).to(torch.bfloat16)
    found = fp32_logits(hidden, weight)
    reference = F.linear(hidden.float(), weight.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, reference)
    slope = torch.randn(5, 3, 40_000, generator=generator)
    ours, theirs = (torch.autograd.grad((x * slope).sum(), hidden)[0] for x in (found, reference))
    torch.testing.assert_close(ours, theirs)


def test_bf16_weights_train_fp32_adapters_with_exact_metrics(fresh_policy, mixed_examples):
    # acting=False: the first step's policy is the reference
    wide = fit(fresh_policy(), mixed_examples[:3], **GUIDED, acting=False)
    low = fit(as_bf16(fresh_policy()), mixed_examples[:3], **GUIDED, acting=False, steps=2, learning_rate=0.01)
    trained = [p for p in low.stage.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    moments = next(iter(low.stage.trainer.optimizers[0].state.values()))
    assert moments["exp_avg"].dtype == torch.float32
    frozen = {p.dtype for name, p in low.stage.policy.family.named_parameters() if "lora" not in name}
    assert frozen == {torch.bfloat16}
    first = low.metrics[0]
    assert first["train/kl/ref_nats"] == 0.0
    assert first["train/ratio/sampler_log_max"] < 1e-5
    assert all(math.isfinite(value) for value in first.values())
    assert first["train/entropy_nats"] == pytest.approx(wide.metrics[0]["train/entropy_nats"], rel=0.02)
    assert torch.cosine_similarity(low.gradients[0], wide.gradients[0], dim=0) > 0.99
    assert low.metrics[1]["train/kl/ref_nats"] > 0.0
    line = low.stage.policy.line([low.rollouts[0].prompts[0]], [()])
    with torch.no_grad():
        assert low.stage.policy.family.logits(low.stage.policy.hidden_states(line)).dtype == torch.float32


def test_metrics_are_finite_under_autocast(fresh_policy, mixed_examples):
    # bf16-mixed of Lightning's Trainer: the floor that stands for log 0 must not become minus infinity there
    mixed = fit(fresh_policy(), mixed_examples[:3], **GUIDED, precision="bf16-mixed")
    wide = fit(fresh_policy(), mixed_examples[:3], **GUIDED)
    assert all(math.isfinite(value) for value in mixed.metrics[0].values())
    assert mixed.metrics[0]["train/entropy_nats"] == pytest.approx(wide.metrics[0]["train/entropy_nats"], rel=0.02)
