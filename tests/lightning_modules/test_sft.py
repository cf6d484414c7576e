# Reference: the batch in one piece. Run: pytest <this file>
import pytest
import torch

from datamodules.batch import Batch
from lightning_modules.adapters import LoRASettings
from lightning_modules.phases import PhaseClock
from lightning_modules.sft_lora import SFTLoRA, imitation_loss
from tests.conftest import randomise_adapter


def loss_and_gradient(policy, examples, budget):
    clock = PhaseClock()
    texts = ("heart 62 of 110, so the answer is wide.", "so wide", "narrow", "which is both, so both")
    batch = Batch(tuple(examples), ("neutral",) * len(examples), texts)
    loss, probability = imitation_loss(policy, batch, {"neutral": ""}, clock, budget)
    trained = [p for p in policy.parameters() if p.requires_grad]
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])
    return loss.detach(), probability, gradient, clock


@pytest.mark.parametrize("budget", [1, 150])
def test_the_gradient_does_not_depend_on_the_micro_batches(tiny_policy, mixed_examples, budget):
    tiny_policy.add_adapter("dsa", LoRASettings(rank=4))
    randomise_adapter(tiny_policy, "dsa")
    tiny_policy.activate(["dsa"], trainable="dsa")
    whole = loss_and_gradient(tiny_policy, mixed_examples, 10_000)
    cut = loss_and_gradient(tiny_policy, mixed_examples, budget)
    for a, b in zip(cut[:3], whole[:3], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert cut[3].total_counts == whole[3].total_counts
    assert "backward" in cut[3].wall
    assert "backward" not in whole[3].wall  # there the caller's backward pass does it


def test_a_bound_of_nothing_is_refused():
    with pytest.raises(ValueError, match="micro_batch_tokens"):
        SFTLoRA.Config(micro_batch_tokens=0)
