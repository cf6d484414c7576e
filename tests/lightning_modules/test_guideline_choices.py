# Reference: regression in the space of the weights, by the book, and a replay of every step of a real fit.
# Run: pytest tests/lightning_modules/test_guideline_choices.py
from dataclasses import dataclass, replace
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.batch import Batch
from lightning_modules.choices.choice import Seen
from lightning_modules.choices.learned import Learned
from lightning_modules.engines.packed import Packed
from lightning_modules.functional.thompson import reward_posterior, standardised
from lightning_modules.question_states import question_states
from lightning_modules.rewards.guidelines import load_guidelines
from lightning_modules.rollout import Completion, stream_seed
from tests.conftest import made_example
from tests.lightning_modules import rl_reference as by_hand
from tests.lightning_modules.rl_acts import acts
from tests.lightning_modules.rl_harness import EXCLUDES, WRONG, a_part, fit

NAMES = ("differential", "bayesian")


def posterior_by_hand(X, rewards, asked, s, sigma):
    """(mean, deviation) through the precision of the weights."""
    precision = X.T @ X / sigma**2 + torch.eye(X.shape[1], dtype=X.dtype) / s**2
    mean = asked @ torch.linalg.solve(precision, X.T @ rewards / sigma**2)
    return mean, (asked @ torch.linalg.inv(precision) * asked).sum(1).sqrt()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 12), st.integers(1, 9), st.integers(1, 4), st.floats(0.1, 3), st.floats(0.1, 3), st.integers(0))
def test_the_posterior_is_that_of_the_weights(n, d, m, s, sigma, seed):
    generator = torch.Generator().manual_seed(seed % 2**32)
    X, r, asked = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((n, d), (n,), (m, d)))
    found = reward_posterior(X, r, asked, prior_std=s, noise_std=sigma)
    expected = posterior_by_hand(X, r, asked, s, sigma)
    torch.testing.assert_close(found[0], expected[0], atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(found[1], expected[1], atol=1e-6, rtol=1e-6)


def test_features_are_centred_and_scaled_by_others():
    by = torch.tensor([[0.0, 2], [4, 2], [2, 5]])
    found = standardised(torch.tensor([[2.0, 3], [5, 3]]), by)
    spread = ((4 + 1) + (4 + 1) + (0 + 4)) / 3
    expected = torch.tensor([[1, 0, 0], [1, 3 / spread**0.5, 0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    alike = standardised(torch.tensor([[2.0, 3]]), torch.ones(3, 2))
    assert alike.tolist() == [[1.0, 0.0, 0.0]]


class Helped(Packed):
    """Right where the prompt is one of `helpful`, with a wrong answer among the copies now and then."""

    helpful: frozenset = frozenset()

    @dataclass(frozen=True)
    class Config(Packed.Config):
        pass

    def generate(self, policy, prompts, copies, seeds, *, max_new_tokens, temperature, version):
        rows = [prompt for prompt, count in zip(prompts, copies, strict=True) for _ in range(count)]
        kinds = [prompt.ids in self.helpful and seed % 8 > 0 for prompt, seed in zip(rows, seeds, strict=True)]
        ids = [policy.completion_ids(EXCLUDES if right else WRONG) for right in kinds]
        logps = policy.logps(rows, ids, temperature)
        texts = [EXCLUDES if right else WRONG for right in kinds]
        written = zip(ids, logps, texts, strict=True)
        return [Completion(tuple(own), tuple(row[: len(own)].tolist()), text, False) for own, row, text in written]


@pytest.fixture
def helped(tiny_policy, monkeypatch):
    """Questions of two kinds, by their words, and an engine that needs the kind's guideline to be right."""
    words = ("which heart is wide", "which heart is really likely")
    asked = [replace(made_example(n), question=words[n % 2], tags={"kind": NAMES[n % 2]}) for n in range(6)]
    told = load_guidelines(NAMES)
    prompts = [tiny_policy.prompt(e, told[e.tags["kind"]].instruction).ids for e in asked]
    monkeypatch.setattr(Helped, "helpful", frozenset(prompts))
    return asked


@acts(Learned, "prior_std", "noise_std", "window")
@pytest.mark.parametrize("config", [{"prior_std": 0.8, "noise_std": 0.2, "window": 9}, {"window": 60}])
def test_every_step_chooses_by_what_the_steps_before_have_earned(tiny_policy, helped, config):
    choice, engine = a_part("choices.learned.Learned", **config), {"class_path": f"{__name__}.Helped"}
    plan = {"guidelines": NAMES, "rollouts_per_guideline": 2, "neutral_share": 0.2, "kl": None}
    found = fit(tiny_policy, helped, steps=12, seed=3, choice=choice, engine=engine, **plan)
    with tiny_policy.acting(()):
        states = question_states(tiny_policy, helped)
    s, sigma = config.get("prior_std", 0.5), config.get("noise_std", 0.3)
    seen: list[tuple[torch.Tensor, str, float]] = []
    for step, rollouts in enumerate(found.rollouts):
        draws = [
            torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            for seed in (stream_seed("train", 3, step, place, "choice") for place in range(len(helped)))
        ]
        mean, std = torch.zeros(len(helped), 2).double(), torch.full((len(helped), 2), s).double()
        if seen:
            before, usual = torch.stack([x for x, _, _ in seen]).float(), fmean(r for _, _, r in seen)
            X, asked = standardised(before, before), standardised(states, before)
            for k, name in enumerate(NAMES):
                own = [i for i, (_, other, _) in enumerate(seen) if other == name]
                rewards = torch.tensor([seen[i][2] - usual for i in own], dtype=torch.float64)
                mean[:, k], std[:, k] = posterior_by_hand(X[own], rewards, asked, s, sigma)
                mean[:, k] += usual
        for question, carried in enumerate(rollouts.carried):
            best = (mean[question] + std[question] * draws[question]).argmax(1).tolist()
            assert carried == ("neutral", *(NAMES[k] for k in best)), (step, question)
        for question, carried in enumerate(rollouts.carried):
            for name in dict.fromkeys(carried[1:]):
                rows = [r for r in range(question * 5, question * 5 + 5) if rollouts.guideline(r) == name]
                seen.append((states[question], name, fmean(rollouts.rewards[r].between for r in rows)))
        seen = seen[-config["window"] :]
    weights = {"correct": 1.0, "format": 0.1, "adherence": 0.2}
    for rollouts in found.rollouts:  # each group by the guidelines that it had
        expected = by_hand.advantages_by_hand(rollouts, weights, by_hand.gba_by_hand)
        torch.testing.assert_close(rollouts.advantages.flatten(), expected, atol=1e-6, rtol=1e-6)
    if config["window"] == 60:  # it has found out, from rewards alone
        last = [(own, e.tags["kind"]) for r in found.rollouts[-3:] for own, e in zip(r.carried, helped, strict=True)]
        assert fmean(name == kind for own, kind in last for name in own[1:]) > 0.8
        assert found.metrics[-1]["train/choice/distinct"] < 1.5


def test_a_probe_teaches_nothing(tiny_policy, helped):
    found = fit(tiny_policy, helped, choice=a_part("choices.learned.Learned"), guidelines=NAMES, neutral_share=0.2)
    learnt = found.stage.asker.choice.state()
    found.stage.roll_out(Batch(tuple(helped)), "probe", 0)
    assert found.stage.asker.choice.state() == learnt


def test_dead_groups_that_were_replaced_count_too(tiny_policy, helped, monkeypatch):
    """Else a guideline that always fails would look as good as the questions that were kept."""
    monkeypatch.setattr(Helped, "helpful", frozenset())  # nobody is right
    spares = [made_example(10), made_example(11)]
    batch = Batch(tuple(helped), spares=Batch(tuple(spares)))
    plan = {"choice": a_part("choices.learned.Learned"), "engine": {"class_path": f"{__name__}.Helped"}, "kl": None}
    plan |= {"guidelines": NAMES, "neutral_share": 0.2, "dynamic_share": 1.0, "dynamic_rounds": 1}
    rewards = (a_part("rewards.correct.Correct"),)
    found = fit(tiny_policy, helped, batches=[batch] * 2, rewards=rewards, **plan)
    assert found.metrics[0]["train/dynamic/asked_again"] == 2
    learnt = found.stage.asker.choice.state()
    with tiny_policy.acting(()):
        expected = [question_states(tiny_policy, part).float() for part in (helped, spares)]
    each = [len(set(own[1:])) for own in found.rollouts[0].carried]  # of the questions that were asked first
    assert torch.equal(learnt["states"][: sum(each)], expected[0].repeat_interleave(torch.tensor(each), dim=0))
    assert {tuple(row) for row in learnt["states"][sum(each) :].tolist()} == {tuple(r) for r in expected[1].tolist()}


def test_nothing_known_is_chosen_evenly_and_independently():
    choice, names = Learned(), ("a", "b", "c")
    states = torch.randn(300, 5, generator=torch.Generator().manual_seed(1)).double()
    picked = choice([made_example(0)] * 300, states, names, range(300))
    for block in range(3):
        counts = [sum(own[block] == name for own in picked) for name in names]
        assert min(counts) > 70
    assert len(set(picked)) == 27
    assert choice([made_example(0)], states[:1], names, [5]) == picked[5:6]  # alone or among others


def test_what_was_learnt_goes_on():
    generator = torch.Generator().manual_seed(2)
    first, names = Learned(), ("a", "b")
    first.learn([Seen(n, names[n % 2], float(n % 2), torch.randn(4, generator=generator)) for n in range(9)])
    second = Learned()
    second.resume(first.state())
    first.learn([]), second.learn([])
    states = torch.randn(50, 4, generator=generator).double()
    questions = [made_example(0)] * 50
    assert first(questions, states, names, range(50)) == second(questions, states, names, range(50))
    assert Learned()(questions, states, names, range(50)) != first(questions, states, names, range(50))
