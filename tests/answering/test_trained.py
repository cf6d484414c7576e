"""Reference: folders as they lie. What is named is found, and nothing in a manifest runs. Run: pytest <this file>."""

import shutil
from pathlib import Path

import pytest

from answering.trained import ROOT, of_one_base, trained
from artifacts.adapter_files import AdapterError
from artifacts.base_origin import placed
from lightning_modules.families.found import UnknownOriginError, family_of

TINY = ROOT / "configs/model/tiny_base"
FAMILY = "lightning_modules.families.tiny.TinyQwen2_5_VL"


def test_a_checkpoint_is_a_base_and_two_are_not_served_together(tmp_path):
    shutil.copy(TINY / "config.json", tmp_path)
    here, there = trained([str(TINY)]), trained([str(tmp_path)])
    assert [(member.name, member.adapters) for member in of_one_base(here)] == [("base", ())]
    assert len(of_one_base([*here, *trained([f"{TINY}/../tiny_base"])])) == 1  # the same, spelt in another way
    with pytest.raises(AdapterError, match="of different bases"):
        of_one_base([*here, *there])


@pytest.mark.parametrize(
    "class_path",
    [
        *(
            "subprocess.Popen",
            "os.system",
            "builtins.exec",
            "x",
            "",
            "tests.conftest.corpus",
            "answering.trained.trained",
        ),
        *("answering.live_base.LiveBase", "lightning_modules.families.base.VisionLanguageFamily", "torch.nn.Linear"),
    ],
)
def test_only_families_of_ours_are_built(class_path):
    with pytest.raises(UnknownOriginError, match="the base is from"):
        family_of({"class_path": class_path, "init_args": {}, "weights": None})


def test_settings_of_a_manifest_run_nothing():
    for settings in ({"corpus": "os.getcwd"}, {"corpus": "subprocess.getoutput"}, {"no_such_setting": 1}):
        with pytest.raises(UnknownOriginError):
            family_of({"class_path": FAMILY, "init_args": settings, "weights": None})


def test_a_base_is_found_where_it_was_beside_the_adapter_or_in_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter = tmp_path / "new/runs/gba/alpha/adapter"
    adapter.mkdir(parents=True)

    def found(path=None, weights=None, **more):
        origin = placed({"class_path": "c", "init_args": {"path": path} | more, "weights": weights}, adapter, ROOT)
        return origin["init_args"]["path"], origin["weights"]

    assert found("org/name", revision="main") == ("org/name", None)  # of the hub
    assert found("/gone/for/good") == ("/gone/for/good", None)
    assert Path(found("configs/model/tiny_base")[0]).samefile(TINY)
    assert found(str(TINY)) == (str(TINY), None)
    base = tmp_path / "new/runs/tiny/mixed/base"
    base.mkdir(parents=True)
    (base / "model.safetensors").write_bytes(b"")
    for written in ("runs/tiny/mixed/base", "/old/machine/runs/tiny/mixed/base", str(base)):
        assert Path(found(weights=written)[1]).samefile(base)
    (tmp_path / "models/mine").mkdir(parents=True)
    (tmp_path / "models/mine/config.json").write_text("{}")
    assert found("models/mine") == ("models/mine", None)  # as it is called, from here
    with pytest.raises(AdapterError, match="runs/gba holds alpha"):
        trained([str(adapter.parent.with_name("alfa"))])
