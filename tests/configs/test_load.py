"""Reference: by hand, the lines of small YAML files. Run: pytest tests/configs/test_load.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.load import load
from configs.problems import ConfigError
from configs.schema import Component, Experiment

BASE = """\
trust: [labpkg]
model: {class_path: labpkg.parts.Model}
module:
  class_path: labpkg.parts.Module
  init_args:
    beta: 1e-6
specialties:
  pediatrics: {class_path: labpkg.parts.Data}
  oncology: {class_path: labpkg.parts.Data, init_args: {root: other}}
data: {root: films}
trainer: {max_steps: 3}
"""


@pytest.fixture
def folder(working_folder):
    """A working folder with an experiment and the package `labpkg` that it names."""
    (working_folder / "exp.yaml").write_text(BASE)
    return working_folder


def faults(*arguments, path="exp.yaml"):
    """The lines of the error that loading raises."""
    with pytest.raises(ConfigError) as error:
        load(path, list(arguments))
    return str(error.value).splitlines()


def write(folder: Path, text: str, name: str = "exp.yaml") -> None:
    (folder / name).write_text(text)


def test_a_correct_file_with_defaults_shared_data_and_origins(folder):
    loaded = load("exp.yaml", ["module.init_args.group_size=4", "seed=7"])
    assert loaded.experiment.name == "exp"
    assert loaded.experiment.module == Component("labpkg.parts.Module", {"beta": 1e-6, "group_size": 4})
    # the shared root reaches the specialty without one of its own, and loses against the other's
    assert loaded.experiment.specialties["pediatrics"].init_args == {"root": "films"}
    assert loaded.experiment.specialties["oncology"].init_args == {"root": "other"}
    assert loaded.resolved["module"]["init_args"]["schedule"] == {"warmup": 5, "decay": 0.5}
    assert loaded.resolved["module"]["init_args"]["betas"] == [0.9, 0.99]
    assert json.loads(json.dumps(loaded.resolved)) == loaded.resolved
    assert loaded.origins["module.init_args.beta"] == "exp.yaml:6"
    assert loaded.origins["module.init_args.group_size"] == "command line"
    assert loaded.origins["module.init_args.kl"] == "default of Module"
    assert loaded.origins["specialties.pediatrics.init_args.root"] == "exp.yaml:10"
    assert loaded.origins["specialties.oncology.init_args.root"] == "exp.yaml:9"
    assert loaded.origins["threads"] == "default of Experiment"
    assert loaded.origins["name"] == "file name"


def test_all_problems_at_once_each_with_its_line(folder):
    write(
        folder,
        """\
name: a/b
nmae: x
model: {class_path: labpkg.parts.Modell}
module:
  class_path: labpkg.parts.Module
  init_args:
    gruop_size: 4
    beta: -1
    kl: k4
    betas: [0.9]
    schedule: {warmup: -1}
    scale: 1
specialties:
  pediatrics: {class_path: labpkg.parts.Data, init_args: {root: r, val: 0.6, test: 0.6}}
only: [radiology]
seed: '3'
trainer: {max_step: 3, max_epochs: 4.7}
requires: [missing.yaml]
trust: [labpkg]
""",
    )
    lines = faults("workers=0", "nonsense")
    for expected in (
        "exp.yaml:1: name: name 'a/b' becomes a folder: only letters, digits",
        "exp.yaml:2: nmae: unknown key; did you mean 'name'?",
        "exp.yaml:3: model.class_path: no such class",
        "did you mean 'labpkg.parts.Model'?",
        "exp.yaml:7: module.init_args.gruop_size: unknown key; did you mean 'group_size'? (Module accepts: group_size,",
        "exp.yaml:8: module.init_args.beta: beta must be at least 0, got -1",
        "exp.yaml:9: module.init_args.kl: expected one of 'k1', 'k2', 'k3', got 'k4'",
        "exp.yaml:10: module.init_args.betas: expected a list of 2, got 1 entries",
        "exp.yaml:11: module.init_args.schedule.warmup: warmup must be at least 0, got -1",
        "exp.yaml:12: module.init_args.scale: expected true or false, got 1",
        "exp.yaml:14: specialties.pediatrics.init_args.val: val + test must be below 1",
        "exp.yaml:15: only: only names 'radiology', which is not a specialty here (pediatrics)",
        "exp.yaml:16: seed: expected a whole number, got '3'; remove the quotes if this is a number",
        "exp.yaml:17: trainer.max_step: unknown key; did you mean 'max_steps'?",
        "exp.yaml:17: trainer.max_epochs: refused: a run is measured in optimiser steps; write instead: trainer.max_st",
        "exp.yaml:17: trainer.max_steps: missing",
        "exp.yaml:18: requires: no such file: 'missing.yaml'",
        "command line: workers: workers must be at least 1, got 0",
        "command line: expected key=value, got 'nonsense'",
    ):
        assert any(expected in line for line in lines), f"{expected!r} not in:\n" + "\n".join(lines)
    assert len(lines) == 18  # the class path's message and its suggestion stand on one line


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("module.init_args.group_size=4.7", "expected a whole number, got 4.7"),
        ("module.init_args.group_size=4.0", "write 4"),
        ("module.init_args.group_size=true", "expected a whole number, got True"),
        ("module.init_args.beta='0.1'", "remove the quotes"),
        ("module.init_args.beta=.nan", "expected a number, got nan"),
        ("module.init_args.tau=fast", "expected a number or null, got 'fast'"),
        ("module.init_args.names=solo", "write [solo]"),
        ("module.init_args.names=[yes]", "put it in quotes"),
        ("module.group_size=4", "belong under module.init_args"),
        ("module=labpkg.parts.Module", "expected a mapping of class_path and init_args"),
        ("specialties.pediatrics=null", "only names 'pediatrics'"),
        ("specialties=null", "specialties must name at least one"),
        ("data=3", "expected a mapping, got 3"),
        ("data.valx=0.1", "(for specialty pediatrics)"),
        ("--seed=1", "write it without the leading dashes"),
        ("seed=[", "not valid YAML"),
        ("seed=-1", "seed must lie in [0, 4294967295], got -1"),
        ("budget=0", "budget must be above 0"),
        ("trainer.callbacks=[]", "write instead: the section `callbacks`"),
        ("specialties.a.b=1", "specialties.a.b: unknown key"),
        ("module.init_args.method={class_path: labpkg.parts.Other, init_args: {betta: 1}}", "did you mean 'beta'"),
    ],
)
def test_a_wrong_override_is_named(folder, argument, message):
    text = "\n".join(faults("only=[pediatrics]", argument))
    assert message in text
    assert "command line" in text


@pytest.mark.parametrize(
    ("argument", "value"), [("1e-6", 1e-6), ("2", 2.0), (".inf", float("inf")), ("1.5E+3", 1500.0), ("-0.0", -0.0)]
)
def test_numbers_as_people_write_them(folder, argument, value):
    write(folder, BASE.replace("class_path: labpkg.parts.Module\n", "class_path: labpkg.parts.Other\n"))
    got = load("exp.yaml", [f"module.init_args.beta={argument}"]).experiment.module.init_args["beta"]
    assert (type(got), got) == (float, value)


def test_extends_left_to_right_then_the_file_itself(folder):
    write(folder, BASE + "seed: 1\nthreads: 1\nname: base\n", "a.yaml")
    write(folder, "seed: 2\nthreads: 2\ncallbacks: {stop: {class_path: labpkg.parts.Watch}}\n", "b.yaml")
    write(folder, "extends: [a.yaml, b]\nseed: 3\ncallbacks: {stop: null}\n")
    loaded = load("exp")
    # seed: the file's own; threads: the later parent's; the name is not inherited; null takes the callback away
    assert (loaded.experiment.seed, loaded.experiment.threads, loaded.experiment.name) == (3, 2, "exp")
    assert loaded.experiment.callbacks == {}
    assert loaded.origins["threads"] == "b.yaml:2"


def test_another_class_path_drops_the_init_args_below(folder):
    write(folder, BASE, "a.yaml")
    write(folder, "extends: a.yaml\nmodule: {class_path: labpkg.parts.Other}\n")
    assert load("exp.yaml").experiment.module == Component("labpkg.parts.Other", {})
    # on the command line the order of the two arguments does not matter
    arguments = ["module.init_args.beta=3", "module.class_path=labpkg.parts.Other"]
    assert load("a.yaml", arguments).experiment.module.init_args == {"beta": 3.0}
    # the same class again keeps them
    assert load("a.yaml", ["module.class_path=labpkg.parts.Module"]).experiment.module.init_args == {"beta": 1e-6}


def test_cycles_are_named(folder):
    write(folder, "extends: b.yaml\n", "a.yaml")
    write(folder, "extends: a.yaml\n", "b.yaml")
    assert "files extend each other: a.yaml -> b.yaml -> a.yaml" in "\n".join(faults(path="a.yaml"))
    write(folder, BASE + "requires: [exp.yaml]\n")
    assert faults() == ["exp.yaml:12: requires: experiments require each other: exp.yaml -> exp.yaml"]


def test_required_experiments_are_loaded_with_where_and_how_much(folder):
    write(folder, BASE, "base.yaml")
    write(folder, BASE + "requires: [base]\n")
    loaded = load("exp.yaml", ["runs_dir=elsewhere", "budget=0.5", "module.init_args.group_size=3"])
    (required,) = loaded.required
    assert (required.experiment.name, required.experiment.runs_dir, required.experiment.budget) == (
        "base",
        "elsewhere",
        0.5,
    )
    assert "group_size" not in required.experiment.module.init_args
    write(folder, BASE.replace("beta", "betta"), "base.yaml")
    assert faults()[0].startswith("base.yaml:6: module.init_args.betta: unknown key; did you mean 'beta'?")


def test_missing_required_field_and_section(folder):
    write(folder, BASE.replace("data: {root: films}\n", "").replace("model:", "# model:"))
    text = "\n".join(faults())
    assert "model: missing" in text
    assert "specialties.pediatrics.init_args.root: missing; Data needs a path here" in text


def test_a_file_that_is_no_mapping_and_a_name_that_is_no_file(folder):
    write(folder, "- 1\n")
    assert faults() == ["exp.yaml:1: expected a mapping of keys and values at the top level"]
    assert "did you mean 'exp.yaml'?" in faults(path="exq.yaml")[0]


def test_a_module_that_does_not_import_is_a_problem_like_others(folder):
    write(folder, "class A(:\n", "labpkg/broken.py")
    write(folder, "raise OSError('no licence')\nA = make()\n", "labpkg/refusing.py")
    arguments = ["model={class_path: labpkg.broken.A}", "module={class_path: labpkg.refusing.A}", "sed=1"]
    lines = faults(*arguments)
    assert len(lines) == 3
    assert any("model.class_path: cannot be imported: SyntaxError" in line for line in lines)
    assert any("module.class_path: cannot be imported: OSError: no licence" in line for line in lines)


def test_nested_components_in_free_form_options_are_kept(folder):
    method = {"class_path": "labpkg.parts.Other", "init_args": {"beta": 2.0}}
    loaded = load("exp.yaml", [f"module.init_args.method={json.dumps(method)}"])
    assert loaded.experiment.module.init_args["method"] == method


def test_arguments_of_a_class_without_config_are_known_by_its_constructor(folder):
    write(folder, BASE + "callbacks: {stop: {class_path: labpkg.parts.Watch, init_args: {monitr: loss}}}\n")
    (line,) = faults()
    assert "callbacks.stop.init_args.monitr: unknown key; did you mean 'monitor'? (Watch accepts: monitor" in line


def test_mistakes_are_told_within_seconds_and_before_torch(folder):
    root = Path(__file__).resolve().parents[2]
    code = (
        "import sys, train\n"
        "code = train.main(['--config', 'rl_gba.yaml', *sys.argv[1:]])\n"
        "print(code, *sorted({'torch', 'lightning', 'transformers', 'lightning_modules.stage'} & set(sys.modules)))"
    )
    given = ["module.init_args.gruop=3", "sed=1", "sft_dsa:module.init_args.lora_rank=0", "data.n_patients=many"]
    command = [sys.executable, "-c", code, *given]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60, check=True)
    after = os.times()  # of the processor, whatever else the machine does
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert done.stdout == "2\n"
    assert seconds < 5
    for part in (
        "module.init_args.gruop: unknown key",
        "did you mean 'seed'?",
        "lora_rank must be at least 1",
        "got 'many'",
    ):
        assert part in done.stderr


def test_the_schema_refuses_what_cannot_be_a_folder():
    part = Component("a.B")
    for name in ("..", "a/b", "", "a b", "."):
        with pytest.raises(ValueError, match="becomes a folder"):
            Experiment(name=name, model=part, module=part, specialties={"x": part})
    with pytest.raises(ValueError, match="must not have a dot"):
        Experiment(name="x", model=part, module=part, specialties={"a.b": part})
