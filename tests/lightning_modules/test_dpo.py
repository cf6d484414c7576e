# Reference: one row at a time through transformers' own forward. Run: pytest tests/lightning_modules/test_dpo.py
import pytest
import torch

from datamodules.batch import BadExampleError, Batch
from lightning_modules.adapters import LoRASettings
from lightning_modules.dpo import DPO
from lightning_modules.stage import StageContext
from tests.conftest import randomise_adapter
from tests.lightning_modules.test_reward_model import fit, questions
from tests.lightning_modules.test_stage import COMMON
from tests.settings import Register
from tests.slow_reference import stock_logps

ACTS = Register(DPO.Config, COMMON)


def stage_of(policy, **options):
    """On top of an adapter that acts, which is a part of the reference."""
    policy.add_adapter("beneath", LoRASettings(4, 8.0))
    randomise_adapter(policy, "beneath", seed=3)
    options = {"lora_rank": 4, "warmup": 0, "max_grad_norm": float("inf")} | options
    stage = DPO(DPO.Config(**options), context=StageContext(policy, start=("beneath",), specialty="judge"))
    randomise_adapter(policy, "dpo")
    return stage


def slow_loss(stage, examples, dimension, beta):
    terms, policy = [], stage.policy
    for example in examples:
        prompt = policy.prompt(example, "")
        ids = [policy.completion_ids(text) for text in example.answers]
        own = [stock_logps(policy, prompt, one).sum() for one in ids]
        with torch.no_grad(), policy.acting(("beneath",)):
            reference = [stock_logps(policy, prompt, one).sum() for one in ids]
        held = example.grades.get(dimension, (0,) * len(ids))
        for i in range(len(ids)):
            for j in range(len(ids)):
                if held[i] > held[j]:
                    margin = beta * ((own[i] - reference[i]) - (own[j] - reference[j]))
                    terms.append(-torch.nn.functional.logsigmoid(margin))
    return torch.stack(terms).mean(), len(terms)


@ACTS.acts("dimension", "beta")
@pytest.mark.parametrize(("dimension", "beta", "budget"), [("overall", 0.1, 10_000), ("accuracy", 0.5, 1)])
def test_a_step_is_the_slow_reference_in_value_and_gradient(tiny_policy, dimension, beta, budget):
    stage = stage_of(tiny_policy, dimension=dimension, beta=beta, micro_batch_tokens=budget)
    examples = [example for example in questions() if dimension in example.grades]
    before = {name: p.detach().clone() for name, p in stage.trained.items()}
    assert not [name for name in before if "beneath" in name]
    watch, trainer = fit(stage, examples)
    with torch.no_grad():
        for name, parameter in stage.trained.items():
            parameter.copy_(before[name])
    loss, pairs = slow_loss(stage, examples, dimension, beta)
    assert pairs == {"overall": 4, "accuracy": 3}[dimension]
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    reference = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(stage.trained.values()))])
    torch.testing.assert_close(watch.gradients[0], reference, atol=2e-6, rtol=5e-4)


@ACTS.acts("learning_rate", "lora_rank", "lora_alpha", "lora_seed")
def test_settings_act_and_a_fresh_adapter_is_the_reference(fresh_policy):
    policies = [fresh_policy() for _ in range(4)]
    settings = ({}, {"lora_rank": 2}, {"lora_seed": 5}, {"lora_alpha": 320.0})
    stages = [stage_of(policy, **options) for policy, options in zip(policies, settings, strict=True)]
    factors = [next(p for name, p in s.trained.items() if "lora_A" in name) for s in stages]
    assert [len(factor) for factor in factors] == [4, 2, 4, 4]
    assert not torch.equal(factors[0], factors[2])
    with torch.no_grad():
        plain, scaled = (next(stages[i].margins(Batch(questions()[1:2]))).loss for i in (0, 3))
        assert not torch.allclose(plain, scaled)
        for name, parameter in stages[0].trained.items():
            if "lora_B" in name:
                parameter.zero_()
        (one,) = stages[0].margins(Batch(questions()[1:2]))
        torch.testing.assert_close(one.loss, torch.full((3,), 0.6931472))
    fast = stage_of(fresh_policy(), learning_rate=0.1)
    slow = stage_of(fresh_policy(), learning_rate=0.001)
    for stage in (fast, slow):
        fit(stage, questions()[1:2])
    assert not torch.equal(*(torch.cat([p.flatten() for p in s.trained.values()]) for s in (fast, slow)))


def test_questions_without_the_grade_are_refused():
    with pytest.raises(BadExampleError, match=r"none of the dimensions that are learnt .tact"):
        DPO.check_questions(DPO.Config(dimension="tact"), questions())


def test_every_setting_has_a_test_that_needs_it():
    ACTS.check()
