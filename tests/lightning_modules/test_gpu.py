# Reference: the same step on the CPU. Run: pytest tests/lightning_modules/test_gpu.py -m gpu (needs a CUDA device)
import math

import pytest
import torch
from torch.nn import functional as F

from answering.asking import ask
from answering.decoding import Decoding
from lightning_modules.functional.head import fp32_logits
from tests.conftest import new_tiny_policy
from tests.lightning_modules.rl_harness import GUIDED, fit

pytestmark = pytest.mark.gpu


def test_a_step_of_rl_is_that_of_the_cpu(mixed_examples):
    cpu, gpu = (fit(new_tiny_policy(), mixed_examples[:3], **GUIDED, accelerator=kind) for kind in ("cpu", "gpu"))
    assert gpu.gradients[0].is_cuda
    assert torch.cosine_similarity(cpu.gradients[0], gpu.gradients[0].cpu(), dim=0) > 0.9999
    for name, value in cpu.metrics[0].items():
        if not name.startswith("train/ratio/sampler_log_max"):
            assert gpu.metrics[0][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_bf16_weights_train_on_the_gpu(mixed_examples):
    policy = new_tiny_policy()
    for parameter in policy.family.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    found = fit(policy, mixed_examples[:3], **GUIDED, acting=False, steps=2, learning_rate=0.01, accelerator="gpu")
    assert found.metrics[0]["train/kl/ref_nats"] == 0.0
    assert all(math.isfinite(value) for row in found.metrics for value in row.values())
    assert {p.dtype for p in found.stage.parameters() if p.requires_grad} == {torch.float32}


def test_logits_of_a_bf16_head_are_those_of_fp32():
    generator = torch.Generator("cuda").manual_seed(0)
    weight = torch.randn(40_000, 256, generator=generator, device="cuda").to(torch.bfloat16)
    hidden = torch.randn(64, 256, generator=generator, device="cuda").to(torch.bfloat16).requires_grad_()
    found, reference = fp32_logits(hidden, weight), F.linear(hidden.double(), weight.double())
    assert (found - reference).abs().max() < 1e-3
    slope = torch.randn(64, 40_000, generator=generator, device="cuda")
    ours = torch.autograd.grad((found * slope).sum(), hidden)[0]
    theirs = torch.autograd.grad((reference * slope.double()).sum(), hidden)[0]
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-2, atol=1e-2 * float(theirs.abs().max()))


def test_greedy_answers_are_those_of_the_cpu(mixed_examples):
    policy = new_tiny_policy()
    cpu = [answer.ids for answer in ask(policy, mixed_examples, "", Decoding(24))]
    gpu = [answer.ids for answer in ask(policy.to("cuda"), mixed_examples, "", Decoding(24))]
    assert sum(a == b for a, b in zip(cpu, gpu, strict=True)) >= 3  # a tie may fall the other way
