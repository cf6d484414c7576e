"""Reference: the examinations' scorer, sums by hand. Run: pytest tests/lightning_modules/test_open_rewards.py.

Open questions in reinforcement learning: what is paid, what is refused, and what is reported.
"""

import random
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from answering.answer import Answer
from configs.schema import Component
from datamodules.batch import BadExampleError
from datamodules.phantoms.base import phantom_classes
from datamodules.prompts import prompt_text
from evaluation.scorers import strict
from experiment.run import check_questions
from lightning_modules.policy_gradient import PolicyGradient
from lightning_modules.rewards.adherence import Adherence
from lightning_modules.rewards.combine import Rewards, judged
from lightning_modules.rewards.correct import Correct
from lightning_modules.rewards.format import Format
from lightning_modules.rewards.gates import gates
from lightning_modules.rewards.guidelines import NEUTRAL, load_guidelines
from lightning_modules.rewards.token_f1 import TokenF1
from lightning_modules.rl_gba import GBA
from tests.conftest import made_example
from tests.lightning_modules import rl_reference as by_hand
from tests.lightning_modules.rl_acts import acts
from tests.lightning_modules.rl_harness import GRPO, GUIDED, a_part, fit, made
from tests.lightning_modules.test_policy_gradient import assert_same_gradient

UNDER = load_guidelines(["differential", NEUTRAL])
THOUGHT = "opacity 12 of 40 beside the heart, below the fissure."


def opened(index: int, gold: str = "left lower lobe"):
    return replace(made_example(index), question="where is the opacity", options=(), answer=gold)


def tagged(answer: str, thought: str = THOUGHT) -> str:
    return f"<think>{thought}</think><answer>{answer}</answer>"


def paid(text: str, example, *terms):
    return Rewards([Correct(), *terms])(text, example, UNDER[NEUTRAL])


@pytest.mark.parametrize(
    ("gold", "said", "right", "f1"),
    [
        ("left lower lobe", "left lower lobe", True, 1.0),
        ("left lower lobe", "The Left lower lobe.", True, 1.0),
        ("left lower lobe", "lower lobe", False, 0.8),  # p 1, r 2/3
        ("left lower lobe", "right lower lobe", False, 2 / 3),
        ("left lower lobe", "lobe lobe lobe", False, 1 / 3),  # one of three, one of three
        ("left lower lobe", "spleen", False, 0.0),
        ("ER+", "ER-", False, 0.5),  # the opposite shares one of two words
        ("yes", "Yes", True, 1.0),
        ("yes", "no", False, 0.0),
    ],
)
def test_exact_answers_and_shared_words_by_hand(gold, said, right, f1):
    found = paid(tagged(said), opened(0, gold), TokenF1(TokenF1.Config(weight=0.25)))
    assert (found.gate, found.letter, found.right) == (None, None, right)
    assert found.answer == (said.casefold() if gold == "yes" else said)
    assert found.parts == {"correct": float(right), "token_f1": pytest.approx(f1)}
    assert found.total == pytest.approx(right + 0.25 * f1)


def test_a_yes_among_other_words_is_no_answer_to_a_yes_or_no_question():
    found = paid(tagged("yes, there is one"), opened(0, "yes"), TokenF1())
    assert (found.gate, found.right, found.total) == ("unparsed", False, 0.0)


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("left lower lobe", "unparsed"),
        (tagged(""), "unparsed"),
        ("<think>it <answer>left lower lobe</answer></think><answer>left lower lobe</answer>", "answer_in_thinking"),
        (tagged("left lower lobe", "left lower lobe"), "empty_thinking"),
        (tagged("left lower lobe", "left lower lobe. so left lower lobe."), "empty_thinking"),
        (tagged("left lower lobe", "where is the opacity"), "echo"),
        (
            tagged("left lower lobe", "because therefore thus hence since because therefore thus hence since"),
            "stuffing",
        ),
        (tagged("left lower lobe", f"{THOUGHT} so it is right."), None),  # nobody can tell that it contradicts
    ],
)
def test_gates_hold_for_short_answers(text, gate):
    example = opened(0)
    assert gates(text, example.question, (), "", example.answer) == gate
    found = paid(text, example, Format(), TokenF1())
    assert (found.gate, found.right) == (gate, gate is None)
    assert gate is None or found.total == 0


GOLDS = ("left lower lobe", "ER+", "hepatitis A", "8 mm", "yes", "no", "CT", "pleural effusion", "E. coli")
WORDS = (*" ".join(GOLDS).split(), *"not the a or . , - right B (A) is < ﬁ".split(), "\n")


def test_what_is_right_is_what_the_examination_counts_as_right():
    """On generated completions, well formed and not, to questions with options and without."""
    draw, seen = random.Random(5), Counter()
    for _ in range(3000):
        gold = draw.choice(GOLDS)
        example = opened(0, gold)
        if draw.random() < 0.3:
            options = tuple(draw.sample(GOLDS, 4))
            example = replace(example, options=options, answer=draw.choice(options))
        said = draw.choice(
            (example.answer, example.answer.upper(), " ".join(draw.choices(WORDS, k=draw.randint(0, 4))))
        )
        form = draw.choice((tagged("{}"), tagged("{}"), "<think>{}</think>", "{}", f"<answer>{{}}</answer>{THOUGHT}"))
        text = form.replace("{}", said).replace("fissure.", f"fissure. so the answer is {draw.choice(GOLDS)}.")
        one = judged(text, example, UNDER[NEUTRAL])
        counted = strict(Answer(text, (), 0, False).prediction(example))
        assert one.answer == counted.answered
        assert one.right == (counted.right and one.gate is None)
        assert (one.letter is not None) <= bool(example.options)
        seen[bool(example.options), counted.right, one.gate] += 1
        if not example.options:
            reward = paid(text, example, Format(), TokenF1())
            assert 0 <= reward.parts["token_f1"] <= 1
            assert (reward.parts["token_f1"] == 1) or not reward.right
    assert min(seen[options, True, None] for options in (True, False)) > 50
    assert {"unparsed", None, "contradiction"} <= {gate for _, _, gate in seen}


def test_no_half_answer_outscores_a_right_one_and_weights_that_would_let_it_are_refused():
    right, half = (paid(tagged(text), opened(0), TokenF1()) for text in ("left lower lobe", "lower lobe"))
    assert right.total > half.total > 0
    with pytest.raises(ValueError, match="a wrong answer could outscore a right one: it may earn up to 1"):
        Rewards([Correct(), TokenF1(TokenF1.Config(weight=1.0))])


TEXTS = (
    tagged("left lower lobe"),
    tagged("lower lobe"),
    tagged("right lower lobe"),
    tagged("spleen"),
    tagged("wide", "heart 62 of 110, so the answer is wide."),
    "left lower lobe",
)


@acts(TokenF1, "weight")
@pytest.mark.parametrize("module", [GBA, PolicyGradient])
def test_a_step_on_open_questions_is_that_of_exact_answers_and_shared_words(tiny_policy, module):
    """Three open questions and one with options, through the Trainer."""
    examples = [opened(0), opened(1, "lower lobe"), replace(opened(2, "spleen"), images=()), made_example(3)]
    terms = (a_part("rewards.correct.Correct"), a_part("rewards.token_f1.TokenF1", weight=0.4))
    plain = {"kl": None, "transfer": None, "advantage": GRPO, "rewards": terms, "engine": made(texts=TEXTS)}
    found = fit(tiny_policy, examples, module=module, **GUIDED, **plain)
    rollouts, size = found.rollouts[0], found.rollouts[0].layout.size
    f1 = {
        "left lower lobe": (1.0, 0.8, 2 / 3, 0.0, 0.0, 0.0),
        "lower lobe": (0.8, 1.0, 0.8, 0.0, 0.0, 0.0),
        "spleen": (0.0, 0.0, 0.0, 1.0, 0.0, 0.0),
        "wide": (None,) * 6,
    }
    totals = []
    for row, (item, completion) in enumerate(zip(rollouts.rewards, rollouts.completions, strict=True)):
        example, number = examples[row // size], TEXTS.index(completion.text)
        shared, right = f1[example.answer][number], f"<answer>{example.answer}</answer>" in completion.text
        assert item.parts == {
            "correct": float(right),
            "token_f1": None if shared is None else pytest.approx(shared),
        }
        totals.append(right + 0.4 * (shared or 0.0))
    assert [item.total for item in rollouts.rewards] == pytest.approx(totals)
    group = torch.tensor(totals, dtype=torch.float64).reshape(4, size)
    centred = group - group.mean(dim=1, keepdim=True)
    advantages = centred / (centred.std(dim=1, keepdim=True) + by_hand.EPS)
    torch.testing.assert_close(rollouts.advantages, advantages, atol=1e-9, rtol=1e-9)
    by_hand.at_weights(found.stage, found.weights[0])
    old = by_hand.logps_of_rows(found.stage, rollouts)
    reference = by_hand.gradient_by_hand(found.stage, rollouts, old, None, advantages.flatten(), range(len(totals)))
    assert_same_gradient(found.gradients[0], reference)

    assert rollouts.prompt(0).ids == tiny_policy.prompt(examples[0], "").ids
    assert "A)" not in prompt_text(examples[0], "")
    metrics = found.metrics[0]
    assert metrics["train/reward/token_f1"] == pytest.approx(
        sum(v for item in rollouts.rewards if (v := item.parts["token_f1"]) is not None) / (3 * size)
    )
    read = sum(completion.text != TEXTS[-1] for completion in rollouts.completions[: 3 * size])
    letters = [item.letter for item in rollouts.rewards[3 * size :]]
    read += sum(letter is not None for letter in letters)
    assert metrics["train/completion/parsed"] == pytest.approx(read / len(totals))
    # of the question with options alone: all are to be B, and what says something else is too much
    assert metrics["train/completion/letter_distance"] == pytest.approx(sum(one != "B" for one in letters) / size)


def test_without_options_letters_are_not_reported(tiny_policy):
    terms = (a_part("rewards.correct.Correct"), a_part("rewards.format.Format"))
    found = fit(tiny_policy, [opened(0)], **GUIDED, rewards=terms, kl=None, transfer=None, engine=made(texts=TEXTS))
    assert "train/completion/letter_distance" not in found.metrics[0]
    assert found.metrics[0]["train/completion/parsed"] > 0


def test_adherence_has_nothing_to_say_of_an_answer_without_options():
    found = Rewards([Correct(), Adherence()])(tagged("left lower lobe"), opened(0), UNDER["differential"])
    assert (found.parts["adherence"], found.within, found.criteria, found.total) == (None, None, {}, 1.0)


def test_terms_that_can_score_none_of_the_questions_are_refused_before_training():
    closed, free = [made_example(n) for n in range(3)], [opened(n) for n in range(3)]
    by_words = GBA.Config(rewards=(a_part("rewards.correct.Correct"), a_part("rewards.token_f1.TokenF1")))
    for config, questions, told in (
        (GBA.Config(), free, "adherence can score no answer .* has no options"),
        (by_words, closed, r"token_f1 can score no answer .* has the options \('narrow',"),
    ):
        with pytest.raises(BadExampleError, match=told):
            GBA.check_questions(config, questions)
        GBA.check_questions(config, [*closed, *free])
    PolicyGradient.check_questions(PolicyGradient.Config(), free)
    # a few validation questions of one kind say nothing of the rest
    data = SimpleNamespace(splits={"train": [*closed, *free], "val": closed})
    module = Component("lightning_modules.rl_gba.GBA", {"rewards": list(by_words.rewards)})
    context = SimpleNamespace(experiment=SimpleNamespace(module=module), stage_class=GBA, data=lambda run: data)
    check_questions(context, ["alpha"])
    data.splits = {"train": closed, "val": closed}
    with pytest.raises(BadExampleError, match="specialty 'alpha': rewards: token_f1"):
        check_questions(context, ["alpha"])


@pytest.mark.parametrize("phantom", phantom_classes(), ids=lambda one: one.PREFIX)
def test_phantoms_without_options_are_the_same_cases_and_their_traces_are_paid_in_full(phantom):
    plain, free = (phantom(phantom.Config(n_patients=40, open_ended=one)) for one in (False, True))
    rewards = Rewards([Correct(), Format(), TokenF1()])
    guidelines = load_guidelines(["differential", "intuitive", "analytical", "bayesian"])
    for split, held in plain.splits.items():
        for example, other in zip(held, free.splits[split], strict=True):
            assert other == replace(example, options=(), images=other.images)
            for name, guideline in guidelines.items():
                found = rewards(other.trace(name), other, guideline)
                assert (found.gate, found.total) == (None, pytest.approx(1.6)), other.trace(name)
