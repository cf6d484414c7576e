# Reference: numbers by hand, and the slow reference (rl_reference.py); everything goes through Trainer.fit. With those
# of test_policy_gradient.py and test_stage.py these tests fail for every setting of reinforcement learning that is
# ignored, which test_mutations.py carries out. Run: pytest tests/lightning_modules/test_rl_settings.py
import importlib
import inspect
import json
import math
import pkgutil
import sys
import textwrap
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml

from configs.build import build
from configs.load import load
from configs.schema import Component
from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError, Batch
from experiment.run import check_questions
from lightning_modules import advantages, choices, engines, losses, rewards, transfer
from lightning_modules.advantages.advantage import Advantage
from lightning_modules.choices.by_tag import ByTag
from lightning_modules.choices.choice import Choice
from lightning_modules.engines.engine import Engine
from lightning_modules.engines.packed import Packed
from lightning_modules.losses.kl import KLPenalty
from lightning_modules.losses.loss import PolicyLoss
from lightning_modules.policy_gradient import PolicyGradient
from lightning_modules.rewards.adherence import Adherence
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.correct import Correct
from lightning_modules.rewards.format import Format
from lightning_modules.rewards.guidelines import FOLDER, load_guidelines
from lightning_modules.rewards.overlong import Overlong
from lightning_modules.rewards.term import RewardTerm
from lightning_modules.rl_gba import GBA
from lightning_modules.rl_settings import RLSettings
from lightning_modules.rollout import stream_seed
from lightning_modules.transfer.transfer import Transfer
from tests.conftest import made_example, randomise_adapter
from tests.experiment import test_pass_rates  # noqa: F401 - its import fills the registers
from tests.lightning_modules import rl_reference as by_hand
from tests.lightning_modules import (
    test_guideline_choices,  # noqa: F401 - likewise
    test_open_rewards,  # noqa: F401 - likewise
    test_policy_gradient,  # noqa: F401 - likewise
    test_vllm_engine,  # noqa: F401 - likewise
)
from tests.lightning_modules.rl_acts import PARTS, RL, acts
from tests.lightning_modules.rl_harness import (
    EXCLUDES,
    GRPO,
    GUIDED,
    UNPARSED,
    MadeEngine,
    a_part,
    context_of,
    fit,
    loader,
    made,
    run,
)
from tests.slow_reference import stock_log_distribution

PLAIN = {"kl": None, "transfer": None}
DEAD = made(texts=("<answer>B</answer>",))


@RL.acts("guidelines", "rollouts_per_guideline", "neutral_share")
def test_every_question_is_asked_under_every_guideline_and_the_neutral_prompt(tiny_policy, mixed_examples):
    settings = {"guidelines": ("bayesian", "intuitive"), "rollouts_per_guideline": 3, "neutral_share": 0.4}
    rollouts = fit(tiny_policy, mixed_examples[:2], **settings, **PLAIN).rollouts[0]
    # 3 + 3 guided rollouts are 60 % of a group, so that 4 are neutral
    order = ["neutral"] * 4 + ["bayesian"] * 3 + ["intuitive"] * 3
    assert [rollouts.guideline(row) for row in range(len(rollouts.completions))] == order * 2
    told = {name: yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["instruction"] for name in order[4:]}
    for row, name in enumerate(order * 2):
        prompt = tiny_policy.prompt(mixed_examples[row // 10], told.get(name, ""))
        assert rollouts.prompt(row).ids == prompt.ids
    assert len({rollouts.prompt(row).ids for row in (0, 4, 7)}) == 3


@RL.acts("choice")
@acts(ByTag, "tag")
@pytest.mark.parametrize("transfer", [None, a_part("transfer.policy_gradient.PolicyGradientTransfer", eta=0.5)])
def test_all_guided_rollouts_are_under_the_guideline_that_the_question_names(tiny_policy, mixed_examples, transfer):
    kinds = ("bayesian", "differential", "bayesian")
    asked = [replace(e, tags={"kind": kind}) for e, kind in zip(mixed_examples, kinds, strict=False)]
    settings = {"guidelines": ("differential", "bayesian"), "rollouts_per_guideline": 3, "neutral_share": 0.25}
    choice = a_part("choices.by_tag.ByTag", tag="kind")
    found = fit(tiny_policy, asked, choice=choice, **settings, kl=None, transfer=transfer)
    rollouts = found.rollouts[0]
    assert rollouts.shape == (len(asked), 8)  # as many as without
    guidelines, told = load_guidelines(["differential", "bayesian"]), GBA.Config().rewards
    adherence = Rewards([build(Component(spec["class_path"])) for spec in told])
    for row, completion in enumerate(rollouts.completions):
        question, place = divmod(row, 8)
        own = guidelines[kinds[question]]
        assert rollouts.guideline(row) == ("neutral" if place < 2 else kinds[question])
        prompt = tiny_policy.prompt(asked[question], "" if place < 2 else own.instruction)
        assert rollouts.prompt(row).ids == prompt.ids
        if place >= 2:
            how = {"n_tokens": len(completion.ids), "truncated": completion.truncated}
            assert rollouts.rewards[row] == adherence(completion.text, asked[question], own, **how)
    assert len({rollouts.prompt(row).ids for row in (0, 2, 8, 10)}) == 4
    # all six of a question are one guideline's: they share its baseline, whose place in the layout they have
    weights = {"correct": 1.0, "format": 0.1, "adherence": 0.2}
    advantages = by_hand.advantages_by_hand(rollouts, weights, by_hand.gba_by_hand)
    torch.testing.assert_close(rollouts.advantages.flatten(), advantages, atol=1e-6, rtol=1e-6)
    assert float(found.gradients[0].abs().max()) > 0
    metrics = found.metrics[0]
    assert metrics["train/choice/differential"] == pytest.approx(1 / 3)
    assert metrics["train/choice/bayesian"] == pytest.approx(2 / 3)
    assert metrics["train/choice/distinct"] == 1.0
    right = rollouts.right[1, 2:]
    assert metrics["train/guideline/differential/correct"] == pytest.approx(float(right.mean()))


def test_a_guideline_that_nobody_carries_has_no_curve(tiny_policy, mixed_examples):
    asked = [replace(e, tags={"kind": "bayesian"}) for e in mixed_examples]
    choice = a_part("choices.by_tag.ByTag", tag="kind")
    metrics = fit(tiny_policy, asked, choice=choice, **GUIDED, **PLAIN).metrics[0]
    assert metrics["train/choice/differential"] == 0.0
    named = {tag for tag in metrics if tag.startswith("train/guideline/differential/")}
    assert named == {"train/guideline/differential/won"}


def test_questions_that_do_not_name_their_guideline_are_refused_before_training(mixed_examples):
    choice = {"class_path": "lightning_modules.choices.by_tag.ByTag", "init_args": {"tag": "kind"}}
    config = replace(GBA.Config(), choice=choice)
    asked = [replace(e, tags={"kind": "analytical"}) for e in mixed_examples]
    GBA.check_questions(config, asked)
    for tags, told in (({}, "got None"), ({"kind": "pattern"}, "got 'pattern' among its tags")):
        with pytest.raises(BadExampleError, match=f"choice: the tag kind must name the guideline.*{told}"):
            GBA.check_questions(config, [*asked, replace(asked[0], tags=tags)])
    GBA.check_questions(GBA.Config(), [replace(asked[0], tags={})])
    # cards show questions of the validation split, which are answered as the others are
    data = SimpleNamespace(splits={"train": asked, "val": [replace(asked[0], tags={})]})
    module = Component("lightning_modules.rl_gba.GBA", {"choice": choice})
    context = SimpleNamespace(experiment=SimpleNamespace(module=module), stage_class=GBA, data=lambda run: data)
    with pytest.raises(BadExampleError, match=r"specialty 'alpha': .* got None"):
        check_questions(context, ["alpha"])
    for settings in ({"guidelines": ("bayesian",)}, {"guidelines": ("neutral", "bayesian"), "neutral_share": 0.0}):
        with pytest.raises(ValueError, match="choice chooses among guidelines"):
            replace(config, **settings)


@RL.acts("temperature", "max_new_tokens")
@acts(Packed, "rows_at_once")
def test_rollouts_are_drawn_from_the_policy_at_its_temperature_each_from_its_own_stream(
    tiny_policy, mixed_examples, monkeypatch
):
    at_once, line = [], tiny_policy.line

    def seen(prompts, tails, *, keep=False):
        at_once.append(len(prompts)) if keep else None  # decoding alone keeps its keys and values
        return line(prompts, tails, keep=keep)

    monkeypatch.setattr(tiny_policy, "line", seen)
    engine = a_part("engines.packed.Packed", rows_at_once=3)
    settings = {"guidelines": ("differential",), "rollouts_per_guideline": 2, "neutral_share": 0.3}
    shared = {
        "temperature": 0.6,
        "max_new_tokens": 5,
        "engine": engine,
        "rewards": (a_part("rewards.correct.Correct"),),
    }
    found = fit(tiny_policy, mixed_examples[:2], steps=2, seed=7, **settings, **shared, **PLAIN)
    assert at_once == [2, 2] * 2  # the three rows of a question's two prompts, in each of two steps
    lengths = []
    for step, rollouts in enumerate(found.rollouts):  # nothing is earned, so that the policy stays as it is
        for row, completion in enumerate(rollouts.completions):
            question, place = divmod(row, 3)
            name, copy = [("neutral", 0), ("differential", 0), ("differential", 1)][place]
            with torch.no_grad():
                log_probs = stock_log_distribution(tiny_policy, rollouts.prompt(row), completion.ids, 0.6)
            stream = torch.Generator().manual_seed(stream_seed("train", 7, step, question, name, copy))
            uniform = torch.rand(5, generator=stream, dtype=torch.float64)[: len(completion.ids)]
            reached = log_probs.double().exp().cumsum(-1) > uniform[:, None]
            assert completion.ids == tuple(reached.int().argmax(-1).tolist())
            own = log_probs.gather(-1, torch.tensor(completion.ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logps), own, atol=1e-5, rtol=1e-5)
            ended = completion.ids[-1] == tiny_policy.family.eos_token_id
            assert completion.truncated == (not ended)
            lengths.append(len(completion.ids))
    assert max(lengths) == 5


def test_no_row_of_a_run_has_the_stream_of_another(tiny_policy, mixed_examples, monkeypatch):
    seeds, versions, generate = [], [], MadeEngine.generate

    def seen(self, policy, prompts, copies, own, **rest):
        seeds.extend(own)
        versions.append(rest["version"])
        return generate(self, policy, prompts, copies, own, **rest)

    monkeypatch.setattr(MadeEngine, "generate", seen)
    # The same question twice in a step and again in the next, and groups that are all dead, so that more is asked.
    batch = Batch((mixed_examples[0],) * 2, spares=Batch((mixed_examples[1],) * 6))
    settings = GUIDED | PLAIN | {"engine": DEAD, "dynamic_share": 1.0, "updates_per_rollout": 2}
    fit(tiny_policy, mixed_examples[:2], steps=4, batches=[batch] * 4, **settings)
    assert len(seeds) == 2 * (2 + 6) * 8  # two batches of four optimiser steps; questions and spares; rollouts
    assert len(set(seeds)) == len(seeds)
    assert versions == [0] * 4 + [2] * 4  # updates done, so that a copy of the weights is known to be old


class Questions(VQADataModule):
    """Made questions, all to train on."""

    def examples(self):
        for number in range(24):
            yield made_example(number, words=number % 3)


@RL.acts("questions_per_step")
def test_the_data_set_gives_the_questions_of_a_step_and_spare_ones(tiny_policy, monkeypatch):
    asked, prompts = [], tiny_policy.prompts
    monkeypatch.setattr(tiny_policy, "prompts", lambda example, *rest: asked.append(example) or prompts(example, *rest))
    data = Questions(Questions.Config(val_fraction=0.0, test_fraction=0.0, batch_size=5))
    settings = GUIDED | PLAIN | {"engine": DEAD, "questions_per_step": 3, "dynamic_share": 1.0, "dynamic_rounds": 2}
    found = fit(tiny_policy, (), steps=2, data=data, **settings)
    assert [len(rollouts.examples) for rollouts in found.rollouts] == [3, 3]
    for step in (0, 1):  # three questions and six spare ones, none of them twice
        assert len({example.question_id for example in asked[9 * step : 9 * step + 9]}) == 9
    assert len(asked) == 18
    # every group is dead: three further questions in each of two rounds, which is all that was laid aside
    assert [metrics["train/dynamic/asked_again"] for metrics in found.metrics] == [6.0, 6.0]
    assert found.stage.feed().spare == 6
    assert replace(found.stage.config, dynamic_share=0.0).dynamic_rounds == 2
    found.stage.config = replace(found.stage.config, dynamic_share=0.0)
    assert found.stage.feed().spare == 0


def test_a_guideline_s_own_prior_counts_where_the_settings_name_none(tiny_policy, mixed_examples, tmp_path):
    text = (FOLDER / "bayesian.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(
        text.replace("name: bayesian", "name: mine").replace("prior: 1.0", "prior: 2.5")
    )
    guidelines = ("differential", str(tmp_path / "mine.yaml"))
    shared = {"guidelines": guidelines, "rollouts_per_guideline": 3, "neutral_share": 0.25} | PLAIN
    rollouts = fit(tiny_policy, mixed_examples[:3], **shared).rollouts[0]
    weights = {"correct": 1.0, "format": 0.1, "adherence": 0.2}
    expected = by_hand.advantages_by_hand(rollouts, weights, by_hand.gba_by_hand, priors={"mine": 2.5})
    torch.testing.assert_close(rollouts.advantages.flatten(), expected, atol=1e-9, rtol=1e-9)


@RL.acts("lora_rank", "lora_alpha", "lora_seed")
def test_the_adapter_that_learns_is_the_one_asked_for(fresh_policy, mixed_examples):
    def adapter(**settings):
        policy = fresh_policy()
        fit(policy, mixed_examples[:1], acting=False, engine=DEAD, **GUIDED, **PLAIN, **settings)
        config, tensors = policy.adapter_state("gba")
        return config["r"], config["lora_alpha"], tensors

    rank, alpha, tensors = adapter(lora_rank=3, lora_alpha=7.0, lora_seed=5)
    first = next(name for name in sorted(tensors) if "lora_A" in name)
    assert (rank, alpha, tensors[first].shape[0]) == (3, 7.0, 3)
    assert torch.equal(tensors[first], adapter(lora_rank=3, lora_alpha=7.0, lora_seed=5)[2][first])
    assert not torch.equal(tensors[first], adapter(lora_rank=3, lora_alpha=7.0, lora_seed=6)[2][first])


@RL.acts("learning_rate", "warmup", "schedule", "floor")
def test_the_rate_rises_and_falls_by_optimiser_steps_not_by_batches(fresh_policy, mixed_examples):
    shared = GUIDED | PLAIN | {"minibatches": 2, "learning_rate": 0.02, "floor": 0.25}
    found = fit(fresh_policy(), mixed_examples[:2], steps=6, **shared, warmup=2.0, schedule="linear")
    assert len(found.rollouts) == 3
    # two steps rise: 1/2, 1; the four that are left fall from 1 towards a quarter, by 3/16 each
    assert found.rates == pytest.approx([0.01, 0.02, *(0.02 * (1 - 3 / 16 * passed) for passed in range(4))])
    assert found.metrics[1]["train/learning_rate"] == pytest.approx(0.02)  # of a batch's first step
    moved = (found.weights[1] - found.weights[0]).abs().max()
    assert float(moved) == pytest.approx(0.01, rel=1e-3)  # AdamW's first step is the rate itself
    share = fit(fresh_policy(), mixed_examples[:2], steps=4, **shared, warmup=0.25, schedule="cosine")
    fall = [0.25 + 0.75 * (1 + math.cos(math.pi * passed / 3)) / 2 for passed in (0, 1, 2)]
    assert share.rates == pytest.approx([0.02, *(0.02 * factor for factor in fall)])


@RL.acts("max_grad_norm")
def test_the_gradient_of_all_minibatches_is_scaled_down_to_the_norm(fresh_policy, mixed_examples):
    whole = fit(fresh_policy(), mixed_examples[:2], **GUIDED, **PLAIN)
    norm = float(whole.gradients[0].norm())
    cut = fit(fresh_policy(), mixed_examples[:2], **GUIDED, **PLAIN, max_grad_norm=norm / 8, micro_batch_tokens=1)
    torch.testing.assert_close(cut.gradients[0], whole.gradients[0] / 8, atol=1e-6, rtol=1e-3)
    assert cut.metrics[0]["train/grad_norm"] == pytest.approx(norm, rel=1e-4)  # before clipping


def passes(monkeypatch, policy):
    """The scores of every pass that is differentiated, as they come."""
    found, score = [], policy.score

    def scored(prompts, completions, *rest, **more):
        scores = score(prompts, completions, *rest, **more)
        if torch.is_grad_enabled():
            found.append((len(prompts), scores.tokens))
        return scores

    monkeypatch.setattr(policy, "score", scored)
    return found


@RL.acts("micro_batch_tokens")
def test_a_pass_runs_on_no_more_tokens_than_the_bound(fresh_policy, mixed_examples, monkeypatch):
    def found(tokens, **settings):
        policy = fresh_policy()
        seen = passes(monkeypatch, policy)
        rollouts = fit(policy, mixed_examples[:3], micro_batch_tokens=tokens, **(GUIDED | settings)).rollouts[0]
        return seen, rollouts

    kl = {"kl": a_part("losses.kl.InLoss"), "transfer": None}  # so that every row has a part in the gradient
    whole, rollouts = found(10**9, **kl)
    assert [rows for rows, _ in whole] == [24]
    ((_, tokens),) = whole
    for bound in (tokens - 1, tokens // 3, 200):
        seen, _ = found(bound, **kl)
        assert sum(rows for rows, _ in seen) == 24
        assert max(size for _, size in seen) <= bound
        assert len(seen) >= -(-tokens // bound)
    assert [rows for rows, _ in found(1, **kl)[0]] == [1] * 24
    # Guided rows are scored under two prompts, which count both.
    both = {"kl": a_part("losses.kl.InLoss"), "transfer": a_part("transfer.policy_gradient.PolicyGradientTransfer")}
    twice, rollouts = found(10**9, **both, neutral_share=0.0)
    crossing = int(torch.count_nonzero(rollouts.advantages))
    assert [rows for rows, _ in twice] == [18 + crossing]
    ((_, tokens),) = twice
    for bound in (tokens - 1, tokens // 2, tokens // 3, 400):
        seen, _ = found(bound, **both, neutral_share=0.0)
        assert sum(rows for rows, _ in seen) == 18 + crossing
        assert max(size for _, size in seen) <= bound


@RL.acts("max_bad_steps")
def test_steps_that_are_not_finite_are_skipped_named_and_end_the_run(
    fresh_policy, mixed_examples, tmp_path, monkeypatch
):
    def spoilt(**settings):
        context = context_of(fresh_policy())
        config = GBA.Config(**{**GUIDED, **PLAIN, "lora_rank": 4, "engine": made(), "max_new_tokens": 60, **settings})
        stage = GBA(config, context=context)
        score = stage.policy.score

        def scored(*rest, **more):
            scores = score(*rest, **more)
            return replace(scores, logps=scores.logps * math.nan) if torch.is_grad_enabled() else scores

        monkeypatch.setattr(stage.policy, "score", scored)
        return stage

    stage = spoilt(questions_per_step=3, minibatches=3, max_bad_steps=2)
    before = [parameter.clone() for parameter in stage.trained.values()]
    with pytest.raises(RuntimeError, match=r"2 steps in a row .*questions q1;"):
        run(stage, 4, loader([Batch(tuple(mixed_examples[:3]))] * 8), folder=tmp_path)
    records = [json.loads(line) for line in (tmp_path / "bad_steps.jsonl").read_text().splitlines()]
    assert [record["rows"] for record in records] == [["q0"], ["q1"]]  # a step names the questions of its own part
    assert all(map(torch.equal, before, stage.trained.values()))
    assert stage.global_step == 0
    stage = spoilt(questions_per_step=3, max_bad_steps=4)
    with pytest.raises(RuntimeError, match=r"4 steps in a row .*questions q0, q1, q2;"):
        run(stage, 4, loader([Batch(tuple(mixed_examples[:3]))] * 8), folder=tmp_path)


@RL.acts("rewards")
@acts(Correct, "weight")
@acts(Format, "weight")
@acts(Adherence, "weight")
@acts(Overlong, "weight", "max_tokens", "buffer")
def test_the_reward_is_the_weighted_sum_of_its_terms(tiny_policy, mixed_examples):
    terms = (
        a_part("rewards.correct.Correct", weight=0.9),
        a_part("rewards.format.Format", weight=0.05),
        a_part("rewards.adherence.Adherence", weight=0.3),
        a_part("rewards.overlong.Overlong", weight=0.4, max_tokens=40, buffer=30),
    )
    examples = [replace(mixed_examples[0], answer="narrow"), *mixed_examples[1:]]  # A is right there, B elsewhere
    found = fit(tiny_policy, examples, **GUIDED, **PLAIN, rewards=terms, advantage=GRPO, engine=made(limit_at=2))
    rollouts, totals, seen = found.rollouts[0], [], set()
    for row, (item, completion) in enumerate(zip(rollouts.rewards, rollouts.completions, strict=True)):
        question, length = row // rollouts.layout.size, len(completion.ids)
        parsed, right = completion.text != UNPARSED, f"<answer>{examples[question].letter}</answer>" in completion.text
        late = -1.0 if completion.truncated or length > 40 else min(0.0, (10 - length) / 30)
        within = item.parts["adherence"]
        assert (within is None) == (rollouts.guideline(row) == "neutral")
        between = 0.9 * right + 0.05 * parsed + 0.4 * late
        assert item.between == pytest.approx(between)
        assert item.within == (None if within is None else pytest.approx(0.3 * within))
        totals.append(between + 0.3 * (within or 0.0))
        seen |= {("late", late in (0.0, -1.0)), ("cut", completion.truncated), ("within", bool(within))}
    assert len(seen) == 6  # both sides of each
    assert [item.total for item in rollouts.rewards] == pytest.approx(totals)
    groups = torch.tensor(totals, dtype=torch.float64).reshape(4, -1)
    centred = groups - groups.mean(dim=1, keepdim=True)
    expected = centred / (centred.std(dim=1, keepdim=True) + by_hand.EPS)
    torch.testing.assert_close(rollouts.advantages, expected, atol=1e-9, rtol=1e-9)
    assert found.metrics[0]["train/reward/total"] == pytest.approx(float(groups.mean()))


OWN_TERM = '''
    """A lab's own reward."""
    from dataclasses import dataclass

    from lightning_modules.rewards.term import RewardTerm


    class NamesAWord(RewardTerm):
        """1 where the reasoning names a word."""

        only_if_right = True

        @dataclass(frozen=True)
        class Config(RewardTerm.Config):
            word: str = "heart"

        def score(self, judged):
            return float(self.config.word in judged.thinking)
'''
OWN_YAML = """
    extends: [rl_gba.yaml]
    trust: [tests, labrewards]
    requires: []
    module:
      class_path: lightning_modules.rl_gba.GBA
      init_args:
        guidelines: [differential, bayesian]
        rollouts_per_guideline: 3
        neutral_share: 0.25
        questions_per_step: 3
        temperature: 1.0
        max_new_tokens: 60
        max_grad_norm: .inf
        lora_rank: 4
        transfer: null
        kl: null
        advantage: {class_path: lightning_modules.advantages.grpo.GRPO}
        engine: {class_path: tests.lightning_modules.rl_harness.MadeEngine}
        rewards:
          - {class_path: lightning_modules.rewards.correct.Correct}
          - {class_path: labrewards.NamesAWord, init_args: {weight: 0.25, word: narrow}}
"""


def test_a_term_of_one_s_own_is_one_class_that_the_yaml_names(tiny_policy, mixed_examples, tmp_path, monkeypatch):
    (tmp_path / "labrewards.py").write_text(textwrap.dedent(OWN_TERM))
    (tmp_path / "own.yaml").write_text(textwrap.dedent(OWN_YAML))
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        component = load(tmp_path / "own.yaml").experiment.module
        stage = build(component, context=context_of(tiny_policy))
    finally:
        sys.modules.pop("labrewards", None)
    randomise_adapter(tiny_policy, "gba", seed=5)
    found = run(stage, 1, loader([Batch(tuple(mixed_examples[:3]))] * 2))
    rollouts, totals = found.rollouts[0], []
    for item, completion in zip(rollouts.rewards, rollouts.completions, strict=True):
        right = completion.text.endswith("<answer>B</answer>")
        totals.append(right + 0.25 * (completion.text == EXCLUDES))  # a wrong text names it too
        assert set(item.parts) == {"correct", "names_a_word"}
        assert item.total == pytest.approx(totals[-1])
    earned = sum(completion.text == EXCLUDES for completion in rollouts.completions) / len(totals)
    assert 0 < found.metrics[0]["train/reward/names_a_word"] == pytest.approx(earned)
    groups = torch.tensor(totals, dtype=torch.float64).reshape(3, -1)
    centred = groups - groups.mean(dim=1, keepdim=True)
    advantages = (centred / (centred.std(dim=1, keepdim=True) + by_hand.EPS)).flatten()
    by_hand.at_weights(stage, found.weights[0])
    rows, old = range(len(totals)), by_hand.logps_of_rows(stage, rollouts)
    reference = by_hand.gradient_by_hand(stage, rollouts, old, None, advantages, rows)
    torch.testing.assert_close(found.gradients[0], reference, atol=2e-6, rtol=2e-4)


# -- nothing is left out -----------------------------------------------------------------------------------------

SLOTS = {
    advantages: (Advantage,),
    choices: (Choice,),
    losses: (PolicyLoss, KLPenalty),
    transfer: (Transfer,),
    engines: (Engine,),
    rewards: (RewardTerm,),
}


def parts_in(package, interfaces):
    """Every class of a package that a slot takes."""
    modules = [
        importlib.import_module(f"{package.__name__}.{item.name}") for item in pkgutil.iter_modules(package.__path__)
    ]
    return [
        found
        for module in modules
        for found in vars(module).values()
        if inspect.isclass(found) and found.__module__ == module.__name__
        if issubclass(found, interfaces) and not inspect.isabstract(found)
    ]


@pytest.mark.parametrize("package", SLOTS, ids=lambda package: package.__name__.rpartition(".")[2])
def test_every_part_and_every_setting_of_it_has_a_test_that_needs_it(package):
    found = parts_in(package, SLOTS[package])
    assert found
    unknown = [part.__qualname__ for part in found if part not in PARTS]
    assert unknown == [], "no test registers these; see rl_acts.py"
    for part in found:
        PARTS[part].check()


def test_every_setting_of_reinforcement_learning_has_a_test_that_needs_it():
    RL.check()
    fields = [set(config.__dataclass_fields__) for config in (RLSettings, PolicyGradient.Config, GBA.Config)]
    assert fields[0] == fields[1] == fields[2], "a setting of its own needs a register of its own"


def test_a_part_without_a_test_is_seen(tmp_path, monkeypatch):
    (tmp_path / "newcomer.py").write_text(
        "from dataclasses import dataclass\nfrom lightning_modules.advantages.rloo import RLOO\n"
        "class Newcomer(RLOO):\n    @dataclass(frozen=True)\n    class Config:\n        strength: float = 1.0\n"
    )
    monkeypatch.setattr(advantages, "__path__", [*advantages.__path__, str(tmp_path)])
    try:
        (newcomer,) = [part for part in parts_in(advantages, (Advantage,)) if part not in PARTS]
    finally:
        sys.modules.pop("lightning_modules.advantages.newcomer", None)
    assert newcomer.__name__ == "Newcomer"
    monkeypatch.setitem(PARTS, newcomer, type(RL)(newcomer.Config))
    assert PARTS[newcomer].missing() == ["strength"]
