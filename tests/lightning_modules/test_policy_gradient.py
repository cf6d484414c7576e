# Reference: one row at a time through transformers' own forward, formulas in plain Python (rl_reference.py); everything
# else goes through Trainer.fit. Run: pytest tests/lightning_modules/test_policy_gradient.py
import math

import pytest
import torch

from datamodules.batch import Batch
from lightning_modules.advantages.grpo import GRPO as GRPOAdvantage
from lightning_modules.advantages.guideline_based import GuidelineBased
from lightning_modules.advantages.maxrl import MaxRL
from lightning_modules.advantages.rloo import RLOO
from lightning_modules.losses.cispo import CISPO
from lightning_modules.losses.clipped import Clipped
from lightning_modules.losses.gspo import GSPO
from lightning_modules.losses.kl import InLoss, InReward
from lightning_modules.policy_gradient import PolicyGradient
from lightning_modules.rl_gba import GBA
from lightning_modules.rollouts import chosen
from lightning_modules.transfer.distill import DistillTransfer
from lightning_modules.transfer.policy_gradient import PolicyGradientTransfer
from lightning_modules.transfer.shaped import ShapedTransfer
from tests.conftest import made_example
from tests.lightning_modules import rl_reference as by_hand
from tests.lightning_modules.rl_acts import RL, acts
from tests.lightning_modules.rl_harness import GRPO, GUIDED, WRONG, a_part, fit, made
from tests.lightning_modules.rl_harness import PLAIN as PLAIN_TEXT
from tests.slow_reference import stock_log_distribution, stock_logps

WEIGHTS = {"correct": 1.0, "format": 0.1, "adherence": 0.2}
KL = a_part("losses.kl.InLoss", beta=0.3)
PLAIN = {"kl": None, "transfer": None}
CORRECT_AND_FORMAT = (a_part("rewards.correct.Correct"), a_part("rewards.format.Format"))
AGAIN = {"updates_per_rollout": 2, "learning_rate": 0.02, "schedule": "constant"}

CASES = {
    "GRPO": (GUIDED | PLAIN | {"advantage": GRPO}, by_hand.grpo_by_hand, {}, {}),
    "Dr. GRPO": (
        GUIDED | PLAIN | {"advantage": a_part("advantages.grpo.GRPO", scale_by_std=False), "reduction": "constant"},
        by_hand.grpo_by_hand,
        {"scale": False},
        {"reduction": "constant"},
    ),
    "RLOO": (GUIDED | PLAIN | {"advantage": a_part("advantages.rloo.RLOO")}, by_hand.rloo_by_hand, {}, {}),
    "MaxRL": (GUIDED | PLAIN | {"advantage": a_part("advantages.maxrl.MaxRL")}, by_hand.maxrl_by_hand, {}, {}),
    "GBA": (GUIDED | PLAIN, by_hand.gba_by_hand, {}, {}),
    "GBA with every option": (
        GUIDED
        | PLAIN
        | {
            "advantage": a_part(
                "advantages.guideline_based.GuidelineBased",
                lambda_=2.0, tau=0.5, alpha=0.7, priors={"bayesian": 3.0}, scale_by_std=False,
            )
        },
        by_hand.gba_by_hand,
        {"lambda_": 2.0, "tau": 0.5, "alpha": 0.7, "priors": {"bayesian": 3.0}, "scale": False},
        {},
    ),
    "k3": (GUIDED | PLAIN | {"kl": KL}, by_hand.gba_by_hand, {}, {"kl": by_hand.k3, "beta": 0.3}),
    "k2, mean over sequences": (
        GUIDED
        | PLAIN
        | {"kl": a_part("losses.kl.InLoss", beta=0.3, estimator="k2"), "reduction": "sequence_mean"},
        by_hand.gba_by_hand,
        {},
        {"kl": by_hand.k2, "beta": 0.3, "reduction": "sequence_mean"},
    ),
    "entropy": (GUIDED | PLAIN | {"entropy_bonus": 0.4}, by_hand.gba_by_hand, {}, {"entropy": 0.4}),
    "temperature": (
        GUIDED | {"temperature": 0.6, "kl": KL, "transfer": a_part("transfer.distill.DistillTransfer", eta=0.8)},
        by_hand.gba_by_hand,
        {},
        {"kl": by_hand.k3, "beta": 0.3, "transfer": "distill", "eta": 0.8},
    ),
    "transfer by policy gradient": (
        GUIDED | {"kl": None, "transfer": a_part("transfer.policy_gradient.PolicyGradientTransfer", eta=0.8)},
        by_hand.gba_by_hand,
        {},
        {"transfer": "policy_gradient", "eta": 0.8},
    ),
    "transfer by shaped ratio": (
        GUIDED | {"kl": None, "transfer": a_part("transfer.shaped.ShapedTransfer", eta=0.8, gamma=0.2)},
        by_hand.gba_by_hand,
        {},
        {"transfer": "shaped", "eta": 0.8, "gamma": 0.2},
    ),
    "transfer by distillation": (
        GUIDED | {"kl": None, "transfer": a_part("transfer.distill.DistillTransfer", eta=0.8)},
        by_hand.gba_by_hand,
        {},
        {"transfer": "distill", "eta": 0.8},
    ),
}  # fmt: skip


def assert_same_gradient(found, reference):
    assert reference.norm() > 1e-6
    assert torch.cosine_similarity(found.double(), reference.double(), dim=0) > 0.99999
    torch.testing.assert_close(found, reference, atol=2e-6, rtol=2e-4)


@RL.acts("advantage", "reduction", "kl", "entropy_bonus", "transfer")
@acts(GRPOAdvantage, "scale_by_std")
@acts(RLOO)
@acts(MaxRL)
@acts(GuidelineBased, "lambda_", "tau", "alpha", "priors", "scale_by_std")
@acts(InLoss, "beta", "estimator")
@acts(PolicyGradientTransfer, "eta")
@acts(ShapedTransfer, "eta", "gamma")
@acts(DistillTransfer, "eta")
@pytest.mark.parametrize("case", CASES)
def test_one_step_equals_the_slow_reference(tiny_policy, mixed_examples, case):
    settings, formula, options, terms = CASES[case]
    found = fit(tiny_policy, mixed_examples[:3], **settings)
    rollouts = found.rollouts[0]
    advantages = by_hand.advantages_by_hand(rollouts, WEIGHTS, formula, **options)
    torch.testing.assert_close(rollouts.advantages.flatten(), advantages, atol=1e-9, rtol=1e-9)
    by_hand.at_weights(found.stage, found.weights[0])
    old = by_hand.logps_of_rows(found.stage, rollouts)
    ref = by_hand.logps_of_rows(found.stage, rollouts, ("dsa",))
    rows = range(len(rollouts.completions))
    reference = by_hand.gradient_by_hand(found.stage, rollouts, old, ref, advantages, rows, **terms)
    assert_same_gradient(found.gradients[0], reference)


def test_only_a_guideline_that_answers_better_teaches(tiny_policy, mixed_examples):
    transfer = a_part("transfer.distill.DistillTransfer", eta=0.8)
    found = fit(tiny_policy, mixed_examples, **GUIDED, kl=None, transfer=transfer, seed=1)
    rollouts, advantages = found.rollouts[0], found.rollouts[0].advantages.flatten()
    size = rollouts.layout.size
    taught = [by_hand.best_guideline(rollouts, question * size) is not None for question in range(4)]
    assert set(taught) == {True, False}
    by_hand.at_weights(found.stage, found.weights[0])
    old = by_hand.logps_of_rows(found.stage, rollouts)
    terms = {"transfer": "distill", "eta": 0.8}
    reference = by_hand.gradient_by_hand(found.stage, rollouts, old, None, advantages, range(len(old)), **terms)
    assert_same_gradient(found.gradients[0], reference)


LOSSES = {
    "two bounds": (a_part("losses.clipped.Clipped", clip_low=0.05, clip_high=0.1), by_hand.clipped, (0.05, 0.1)),
    "dual clip": (
        a_part("losses.clipped.Clipped", clip_low=0.2, clip_high=0.28, dual_clip=1.05),
        by_hand.clipped,
        (0.2, 0.28, 1.05),
    ),
    "GSPO from above": (a_part("losses.gspo.GSPO", clip_low=0.1, clip_high=0.12), by_hand.gspo, (0.1, 0.12)),
    "GSPO from below": (a_part("losses.gspo.GSPO", clip_low=0.13, clip_high=0.12), by_hand.gspo, (0.13, 0.12)),
    "CISPO": (a_part("losses.cispo.CISPO", clip_low=0.1, clip_high=0.05), by_hand.cispo, (0.1, 0.05)),
}


@RL.acts("updates_per_rollout", "loss")
@acts(Clipped, "clip_low", "clip_high", "dual_clip")
@acts(GSPO, "clip_low", "clip_high")
@acts(CISPO, "clip_low", "clip_high")
@pytest.mark.parametrize("case", LOSSES)
def test_a_second_update_is_weighted_by_the_ratio_and_clipped(tiny_policy, mixed_examples, case):
    spec, loss, bounds = LOSSES[case]
    # The usual texts all grow likelier by the first update; these, which are mostly wrong, all grow less likely.
    less = {"engine": made(texts=(PLAIN_TEXT, "which narrow is both? user narrow which both", "which both A) which"))}
    settings = less if case == "GSPO from below" else {}
    found = fit(tiny_policy, mixed_examples[:3], **GUIDED, **PLAIN, **AGAIN, **settings, loss=spec)
    rollouts = found.rollouts[0]
    assert len(found.gradients) == 2
    by_hand.at_weights(found.stage, found.weights[0])
    old = by_hand.logps_of_rows(found.stage, rollouts)
    by_hand.at_weights(found.stage, found.weights[1])
    names = dict(zip(("low", "high", "dual"), bounds, strict=False))
    rows, advantages = range(len(rollouts.completions)), rollouts.advantages.flatten()
    reference = by_hand.gradient_by_hand(found.stage, rollouts, old, None, advantages, rows, loss=loss, **names)
    assert_same_gradient(found.gradients[1], reference)
    free = by_hand.gradient_by_hand(found.stage, rollouts, old, None, advantages, rows, loss=by_hand.clipped,
                                    low=1.0, high=math.inf)  # fmt: skip
    assert torch.cosine_similarity(free, reference, dim=0) < 0.9999  # the bounds were met
    live = [row for row in rows if float(advantages[row]) != 0]  # the others have no part in the update
    ratios = [
        (new - before).exp() for new, before in zip(by_hand.logps_of_rows(found.stage, rollouts), old, strict=True)
    ]
    if spec["class_path"].endswith("GSPO"):
        ratios = [ratio.log().mean().exp().expand_as(ratio) for ratio in ratios]
    ratio = torch.cat([ratios[row] for row in live])
    clips = [float((ratio < 1 - bounds[0]).double().mean()), float((ratio > 1 + bounds[1]).double().mean())]
    assert max(clips) > 0
    reported = [found.metrics[0][f"train/clip_fraction/{side}"] for side in ("low", "high")]
    assert reported == pytest.approx(clips, abs=1.5 / len(ratio))  # a ratio may lie on a bound


def test_rows_without_an_advantage_feel_the_kl_and_the_entropy_bonus(fresh_policy, mixed_examples):
    dead = GUIDED | PLAIN | {"engine": made(texts=(PLAIN_TEXT,)), "rewards": CORRECT_AND_FORMAT}
    terms = {"kl": by_hand.k3, "beta": 0.3}
    for settings, term in (({"kl": KL}, terms), ({"entropy_bonus": 0.4}, {"entropy": 0.4})):
        found = fit(fresh_policy(), mixed_examples[:2], **(dead | settings))
        rollouts = found.rollouts[0]
        assert not bool(rollouts.advantages.any())
        by_hand.at_weights(found.stage, found.weights[0])
        old = by_hand.logps_of_rows(found.stage, rollouts)
        ref = by_hand.logps_of_rows(found.stage, rollouts, ("dsa",))
        rows, advantages = range(len(old)), rollouts.advantages.flatten()
        reference = by_hand.gradient_by_hand(found.stage, rollouts, old, ref, advantages, rows, **term)
        assert_same_gradient(found.gradients[0], reference)


@pytest.mark.parametrize("tokens", [10**9, 300])
def test_the_reported_metrics_of_the_loss_are_those_of_the_slow_reference(tiny_policy, mixed_examples, tokens):
    transfer = a_part("transfer.policy_gradient.PolicyGradientTransfer", eta=0.8)
    settings = {"kl": KL, "entropy_bonus": 0.4, "transfer": transfer, "micro_batch_tokens": tokens}
    found = fit(tiny_policy, mixed_examples[:3], **GUIDED, **settings)
    rollouts, stage, metrics = found.rollouts[0], found.stage, found.metrics[0]
    by_hand.at_weights(stage, found.weights[0])
    own, ref = (by_hand.logps_of_rows(stage, rollouts, adapters) for adapters in (None, ("dsa",)))
    advantages, rows = rollouts.advantages.flatten().tolist(), range(len(own))
    lengths = [len(values) for values in own]
    kl = sum(float(by_hand.k3(a, b).sum()) for a, b in zip(own, ref, strict=True)) / sum(lengths)
    entropy, transferred = 0.0, 0.0
    with torch.no_grad():
        for row in rows:
            ids = rollouts.completions[row].ids
            log_probs = stock_log_distribution(stage.policy, rollouts.prompt(row), ids)
            entropy -= float((log_probs.exp() * log_probs.clamp(min=-1e9)).sum()) / sum(lengths)
            neutral = stock_logps(stage.policy, rollouts.neutral_prompt(row), ids)
            transferred -= 0.8 * advantages[row] * float(neutral.mean()) / len(rows)
    policy = -sum(a * n for a, n in zip(advantages, lengths, strict=True)) / sum(lengths)  # all ratios are 1
    expected = {"kl/ref_nats": kl, "entropy_nats": entropy, "loss/policy": policy, "loss/kl": 0.3 * kl}
    expected |= {"loss/entropy": -0.4 * entropy, "loss/transfer": transferred}
    assert {name: metrics[f"train/{name}"] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-5)


@acts(InReward, "beta")
def test_the_kl_in_the_reward_is_taken_from_every_completions_reward(tiny_policy, mixed_examples):
    kl = a_part("losses.kl.InReward", beta=0.05)
    found = fit(tiny_policy, mixed_examples[:3], **GUIDED, transfer=None, kl=kl)
    rollouts = found.rollouts[0]
    by_hand.at_weights(found.stage, found.weights[0])
    own, ref = (by_hand.logps_of_rows(found.stage, rollouts, adapters) for adapters in (None, ("dsa",)))
    penalties = [0.05 * float((a - b).sum()) for a, b in zip(own, ref, strict=True)]
    assert max(penalties) - min(penalties) > 1e-3
    advantages = by_hand.advantages_by_hand(rollouts, WEIGHTS, by_hand.gba_by_hand, penalties)
    torch.testing.assert_close(rollouts.advantages.flatten(), advantages, atol=1e-4, rtol=1e-4)
    rows = range(len(rollouts.completions))
    reference = by_hand.gradient_by_hand(found.stage, rollouts, own, ref, rollouts.advantages.flatten(), rows)
    assert_same_gradient(found.gradients[0], reference)  # and the loss has no term of its own


@RL.acts("mask_truncated")
def test_truncated_completions_leave_the_loss_but_not_the_baseline(tiny_policy, mixed_examples):
    engine = made(limit_at=2)  # the second text is always cut
    found = fit(tiny_policy, mixed_examples[:3], **GUIDED, **PLAIN, mask_truncated=True, engine=engine)
    rollouts = found.rollouts[0]
    rows = [row for row, completion in enumerate(rollouts.completions) if not completion.truncated]
    assert 0 < len(rows) < len(rollouts.completions)
    advantages = by_hand.advantages_by_hand(rollouts, WEIGHTS, by_hand.gba_by_hand)
    by_hand.at_weights(found.stage, found.weights[0])
    old = by_hand.logps_of_rows(found.stage, rollouts)
    reference = by_hand.gradient_by_hand(found.stage, rollouts, old, None, advantages, rows)
    assert_same_gradient(found.gradients[0], reference)


@RL.acts("sampler_weight_cap", "engine")
def test_a_sampler_that_drifts_is_corrected_up_to_a_cap(tiny_policy, mixed_examples):
    engine = made(drift=0.5)  # every other row was sampled with log-probabilities half a nat lower
    found = fit(tiny_policy, mixed_examples[:3], **GUIDED, **PLAIN, sampler_weight_cap=1.3, engine=engine)
    rollouts = found.rollouts[0]
    by_hand.at_weights(found.stage, found.weights[0])
    old = by_hand.logps_of_rows(found.stage, rollouts)
    weights = [
        (values - torch.tensor(completion.logps)).exp().clamp(max=1.3)
        for values, completion in zip(old, rollouts.completions, strict=True)
    ]
    assert max(float(w.max()) for w in weights) == pytest.approx(1.3)
    rows, advantages = range(len(old)), rollouts.advantages.flatten()
    reference = by_hand.gradient_by_hand(found.stage, rollouts, old, None, advantages, rows, weights=weights)
    assert_same_gradient(found.gradients[0], reference)
    assert found.metrics[0]["train/ratio/sampler_log_max"] == pytest.approx(0.5, abs=1e-4)
    assert 1 < found.metrics[0]["train/ratio/sampler_weight"] < 1.3


@RL.acts("minibatches")
def test_minibatches_are_steps_of_their_own_against_the_policy_that_sampled(tiny_policy, mixed_examples):
    found = fit(
        tiny_policy, mixed_examples[:3], **GUIDED, **PLAIN, temperature=0.8, minibatches=3, learning_rate=0.02,
        schedule="constant",
    )  # fmt: skip
    rollouts, size = found.rollouts[0], found.rollouts[0].layout.size
    assert len(found.gradients) == 3
    by_hand.at_weights(found.stage, found.weights[0])
    old = by_hand.logps_of_rows(found.stage, rollouts)
    for number in range(3):
        by_hand.at_weights(found.stage, found.weights[number])
        rows = range(number * size, (number + 1) * size)
        advantages = rollouts.advantages.flatten()
        reference = by_hand.gradient_by_hand(found.stage, rollouts, old, None, advantages, rows)
        assert_same_gradient(found.gradients[number], reference)


def test_minibatches_follow_the_places_of_questions_not_their_order(tiny_policy, mixed_examples):
    # As dynamic sampling leaves them, and as one of several devices holds them: here places 3, 0 and 2 of 4.
    rollouts = chosen(fit(tiny_policy, mixed_examples, **GUIDED, **PLAIN).rollouts[0], [3, 0, 2])
    size = rollouts.layout.size
    first, second, third = (list(range(n * size, (n + 1) * size)) for n in range(3))
    assert rollouts.minibatches(2, 4) == [second, first + third]
    assert rollouts.minibatches(4, 4) == [second, [], third, first]


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "constant"])
def test_the_gradient_does_not_depend_on_micro_batches(mixed_examples, reduction, fresh_policy):
    gradients = [
        fit(fresh_policy(), mixed_examples[:3], **GUIDED, kl=KL, reduction=reduction, micro_batch_tokens=tokens)
        .gradients[0]
        for tokens in (10**9, 400, 1)
    ]  # fmt: skip
    for other in gradients[1:]:
        assert torch.cosine_similarity(other, gradients[0], dim=0) > 0.99999
        torch.testing.assert_close(other, gradients[0], atol=1e-6, rtol=1e-4)


def test_lambda_one_without_trust_and_adherence_is_grpo_to_the_last_bit(mixed_examples, fresh_policy):
    # Through training_step: rollouts, advantages and the gradient of the step are the same bytes.
    neutral = a_part("advantages.guideline_based.GuidelineBased", lambda_=1.0, alpha=0.0)
    shared = GUIDED | PLAIN | {"rewards": CORRECT_AND_FORMAT}
    gba = fit(fresh_policy(), mixed_examples[:3], **shared, advantage=neutral)
    grpo = fit(fresh_policy(), mixed_examples[:3], **shared, advantage=GRPO)
    assert torch.equal(gba.rollouts[0].advantages, grpo.rollouts[0].advantages)
    assert torch.equal(gba.gradients[0], grpo.gradients[0])
    assert grpo.gradients[0].norm() > 1e-4


def test_the_plain_module_is_grpo_under_the_neutral_prompt(tiny_policy, mixed_examples):
    found = fit(tiny_policy, mixed_examples[:3], module=PolicyGradient)
    rollouts = found.rollouts[0]
    assert dict(rollouts.layout.counts) == {"neutral": 8}
    expected = by_hand.advantages_by_hand(rollouts, WEIGHTS, by_hand.grpo_by_hand)
    torch.testing.assert_close(rollouts.advantages.flatten(), expected, atol=1e-9, rtol=1e-9)


def test_the_first_step_has_kl_zero_and_ratio_one(tiny_policy, mixed_examples):
    found = fit(tiny_policy, mixed_examples[:3], **GUIDED, acting=False, steps=2, learning_rate=0.01)
    first, second = found.metrics
    assert first["train/kl/ref_nats"] == first["train/clip_fraction/low"] == first["train/clip_fraction/high"] == 0.0
    assert first["train/ratio/sampler_log_max"] < 1e-5
    assert second["train/kl/ref_nats"] > 1e-6


def test_dead_groups_cost_nothing_and_change_nothing(mixed_examples, fresh_policy, monkeypatch):
    # One text only: every question's rewards are equal, all advantages exactly zero.
    dead = fit(fresh_policy(), mixed_examples[:3], **GUIDED, **PLAIN, engine=made(texts=("<answer>B</answer>",)))
    assert dead.metrics[0]["train/dead_rows"] == 1.0
    assert torch.count_nonzero(dead.gradients[0]) == 0
    # Some rows dead: leaving them out is exact.
    spec = a_part("advantages.guideline_based.GuidelineBased", lambda_=0.0, alpha=0.0)
    shared = GUIDED | PLAIN | {"advantage": spec, "rewards": CORRECT_AND_FORMAT, "rollouts_per_guideline": 2}
    skipped = fit(fresh_policy(), mixed_examples[:3], **shared)
    assert 0 < skipped.metrics[0]["train/dead_rows"] < 1
    monkeypatch.setattr("lightning_modules.objective.Objective.needs", lambda self, rollouts, row: True)
    whole = fit(fresh_policy(), mixed_examples[:3], **shared)
    torch.testing.assert_close(skipped.gradients[0], whole.gradients[0], atol=1e-7, rtol=1e-5)


def test_settings_that_make_every_advantage_zero_are_refused(fresh_policy, mixed_examples):
    silent = [
        {"guidelines": ("differential", "bayesian"), "rollouts_per_guideline": 1, "neutral_share": 0.0,
         "advantage": a_part("advantages.guideline_based.GuidelineBased", lambda_=0.0)},
        {"rewards": (a_part("rewards.adherence.Adherence"),),
         "advantage": a_part("advantages.guideline_based.GuidelineBased", alpha=0.0)},
    ]  # fmt: skip
    for settings in silent:
        with pytest.raises(ValueError, match=r"every advantage is zero|wrong answer could outscore"):
            fit(fresh_policy(), mixed_examples[:2], **settings)


@pytest.mark.parametrize(
    "layout", [{"neutral_share": 0.0}, {"guidelines": ("neutral",), "neutral_share": 0.0}], ids=["guided", "neutral"]
)
def test_a_transfer_without_a_rollout_to_act_on_is_refused(fresh_policy, mixed_examples, layout):
    transfer = a_part("transfer.distill.DistillTransfer")
    with pytest.raises(ValueError, match="set neutral_share above 0 and name guidelines"):
        fit(fresh_policy(), mixed_examples[:2], **(GUIDED | layout), transfer=transfer)


def test_a_kl_in_the_reward_is_refused_where_rewards_must_not_be_negative(fresh_policy, mixed_examples):
    settings = GUIDED | {"transfer": None, "kl": a_part("losses.kl.InReward")}
    with pytest.raises(ValueError, match="kl: taken from the reward, which MaxRL refuses"):
        fit(fresh_policy(), mixed_examples[:2], **settings, advantage=a_part("advantages.maxrl.MaxRL"))


def test_dynamic_sampling_is_refused_where_the_kl_makes_every_group_differ(fresh_policy, mixed_examples):
    settings = GUIDED | {"transfer": None, "kl": a_part("losses.kl.InReward")}
    with pytest.raises(ValueError, match=r"dynamic_share: 0\.5 would replace no group"):
        fit(fresh_policy(), mixed_examples[:2], **settings, dynamic_share=0.5)


@RL.acts("dynamic_share", "dynamic_rounds")
def test_dynamic_sampling_replaces_dead_groups_by_further_questions(fresh_policy, mixed_examples):
    # Two texts that are both wrong, or one of them right: with two rollouts a question many groups are dead.
    shared = {"guidelines": ("neutral",), "rollouts_per_guideline": 2, "neutral_share": 0.0, "advantage": GRPO} | PLAIN
    shared |= {"engine": made(texts=(PLAIN_TEXT, WRONG, WRONG)), "rewards": CORRECT_AND_FORMAT, "questions_per_step": 4}
    spares = Batch(tuple(made_example(10 + n) for n in range(12)))
    batch = Batch(tuple(mixed_examples), spares=spares)
    once = fit(fresh_policy(), mixed_examples, batches=[batch] * 2, **shared)
    again = fit(fresh_policy(), mixed_examples, batches=[batch] * 2, **shared, dynamic_share=1.0, dynamic_rounds=6)
    dead = [not bool(row.any()) for row in once.rollouts[0].advantages]
    assert 0 < sum(dead) < 4
    kept = [e.question_id for e, d in zip(once.rollouts[0].examples, dead, strict=True) if not d]
    found = [e.question_id for e in again.rollouts[0].examples]
    assert set(kept) <= set(found)
    assert len(found) == len(set(found)) == 4
    assert sorted(again.rollouts[0].places) == [0, 1, 2, 3]
    assert all(bool(row.any()) for row in again.rollouts[0].advantages)
    metrics = again.metrics[0]
    assert metrics["train/dynamic/informative"] == 1.0
    assert metrics["train/dynamic/asked_again"] >= sum(dead)
    assert once.metrics[0]["train/dynamic/asked_again"] == 0.0
    bounded = fit(fresh_policy(), mixed_examples, batches=[batch] * 2, **shared, dynamic_share=1.0, dynamic_rounds=1)
    assert bounded.metrics[0]["train/dynamic/asked_again"] == sum(dead)
    satisfied = fit(fresh_policy(), mixed_examples, batches=[batch] * 2, **shared, dynamic_share=0.25)
    assert satisfied.metrics[0]["train/dynamic/asked_again"] == 0.0


def test_k1_in_the_loss_is_refused_with_its_reason(fresh_policy, mixed_examples):
    with pytest.raises(ValueError, match=r"k1 .*expectation zero"):
        fit(fresh_policy(), mixed_examples[:2], kl=a_part("losses.kl.InLoss", estimator="k1"))


@pytest.mark.parametrize(
    "bad",
    [{"guidelines": ()}, {"guidelines": ("neutral",), "rollouts_per_guideline": 1, "neutral_share": 0.0},
     {"guidelines": ("neutral", "bayesian")}, {"neutral_share": 1.0}, {"minibatches": 9}, {"sampler_weight_cap": 0.5},
     {"dynamic_share": 1.5}, {"pass_rate": (0.9, 0.1)}, {"temperature": 0.0}, {"entropy_bonus": -1.0}],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(bad):
    with pytest.raises(ValueError, match="|".join(bad)):
        GBA.Config(**bad)
