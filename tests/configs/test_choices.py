# Reference: the files themselves. Run: pytest tests/configs/test_choices.py
import subprocess
import sys

import pytest
import yaml

from configs.load import CONFIGS, load
from configs.problems import ConfigError
from configs.show import changed_settings, format_resolved

DATA = sorted(path.stem for path in (CONFIGS / "data").glob("*.yaml"))


def faults(*overrides):
    with pytest.raises(ConfigError) as caught:
        load("evaluate.yaml", overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", DATA)
def test_a_file_of_configs_data_takes_the_place_of_all_data(name):
    content = yaml.safe_load((CONFIGS / "data" / f"{name}.yaml").read_text())
    loaded = load("evaluate.yaml", [f"data={name}"])
    assert list(loaded.experiment.specialties) == list(content["specialties"])
    assert loaded.experiment.data == content.get("data", {})
    assert f"configs/data/{name}.yaml" in format_resolved(loaded)


def test_dotted_overrides_lie_over_the_choice_in_any_order():
    for overrides in (["data=medxpertqa", "data.root=/films"], ["data.root=/films", "data=medxpertqa"]):
        loaded = load("evaluate.yaml", overrides)
        assert loaded.experiment.specialties["medxpertqa"].init_args["root"] == "/films"
        assert loaded.origins["data.root"] == "command line"


def test_a_path_is_a_choice_too_and_gives_its_own_sections_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "specialties: {mine: {class_path: datamodules.slake.Slake}}\nmodule: {class_path: a.B}\nseed: 7\n"
    (tmp_path / "mine.yaml").write_text(text)
    for name in ("mine", "mine.yaml", str(tmp_path / "mine.yaml")):
        loaded = load("evaluate.yaml", [f"data={name}"])
        assert list(loaded.experiment.specialties) == ["mine"]
        assert (loaded.experiment.module, loaded.experiment.seed, loaded.experiment.data) == (None, 0, {})


def test_another_model_needs_another_base():
    loaded = load("evaluate.yaml", ["model=lite0_smollm2", "requires=[real_base.yaml]"])
    assert loaded.experiment.model.class_path.endswith("Lite0SmolLM2")
    assert load("evaluate.yaml", ["model=lite0_smollm2", "requires=[]"]).required == ()
    text = faults("model=lite0_smollm2", "requires=[tiny_base.yaml]")
    assert "cannot start from tiny_base, which is of lightning_modules.families.tiny.TinyQwen2_5_VL" in text


def test_what_there_is_stands_beside_what_there_is_not(tmp_path):
    text = faults("data=phantom", "model=tinyy")
    assert f"no such file: 'phantom'; there are {', '.join(DATA)}, or give a path; did you mean 'phantoms'?" in text
    assert "did you mean 'tiny'?" in text
    (tmp_path / "empty.yaml").write_text("seed: 3\n")
    assert "says nothing about specialties or data" in faults(f"data={tmp_path / 'empty.yaml'}")


def test_a_choice_is_not_handed_to_what_is_required():
    (base,) = load("evaluate.yaml", ["data=real", "model=tiny_scratch", "requires=[tiny_base.yaml]"]).required
    assert list(base.experiment.specialties) == ["mixed"]


def test_a_folder_that_is_no_adapter_is_named_before_anything_runs(tmp_path):
    adapter = tmp_path / "pediatrics" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "manifest.json").write_text("{}")
    loaded = load("evaluate.yaml", [f"adapters=[{tmp_path / 'pediatrics'}, {adapter}]"])
    assert loaded.experiment.adapters == [str(tmp_path / "pediatrics"), str(adapter)]
    text = faults(f"adapters=[{adapter}, {tmp_path / 'pediatric'}]")
    assert "command line: adapters[1]" in text
    assert f"did you mean '{tmp_path / 'pediatrics'}'?" in text


def test_a_forgotten_module_is_told_from_one_that_is_not_wanted():
    assert load("evaluate.yaml").experiment.module is None
    assert "module is missing" in faults("trainer.max_steps=3")
    assert "module is missing" in faults("callbacks.evaluate=null")


def test_results_of_runs_from_before_there_were_adapters_stay_valid():
    resolved = load("rl_gba.yaml").resolved
    before = {key: value for key, value in resolved.items() if key != "adapters"}
    assert changed_settings(before, resolved) == {}


def test_a_rejected_merge_is_suggested_where_its_folder_holds_no_other(tmp_path):
    for name in ("ties/rejected", "tie"):
        (tmp_path / name / "adapter").mkdir(parents=True)
        (tmp_path / name / "adapter" / "manifest.json").write_text("{}")
    text = faults(f"adapters=[{tmp_path / 'ties'}]")
    assert f"the gates rejected this merge; did you mean '{tmp_path / 'ties/rejected'}'?" in text
    assert load("evaluate.yaml", [f"adapters=[{tmp_path / 'ties/rejected'}]"])


def test_guidelines_that_cannot_be_read_are_named_with_all_else(tmp_path):
    (tmp_path / "own.yaml").write_text("name: own\n")
    module, callback = "module.init_args", "callbacks.evaluate.init_args"
    arguments = [
        f"{module}.guidelines=[differential, redflags, bayes, {tmp_path}/own.yaml]",
        f"{module}.entropy_bonus=-1",
        f"{callback}.guidelines=[{tmp_path}/missing.yaml]",
    ]
    with pytest.raises(ConfigError) as error:
        load("rl_gba.yaml", arguments)
    text = str(error.value)
    assert f"{module}.guidelines: unknown name 'redflags' among guidelines; known: analytical, bayesian" in text
    assert f"{module}.guidelines: unknown name 'bayes' among guidelines; did you mean 'bayesian'?" in text
    assert f"{module}.guidelines: {tmp_path}/own.yaml: missing key 'criteria'" in text
    assert f"{module}.entropy_bonus: entropy_bonus must be at least 0" in text
    assert f"{callback}.guidelines: no such file of a guideline: {tmp_path}/missing.yaml" in text
    assert len(error.value.problems) == 5


def test_a_guideline_of_a_required_experiment_is_read_too(working_folder):
    (working_folder / "dsa.yaml").write_text(
        f"extends: {CONFIGS}/sft_dsa.yaml\nmodule: {{init_args: {{guidelines: [bayes]}}}}\n"
    )
    (working_folder / "gba.yaml").write_text(f"extends: {CONFIGS}/rl_gba.yaml\nrequires: [dsa.yaml]\n")
    with pytest.raises(ConfigError, match=r"^dsa.yaml:2: module.init_args.guidelines: unknown name 'bayes'") as error:
        load("gba.yaml")
    assert len(error.value.problems) == 1


def test_a_guideline_named_twice_by_name_and_path_is_refused():
    twice = CONFIGS / "guidelines" / "bayesian.yaml"
    with pytest.raises(ConfigError, match="the guideline 'bayesian' is named twice"):
        load("rl_gba.yaml", [f"module.init_args.guidelines=[bayesian, {twice}]"])


def test_a_wrong_guideline_is_told_before_torch_and_no_missing_kernel_at_all():
    program = (
        "import logging, sys, lightning_modules, train\n"
        "warns = logging.getLogger('bitsandbytes.backends.cpu.ops').isEnabledFor(logging.WARNING)\n"
        "code = train.main(['--config', 'rl_gba.yaml', 'module.init_args.guidelines=[differential, redflags]'])\n"
        "print(warns, code, *sorted({'torch', 'lightning', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CONFIGS.parent, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False 2\n"
    assert done.stderr.startswith("command line: module.init_args.guidelines: unknown name 'redflags' among guidelines")
