# Reference: the lesson in one piece. Run: pytest tests/lightning_modules/test_imitation.py
import pytest
import torch

from datamodules.batch import Batch
from lightning_modules.adapters import LoRASettings
from lightning_modules.functional.accumulation import summed_in_pieces
from lightning_modules.imitation import Lesson, validation_loss
from lightning_modules.phases import PhaseClock
from tests.conftest import randomise_adapter

TEXTS = ("heart 62 of 110, so the answer is wide.", "so wide", "narrow", "which is both, so both")


@pytest.fixture
def policy(tiny_policy):
    tiny_policy.add_adapter("dsa", LoRASettings(rank=4))
    randomise_adapter(tiny_policy, "dsa")
    tiny_policy.activate(["dsa"], trainable="dsa")
    return tiny_policy


def loss_and_gradient(policy, examples, budget):
    clock = PhaseClock()
    lesson = Lesson.of(policy, Batch(tuple(examples), ("neutral",) * len(examples), TEXTS), {"neutral": ""}, clock)
    trained = [p for p in policy.parameters() if p.requires_grad]
    loss = summed_in_pieces(lesson.pieces(lesson.tokens, budget), trained)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])
    return loss.detach(), torch.tensor(lesson.loss), torch.tensor(lesson.token_probability), gradient, clock


@pytest.mark.parametrize("budget", [1, 150])
def test_the_gradient_does_not_depend_on_the_micro_batches(policy, mixed_examples, budget):
    whole = loss_and_gradient(policy, mixed_examples, 10_000)
    cut = loss_and_gradient(policy, mixed_examples, budget)
    for a, b in zip(cut[:4], whole[:4], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(cut[0], cut[1])
    assert cut[4].total_counts == whole[4].total_counts


def test_devices_add_up(policy, mixed_examples):
    # Two devices with three rows and one: each divides by the tokens of both.
    batch = Batch(tuple(mixed_examples), ("neutral",) * 4, TEXTS)
    whole = Lesson.of(policy, batch, {"neutral": ""}, PhaseClock())
    list(whole.pieces(whole.tokens, 10_000))
    parts = []
    for rows in ((0, 2, 3), (1,), ()):
        own = Batch(tuple(mixed_examples[r] for r in rows), ("neutral",) * len(rows), tuple(TEXTS[r] for r in rows))
        parts.append(Lesson.of(policy, own, {"neutral": ""}, PhaseClock()))
        list(parts[-1].pieces(whole.tokens, 10_000))
    assert sum(part.loss for part in parts) == pytest.approx(whole.loss, rel=1e-5)
    assert sum(part.token_probability for part in parts) == pytest.approx(whole.token_probability, rel=1e-5)
    assert parts[2].loss == 0.0


def test_validation_loss_is_that_of_traces_under_the_neutral_prompt(policy, mixed_examples):
    batch = Batch(tuple(mixed_examples))
    loss, tokens = validation_loss(policy, batch, None, "letter", 150)
    texts = tuple(example.trace("intuitive") for example in mixed_examples)
    rows = Lesson.of(policy, Batch(batch.examples, ("neutral",) * 4, texts), {"neutral": ""}, PhaseClock())
    list(rows.pieces(rows.tokens, 10_000))
    assert tokens == rows.tokens
    assert loss == pytest.approx(rows.loss, rel=1e-5)
    assert validation_loss(policy, batch, ["bayesian"], "letter", 150) == (0.0, 0)  # nobody has such a trace
    # what the neutral prompt is not taught counts for nothing
    first = validation_loss(policy, Batch(tuple(mixed_examples[:1])), None, "letter", 150)
    kept = validation_loss(policy, batch, None, "letter", 150, lambda example, _: example is mixed_examples[0])
    assert kept == (pytest.approx(first[0], rel=1e-5), first[1])
