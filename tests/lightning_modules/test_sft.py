# Reference: one row at a time through transformers' own forward. Run: pytest tests/lightning_modules/test_sft.py
import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.batch import Batch
from lightning_modules.sft_lora import SFTLoRA
from lightning_modules.stage import StageContext
from tests.conftest import randomise_adapter
from tests.lightning_modules.rl_harness import Watch
from tests.slow_reference import stock_logps

TEXTS = ("heart 62 of 110, so the answer is wide.", "so wide", "narrow", "which is both, so both")


@pytest.mark.parametrize("budget", [10_000, 150, 1])
def test_a_step_is_the_mean_over_completion_tokens_of_the_slow_reference(tiny_policy, mixed_examples, budget):
    config = SFTLoRA.Config(
        guidelines=("intuitive",), lora_rank=4, max_grad_norm=float("inf"), warmup=0, micro_batch_tokens=budget
    )
    stage = SFTLoRA(config, context=StageContext(tiny_policy))
    randomise_adapter(tiny_policy, "dsa")
    batch = Batch(tuple(mixed_examples), ("neutral", "intuitive", "neutral", "intuitive"), TEXTS)
    instructions = stage.instructions
    watch = Watch()
    trainer = L.Trainer(
        max_steps=1, logger=False, callbacks=[watch], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", devices=1,
    )  # fmt: skip
    trainer.fit(stage, DataLoader([batch] * 2, batch_size=None))
    trained = [p for p in stage.parameters() if p.requires_grad]
    with torch.no_grad():
        start = 0
        for parameter in trained:
            part = watch.weights[0][start : start + parameter.numel()]
            parameter.copy_(part.view_as(parameter))
            start += parameter.numel()
    completions = [tiny_policy.completion_ids(text) for text in TEXTS]
    loss = torch.zeros(())
    for example, guideline, ids in zip(mixed_examples, batch.guidelines, completions, strict=True):
        prompt = tiny_policy.prompt(example, instructions[guideline])
        loss = loss - stock_logps(tiny_policy, prompt, ids).sum() / sum(map(len, completions))
    reference = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])
    assert torch.cosine_similarity(watch.gradients[0], reference, dim=0) > 0.99999
    torch.testing.assert_close(watch.gradients[0], reference, atol=2e-6, rtol=2e-4)


def test_a_bound_of_nothing_is_refused():
    with pytest.raises(ValueError, match="micro_batch_tokens"):
        SFTLoRA.Config(micro_batch_tokens=0)
