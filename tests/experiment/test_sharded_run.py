"""Reference: the run on one device, and the uninterrupted one. Two gloo processes on the CPU, by train.py.

Run: pytest tests/experiment/test_sharded_run.py [-m slow].
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from artifacts.stored_weights import StoredParameter

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
WEIGHTS = "dsa/alpha/adapter/adapter_model.safetensors"
PARTS = ("trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=fsdp2")
SETTINGS = (
    "only=[alpha]",
    "data.batch_size=3",
    "trainer.max_steps=24",
    "fit.val_every=6",
    "fit.checkpoint_every_steps=3",
)


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("judge", ("requires=[]", *PARTS), "RewardModel cannot train over a base that lies in parts"),
        ("base", PARTS, "BaseTraining cannot train over a base that lies in parts"),
        ("dsa", PARTS[1:], "set trainer.devices above 1"),
    ],
)
def test_what_cannot_run_with_a_base_in_parts_is_refused_by_name(machine, tmp_path, capsys, name, settings, told):
    made = machine.at(tmp_path / "runs")
    assert made.run(name, *settings) == 2
    found = capsys.readouterr().err
    assert "trainer.strategy" in found
    assert told in found
    assert not made.runs.exists()


def test_a_run_over_a_base_in_parts_leaves_its_blocks_in_their_files(based, tmp_path, monkeypatch):
    seen = []

    def trainer_of(context, **_):
        policy, fingerprint = context.live.of(context.live._key, list)  # what the stage was built on
        seen.append((isinstance(policy.family.block_parameters()[0], StoredParameter), fingerprint))
        raise RuntimeError("seen enough")

    monkeypatch.setattr("experiment.fit.trainer_of", trainer_of)
    made = based.copy(tmp_path / "runs")
    assert [made.run("dsa", "only=[alpha]", *parts) for parts in (PARTS, ())] == [1, 1]
    assert [stayed for stayed, _ in seen] == [True, False]
    assert seen[0][1] == seen[1][1]  # the same base, read in pieces or whole


def start(machine, bars_module, *overrides: str, name: str = "dsa") -> subprocess.Popen:
    command = [sys.executable, str(TRAIN), "--config", str(machine.files / f"{name}.yaml"), f"runs_dir={machine.runs}"]
    environment = os.environ | {"PYTHONPATH": str(bars_module), "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    return subprocess.Popen([*command, *overrides], **streams)


@pytest.mark.slow
def test_a_base_in_parts_gives_the_expert_of_a_whole_one_and_a_resumed_run_the_same_bytes(based, bars_module, tmp_path):
    # The finished base beneath is not asked to be in parts: it is only read. Cards are drawn by the first device alone.
    one, two, cut = (based.copy(tmp_path / name) for name in ("one", "two", "cut"))
    assert one.run("dsa", *SETTINGS) == 0
    parts = (*PARTS, "module.init_args.micro_batch_tokens=200")  # one device has more pieces than the other
    ended = start(two, bars_module, *SETTINGS, *parts)
    assert (ended.communicate(timeout=600)[0], ended.returncode)[1] == 0
    for name, expected in load_file(one.runs / WEIGHTS).items():
        torch.testing.assert_close(load_file(two.runs / WEIGHTS)[name], expected, rtol=1e-3, atol=1e-4)
    rows = [(m.runs / "dsa/alpha/samples.jsonl").read_text().splitlines()[:2] for m in (one, two)]
    assert [json.loads(row)["completion"] for row in rows[0]] == [json.loads(row)["completion"] for row in rows[1]]
    stopped, checkpoint = start(cut, bars_module, *SETTINGS, *parts), cut.runs / "dsa/alpha/checkpoints/last.ckpt"
    while not checkpoint.exists() and stopped.poll() is None:
        time.sleep(0.05)
    stopped.send_signal(signal.SIGTERM)
    told = stopped.communicate(timeout=300)[0]
    assert stopped.returncode == 130, told
    again = start(cut, bars_module, *SETTINGS, *parts)
    told = again.communicate(timeout=600)[0]
    assert again.returncode == 0, told
    assert (cut.runs / WEIGHTS).read_bytes() == (two.runs / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_rollouts_over_a_base_in_parts_give_the_expert_of_a_whole_one(based, bars_module, tmp_path):
    alone = ("only=[alpha]", "callbacks.merge=null", "callbacks.evaluate=null")
    one = based.copy(tmp_path / "one")
    assert one.run("dsa", "only=[alpha]") == 0
    two = one.copy(tmp_path / "two")
    assert one.run("gba", *alone) == 0
    ended = start(two, bars_module, *alone, *PARTS, name="gba")
    told = ended.communicate(timeout=600)[0]
    assert ended.returncode == 0, told
    weights = WEIGHTS.replace("dsa", "gba")
    for name, expected in load_file(one.runs / weights).items():
        torch.testing.assert_close(load_file(two.runs / weights)[name], expected, rtol=1e-3, atol=1e-4)
    rows = [(m.runs / "gba/alpha/samples.jsonl").read_text().splitlines() for m in (one, two)]
    assert [json.loads(row)["completion"] for row in rows[0]] == [json.loads(row)["completion"] for row in rows[1]]


@pytest.mark.slow
def test_integration_over_a_base_in_parts_gives_the_agent_of_a_whole_one_and_a_resumed_run_the_same_bytes(
    lineage, bars_module, tmp_path
):
    # Teachers are asked for real, and validation writes; the agent is examined with the base whole again.
    settings = ("module.init_args.gate=better", "module.init_args.gate_temperature=0.8", "trainer.max_steps=12")
    settings += ("fit.val_every=6", "fit.checkpoint_every_steps=2", "module.init_args.micro_batch_tokens=150")
    weights = WEIGHTS.replace("dsa/alpha", "integrate/agent")
    one, two, cut = (lineage.copy(tmp_path / name) for name in ("one", "two", "cut"))
    assert one.run("integrate", *settings) == 0
    ended = start(two, bars_module, *settings, *PARTS, name="integrate")
    told = ended.communicate(timeout=600)[0]
    assert ended.returncode == 0, told
    for name, expected in load_file(one.runs / weights).items():
        torch.testing.assert_close(load_file(two.runs / weights)[name], expected, rtol=1e-3, atol=1e-4)
    rows = [(m.runs / "integrate/agent/samples.jsonl").read_text().splitlines() for m in (one, two)]
    assert [json.loads(row)["completion"] for row in rows[0]] == [json.loads(row)["completion"] for row in rows[1]]
    columns = [(m.runs / "integrate/evaluation/matrix.csv").read_text() for m in (one, two)]
    assert columns[0] == columns[1]
    stopped = start(cut, bars_module, *settings, *PARTS, name="integrate")
    checkpoint = cut.runs / "integrate/agent/checkpoints/last.ckpt"
    while not checkpoint.exists() and stopped.poll() is None:
        time.sleep(0.05)
    stopped.send_signal(signal.SIGTERM)
    told = stopped.communicate(timeout=300)[0]
    assert stopped.returncode == 130, told
    again = start(cut, bars_module, *settings, *PARTS, name="integrate")
    told = again.communicate(timeout=600)[0]
    assert again.returncode == 0, told
    assert (cut.runs / weights).read_bytes() == (two.runs / weights).read_bytes()
