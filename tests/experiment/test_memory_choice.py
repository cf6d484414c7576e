"""Reference: the run with the settings as they are set. Run: pytest tests/experiment/test_memory_choice.py."""

import json

import pytest
import torch
from safetensors.torch import load_file

from configs.load import load
from experiment import memory_table
from experiment.context import ExperimentContext
from experiment.memory_choice import FILE, within_memory
from experiment.memory_of_run import MemoryOfRun
from experiment.memory_table import OVERHEAD
from experiment.run import assemble

AUTO = ("only=[alpha]", "trainer.max_steps=2", "fit.memory=auto", "data.batch_size=8")


def context_of(machine, name, *overrides):
    return assemble(load(str(machine.files / f"{name}.yaml"), [f"runs_dir={machine.runs}", *overrides]))


@pytest.fixture
def room(monkeypatch):
    """Sets how much memory the device has."""
    return lambda size: monkeypatch.setattr(memory_table, "own_device", lambda experiment: ("a card", size))


@pytest.fixture
def configs(monkeypatch):
    """Configs of the stages that are built."""
    seen, stage = [], ExperimentContext.stage

    def kept(self, *given):
        made = stage(self, *given)
        seen.append(made.config)
        return made

    monkeypatch.setattr(ExperimentContext, "stage", kept)
    return seen


def needs(machine, name, *overrides, run="alpha"):
    """Arguments of every setting that is tried, and its bytes on a card."""
    run = MemoryOfRun(context_of(machine, name, *overrides), run)
    exact = [s for s in (run.asked, *run.remedies()) if s.packed == run.asked.packed]
    return [(run.arguments(settings), run.need(settings) + OVERHEAD) for settings in exact]


def first_with(tried, name):
    """The first setting that changes an argument and needs less than all before it."""
    for place, (arguments, size) in enumerate(tried):
        if name in arguments and size < min(before for _, before in tried[:place]):
            return arguments, size
    raise AssertionError(f"{name} is never what makes a run fit: {tried}")


def test_a_run_that_would_not_fit_takes_smaller_pieces_and_keeps_them(based, tmp_path, room, configs, capsys):
    tried = needs(based, "dsa", *AUTO)
    arguments, size = first_with(tried, "micro_batch_tokens")
    assert arguments["checkpoint_layers"]
    room(size)
    as_set, chosen = based.copy(tmp_path / "as_set"), based.copy(tmp_path / "chosen")
    assert as_set.run("dsa", *AUTO[:2], AUTO[3]) == 0
    assert chosen.run("dsa", *AUTO, "--dry-run") == 0
    smaller = f"module.init_args.micro_batch_tokens={arguments['micro_batch_tokens']}"
    assert f"fit.memory=auto sets module.init_args.checkpoint_layers=true {smaller}" in capsys.readouterr().out
    assert not (chosen.runs / "dsa").exists()
    assert chosen.run("dsa", *AUTO) == 0
    assert [(c.checkpoint_layers, c.micro_batch_tokens) for c in configs] == [
        (False, configs[0].micro_batch_tokens),
        (True, arguments["micro_batch_tokens"]),
    ]
    assert json.loads((chosen.runs / "dsa/alpha" / FILE).read_text()) == arguments
    weights = "dsa/alpha/adapter/adapter_model.safetensors"
    for name, expected in load_file(as_set.runs / weights).items():
        torch.testing.assert_close(load_file(chosen.runs / weights)[name], expected, rtol=1e-3, atol=1e-5)
    room(10 * tried[0][1])  # a larger card now: what the run began with stays
    again = within_memory(context_of(chosen, "dsa", *AUTO), "alpha", chosen.runs / "dsa/alpha")
    assert again.experiment.module.init_args["micro_batch_tokens"] == arguments["micro_batch_tokens"]


def test_rollouts_are_fewer_at_a_time_and_the_engine_keeps_its_settings(based, room):
    engine = {"class_path": "lightning_modules.engines.packed.Packed", "init_args": {"rows_at_once": 24}}
    asked = (*AUTO, f"module.init_args.engine={json.dumps(engine)}")
    _, size = first_with(needs(based, "gba", *asked), "engine")
    room(size)
    chosen = within_memory(context_of(based, "gba", *asked), "alpha").experiment.module.init_args["engine"]
    assert chosen["class_path"] == engine["class_path"]
    assert chosen["init_args"]["rows_at_once"] < 24


def test_what_fits_stays_as_it_is_set_and_what_never_fits_is_refused(based, tmp_path, room, capsys):
    tried = needs(based, "dsa", *AUTO)
    room(tried[0][1])
    context = context_of(based, "dsa", *AUTO)
    assert within_memory(context, "alpha").experiment.module.init_args == context.experiment.module.init_args
    room(OVERHEAD)
    made = based.copy(tmp_path / "none")
    assert made.run("dsa", *AUTO) != 0
    assert "no setting makes it fit; take a smaller model" in capsys.readouterr().err
    assert within_memory(context_of(based, "dsa"), "alpha").experiment.fit.memory == "as_set"


@pytest.mark.parametrize("name", ["integrate", "joint"])
def test_an_agent_that_would_not_fit_takes_smaller_pieces_too(lineage, tmp_path, room, configs, name):
    light = ("callbacks.evaluate=null", "callbacks.cards=null", "trainer.max_steps=2", "data.batch_size=8")
    auto = (*light, "fit.memory=auto")
    arguments, size = first_with(needs(lineage, name, *auto, run="agent"), "micro_batch_tokens")
    room(size)
    as_set, chosen = lineage.copy(tmp_path / "as_set"), lineage.copy(tmp_path / "chosen")
    assert as_set.run(name, *light) == 0
    assert chosen.run(name, *auto) == 0
    assert [c.micro_batch_tokens for c in configs] == [configs[0].micro_batch_tokens, arguments["micro_batch_tokens"]]
    assert json.loads((chosen.runs / name / "agent" / FILE).read_text()) == arguments
    weights = f"{name}/agent/adapter/adapter_model.safetensors"
    for key, expected in load_file(as_set.runs / weights).items():
        torch.testing.assert_close(load_file(chosen.runs / weights)[key], expected, rtol=1e-3, atol=1e-5)
