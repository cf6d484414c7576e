# Reference: the algorithm's identities on a tiny random model. Run: pytest tests/lightning_modules/test_gba.py
import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from datamodules.batch import Batch
from lightning_modules.adapters import LoRASettings
from lightning_modules.functional.reductions import Denominators
from lightning_modules.rewards.combine import Reward
from lightning_modules.rl_gba import GBA
from lightning_modules.rl_metrics import correlation, dead, letter_distance, update_metrics
from lightning_modules.stage import StageContext
from tests.conftest import randomise_adapter


class Recorder:
    """Stands in for the optimiser loop: keeps gradients instead of stepping."""

    param_groups = ({"lr": 1.0},)

    def __init__(self, stage):
        self.stage, self.gradient = stage, None

    def step(self):
        self.gradient = torch.cat(
            [p.grad.flatten().clone() for p in self.stage.parameters() if p.requires_grad and p.grad is not None]
        )

    def zero_grad(self):
        for parameter in self.stage.parameters():
            parameter.grad = None


def stage_of(policy, monkeypatch, folder="", **settings):
    """A GBA stage on top of a non-zero frozen DSA adapter, with logging and stepping replaced by recorders."""
    policy.add_adapter("dsa", LoRASettings(rank=4))
    randomise_adapter(policy, "dsa")
    config = dataclasses.replace(GBA.Config(), questions_per_step=3, max_new_tokens=10, lora_rank=4, **settings)
    stage = GBA(config, context=StageContext(policy, ("dsa",), "heart", 0))
    recorder, logged = Recorder(stage), {}
    progress = SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(processed=7)))
    fit_loop = SimpleNamespace(epoch_loop=progress)
    trainer = SimpleNamespace(world_size=1, is_global_zero=True, fit_loop=fit_loop, default_root_dir=folder)
    monkeypatch.setattr(type(stage), "trainer", trainer)
    monkeypatch.setattr(type(stage), "logger", None)
    monkeypatch.setattr(stage, "optimizers", lambda: recorder)
    monkeypatch.setattr(stage, "lr_schedulers", lambda: type("S", (), {"step": lambda self: None})())
    monkeypatch.setattr(stage, "manual_backward", lambda loss: loss.backward())
    original = stage.update
    monkeypatch.setattr(stage, "update", lambda group, *, first: logged.update(original(group, first=first)))
    return stage, recorder, logged


def group_of(stage, examples, rewards=None):
    """Rollouts with made rewards, because a random model earns none."""
    group = stage.roll_out(Batch(tuple(examples)), "test", 0)
    if rewards is not None:
        group.rewards = [Reward(float(r), float(r), 1.0, None, None, "A") for r in rewards]
        from lightning_modules.functional.advantages import guideline_based_advantages

        group.advantages = guideline_based_advantages(
            group.totals, lambda_=stage.config.lambda_, tau=stage.config.tau, prior=stage.prior
        )
    return group


def made_rewards(n, seed=0):
    return torch.randint(0, 2, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_first_update_has_ratio_one_and_kl_zero(tiny_policy, mixed_examples, monkeypatch):
    stage, _, logged = stage_of(tiny_policy, monkeypatch, beta=0.1)
    stage.update(group_of(stage, mixed_examples[:3], made_rewards(24)), first=True)
    assert logged["train/kl/ref_nats"] == 0.0
    assert logged["train/clip_fraction/low"] == logged["train/clip_fraction/high"] == 0.0
    assert logged["train/ratio/sampler_log_max"] < 1e-5


def test_kl_leaves_zero_once_the_second_adapter_acts(tiny_policy, mixed_examples, monkeypatch):
    stage, _, logged = stage_of(tiny_policy, monkeypatch, beta=0.1)
    group = group_of(stage, mixed_examples[:3], made_rewards(24))
    randomise_adapter(tiny_policy, "gba", seed=5)
    stage.update(group, first=True)
    assert logged["train/kl/ref_nats"] > 1e-4


def test_equal_rewards_give_zero_gradient_of_the_policy_term(tiny_policy, mixed_examples, monkeypatch):
    stage, recorder, _ = stage_of(tiny_policy, monkeypatch, beta=0.0, updates_per_rollout=1)
    group = group_of(stage, mixed_examples[:3], [0.7] * 24)
    assert list(group.micro_batches(10_000, skip_zero_advantage=True)) == []
    rows = list(range(24))
    prompts, ids = group.rows(rows)
    scores = stage.policy.score(prompts, ids)
    loss, _ = stage.loss(
        scores.logps,
        scores.logps.detach(),
        None,
        group.advantages_of(rows),
        scores.completion_mask,
        Denominators.of(group.lengths, 10),
    )
    loss.backward()
    recorder.step()
    assert torch.equal(recorder.gradient, torch.zeros_like(recorder.gradient))


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "constant"])
def test_the_gradient_does_not_depend_on_the_micro_batch_split(tiny_policy, mixed_examples, monkeypatch, reduction):
    stage, recorder, _ = stage_of(tiny_policy, monkeypatch, beta=0.1, reduction=reduction)
    randomise_adapter(tiny_policy, "gba", seed=5)
    group = group_of(stage, mixed_examples[:3], made_rewards(24))
    gradients = []
    for tokens in (10**9, 400, 1):
        object.__setattr__(stage.config, "micro_batch_tokens", tokens)
        group.old_logps.clear()
        stage.update(group, first=True)
        gradients.append(recorder.gradient)
    assert gradients[0].norm() > 1e-6
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-6, rtol=1e-4)
        assert torch.cosine_similarity(other, gradients[0], dim=0) > 0.99999


def test_skipping_dead_groups_is_exact_without_a_kl_term(tiny_policy, mixed_examples, monkeypatch):
    stage, recorder, _ = stage_of(tiny_policy, monkeypatch, beta=0.0)
    rewards = [1.0] * 8 + made_rewards(8) + [0.0] * 8  # the first and the last group are dead
    group = group_of(stage, mixed_examples[:3], rewards)
    stage.update(group, first=True)
    skipped = recorder.gradient
    monkeypatch.setattr(type(group), "micro_batches", lambda self, tokens, skip_zero_advantage: iter([list(range(24))]))
    stage.update(group, first=True)
    torch.testing.assert_close(skipped, recorder.gradient, atol=1e-7, rtol=1e-5)


def test_neutral_only_is_grpo(tiny_policy, mixed_examples, monkeypatch):
    from lightning_modules.functional.advantages import group_relative_advantages

    stage, _, _ = stage_of(tiny_policy, monkeypatch, guidelines=("neutral",), rollouts_per_guideline=8)
    group = group_of(stage, mixed_examples[:3], made_rewards(24))
    grpo = group_relative_advantages(group.totals.reshape(3, 8))
    assert torch.equal(group.advantages.reshape(3, 8), grpo)


def test_rollouts_are_a_function_of_seed_and_step(tiny_policy, mixed_examples, monkeypatch):
    stage, _, _ = stage_of(tiny_policy, monkeypatch)
    batch = Batch(tuple(mixed_examples[:2]))
    first, again, later = (stage.roll_out(batch, "test", step) for step in (3, 3, 4))
    ids = [[completion.ids for completion in group.completions] for group in (first, again, later)]
    assert ids[0] == ids[1] != ids[2]


def test_non_finite_updates_are_skipped_then_stop(tiny_policy, mixed_examples, monkeypatch, tmp_path):
    stage, recorder, _ = stage_of(tiny_policy, monkeypatch, tmp_path, beta=0.0, max_bad_steps=2)
    group = group_of(stage, mixed_examples[:3], made_rewards(24))
    group.advantages = group.advantages * math.nan
    stage.update(group, first=True)
    assert recorder.gradient is None  # no optimiser step was taken
    with pytest.raises(RuntimeError, match=r"step 7.*q0.*learning_rate"):
        stage.update(group, first=True)


def test_metrics_by_hand(tiny_policy, mixed_examples, monkeypatch):
    stage, _, _ = stage_of(tiny_policy, monkeypatch)
    group = group_of(stage, mixed_examples[:2], [1, 1, 0, 0, 0, 0, 0, 0] + [0] * 8)
    metrics = update_metrics(group, stage.guidelines)
    assert metrics["train/reward/total"] == pytest.approx(2 / 16)
    assert metrics["train/guideline/differential/correct"] == pytest.approx(2 / 4)
    assert metrics["train/guideline/differential/won"] == 1.0  # alone in the first question, tied in the second
    assert metrics["train/guideline/bayesian/won"] == 0.5
    assert metrics["train/dead_groups/total"] == 0.5
    assert letter_distance(group) == 1.0  # every answer is A, every right letter is B
    assert dead(torch.tensor([[[1.0, 1.0]], [[1.0, 0.0]]])).tolist() == [True, False]
    assert correlation(torch.tensor([1.0, 2.0, math.nan]), torch.tensor([2.0, 4.0, 9.0])) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "bad",
    [{"reward_adherence": 1.0}, {"reward_adherence": -0.1}, {"tau": -1.0}, {"guidelines": ()},
     {"guidelines": ("neutral",), "rollouts_per_guideline": 1}, {"clip_low": 2.0}, {"priors": {"neutral": 0.0}}],
)  # fmt: skip
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad)) if "rollouts_per_guideline" not in bad else "at least 2"):
        GBA.Config(**bad)
