# Reference: the same step on the CPU. Run: pytest tests/lightning_modules/test_gpu.py -m gpu (needs a CUDA device)
import math

import pytest
import torch
from torch.nn import functional as F

from answering.asking import ask
from answering.decoding import Decoding
from benchmarks.gpu import made
from lightning_modules import rollout
from lightning_modules.adapters import LoRASettings
from lightning_modules.decoding import WORTH
from lightning_modules.functional.head import fp32_logits
from lightning_modules.reproducible import same_numbers
from lightning_modules.rollout import sample
from tests.conftest import new_tiny_policy
from tests.lightning_modules.rl_harness import GUIDED, fit

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def as_train_py_does():
    """Kernels that give the same bits each time; with a gradient and without, among other things."""
    same_numbers()
    yield
    torch.use_deterministic_algorithms(False)


def test_a_step_of_rl_is_that_of_the_cpu(mixed_examples):
    cpu, gpu = (fit(new_tiny_policy(), mixed_examples[:3], **GUIDED, accelerator=kind) for kind in ("cpu", "gpu"))
    assert gpu.gradients[0].is_cuda
    assert torch.cosine_similarity(cpu.gradients[0], gpu.gradients[0].cpu(), dim=0) > 0.9999
    for name, value in cpu.metrics[0].items():
        if not name.startswith("train/ratio/sampler_log_max"):
            assert gpu.metrics[0][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize(("transfer", "most"), [(None, 0.0), ("as it is", 1e-5)])
def test_bf16_weights_train_on_the_gpu(mixed_examples, transfer, most):
    policy = new_tiny_policy()
    for parameter in policy.family.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    settings = GUIDED | ({} if transfer else {"transfer": None})
    found = fit(policy, mixed_examples[:3], **settings, acting=False, steps=2, learning_rate=0.01, accelerator="gpu")
    # Transfer scores the neutral prompts along with the policy's rows, and not with the reference's.
    assert 0 <= found.metrics[0]["train/kl/ref_nats"] <= most
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


def sampled(policy, examples, tokens=48, **how):
    prompts = [policy.prompt(example, "") for example in examples]
    with made.endless(policy):
        return sample(policy, prompts, max_new_tokens=tokens, copies=3, seeds=list(range(3 * len(prompts))), **how)


def test_greedy_answers_are_those_of_the_cpu(mixed_examples):
    policy = new_tiny_policy()
    cpu = [answer.ids for answer in ask(policy, mixed_examples, "", Decoding(WORTH))]
    gpu = [answer.ids for answer in ask(policy.to("cuda"), mixed_examples, "", Decoding(WORTH))]
    assert sum(a == b for a, b in zip(cpu, gpu, strict=True)) >= 3  # a tie may fall the other way


def test_a_recorded_step_writes_what_the_step_itself_does(mixed_examples, monkeypatch):
    policy = new_tiny_policy().to("cuda")
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda self: replays.append(1) or replay(self))
    recorded = sampled(policy, mixed_examples)
    assert len(replays) == 46  # of 47 steps after the prompts' own; the first is taken as it is
    monkeypatch.setattr(rollout, "worth_recording", lambda device, limit: False)
    eager = sampled(policy, mixed_examples)
    assert len(replays) == 46
    same = sum(ours.ids == theirs.ids for ours, theirs in zip(recorded, eager, strict=True))
    assert same >= len(eager) - 2  # rounding may move a draw over the edge between two tokens
    for ours, theirs in zip(recorded, eager, strict=True):
        if ours.ids == theirs.ids:
            assert ours.logps == pytest.approx(theirs.logps, abs=1e-4)


def test_rows_that_end_leave_a_recording_behind(mixed_examples):
    policy = new_tiny_policy()
    eos, original = policy.family.eos_token_id, policy.family.logits
    lift = torch.zeros(policy.family.model.config.get_text_config().vocab_size)
    lift[eos] = 4.0  # rows end at different steps
    prompts = [policy.prompt(example, "") for example in mixed_examples]
    found = []
    for device in ("cpu", "cuda"):
        policy.to(device)
        lift = lift.to(device)
        policy.family.logits = lambda hidden, lift=lift: original(hidden) + lift
        found.append(sample(policy, prompts, max_new_tokens=64, copies=4, seeds=list(range(16))))
    cpu, gpu = ([row.ids for row in rows] for rows in found)
    assert len(set(map(len, cpu))) > 5
    assert sum(a == b for a, b in zip(cpu, gpu, strict=True)) >= 14


def test_a_step_that_cannot_be_recorded_is_taken_as_it_is(mixed_examples, caplog):
    policy = new_tiny_policy().to("cuda")
    expected = sampled(policy, mixed_examples[:1])
    original = policy.family.logits
    policy.family.logits = lambda hidden: original(hidden) * float(hidden.isfinite().all())  # asks the host
    found = sampled(policy, mixed_examples[:1])
    assert [row.ids for row in found] == [row.ids for row in expected]
    assert "not recorded" in caplog.text


def test_updates_act_in_a_recorded_step_of_bf16(mixed_examples):
    policy = new_tiny_policy()
    for parameter in policy.family.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    policy.to("cuda").add_adapter("expert", LoRASettings(4))
    policy.activate(["expert"], trainable="expert")
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.5 * torch.ones_like(parameter)
    policy.activate(["expert"])
    with policy.folded():
        rows = sampled(policy, mixed_examples)
    prompts = [policy.prompt(example, "") for example in mixed_examples for _ in range(3)]
    with torch.no_grad(), made.endless(policy):
        scored = policy.score(prompts, [row.ids for row in rows]).logps.cpu()
        with policy.acting(()):
            bare = policy.score(prompts, [row.ids for row in rows]).logps.cpu()
    logps = torch.tensor([row.logps for row in rows])
    assert (logps - scored).abs().mean() < 0.02
    assert (logps - bare).abs().mean() > 0.1
