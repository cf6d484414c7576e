"""Reference: one process with the joined batch. Two gloo processes on the CPU, forked, through `Trainer.fit`.

Weights are float64, so that what differs beyond rounding shows. Run: pytest tests/lightning_modules/test_rl_devices.py.
"""

from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from datamodules.batch import Batch
from datamodules.loading import Share
from lightning_modules.adapters import LoRASettings
from lightning_modules.policy_gradient import PolicyGradient
from lightning_modules.rl_gba import GBA
from lightning_modules.sharding import ShardedBase
from lightning_modules.stage import StageContext
from tests.conftest import made_example, new_tiny_policy, randomise_adapter
from tests.lightning_modules.rl_harness import GRPO, GUIDED, PLAIN, WRONG, MadeEngine, Metrics, a_part, made

WHOLE = {"kl": a_part("losses.kl.InLoss", beta=0.3), "entropy_bonus": 0.05}
"""GBA as it stands: guidelines, a neutral share, adherence, transfer; a KL that matters, and entropy."""
ONE_PROMPT = {"guidelines": ("neutral",), "neutral_share": 0.0, "rollouts_per_guideline": 2, "advantage": GRPO,
              "kl": None, "transfer": None, "rewards": (a_part("rewards.correct.Correct"),)}  # fmt: skip


@dataclass
class Seen(L.Callback):
    """Writes, at the end, every step's gradient, what this device rolled out, and what was reported."""

    folder: Any

    def __post_init__(self):
        self.gradients, self.rollouts, self.parts = [], [], []

    def on_before_optimizer_step(self, trainer, stage, optimizer):
        self.gradients.append(torch.cat([p.grad.flatten().clone() for p in stage.trained.values()]))

    def on_train_batch_end(self, trainer, stage, *_):
        held, size = stage.rollouts, stage.rollouts.layout.size
        self.parts.append(stage.policy.in_parts)
        written = [(completion.ids, completion.text) for completion in held.completions]
        asked = zip(held.places, held.examples, strict=True)
        self.rollouts.append(
            {place: (e.question_id, written[q * size : (q + 1) * size]) for q, (place, e) in enumerate(asked)}
        )

    def on_train_end(self, trainer, stage):
        found = {"gradients": self.gradients, "rollouts": self.rollouts, "metrics": trainer.logger.rows}
        found |= {"in parts": self.parts, "in parts while asked": ASKED}
        torch.save(found, self.folder / f"{trainer.world_size}.{trainer.global_rank}")


class Questions(L.LightningDataModule):
    """The same questions in every step, cut as our data modules cut them."""

    def __init__(self, batch: Batch, steps: int) -> None:
        super().__init__()
        self.batch, self.steps = batch, steps

    def train_dataloader(self):
        share = Share(self.trainer.global_rank, self.trainer.world_size)
        own = replace(self.batch, examples=tuple(share.of(self.batch.examples)))
        return DataLoader([own] * (2 * self.steps), batch_size=None)


ASKED: list[bool] = []
"""Whether the base lay in parts when the engine was asked, of this process."""


class Watched(MadeEngine):
    """The made engine, watched."""

    def generate(self, policy, *arguments, **settings):
        ASKED.append(policy.in_parts)
        return super().generate(policy, *arguments, **settings)


def fit(folder, devices: int, batch: Batch, steps: int, module=GBA, strategy=DDPStrategy, **settings) -> list[dict]:
    """What every device saw."""
    if torch.cuda.is_initialized():
        pytest.skip("forks, which CUDA does not survive: run this file alone with CUDA_VISIBLE_DEVICES= ")
    policy = new_tiny_policy().double()
    policy.add_adapter("dsa", LoRASettings(rank=4))
    randomise_adapter(policy, "dsa")
    plain = {"questions_per_step": len(batch.examples), "max_new_tokens": 60, "lora_rank": 4, "engine": made(),
             "max_grad_norm": float("inf"), "warmup": 0, "learning_rate": 0.005}  # fmt: skip
    stage = module(module.Config(**(plain | settings)), context=StageContext(policy, ("dsa",), "heart", 0))
    randomise_adapter(policy, stage.adapter, seed=5)
    policy.double()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy(start_method="fork", broadcast_buffers=False) if devices > 1 else "auto",
        max_steps=steps * stage.config.minibatches * stage.config.updates_per_rollout,
        max_epochs=1,
        logger=Metrics(),
        log_every_n_steps=1,
        callbacks=[Seen(folder)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    stage.state_dict = lambda *_, **__: {}  # what forked devices send back to this process, which needs no part of it
    ASKED.clear()
    trainer.fit(stage, datamodule=Questions(batch, steps))
    return [torch.load(folder / f"{devices}.{rank}", weights_only=False) for rank in range(devices)]


def questions(count: int) -> Batch:
    """Of different lengths, some with pictures."""
    return Batch(tuple(made_example(n, sizes=((112, 112),) if n % 2 else (), words=2 * n) for n in range(count)))


def assert_the_same(folder, batch, steps=2, strategy=DDPStrategy, **settings):
    (one,) = fit(folder, 1, batch, steps, **settings)
    shares = fit(folder, 2, batch, steps, strategy=strategy, **settings)
    assert len(one["gradients"]) == len(shares[0]["gradients"]) == len(shares[1]["gradients"]) >= steps
    assert one["gradients"][0].norm() > 1e-6
    for share in shares:
        for found, expected in zip(share["gradients"], one["gradients"], strict=True):
            assert float((found - expected).norm() / expected.norm().clamp(min=1e-30)) < 1e-6
    for step, whole in enumerate(one["rollouts"]):
        parts = [share["rollouts"][step] for share in shares]
        assert not parts[0].keys() & parts[1].keys()
        assert parts[0] | parts[1] == whole
    reported = [[row for row in found["metrics"] if "train/reward/total" in row] for found in (one, shares[0])]
    assert len(reported[0]) == len(reported[1]) == steps
    for expected, found in zip(*reported, strict=True):
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-7)  # log-probabilities are float32
    return one, shares


@pytest.mark.parametrize("strategy", [DDPStrategy, ShardedBase])
def test_two_devices_take_the_steps_of_one(tmp_path, strategy):
    # Three questions: two on one device, one on the other; micro-batches of a row or two.
    watched = made() | {"class_path": f"{__name__}.Watched"}
    settings = GUIDED | WHOLE | {"engine": watched, "micro_batch_tokens": 150}
    _, shares = assert_the_same(tmp_path, questions(3), strategy=strategy, **settings)
    for share in shares:  # answers are written with the base whole, and learnt from with the base in parts
        assert share["in parts"] == [strategy is ShardedBase] * 2
        assert share["in parts while asked"] == [False] * 2


CASES = {
    "KL in the reward": (5, GUIDED | {"kl": a_part("losses.kl.InReward", beta=0.3)}),
    "minibatches": (5, GUIDED | WHOLE | {"minibatches": 3}),
    "a minibatch that one device has no part in": (4, GUIDED | WHOLE | {"minibatches": 4}),
    "two updates per rollout": (3, GUIDED | WHOLE | {"updates_per_rollout": 2}),
    "minibatches, twice": (4, GUIDED | WHOLE | {"minibatches": 2, "updates_per_rollout": 2}),
    "truncated rows masked": (3, GUIDED | WHOLE | {"mask_truncated": True, "engine": made(limit_at=2)}),
    "transfer by distillation": (3, GUIDED | {"transfer": a_part("transfer.distill.DistillTransfer", eta=0.8)}),
    "a mean over sequences": (3, GUIDED | WHOLE | {"reduction": "sequence_mean"}),
    "the real engine": (3, GUIDED | WHOLE | {"engine": a_part("engines.packed.Packed"), "max_new_tokens": 12}),
    "a learned choice": (3, GUIDED | WHOLE | {"choice": a_part("choices.learned.Learned")}),
    "plain GRPO": (3, {"module": PolicyGradient, "kl": None}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_way_of_training_is_the_same_on_two_devices(tmp_path, case):
    count, settings = CASES[case]
    assert_the_same(tmp_path, questions(count), **({"micro_batch_tokens": 300} | settings))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["minibatches, twice", "a minibatch that one device has no part in", "the real engine",
                                  "KL in the reward", "transfer by distillation"])  # fmt: skip
def test_a_base_in_parts_changes_nothing(tmp_path, case):
    count, settings = CASES[case]
    assert_the_same(tmp_path, questions(count), strategy=ShardedBase, **({"micro_batch_tokens": 300} | settings))


@pytest.mark.slow
def test_a_device_whose_groups_are_all_dead_takes_part_in_every_step(tmp_path):
    few = ONE_PROMPT | {"engine": made(texts=(PLAIN, WRONG, WRONG))}
    one, shares = assert_the_same(tmp_path, questions(4), steps=4, **few)
    assert any(0 < row["train/dead_rows"] < 1 for row in one["metrics"] if "train/dead_rows" in row)
    sides = [own for share in shares for own in share["rollouts"]]
    assert any(len({text for _, rows in own.values() for _, text in rows}) == 1 for own in sides)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [DDPStrategy, ShardedBase])
@pytest.mark.parametrize(("share", "rounds"), [(1.0, 6), (1.0, 1), (0.6, 3)])
def test_dead_groups_are_replaced_as_on_one_device(tmp_path, share, rounds, strategy):
    few = ONE_PROMPT | {"engine": made(texts=(PLAIN, WRONG, WRONG, WRONG))}
    batch = replace(questions(5), spares=Batch(tuple(made_example(10 + n) for n in range(9))))
    one, _ = assert_the_same(
        tmp_path, batch, steps=3, strategy=strategy, **few, dynamic_share=share, dynamic_rounds=rounds
    )
    assert max(row.get("train/dynamic/asked_again", 0) for row in one["metrics"]) > 1
