# Reference: transformers 5.23 and PEFT 0.21.2 as their users call them. Run: pytest tests/merge/test_reload.py
import json
import re

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, Qwen2_5_VLForConditionalGeneration

from artifacts.adapter_files import AdapterError, base_fingerprint, read_adapter, write_adapter
from artifacts.base_origin import base_name, loading_lines
from lightning_modules.adapters import LoRASettings
from lightning_modules.families.qwen2_5_vl import Qwen2_5_VL
from lightning_modules.families.tiny import TinyQwen2_5_VL
from lightning_modules.policy import Policy
from merge import dense
from merge.__main__ import main
from merge.dense import Dense, write_dense
from merge.peft_layout import task_vector_of
from merge.reload import declaring
from tests.conftest import made_example, randomise_adapter
from tests.lightning_modules.families.shapes import QWEN2_5_VL


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A published checkpoint in small: bf16, the key layout of Qwen2.5-VL on the hub, its tokenizer."""
    return QWEN2_5_VL.write(tmp_path_factory.mktemp("hub") / "Tiny-VL", tied=True)


@pytest.fixture(scope="module")
def policy(checkpoint):
    return Policy(Qwen2_5_VL(Qwen2_5_VL.Config(path=str(checkpoint), dtype="float32")))


def policy_fingerprint(policy):
    """As it was before PEFT wrapped its layers."""
    tensors = policy.family.named_parameters()
    return base_fingerprint((n.replace(".base_layer.", "."), t) for n, t in tensors if ".lora_" not in n)


def expert(policy, folder, seed, scale=1e-4):
    """A small update, as a few steps of RL make it."""
    fingerprint = policy_fingerprint(policy)
    policy.add_adapter("dsa", LoRASettings(rank=2, alpha=4.0))
    randomise_adapter(policy, "dsa", seed=seed, scale=scale)
    config, tensors = policy.adapter_state("dsa")
    policy.remove_adapter("dsa")
    extra = {"base": policy.family.origin}
    write_adapter(folder, config, tensors, {"kind": "dsa", "base_fingerprint": fingerprint, "extra": extra})
    return folder


def test_a_published_checkpoint_made_dense_loads_as_it_was_written_whatever_its_config_said(
    checkpoint, policy, tmp_path
):
    adapter = expert(policy, tmp_path / "adapter", 0)
    assert json.loads((checkpoint / "config.json").read_text())["torch_dtype"] == "bfloat16"
    manifest = write_dense(adapter, Dense(checkpoint, dtype="float32"), tmp_path / "dense")
    assert re.fullmatch(r"transformers 5\.\S+ Qwen2_5_VLForConditionalGeneration", manifest["reloaded_with"])
    config = json.loads((tmp_path / "dense/config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "float32"
    assert config["vision_config"].get("dtype", "float32") == "float32"
    vector = task_vector_of(read_adapter(adapter, base_fingerprint=None))
    before = dict(Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint).named_modules())
    after = dict(AutoModelForImageTextToText.from_pretrained(tmp_path / "dense").named_modules())
    for module in vector:
        update = after[module].weight - before[module].weight.float()
        assert after[module].weight.dtype == torch.float32
        assert (update - vector.delta(module)).norm() < 0.01 * vector.delta(module).norm()
    with pytest.raises(ValueError, match="rounding takes"):
        write_dense(adapter, Dense(checkpoint), tmp_path / "rounded")


def test_a_checkpoint_in_the_base_s_own_precision_keeps_its_config(checkpoint, policy, tmp_path):
    adapter = expert(policy, tmp_path / "adapter", 1, scale=0.5)
    write_dense(adapter, Dense(checkpoint, accept_rounding=True), tmp_path / "dense")
    assert (tmp_path / "dense/config.json").read_bytes() == (checkpoint / "config.json").read_bytes()


def test_another_checkpoint_of_the_same_shape_is_refused_by_its_fingerprint(checkpoint, policy, tmp_path):
    adapter = expert(policy, tmp_path / "adapter", 0)
    other = tmp_path / "other"
    other.mkdir()
    for path in checkpoint.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (shard,) = (path for path in other.glob("*.safetensors") if "model.norm.weight" in load_file(path))
    tensors = load_file(shard)
    tensors["model.norm.weight"] += 0.5
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(AdapterError, match="its weights have the fingerprint"):
        write_dense(adapter, Dense(other, dtype="float32"), tmp_path / "dense")


@pytest.mark.parametrize("fault", ["config", "weights"])
def test_what_transformers_would_read_otherwise_is_never_called_done(checkpoint, policy, tmp_path, monkeypatch, fault):
    adapter = expert(policy, tmp_path / "adapter", 0)
    if fault == "config":
        monkeypatch.setattr(dense, "written_config", lambda *_: None)
        message = "transformers reads it as torch.bfloat16 with other values"
    else:
        real = dense.changed

        def spoilt(weight, module, vector, settings):
            return real(weight, None if module and "layers.1" in module else module, vector, settings)

        monkeypatch.setattr(dense, "stored_dtype", lambda weight, settings: weight.dtype)
        monkeypatch.setattr(dense, "changed", spoilt)
        adapter = expert(policy, tmp_path / "adapter", 0, scale=0.5)
        message = "is not what was written"
    with pytest.raises(AdapterError, match=message):
        write_dense(adapter, Dense(checkpoint, dtype="float32", accept_rounding=True), tmp_path / "dense")
    assert not (tmp_path / "dense").exists()


@pytest.mark.parametrize(
    ("config", "dtypes", "expected"),
    [
        ({"dtype": "bfloat16"}, ["BF16"], {"dtype": "bfloat16"}),
        ({"torch_dtype": "bfloat16"}, ["F32"], {"torch_dtype": "float32", "dtype": "float32"}),
        ({}, ["F16"], {"torch_dtype": "float16", "dtype": "float16"}),
        ({"dtype": "float16"}, ["F16", "BF16"], {"torch_dtype": "float32", "dtype": "float32"}),
        (
            {"dtype": "float32", "text_config": {"dtype": "bfloat16", "size": 1}, "vision_config": {"depth": 2}},
            ["F32"],
            {"dtype": "float32", "torch_dtype": "float32", "text_config": {"dtype": "float32", "size": 1},
             "vision_config": {"depth": 2}},
        ),
        (
            {"dtype": "bfloat16", "quantization_config": {"dtype": "int4"}},
            ["F32"],
            {"dtype": "float32", "torch_dtype": "float32", "quantization_config": {"dtype": "int4"}},
        ),
    ],
)  # fmt: skip
def test_the_declared_precision_by_hand(config, dtypes, expected):
    assert declaring(config, dtypes) == expected


def lines_of(card):
    (lines,) = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
    assert len(lines.splitlines()) == 5
    return lines


def test_the_five_lines_of_a_merged_agent_s_card_load_it(checkpoint, policy, tmp_path, monkeypatch):
    for seed, name in enumerate("ab"):
        expert(policy, tmp_path / name, seed, scale=0.05)
    recipe = {"sources": {"a": "a", "b": "b"}, "method": "mean", "out": "out"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", "--config", str(tmp_path / "recipe.yaml")]) == 0
    config = json.loads((tmp_path / "out/adapter/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["task_type"]) == (str(checkpoint), "CAUSAL_LM")
    lines = lines_of(tmp_path / "out/README.md")
    assert "lightning_modules" not in lines
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    space = {}
    exec(lines, space)
    agent, adapter = space["agent"], read_adapter(tmp_path / "out/adapter", base_fingerprint=None)
    assert isinstance(agent, PeftModel)
    policy.bare()
    policy.load_adapter("agent", adapter.config, adapter.tensors)
    policy.activate(["agent"])
    prompt = policy.prompt(made_example(0, sizes=()), "")
    ids = torch.tensor([prompt.ids])
    with torch.no_grad():
        expected = policy.family.logits(
            policy.hidden_states(policy.line([policy.prompt(made_example(0, sizes=()), "")], [[]]))
        )
        torch.testing.assert_close(agent(input_ids=ids).logits[0], expected, rtol=1e-4, atol=1e-5)
        with agent.disable_adapter():
            assert not torch.allclose(agent(input_ids=ids).logits[0], expected, atol=1e-3)


def test_the_five_lines_for_a_base_that_was_trained_here(tmp_path, monkeypatch):
    settings = {"corpus": "tests.conftest.corpus", "hidden": 32, "layers": 1, "heads": 2, "intermediate": 32}
    made = Policy(TinyQwen2_5_VL(TinyQwen2_5_VL.Config(**settings)))
    adapter = expert(made, tmp_path / "adapter", 0, scale=0.05)
    lines = loading_lines(read_adapter(adapter, base_fingerprint=None).manifest["extra"]["base"])
    assert len(lines) == 5
    monkeypatch.chdir(tmp_path)
    space = {}
    exec("\n".join(lines), space)
    weights = space["agent"].get_base_model().model.language_model.layers[0].mlp.up_proj
    torch.testing.assert_close(
        weights.base_layer.weight, made.family.model.model.language_model.layers[0].mlp.up_proj.weight
    )
    assert weights.lora_B["default"].weight.abs().sum() > 0


def test_what_is_no_origin_gives_no_lines_and_runs_nothing():
    assert loading_lines(None) == loading_lines("x") == loading_lines({"class_path": "os.system"}) == []
    assert loading_lines({"class_path": "os.system", "init_args": {}, "weights": None}) == []
    assert loading_lines({"class_path": "lightning_modules.families.x; import os", "init_args": {}}) == []
    lines = loading_lines({"class_path": "a.B", "init_args": {"path": 'x"); import os; ("'}, "weights": None})
    compile("\n".join(lines), "card", "exec")
    assert all("import os" not in line.replace(repr('x"); import os; ("'), "") for line in lines)
    named = {"class_path": "a.B", "init_args": {"path": "org/model"}}
    assert [base_name(named | {"weights": w}) for w in (None, "runs/base")] == ["org/model", "runs/base"]
