"""Reference: YAML itself (what is printed reads back as what was loaded). Run: pytest tests/configs/test_show.py."""

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from configs.load import load
from configs.show import changed_settings, completed, format_resolved

TEXT = """\
description: "a text: with # signs and 'quotes', λ"
model: {class_path: lightning_modules.families.tiny.TinyQwen2_5_VL, init_args: {system: a.B}}
module: {class_path: lightning_modules.sft_lora.SFTLoRA}
specialties:
  pediatrics: {class_path: datamodules.base.VQADataModule, init_args: {val_fraction: 2e-1}}
only: ["pediatrics"]
trainer: {max_steps: 2}
budget: 1e-6
"""


def experiment(folder: Path, *overrides: str):
    path = folder / "shown.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return load(path, overrides)


def test_the_printed_configuration_reads_back_as_itself(tmp_path):
    loaded = experiment(tmp_path, "seed=3")
    text = format_resolved(loaded)
    assert yaml.safe_load(text) == loaded.resolved
    lines = text.splitlines()
    (seed,) = [line for line in lines if line.startswith("seed:")]
    assert seed.endswith("# command line")
    (fraction,) = [line for line in lines if "val_fraction: 0.2" in line]
    assert fraction.endswith("shown.yaml:5")
    assert all("# " in line or line.endswith(":") for line in lines)


def test_the_printed_configuration_is_itself_a_configuration(tmp_path):
    loaded = experiment(tmp_path)
    again = tmp_path / "again.yaml"
    again.write_text(format_resolved(loaded), encoding="utf-8")
    assert load(again).resolved == loaded.resolved


def test_every_value_has_an_origin(tmp_path):
    loaded = experiment(tmp_path)

    def keys(values, prefix=""):
        for name, value in values.items():
            full = isinstance(value, Mapping) and value
            yield from keys(value, f"{prefix}{name}.") if full else [f"{prefix}{name}"]

    assert sorted(loaded.origins) == sorted(keys(loaded.resolved))


def test_changed_settings_names_what_a_resume_may_not_change(tmp_path):
    old = json.loads(json.dumps(experiment(tmp_path).resolved))
    free = ["only=[]", "workers=2", "overwrite=true", "runs_dir=x", "description=y"]
    assert changed_settings(old, experiment(tmp_path, *free).resolved) == {}
    changed = experiment(tmp_path, "seed=1", "data.batch_size=4", "trainer.max_steps=3").resolved
    # `data` is written to its own section and reaches every specialty
    assert changed_settings(old, changed) == {
        "data.batch_size": "made with no such setting, asked for is 4",
        "seed": "made with 0, asked for is 1",
        "specialties.pediatrics.init_args.batch_size": "made with 16, asked for is 4",
        "trainer.max_steps": "made with 2, asked for is 3",
    }


def test_a_setting_that_came_later_is_at_its_default_in_what_is_replayed_too(tmp_path):
    replay = "replay={data: {class_path: datamodules.base.VQADataModule, init_args: {val_fraction: 0.3}}}"
    now = json.loads(json.dumps(experiment(tmp_path, replay).resolved))
    before = json.loads(json.dumps(now))
    assert before["replay"]["data"]["init_args"].pop("num_workers") is not None
    assert before["replay"]["data"]["init_args"].pop("batch_size")
    assert changed_settings(completed(before), now) == {}


def test_long_values_are_shown_where_they_differ():
    old, new = "a" * 200 + "b" + "c" * 200, "a" * 200 + "d" + "c" * 200
    text = changed_settings({"model": old}, {"model": new})["model"]
    first, second = text.removeprefix("made with ").split(", asked for is ")
    assert first == "… " + "a" * 20 + "b" + "c" * 59 + " …"
    assert second == "… " + "a" * 20 + "d" + "c" * 59 + " …"
