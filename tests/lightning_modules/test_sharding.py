"""Reference: one process with the joined rows, and the whole base. Two gloo processes on the CPU, forked.

Run: pytest tests/lightning_modules/test_sharding.py.
"""

from dataclasses import replace

import lightning as L
import pytest
import torch
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from artifacts.adapter_files import base_fingerprint
from artifacts.base_files import write_base
from artifacts.stored_weights import StoredParameter
from datamodules.batch import Batch
from datamodules.loading import Share, question_batches
from lightning_modules.adapters import LoRASettings
from lightning_modules.policy import Policy
from lightning_modules.sft_lora import SFTLoRA
from lightning_modules.sharding import Company, ShardedBase, own_rows
from lightning_modules.stage import StageContext
from tests.conftest import made_example, new_tiny_policy, randomise_adapter
from tests.lightning_modules.families.shapes import SHAPES
from tests.lightning_modules.rl_harness import Metrics

TEXTS = (
    "<think>heart 62 of 110.</think><answer>B</answer>",
    "<answer>A</answer>",
    "<think>wide</think><answer>C</answer>",
)


READ: list[tuple[str, int, int]] = []
"""(key, rows that were read, rows that it has) since training began, of this process."""


class Rows(L.LightningDataModule):
    """The same rows in every step, cut as our data modules cut them."""

    def __init__(self, batch: Batch, steps: int) -> None:
        super().__init__()
        self.batch, self.steps, self.config = batch, steps, type("Config", (), {"answer_with": "letter"})

    def own(self) -> Batch:
        share = Share(self.trainer.global_rank, self.trainer.world_size)
        parts = {name: tuple(share.of(getattr(self.batch, name))) for name in ("examples", "guidelines", "completions")}
        return replace(self.batch, **parts)

    def train_dataloader(self):
        return DataLoader([self.own()] * (2 * self.steps), batch_size=None)

    def val_dataloader(self):
        share = Share(self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(question_batches(self.batch.examples, share.ranks, share), batch_size=None)


class Seen(L.Callback):
    """Every step's gradient, what this device holds of the blocks, and what it did for others."""

    def __init__(self, folder) -> None:
        self.folder, self.gradients, self.held, self.passes, self.lone = folder, [], 0, 0, None

    def on_before_optimizer_step(self, trainer, stage, optimizer):
        self.gradients.append(torch.cat([p.grad.flatten().clone() for p in stage.trained.values()]))

    def on_train_batch_end(self, trainer, stage, *_):
        if trainer.is_global_zero and self.lone is None:  # as the cards: the first device alone asks the model
            prompt = stage.policy.prompt(made_example(9), "")
            with torch.no_grad():
                self.lone = stage.policy.score([prompt], [stage.policy.completion_ids(TEXTS[0])]).logps
        parts = [p for block in stage.policy.family.blocks() for n, p in block.named_parameters() if ".lora_" not in n]
        self.held = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parts)
        self.passes = trainer.strategy.company.passes if trainer.world_size > 1 else 0

    def on_train_end(self, trainer, stage):
        found = {"gradients": self.gradients, "held": self.held, "passes": self.passes, "lone": self.lone, "read": READ,
                 "adapter": {name: p.detach().clone() for name, p in stage.trained.items()},
                 "metrics": trainer.logger.rows}  # fmt: skip
        torch.save(found, self.folder / f"{trainer.world_size}.{trainer.global_rank}")


def greedy(policy, batch):
    """A validation that writes: of different lengths on different devices."""
    for example in batch.examples:
        prompt = policy.prompt(example, "")
        for _ in range(1 + len(example.question) % 3):
            policy.score([prompt], [policy.completion_ids(TEXTS[0])])
    return []


def fit(folder, devices: int, batch: Batch, steps: int = 2, policy: Policy | None = None, **settings) -> list[dict]:
    """What every device saw."""
    if torch.cuda.is_initialized():
        pytest.skip("forks, which CUDA does not survive: run this file alone with CUDA_VISIBLE_DEVICES= ")
    policy = policy or new_tiny_policy()
    policy.double()
    policy.add_adapter("under", LoRASettings(rank=4))
    randomise_adapter(policy, "under")
    plain = {"lora_rank": 4, "max_grad_norm": float("inf"), "warmup": 0, "learning_rate": 0.005}
    context = StageContext(policy, ("under",), "heart", 0, greedy)
    stage = SFTLoRA(SFTLoRA.Config(**(plain | settings)), context=context)
    randomise_adapter(policy, stage.adapter, seed=5)
    policy.double()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=ShardedBase(start_method="fork", broadcast_buffers=False) if devices > 1 else "auto",
        max_steps=steps,
        max_epochs=1,
        check_val_every_n_epoch=None,
        val_check_interval=1,
        num_sanity_val_steps=0,
        logger=Metrics(),
        log_every_n_steps=1,
        callbacks=[Seen(folder)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    stage.state_dict = lambda *_, **__: {}  # what forked devices send back to this process, which needs no part of it
    READ.clear()
    trainer.fit(stage, datamodule=Rows(batch, steps))
    return [torch.load(folder / f"{devices}.{rank}", weights_only=False) for rank in range(devices)]


def rows(count: int) -> Batch:
    """Of different lengths, some with pictures."""
    examples = [made_example(n, sizes=((112, 112),) if n % 2 else (), words=2 * n) for n in range(count)]
    return Batch(tuple(examples), ("neutral",) * count, tuple(TEXTS[n % 3] for n in range(count)))


def agrees(one: dict, two: list[dict]) -> None:
    """Hold two devices' gradients, adapter and lone question to one's."""
    assert one["gradients"][0].norm() > 1e-6
    for share in two:
        for found, expected in zip(share["gradients"], one["gradients"], strict=True):
            assert float((found - expected).norm() / expected.norm()) < 1e-9
        for name, expected in one["adapter"].items():
            torch.testing.assert_close(share["adapter"][name], expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(two[0]["lone"], one["lone"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("count", [3, 1], ids=["three rows", "one device without a row"])
def test_two_devices_with_half_a_base_each_take_the_steps_of_one(tmp_path, count):
    # A row per piece: the first device has one piece more than the second.
    two = fit(tmp_path, 2, rows(count), micro_batch_tokens=1)
    (one,) = fit(tmp_path, 1, rows(count), micro_batch_tokens=1)
    agrees(one, two)
    assert sum(share["held"] for share in two) == one["held"] > 0
    assert max(share["held"] for share in two) < 0.6 * one["held"]
    assert two[1]["passes"] > 0
    reported = [[row for row in found["metrics"] if "train/loss" in row] for found in (one, two[0])]
    assert len(reported[0]) == len(reported[1]) == 2
    for expected, found in zip(*reported, strict=True):
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_a_device_s_rows_are_those_that_fsdp_expects(count):
    for ranks in (1, 2, 3, 4, 7):
        cut = list(torch.arange(count).chunk(ranks))
        for rank in range(ranks):
            expected = cut[rank].tolist() if rank < len(cut) else []
            assert list(range(*own_rows(count, rank, ranks))) == expected


def published(folder):
    """A checkpoint in the hub's layout, and how it is loaded."""
    shape, tied = SHAPES["qwen2_5_vl"]
    place = shape.write(folder / "hub", tied=tied)
    return lambda **how: shape.family_class(shape.family_class.Config(path=str(place), dtype="float32"), **how)


def published_and_trained(folder):
    """The same, some of its weights trained by ourselves; blocks among them, and others."""
    plain = published(folder)
    family = plain()
    family.requires_grad_(False)
    for number, (name, parameter) in enumerate(family.named_parameters()):
        parameter.requires_grad_(number % 3 == 0 and "layernorm" not in name)
        parameter.data += 0.01 * parameter.requires_grad
    write_base(folder / "base", family, {})
    return lambda **how: plain(weights=folder / "base", **how)


def own(folder):
    """A base of our own, every weight of which was trained."""
    family = new_tiny_policy().family
    family.requires_grad_(True)
    write_base(folder / "base", family, {})
    return lambda **how: type(family)(family.config, weights=folder / "base", **how)


@pytest.mark.parametrize("base", [published, published_and_trained, own])
def test_a_device_reads_of_the_blocks_its_own_rows_alone(tmp_path, monkeypatch, base):
    rows_of = StoredParameter.rows

    def recorded(weight, start=0, stop=None):
        found = rows_of(weight, start, stop)
        READ.append((weight.source.key, len(found), len(weight)))
        return found

    monkeypatch.setattr(StoredParameter, "rows", recorded)
    load = base(tmp_path)
    whole, apart = load(), load(blocks_in_files=True)
    assert all(isinstance(parameter, StoredParameter) for parameter in apart.block_parameters())
    blocks = set(map(id, apart.block_parameters()))
    assert not any(parameter.is_meta for parameter in apart.parameters() if id(parameter) not in blocks)
    assert base_fingerprint(apart.named_parameters()) == base_fingerprint(whole.named_parameters())
    expected = sum(len(parameter) for parameter in whole.block_parameters())
    size = sum(parameter.numel() for parameter in whole.block_parameters())
    two = fit(tmp_path, 2, rows(3), steps=1, policy=Policy(apart), micro_batch_tokens=1)
    (one,) = fit(tmp_path, 1, rows(3), steps=1, policy=Policy(whole), micro_batch_tokens=1)
    agrees(one, two)
    for share in two:
        assert 0 < share["held"] < 0.6 * size
        assert len(share["read"]) == len(blocks)
        assert all(count < of for _, count, of in share["read"] if of > 1)
    assert sum(share["held"] for share in two) == size
    assert sum(count for share in two for _, count, _ in share["read"]) == expected


@pytest.fixture
def alone():
    """A group of this process alone."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_passes_whose_gathering_would_get_out_of_step_are_refused(alone):
    policy = new_tiny_policy()
    policy.add_adapter("own", LoRASettings(rank=2))
    company = Company(policy.family, torch.device("cpu"))
    prompt, ids = policy.prompt(made_example(1), ""), policy.completion_ids(TEXTS[0])
    with pytest.raises(RuntimeError, match="nothing is learnt"):
        policy.score([prompt], [ids])
    policy.activate(["own"], trainable="own")
    first = policy.score([prompt], [ids])
    for run in (lambda: policy.score([prompt], [ids]), company.keep):
        with pytest.raises(RuntimeError, match="differentiated before anything else"), torch.no_grad():
            run()
    first.logps.sum().backward()
    company.keep()
    company.leave()
    second = [policy.score([prompt], [ids]) for _ in range(2)]
    assert torch.equal(second[0].logps, first.logps)
