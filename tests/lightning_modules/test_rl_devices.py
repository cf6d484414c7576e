"""Reference: the same step on one device. Two gloo processes on the CPU.

Run: pytest -m slow tests/lightning_modules/test_rl_devices.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import made_example, new_tiny_policy
from tests.lightning_modules.rl_harness import GUIDED, a_part, fit

pytestmark = pytest.mark.slow

SETTINGS = GUIDED | {
    "questions_per_step": 3,
    "minibatches": 2,
    "micro_batch_tokens": 400,
    "learning_rate": 0.01,
    "schedule": "constant",
    "entropy_bonus": 0.2,
    "kl": a_part("losses.kl.InLoss", beta=0.3),
    "transfer": a_part("transfer.policy_gradient.PolicyGradientTransfer", eta=0.5),
    "dynamic_share": 1.0,
}
"""No question is spare: what dynamic sampling asks depends on how questions are spread."""
OF_EACH_DEVICE = ("train/completion/letter_distance", "train/completion/adherence_length_correlation")
"""No means over rows: reported is the mean of what each device finds."""
ON_TWO = """
import sys, torch
sys.path.insert(0, "{root}")
import lightning as L
from lightning.pytorch.strategies import DDPStrategy
from datamodules.batch import Batch
from tests.conftest import new_tiny_policy
from tests.lightning_modules import rl_harness
from tests.lightning_modules.test_rl_devices import SETTINGS, examples

class Own(L.LightningDataModule):
    def train_dataloader(self):
        own = tuple(examples()[self.trainer.global_rank :: 2])
        return rl_harness.loader([Batch(own)] * 4)

strategy = DDPStrategy(start_method="fork", broadcast_buffers=False)
found = rl_harness.fit(new_tiny_policy(), (), data=Own(), **SETTINGS,
    devices=2, strategy=strategy,
    finish=lambda fit, rank: torch.save((fit.gradients, fit.metrics), "{out}/" + str(rank)))
"""


def examples():
    """Three questions, so that two devices have unequal shares."""
    return [
        made_example(0),
        made_example(1, sizes=((112, 112), (80, 160)), words=3),
        made_example(2, sizes=(), words=7),
    ]


def test_two_devices_take_the_steps_of_one_and_report_the_same(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(ON_TWO.format(root=Path(__file__).resolve().parents[2], out=tmp_path))
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
    one = fit(new_tiny_policy(), examples(), **SETTINGS)
    for rank in (0, 1):
        gradients, metrics = torch.load(tmp_path / str(rank), weights_only=True)
        assert len(gradients) == len(one.gradients) == 2
        for found, expected in zip(gradients, one.gradients, strict=True):
            assert float((found - expected).norm() / expected.norm()) < 1e-3
        if rank == 0:
            assert metrics[0].keys() == one.metrics[0].keys()
            different = {
                name: (value, one.metrics[0][name])
                for name, value in metrics[0].items()
                if name not in OF_EACH_DEVICE and value != pytest.approx(one.metrics[0][name], rel=1e-3, abs=1e-5)
            }
            assert different == {}
