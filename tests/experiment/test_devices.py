"""Reference: the uninterrupted run on two devices, and the run on one. Two gloo processes on the CPU, by train.py.

Run: pytest tests/experiment/test_devices.py -m slow.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
WEIGHTS = "dsa/alpha/adapter/adapter_model.safetensors"
TWO = ("trainer.devices=2", "trainer.accelerator=cpu", "only=[alpha]", "data.batch_size=3")
"""Three rows a step: two on one device, one on the other."""
EVERY_SEVEN = "fit.checkpoint_every_steps=7"

pytestmark = pytest.mark.slow


def start(machine, bars_module, *overrides: str) -> subprocess.Popen:
    command = [sys.executable, str(TRAIN), "--config", str(machine.files / "dsa.yaml"), f"runs_dir={machine.runs}"]
    return subprocess.Popen(
        [*command, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env=os.environ | {"PYTHONPATH": str(bars_module), "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen, seconds: float = 120) -> str:
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(process.communicate()[0]) from None


def child_of(process: subprocess.Popen, seconds: float = 90) -> int:
    """The second device's process."""
    file, end = Path(f"/proc/{process.pid}/task/{process.pid}/children"), time.monotonic() + seconds
    while time.monotonic() < end:
        for child in file.read_text().split():
            with suppress(OSError):  # git and its kind come and go
                if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes():
                    return int(child)
        time.sleep(0.1)
    raise AssertionError("no second process appeared")


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end or process.poll() is not None:
            raise AssertionError(finish(process, 1))
        time.sleep(0.05)


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(("train/", "val/"))]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def gone(pid: int, seconds: float = 40) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_two_devices_train_what_one_trains_and_write_once(based, bars_module, tmp_path):
    one, two = based.copy(tmp_path / "one"), based.copy(tmp_path / "two")
    settings = ("trainer.max_steps=4", "fit.val_every=2")
    assert one.run("dsa", *TWO[1:], *settings) == 0
    process = start(two, bars_module, *TWO, *settings)
    told = finish(process)
    assert process.returncode == 0, told
    found, reference = load_file(two.runs / WEIGHTS), load_file(one.runs / WEIGHTS)
    for name, tensor in reference.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)
    assert (two.runs / "dsa/alpha/samples.jsonl").read_text().count('"step": 0') == 2  # as many as probes
    assert told.count("Everything of this experiment lies in") == 1
    first, second = curves(one.runs / "dsa/alpha"), curves(two.runs / "dsa/alpha")
    assert first.keys() == second.keys()
    for tag, points in first.items():
        assert [step for step, _ in second[tag]] == [step for step, _ in points], tag
        assert [value for _, value in second[tag]] == pytest.approx([value for _, value in points], abs=2e-3), tag


def test_a_signal_to_one_device_stops_both_and_nothing_is_lost(based, bars_module, tmp_path):
    whole, cut = based.copy(tmp_path / "whole"), based.copy(tmp_path / "cut")
    settings = (
        *TWO,
        "trainer.max_steps=60",
        "callbacks.cards=null",
        "fit.val_every=14",
        EVERY_SEVEN,
    )
    process = start(whole, bars_module, *settings)
    told = finish(process, 300)
    assert process.returncode == 0, told
    process = start(cut, bars_module, *settings)
    second = child_of(process)
    wait_for(cut.runs / "dsa/alpha/checkpoints/last.ckpt", process)
    os.kill(second, signal.SIGTERM)
    told = finish(process)
    assert process.returncode == 130, told
    assert gone(second)
    assert json.loads((cut.runs / "dsa/alpha/status.json").read_text())["state"] == "interrupted"
    assert not (cut.runs / WEIGHTS).exists()
    process = start(cut, bars_module, *settings)
    told = finish(process, 300)
    assert process.returncode == 0, told
    assert (cut.runs / WEIGHTS).read_bytes() == (whole.runs / WEIGHTS).read_bytes()
    assert curves(cut.runs / "dsa/alpha") == curves(whole.runs / "dsa/alpha")


@pytest.mark.parametrize("dead", ["first", "second"])
def test_a_device_that_dies_takes_the_other_with_it(based, bars_module, tmp_path, dead):
    other = based.copy(tmp_path / "runs")
    process = start(other, bars_module, *TWO, "trainer.max_steps=4000", "callbacks.cards=null")
    second = child_of(process)
    wait_for(other.runs / "dsa/alpha/checkpoints/last.ckpt", process)
    os.kill(second if dead == "second" else process.pid, signal.SIGKILL)
    told = finish(process, 60)
    assert process.returncode != 0, told
    assert gone(second)
    assert not (other.runs / WEIGHTS).exists()
