"""`python -m experiment.export` through its command: what it writes is the base, for transformers and for us."""

import json

import pytest
import torch
import yaml
from peft import LoraConfig
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from answering.trained import Trained
from artifacts.adapter_files import acting_sha256, write_adapter
from callbacks.evaluate_experts import write_tables
from configs.build import build
from configs.checkpoints import model_of
from configs.load import load
from configs.schema import Component
from experiment.export import main
from experiment.export_card import Card
from experiment.run import assemble
from lightning_modules.families.base import VisionLanguageFamily
from tests.conftest import made_example


def export(machine, out, *more, run="base/mixed"):
    return main([str(machine.runs / run), "--out", str(out), *more])


def trained(machine):
    """The base as experts stand on it."""
    policy, _ = assemble(load(str(machine.files / "dsa.yaml"), [f"runs_dir={machine.runs}"])).policy()
    return policy


def said(policy):
    with torch.no_grad():
        return policy.score([policy.prompt(made_example(0), "")], [policy.family.text_ids("heart 62 of 110")]).logps


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_checkpoint_is_the_trained_base(based, tmp_path, dtype, capsys):
    assert export(based, tmp_path / "mine", "--dtype", dtype) == 0
    printed = capsys.readouterr().out
    assert f"in {dtype}" in printed
    assert "sha256 of model.safetensors" in printed
    policy = trained(based)
    for parameter in policy.family.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype)).float()
    found = model_of(str(tmp_path / "mine"))
    assert found["class_path"] == "lightning_modules.families.qwen2_5_vl.Qwen2_5_VL"
    loaded = type(policy)(build(Component(found["class_path"], {**found["init_args"], "dtype": "float32"})))
    assert torch.equal(said(policy), said(loaded))
    assert loaded.prompt(made_example(0), "").ids == policy.prompt(made_example(0), "").ids


def test_the_card_tells_what_it_is_and_how_it_was_made(based, tmp_path):
    assert export(based, tmp_path / "mine", "--license", "cc-by-4.0") == 0
    told = (tmp_path / "mine/README.md").read_text()
    assert told.startswith('---\nlibrary_name: transformers\nlicense: "cc-by-4.0"\n')
    assert "# base\n" in told
    assert "| base | mixed | 40 |" in told
    assert f"python -m experiment.export {based.runs}/base/mixed --dtype float32 --out {tmp_path}/mine" in told
    lines = told.partition("```python\n")[2].partition("```")[0].splitlines()
    assert len(lines) == 5
    compile("\n".join(lines), "card", "exec")


def test_a_card_shows_test_questions_to_these_very_weights_alone(tmp_path):
    runs, names = tmp_path / "runs", [f"base_model.model.layers.0.q.lora_{side}.weight" for side in "AB"]
    adapter = runs / "dsa" / "alpha" / "adapter"

    def train(value):
        config = LoraConfig(r=1, lora_alpha=1, target_modules=["q"]).to_dict()
        tensors = dict(zip(names, (torch.ones(1, 2), torch.full((2, 1), value)), strict=True))
        write_adapter(adapter, config, tensors, {"kind": "dsa", "base_fingerprint": "f"})

    def examine(name, accuracy, **ways):
        folder = runs / name / "evaluation"
        folder.mkdir(parents=True)
        rows = ["model", "alpha/accuracy", "alpha/low", "alpha/high", "alpha/n"], ["base", 0.25, 0.1, 0.4, 60]
        text = "".join(",".join(map(str, row)) + "\n" for row in (*rows, ["dsa/alpha", accuracy, 0.1, 0.9, 60]))
        write_tables(folder, {"matrix.csv": text}, {"dsa/alpha": [acting_sha256(adapter)], "base": []})
        plain = {"split": "test", "samples": 1, "temperature": 0.0, "guidelines": ["neutral"]}
        one = {"class_path": "callbacks.evaluate_experts.EvaluateExperts", "init_args": plain | ways}
        (runs / name / "experiment.json").write_text(json.dumps({"callbacks": {"merge": None, "evaluate": one}}))

    def told():
        return "\n".join(Card(Trained("dsa/alpha", (adapter,), {}), None).results())

    train(0.5)
    assert "Nobody has asked these weights test questions yet" in told()
    examine("dsa", 0.5)
    assert "50.0 [10.0, 90.0], n = 60" in told()
    # a verifier's examination is the newest one, and of validation questions, which settings are chosen by
    examine("sampled_val", 0.75, split="val")
    assert "50.0" in told()
    assert "75.0" not in told()
    examine("sampled", 0.625, temperature=0.7, samples=4)
    assert "62.5" in told()
    assert "(temperature 0.7, samples 4)" in told()
    # trained on since: the matrices are of other weights
    train(0.75)
    assert "Nobody has asked these weights test questions yet" in told()


def test_a_base_whose_numbers_cannot_be_compared_is_not_exported(based, tmp_path, capsys, monkeypatch):
    def broken(self, weights, **options):
        load_weights(self, weights, **options)
        with torch.no_grad():
            next(self.parameters()).fill_(float("nan"))

    load_weights = VisionLanguageFamily.load_weights
    monkeypatch.setattr(VisionLanguageFamily, "load_weights", broken)
    assert export(based, tmp_path / "mine") == 1
    assert "differs from what was exported" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_plain_transformers_loads_it(based, tmp_path):
    assert export(based, tmp_path / "mine") == 0
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "mine")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "mine")
    policy = trained(based)
    own = dict(policy.family.model.named_parameters())
    assert all(torch.equal(own[name], parameter) for name, parameter in model.named_parameters())
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "heart?"}]}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert tokenizer(text)["input_ids"] == policy.family.prompt_ids("heart?", [1])
    assert AutoImageProcessor.from_pretrained(tmp_path / "mine").size == policy.family.image_processor.size


def test_what_is_no_run_and_what_is_no_export_is_refused_and_kept(based, tmp_path, capsys):
    assert export(based, tmp_path / "mine", run="dsa/alpha") == 1
    assert "no such folder" in capsys.readouterr().err
    assert export(based, tmp_path / "mine", "--adapter") == 2
    assert "is a base, and has no adapter" in capsys.readouterr().err
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.tex").write_text("x")
    assert export(based, tmp_path / "thesis") == 2
    assert "holds something else than an export" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "text.tex"]
    assert export(based, tmp_path / "again") == export(based, tmp_path / "again") == 0
    (tmp_path / "again" / "notes.tex").write_text("x")
    assert export(based, tmp_path / "again") == 2
    assert "(notes.tex)" in capsys.readouterr().err
    assert (tmp_path / "again" / "notes.tex").exists()
    assert export(based.at(tmp_path / "none"), tmp_path / "mine") == 1
    assert not (tmp_path / "mine").exists()


def test_a_model_beside_its_file_is_found_from_anywhere(based, tmp_path, monkeypatch):
    assert export(based, tmp_path / "files" / "mine") == 0
    model = {"class_path": "lightning_modules.families.qwen2_5_vl.Qwen2_5_VL", "init_args": {"path": "mine"}}
    content = yaml.safe_load((based.files / "dsa.yaml").read_text()) | {"model": model, "requires": []}
    (tmp_path / "files" / "own.yaml").write_text(yaml.safe_dump(content))
    for folder, named in ((tmp_path, "files/mine"), (based.files, str(tmp_path / "files" / "mine"))):
        monkeypatch.chdir(folder)
        assert load(str(tmp_path / "files" / "own.yaml")).experiment.model.init_args["path"] == named
