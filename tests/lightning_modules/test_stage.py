"""Reference: by hand, and torch's own optimiser; every setting of a stage through its real `training_step`.

Run: pytest tests/lightning_modules/test_stage.py.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.batch import Batch
from lightning_modules.base_training import BaseTraining
from lightning_modules.families.tiny import TinyQwen2_5_VL
from lightning_modules.policy import Policy
from lightning_modules.random_state import random_state, set_random_state
from lightning_modules.schedule import rate_factor
from lightning_modules.sft_lora import SFTLoRA
from lightning_modules.stage import Stage, StageContext
from tests.conftest import made_example, randomise_adapter
from tests.settings import Register

COMMON, SFT, BASE = Register(Stage.Config), None, None
SFT, BASE = Register(SFTLoRA.Config, COMMON), Register(BaseTraining.Config, COMMON)
TEXTS = ("heart 62 of 110, so the answer is wide.", "so wide", "narrow", "which is both, so both")


def policy() -> Policy:
    torch.manual_seed(0)
    sizes = {"hidden": 64, "layers": 2, "heads": 4, "intermediate": 96, "vision_hidden": 32, "vision_layers": 2}
    return Policy(TinyQwen2_5_VL(TinyQwen2_5_VL.Config(corpus="tests.conftest.corpus", **sizes)))


def batch(rows=range(4)) -> Batch:
    examples = tuple(made_example(row, sizes=((112, 112),) if row % 2 else (), words=row) for row in rows)
    return Batch(examples, ("neutral",) * len(examples), tuple(TEXTS[row] for row in rows))


class Seen(L.Callback):
    """Keeps the gradient, the rate and the metrics of every step, and the weights after it."""

    def __init__(self) -> None:
        self.gradients, self.weights, self.metrics = [], [], []

    def on_before_optimizer_step(self, trainer, stage, optimizer):
        self.gradients.append(torch.cat([p.grad.flatten().clone() for p in stage.trained.values()]))

    def on_train_batch_end(self, trainer, stage, *_):
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in stage.trained.values()]))


def fit(stage, steps=4, batches=None, folder=".", callbacks=(), **settings):
    """`Trainer.fit` on made batches; returns what was seen."""
    seen = Seen()
    report = stage.report
    stage.report = lambda metrics, shown=(): seen.metrics.append(dict(metrics)) or report(metrics, shown)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[seen, *callbacks],
        **settings,
    )
    trainer.fit(stage, DataLoader(batches or [batch()] * (2 * steps), batch_size=None))
    return seen


def sft(acting=True, **settings) -> SFTLoRA:
    stage = SFTLoRA(SFTLoRA.Config(**{"lora_rank": 4, "warmup": 0.0, **settings}), context=StageContext(policy()))
    if acting:
        randomise_adapter(stage.policy, "dsa")
    return stage


def rates(seen) -> list[float]:
    return [metrics["train/learning_rate"] for metrics in seen.metrics]


@COMMON.acts("learning_rate", "schedule", "floor", "warmup")
@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
def test_the_rate_of_every_step_is_the_schedule_s(shape):
    seen = fit(sft(learning_rate=0.02, schedule=shape, floor=0.25, warmup=0.5))
    # half of four steps rise: 1/2, 1; then from 1 down to a quarter: at the start, and half way
    half = {"cosine": 0.25 + 0.75 * (1 + math.cos(math.pi / 2)) / 2, "linear": 0.625, "constant": 1.0}[shape]
    assert rates(seen) == pytest.approx([0.01, 0.02, 0.02, 0.02 * half])
    moved = [(b - a).abs().max() for a, b in zip(seen.weights, seen.weights[1:], strict=False)]
    assert moved[0] > 0


def test_a_warm_up_is_a_share_or_a_number_of_steps():
    assert rates(fit(sft(learning_rate=1.0, warmup=2.0, schedule="constant"))) == [0.5, 1.0, 1.0, 1.0]
    assert [rate_factor(step, "cosine", 0, 10, 0.1) for step in (0, 10)] == pytest.approx([1.0, 0.1])


@COMMON.acts("weight_decay")
def test_weights_decay():
    plain, decayed = (fit(sft(weight_decay=decay, schedule="constant", learning_rate=0.01), 1) for decay in (0.0, 0.5))
    start = torch.cat([p.detach().flatten() for p in sft().trained.values()])
    # AdamW: w - lr * decay * w - the same step
    torch.testing.assert_close(plain.weights[0] - decayed.weights[0], 0.01 * 0.5 * start, atol=1e-6, rtol=1e-3)


@COMMON.acts("betas")
def test_the_moments_have_the_given_decay():
    stage = sft(betas=(0.5, 0.75))
    seen = fit(stage, 1)
    (group,) = stage.trainer.optimizers[0].param_groups
    assert group["betas"] == (0.5, 0.75)
    moments = torch.cat([stage.trainer.optimizers[0].state[p]["exp_avg"].flatten() for p in stage.trained.values()])
    torch.testing.assert_close(moments, 0.5 * seen.gradients[0])


@COMMON.acts("optimizer")
def test_moments_are_held_by_the_optimiser_that_is_named():
    kinds = {}
    for name in ("adamw", "adamw8bit", "paged_adamw8bit"):
        stage = sft(optimizer=name)
        fit(stage, 1)
        kinds[name] = type(stage.trainer.optimizers[0]).__name__
    assert kinds == {"adamw": "AdamW", "adamw8bit": "AdamW8bit", "paged_adamw8bit": "PagedAdamW8bit"}


@COMMON.acts("max_grad_norm")
def test_gradients_are_scaled_down_to_the_norm():
    whole = fit(sft(max_grad_norm=math.inf), 1)
    norm = whole.metrics[0]["train/grad_norm"]
    assert float(whole.gradients[0].norm()) == pytest.approx(norm, rel=1e-5)
    cut = fit(sft(max_grad_norm=norm / 10), 1)
    assert cut.metrics[0]["train/grad_norm"] == pytest.approx(norm, rel=1e-5)  # before clipping
    assert float(cut.gradients[0].norm()) == pytest.approx(norm / 10, rel=1e-4)


@COMMON.acts("micro_batch_tokens")
def test_the_bound_on_tokens_cuts_the_forward_pass_and_changes_no_gradient(monkeypatch):
    found = []
    for budget in (10**6, 150, 1):
        stage, calls = sft(micro_batch_tokens=budget), []
        score = stage.policy.score
        monkeypatch.setattr(stage.policy, "score", lambda *rest, s=score, c=calls: c.append(len(rest[0])) or s(*rest))
        seen = fit(stage, 1)
        found.append((seen.gradients[0], seen.metrics[0], calls))
    assert [len(calls) for _, _, calls in found][::2] == [1, 4]
    assert 1 < len(found[1][2]) < 4
    for gradient, metrics, _ in found[1:]:
        torch.testing.assert_close(gradient, found[0][0], atol=1e-6, rtol=1e-5)
        assert metrics == pytest.approx(found[0][1], rel=1e-5)


@COMMON.acts("checkpoint_layers")
def test_layers_are_computed_again(monkeypatch):
    counts = []
    for again in (False, True):
        stage = sft(checkpoint_layers=again)
        count = [0]
        layer = stage.policy.family.model.model.language_model.layers[0].mlp
        layer.register_forward_pre_hook(lambda *_, c=count: c.__setitem__(0, c[0] + 1))
        gradient = fit(stage, 1).gradients[0]
        counts.append((count[0], gradient))
    assert [count for count, _ in counts] == [1, 2]
    torch.testing.assert_close(counts[0][1], counts[1][1])


def spoil(monkeypatch, stage, bad, value=math.nan):
    """The losses of the passes that `bad` accepts, counted from 1, are not finite."""
    score, calls = stage.policy.score, [0]

    def scored(*rest):
        calls[0] += 1
        scores = score(*rest)
        return dataclasses.replace(scores, logps=scores.logps * value) if bad(calls[0]) else scores

    monkeypatch.setattr(stage.policy, "score", scored)


@COMMON.acts("max_bad_steps")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_steps_that_are_not_finite_touch_nothing_are_named_and_end_the_run(monkeypatch, tmp_path, capsys, value):
    stage = sft(max_bad_steps=2, learning_rate=0.01)
    spoil(monkeypatch, stage, lambda call: call > 1, value)
    seen = Seen()
    with pytest.raises(RuntimeError, match=r"2 steps in a row.*step 2.*q0, q1, q2, q3.*learning_rate"):
        fit(stage, folder=tmp_path, callbacks=[seen])
    optimizer = stage.trainer.optimizers[0]
    assert stage.trainer.global_step == 1
    assert torch.equal(seen.weights[0], seen.weights[1])
    assert {int(state["step"]) for state in optimizer.state.values()} == {1}
    assert stage.lr_schedulers().last_epoch == 1
    records = [json.loads(line) for line in (tmp_path / "bad_steps.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    assert {tuple(record["rows"]) for record in records} == {("q0", "q1", "q2", "q3")}
    assert "step 1: loss" in capsys.readouterr().out
    stage = sft(max_bad_steps=3)
    spoil(monkeypatch, stage, lambda call: call > 1, value)
    with pytest.raises(RuntimeError, match="3 steps in a row"):
        fit(stage, folder=tmp_path)


def test_a_bad_step_is_made_up_for_and_leaves_no_trace_in_the_weights(monkeypatch, tmp_path):
    stage = sft(learning_rate=0.01)
    spoil(monkeypatch, stage, lambda call: call == 2)
    seen = fit(stage, 3, folder=tmp_path)
    reference = fit(sft(learning_rate=0.01), 3, folder=tmp_path / "other")
    assert (stage.trainer.global_step, stage.batches_done, stage.bad_steps.total) == (3, 4, 1)
    assert torch.equal(seen.weights[-1], reference.weights[-1])


def test_a_good_step_ends_a_row_of_bad_ones(monkeypatch, tmp_path):
    stage = sft(max_bad_steps=2)
    spoil(monkeypatch, stage, lambda call: call in (1, 3, 5))
    fit(stage, 3, folder=tmp_path)
    assert (stage.bad_steps.total, stage.bad_steps.in_a_row) == (3, 0)


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    stage = sft()
    fit(stage, 1, folder=tmp_path)
    with torch.no_grad():
        next(iter(stage.trained.values())).view(-1)[3] = math.inf
    with pytest.raises(RuntimeError, match="not finite"):
        stage.trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "x.ckpt").exists()


@SFT.acts("lora_rank", "lora_alpha", "lora_seed")
def test_the_adapter_is_the_one_asked_for():
    def start(**settings):
        stage = sft(acting=False, **settings)
        config, tensors = stage.policy.adapter_state("dsa")
        return config["r"], config["lora_alpha"], next(v for k, v in sorted(tensors.items()) if "lora_A" in k)

    rank, alpha, first = start(lora_rank=3, lora_alpha=5.0, lora_seed=1)
    assert (rank, alpha, first.shape[0]) == (3, 5.0, 3)
    assert torch.equal(first, start(lora_rank=3, lora_alpha=5.0, lora_seed=1)[2])
    assert not torch.equal(first, start(lora_rank=3, lora_alpha=5.0, lora_seed=2)[2])


@SFT.acts("guidelines")
def test_the_guidelines_are_what_is_fed_and_prompted():
    stage = sft(guidelines=("bayesian",))
    assert stage.feed().guidelines == {"neutral", "bayesian"}  # and what follows no guideline
    assert set(stage.instructions) == {"neutral", "bayesian"}
    asked = []
    prompt = stage.policy.prompt
    stage.policy.prompt = lambda example, text, pictures: asked.append(text) or prompt(example, text, pictures)
    fit(stage, 1, [dataclasses.replace(batch(), guidelines=("bayesian",) * 4)] * 2)
    assert set(asked) == {stage.instructions["bayesian"]} != {""}


@BASE.acts("parameters", "muon_rate")
def test_what_a_base_trains_and_by_which_rule():
    def changed(**settings):
        held = policy()
        before = {name: p.detach().clone() for name, p in held.family.named_parameters()}
        stage = BaseTraining(
            BaseTraining.Config(warmup=0.0, schedule="constant", **settings), context=StageContext(held)
        )
        fit(stage, 1)
        return {n: (p - before[n]).abs().max().item() for n, p in held.family.named_parameters()}, held.family

    every, family = changed(parameters="all", muon_rate=0.0, learning_rate=1e-3)
    assert all(
        0 < moved <= 1.001e-3 for name, moved in every.items() if "layers" in name and moved
    )  # AdamW's first step
    projector = {id(p) for p in family.projector_parameters()}
    names = {name for name, p in family.named_parameters() if id(p) in projector}
    aligned, _ = changed(parameters="projector", muon_rate=0.0, learning_rate=1e-3)
    assert {name for name, moved in aligned.items() if moved} <= names
    assert any(aligned[name] for name in names)
    tower = {id(p) for p in family.vision_parameters()}
    seen = {name for name, p in family.named_parameters() if id(p) in tower}
    adapted, _ = changed(parameters="language", muon_rate=0.0, learning_rate=1e-3)
    assert seen
    assert not any(adapted[name] for name in seen)
    assert any(adapted[name] for name in names)
    assert any(moved for name, moved in adapted.items() if "layers" in name)
    muon, _ = changed(parameters="all", muon_rate=0.5, learning_rate=1e-3)
    assert max(moved for name, moved in muon.items() if name.endswith("mlp.up_proj.weight")) > 0.01
    assert muon["model.model.language_model.norm.weight"] <= 1.001e-3


@pytest.mark.parametrize("register", [COMMON, SFT, BASE], ids=lambda register: register.config.__qualname__)
def test_every_setting_has_a_test_that_needs_it(register):
    register.check()


@pytest.mark.parametrize(
    "bad",
    [{"learning_rate": 0.0}, {"weight_decay": -1.0}, {"betas": (0.9, 1.0)}, {"floor": 1.5}, {"warmup": -1.0},
     {"max_grad_norm": 0.0}, {"max_bad_steps": 0}, {"micro_batch_tokens": 0}],
)  # fmt: skip
def test_bad_settings_are_refused_by_every_stage(bad):
    for config in (SFTLoRA.Config, BaseTraining.Config):
        with pytest.raises(ValueError, match=next(iter(bad))):
            config(**bad)


def test_every_kind_of_random_number_goes_on():
    import random

    import numpy as np

    def draws():
        return random.random(), float(np.random.rand()), np.random.randn(), float(torch.rand(()))

    draws()
    random.gauss(0, 1)
    state = random_state()
    first = draws()
    draws()
    set_random_state(state)
    assert draws() == first


TWO_DEVICES = """
import sys, torch, lightning as L
sys.path.insert(0, "{root}")
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader
from tests.lightning_modules.test_stage import Seen, batch, sft

ROWS = {rows}

class Own(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader([batch(ROWS[self.trainer.global_rank])] * 4, batch_size=None)

seen = Seen()
stage = sft(micro_batch_tokens={budget}, max_grad_norm=float("inf"))
trainer = L.Trainer(accelerator="cpu", devices=2, strategy=DDPStrategy(start_method="fork", broadcast_buffers=False),
    max_steps=2, max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, use_distributed_sampler=False, callbacks=[seen])
seen.on_train_end = lambda trainer, stage: torch.save(seen.gradients, "{out}/" + str(trainer.global_rank))
trainer.fit(stage, datamodule=Own())
"""


@pytest.mark.slow
@pytest.mark.parametrize("rows", [[[0, 2, 3], [1]], [[0, 1, 2, 3], []]], ids=["unequal", "one has none"])
def test_two_devices_have_the_gradient_of_the_joined_batch(tmp_path, rows):
    root = Path(__file__).resolve().parents[2]
    script = tmp_path / "two.py"
    script.write_text(TWO_DEVICES.format(root=root, rows=rows, budget=150, out=tmp_path))
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    whole = fit(sft(micro_batch_tokens=10**6, max_grad_norm=math.inf), 2).gradients
    for rank in (0, 1):
        for found, expected in zip(torch.load(tmp_path / str(rank), weights_only=True), whole, strict=True):
            assert float((found - expected).norm() / expected.norm()) < 1e-6
