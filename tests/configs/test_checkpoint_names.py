# Reference: the rules at the top of configs/checkpoints.py. Run: pytest tests/configs/test_checkpoint_names.py
import json
import subprocess
import sys

import pytest

from configs.build import import_class
from configs.checkpoints import families
from configs.load import ConfigError, load
from configs.show import flattened

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = """
specialties: {a: {class_path: datamodules.phantoms.chest.ChestFilms}}
module: {class_path: lightning_modules.sft_lora.SFTLoRA}
trainer: {max_steps: 1}
"""
QWEN = "lightning_modules.families.qwen2_5_vl.Qwen2_5_VL"


def folder_of(path, model_type="qwen2_5_vl", **more):
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": model_type} | more))
    return path


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A hub cache of one repository, and no network."""
    home = tmp_path / "cache"
    repository = home / "models--lab--vl"
    folder_of(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return home


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(FILE)
    return path


def test_a_folder_is_the_family_of_its_model_type(tmp_path, experiment):
    folder = folder_of(tmp_path / "mine")
    loaded = load(experiment, [f"model={folder}", "model.init_args.max_pixels=50176"])
    assert loaded.resolved["model"]["class_path"] == QWEN
    assert loaded.resolved["model"]["init_args"]["path"] == str(folder)
    assert loaded.resolved["model"]["init_args"]["max_pixels"] == 50176
    assert loaded.resolved["model"]["init_args"]["revision"] == "main"
    assert loaded.origins["model.init_args.path"] == "command line"
    assert loaded.origins["model.init_args.min_pixels"] == "default of Qwen2_5_VL"
    assert "model.init_args.path" in flattened(loaded.resolved)


def test_a_folder_beside_the_file_is_not_taken_for_a_hub_s_revision(offline, tmp_path):
    folder_of(tmp_path / "files/lab/vl", model_type="qwen2_vl")
    path = tmp_path / "files/experiment.yaml"
    named = {"model: lab/vl": "lab/vl", f"model: {{class_path: {QWEN}, init_args: {{path: lab/vl}}}}": None}
    for model, expected in named.items():
        path.write_text(f"{FILE}{model}\n")
        assert load(path).resolved["model"]["init_args"]["path"] == (expected or str(tmp_path / "files/lab/vl"))


def test_a_file_may_name_a_checkpoint_and_another_that_extends_it_may_set_more(tmp_path):
    folder = folder_of(tmp_path / "mine", "qwen3_vl")
    (tmp_path / "below.yaml").write_text(f"model: {folder}\n{FILE}")
    (tmp_path / "above.yaml").write_text("extends: below.yaml\nmodel: {init_args: {dtype: float32}}\n")
    loaded = load(tmp_path / "above.yaml")
    assert loaded.experiment.model.class_path == "lightning_modules.families.qwen3_vl.Qwen3VL"
    assert loaded.experiment.model.init_args["path"] == str(folder)
    assert loaded.experiment.model.init_args["dtype"] == "float32"
    assert loaded.origins["model.class_path"].endswith("below.yaml:1")


def test_a_checkpoint_replaces_another_model_with_all_its_settings(tmp_path):
    folder = folder_of(tmp_path / "mine")
    (tmp_path / "one.yaml").write_text(
        "model: {class_path: lightning_modules.families.tiny.TinyQwen2_5_VL, init_args: {hidden: 96}}\n" + FILE
    )
    (tmp_path / "two.yaml").write_text(f"extends: one.yaml\nmodel: {folder}\n")
    for loaded in (load(tmp_path / "one.yaml", [f"model={folder}"]), load(tmp_path / "two.yaml")):
        assert loaded.experiment.model.class_path == QWEN
        assert "hidden" not in loaded.experiment.model.init_args


@pytest.mark.parametrize("name", ["lab/vl", f"lab/vl@{COMMIT}"])
def test_a_hub_id_is_found_in_the_cache_without_a_network(offline, experiment, name):
    model = load(experiment, [f"model={name}"]).experiment.model
    assert (model.class_path, model.init_args["path"]) == (QWEN, "lab/vl")
    assert model.init_args["revision"] == COMMIT


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lab/other", ["lab/other: no such folder", "`hf download lab/other --revision main`", "HF_HOME"]),
        ("lab/vl@v2", ["revision v2", "`hf download lab/vl --revision v2`"]),
        ("/no/such/folder", ["/no/such/folder: no such folder, and no hub id"]),
        ("./mine.yaml", ["no such file: './mine.yaml'"]),
        ("tinny", ["no such file: 'tinny'", "a checkpoint's folder or a hub id", "did you mean 'tiny'"]),
    ],
)
def test_what_is_not_there_is_refused_with_what_to_do(offline, experiment, name, said):
    with pytest.raises(ConfigError) as error:
        load(experiment, [f"model={name}"])
    assert all(part in str(error.value) for part in said), error.value
    assert len(error.value.problems) <= 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"model_type": "qwen2_5_vI"}', "no family takes the model_type 'qwen2_5_vI'; there are gemma3, "),
        ('{"model_type": 5}', "names no model_type"),
        ("[]", "names no model_type"),
        ("{", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_folder_that_is_no_checkpoint_of_ours_is_refused(tmp_path, experiment, content, said):
    folder = tmp_path / "mine"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError) as error:
        load(experiment, [f"model={folder}"])
    assert said in str(error.value)


def test_a_model_that_a_file_names_wrongly_is_said_at_its_line(tmp_path):
    for name, said in (("tiny", r"write extends: \[model/tiny.yaml\]"), ("/no/such", "no such folder")):
        (tmp_path / "experiment.yaml").write_text(f"model: {name}\n{FILE}")
        with pytest.raises(ConfigError, match=rf"experiment\.yaml:1: model: .*{said}"):
            load(tmp_path / "experiment.yaml")


def test_an_adapter_is_no_model(tmp_path, experiment):
    folder = folder_of(tmp_path / "mine")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="name the base as the model"):
        load(experiment, [f"model={folder}"])


def test_a_required_experiment_of_another_checkpoint_is_refused_with_the_words_that_help(tmp_path):
    one, other = folder_of(tmp_path / "one"), folder_of(tmp_path / "other")
    (tmp_path / "sft.yaml").write_text(f"model: {one}\n{FILE}")
    (tmp_path / "rl.yaml").write_text(f"model: {one}\nrequires: [sft.yaml]\n{FILE}")
    load(tmp_path / "rl.yaml")
    with pytest.raises(ConfigError, match=f"sft:model={other}"):
        load(tmp_path / "rl.yaml", [f"model={other}"])
    both = load(tmp_path / "rl.yaml", [f"model={other}", f"sft:model={other}"])
    assert both.required[0].experiment.model.init_args["path"] == str(other)


def test_the_command_prints_it_within_a_config(tmp_path, experiment):
    folder = folder_of(tmp_path / "mine")
    command = [sys.executable, "train.py", "--config", str(experiment), f"model={folder}", "--print-config"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert QWEN in shown
    assert f"{folder}" in shown


def test_every_model_type_leads_to_the_class_that_says_so():
    assert {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llama"} <= set(families())
    for model_type, dotted in families().items():
        assert model_type in import_class(dotted).model_types
        assert import_class(dotted).model_class.config_class.model_type == model_type
