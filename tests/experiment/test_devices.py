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
RL = ("gba", "callbacks.merge=null", "callbacks.evaluate=null", "only=[alpha]", *TWO[:2],
      "module.init_args.questions_per_step=3", "module.init_args.dynamic_share=0.5", "fit.val_every=4")  # fmt: skip
EXPERT = "gba/alpha/adapter/adapter_model.safetensors"
EVERY_SEVEN = "fit.checkpoint_every_steps=7"

pytestmark = pytest.mark.slow


def start(machine, bars_module, *overrides: str, name: str = "dsa") -> subprocess.Popen:
    command = [sys.executable, str(TRAIN), "--config", str(machine.files / f"{name}.yaml"), f"runs_dir={machine.runs}"]
    return subprocess.Popen(
        [*command, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env=os.environ | {"PYTHONPATH": str(bars_module), "OMP_NUM_THREADS": "1"},
    )


def completed(machine, bars_module, *overrides: str, name: str = "dsa") -> str:
    process = start(machine, bars_module, *overrides, name=name)
    told = finish(process, 400)
    assert process.returncode == 0, told
    return told


def finish(process: subprocess.Popen, seconds: float = 400) -> str:
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(process.communicate()[0]) from None


def child_of(process: subprocess.Popen, seconds: float = 400) -> int:
    """The second device's process."""
    file, end = Path(f"/proc/{process.pid}/task/{process.pid}/children"), time.monotonic() + seconds
    while time.monotonic() < end:
        for child in file.read_text().split():
            with suppress(OSError):  # git and its kind come and go
                if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes():
                    return int(child)
        time.sleep(0.1)
    raise AssertionError("no second process appeared")


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end or process.poll() is not None:
            raise AssertionError(finish(process, 1))
        time.sleep(0.05)


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(("train/", "val/"))]
    # by step: files of one second are read in the order of their names, which end in a number of no fixed width
    return {tag: sorted((event.step, event.value) for event in events.Scalars(tag)) for tag in tags}


def gone(pid: int, seconds: float = 40) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("val_questions", [1, 3], ids=["one device has no validation question", "three"])
def test_two_devices_train_what_one_trains_and_write_once(based, bars_module, tmp_path, val_questions):
    one, two = based.copy(tmp_path / "one"), based.copy(tmp_path / "two")
    settings = ("trainer.max_steps=4", "fit.val_every=2", f"data.val_questions={val_questions}")
    assert one.run("dsa", *TWO[1:], *settings) == 0
    told = completed(two, bars_module, *TWO, *settings)
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
    completed(whole, bars_module, *settings)
    process = start(cut, bars_module, *settings)
    second = child_of(process)
    wait_for(cut.runs / "dsa/alpha/checkpoints/last.ckpt", process)
    os.kill(second, signal.SIGTERM)
    told = finish(process)
    assert process.returncode == 130, told
    assert gone(second)
    assert json.loads((cut.runs / "dsa/alpha/status.json").read_text())["state"] == "interrupted"
    assert not (cut.runs / WEIGHTS).exists()
    completed(cut, bars_module, *settings)
    assert (cut.runs / WEIGHTS).read_bytes() == (whole.runs / WEIGHTS).read_bytes()
    assert curves(cut.runs / "dsa/alpha") == curves(whole.runs / "dsa/alpha")


def files(runs: Path) -> dict[str, int]:
    """Every file's lines; event files and cells, whose names are hashes and times, are counted per folder.

    What is remembered of files is left out: of those a second old it depends on how fast the machine is.
    """
    found: dict[str, int] = {}
    for path in runs.rglob("*"):
        if path.is_file() and path.parent.name != ".checked":
            named = "events.out" not in path.name and path.parent.name != "cells"
            key = str(path.relative_to(runs) if named else path.parent.relative_to(runs))
            found[key] = found.get(key, 0) + (path.read_bytes().count(b"\n") if path.suffix == ".jsonl" else 1)
    return found


def test_a_whole_lineage_on_two_devices_is_the_one_on_one(lineage, based, bars_module, tmp_path):
    two = based.copy(tmp_path / "runs")
    told = completed(two, bars_module, *TWO[:2], "dsa:trainer.devices=2", "dsa:trainer.accelerator=cpu", name="gba")
    assert told.count("Everything of this experiment lies in") == 1
    assert files(two.runs) == files(lineage.runs)
    for run in ("dsa/alpha", "dsa/beta", "gba/alpha", "gba/beta", "gba/merged/ties"):
        found, expected = (load_file(m.runs / run / "adapter/adapter_model.safetensors") for m in (two, lineage))
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)
        if "merged" in run:
            continue
        assert json.loads((two.runs / run / "status.json").read_text())["state"] == "finished"
        assert json.loads((two.runs / run / "timings.json").read_text())["batches"] == 2
        first, second = curves(lineage.runs / run), curves(two.runs / run)
        assert first.keys() == second.keys()
        for tag, points in first.items():
            assert [step for step, _ in second[tag]] == [step for step, _ in points], tag
            assert [v for _, v in second[tag]] == pytest.approx([v for _, v in points], rel=1e-3, abs=1e-4), tag
    probes = [
        [row for row in map(json.loads, (m.runs / "gba/alpha/samples.jsonl").open()) if row["step"] == 0]
        for m in (two, lineage)
    ]
    assert len(probes[0]) == 6  # two probes under three prompts, once
    assert probes[0] == probes[1]


@pytest.fixture(scope="module")
def rl_whole(lineage, bars_module, tmp_path_factory):
    """Reinforcement learning on two devices, never interrupted."""
    made = lineage.copy(tmp_path_factory.mktemp("rl") / "runs").without("gba")
    completed(made, bars_module, *RL[1:], "trainer.max_steps=12", "fit.checkpoint_every_steps=3", name="gba")
    return made


@pytest.mark.parametrize("end", ["SIGTERM to the second", "SIGKILL of the first", "SIGKILL of the second"])
def test_rl_that_ends_on_one_device_ends_on_both_and_goes_on_to_the_same_bytes(rl_whole, bars_module, tmp_path, end):
    cut = rl_whole.copy(tmp_path / "runs").without("gba")
    settings = (*RL[1:], "trainer.max_steps=12", "fit.checkpoint_every_steps=3")
    process = start(cut, bars_module, *settings, name="gba")
    second = child_of(process)
    wait_for(cut.runs / "gba/alpha/checkpoints/last.ckpt", process)
    number = signal.SIGTERM if "TERM" in end else signal.SIGKILL
    os.kill(process.pid if "first" in end else second, number)
    told = finish(process, 90)
    assert gone(second)
    assert (process.returncode == 130) if "TERM" in end else process.returncode not in (0, 130), told
    assert not (cut.runs / EXPERT).exists()
    completed(cut, bars_module, *settings, name="gba")
    for name in (EXPERT, "gba/alpha/samples.jsonl"):
        assert (cut.runs / name).read_bytes() == (rl_whole.runs / name).read_bytes()
    assert curves(cut.runs / "gba/alpha") == curves(rl_whole.runs / "gba/alpha")


FAILING = """
from lightning_modules.sft_lora import SFTLoRA


class Failing(SFTLoRA):
    def training_step(self, batch, batch_idx):
        if self.trainer.global_rank == {rank} and self.trainer.global_step == 1:
            raise ValueError("this device cannot go on")
        return super().training_step(batch, batch_idx)
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_on_one_device_ends_both_with_an_error(based, bars_module, tmp_path, rank):
    (bars_module / f"made_failing_{rank}.py").write_text(FAILING.format(rank=rank))
    module = {"class_path": f"made_failing_{rank}.Failing", "init_args": {"lora_rank": 2}}
    other = based.copy(tmp_path / "runs").write(
        tmp_path / "files", "dsa", module=module, trust=["made_bars", f"made_failing_{rank}"]
    )
    process = start(other, bars_module, *TWO, "trainer.max_steps=4")
    second = child_of(process)
    told = finish(process, 90)
    assert process.returncode == 1, told
    assert "ValueError: this device cannot go on" in told
    assert gone(second)
    assert json.loads((other.runs / "dsa/alpha/status.json").read_text())["state"] == "failed"
    assert not (other.runs / WEIGHTS).exists()
