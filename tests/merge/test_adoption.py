# Reference: PEFT 0.21.2's own layers and forward pass. Run: pytest tests/merge/test_adoption.py
import copy
import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from answering.merge_answers import MergeAnswers
from artifacts.adapter_files import AdapterError, base_fingerprint, read_adapter, write_adapter
from artifacts.adoption import adopt
from artifacts.lora_config import alpha_of, pattern_values
from experiment import live_model
from lightning_modules.families.base import head_logits
from merge.__main__ import main
from tests.campaigns import peft_configs
from tests.campaigns.peft_configs import drawn, outcome

FEW = 10


@pytest.mark.parametrize("seed", range(FEW))
def test_an_adopted_adapter_acts_as_in_peft_or_is_refused_for_its_reason(seed, tmp_path):
    assert outcome(seed, tmp_path) in ("equal", "refused", "refused by PEFT")


@pytest.mark.slow
def test_many_adopted_adapters_act_as_in_peft_or_are_refused_for_their_reason(tmp_path):
    found = [outcome(seed, tmp_path / str(seed)) for seed in range(FEW, 200)]
    assert found.count("equal") > 90
    assert found.count("refused") > 30


def test_what_is_drawn_depends_on_the_seed_alone_and_covers_every_spelling_and_reason():
    cases = [drawn(seed) for seed in range(600)]
    assert cases == [drawn(seed) for seed in range(600)]
    assert {case.spelling for case in cases} == set(peft_configs.SPELLINGS)
    assert {case.damage for case in cases} == {None, *peft_configs.DAMAGES}
    for key in ("exclude_modules", "layers_to_transform", "rank_pattern", "alpha_pattern", "use_dora", "lora_bias"):
        assert any(key in case.settings for case in cases)


def test_an_oracle_that_differs_is_seen(tmp_path, monkeypatch):
    seed = next(seed for seed in range(FEW) if outcome(seed, tmp_path / str(seed)) == "equal")
    real = peft_configs.adopt

    def doubled(folder, out, **how):
        real(folder, out, **how)
        adapter = read_adapter(out, base_fingerprint=None)
        tensors = {name: t * 2 if "lora_A" in name else t for name, t in adapter.tensors.items()}
        write_adapter(out, adapter.config, tensors, {"kind": "adopted", "base_fingerprint": "f" * 64})

    monkeypatch.setattr(peft_configs, "base_fingerprint", lambda _: "f" * 64)
    monkeypatch.setattr(peft_configs, "adopt", doubled)
    with pytest.raises(AssertionError, match="acting, logits apart"):
        outcome(seed, tmp_path / "again")


@pytest.fixture
def saved(tiny_policy, tmp_path):
    """An adapter of the tiny base as an older PEFT would have saved it, and the base."""
    base = tiny_policy.base(base_fingerprint(tiny_policy.family.named_parameters()))
    model = copy.deepcopy(tiny_policy.family.model)
    settings = {"r": 3, "target_modules": ["q_proj", "lm_head"], "layers_to_transform": None, "task_type": "CAUSAL_LM"}
    wrapped = get_peft_model(model, LoraConfig(**settings, init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "peft")
    path = tmp_path / "peft/adapter_model.safetensors"
    old = {name.replace("model.language_model.", "model."): tensor for name, tensor in load_file(path).items()}
    save_file(old, path)
    return tmp_path / "peft", base, old


def test_the_command_translates_older_names_and_says_what_it_left_out(saved, tmp_path, monkeypatch, capsys):
    folder, base, old = saved
    assert "base_model.model.lm_head.base_layer.weight" in old  # PEFT saves it by itself

    class Live:
        def base(self):
            return base

    monkeypatch.setattr(live_model, "merge_answers", lambda *_, **__: Live())
    arguments = ["adopt", "--adapter", str(folder), "--config", "made.yaml", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "written" in told
    assert "2 layers have older names" in told
    assert "left out: base_model.model.lm_head.base_layer.weight, which equals the base's" in told
    adapter = read_adapter(tmp_path / "out", base_fingerprint=base.fingerprint)
    assert set(adapter.tensors) == {
        f"base_model.model.{module}.lora_{side}.weight"
        for module in (*(f"model.language_model.layers.{i}.self_attn.q_proj" for i in (0, 1)), "lm_head")
        for side in "AB"
    }
    assert adapter.config["task_type"] == "CAUSAL_LM"
    assert adapter.config["base_model_name_or_path"] == "lightning_modules.families.tiny.TinyQwen2_5_VL"
    assert adapter.manifest["extra"]["base"]["class_path"] == "lightning_modules.families.tiny.TinyQwen2_5_VL"
    old["base_model.model.lm_head.base_layer.weight"][3, 3] += 1e-3
    save_file(old, folder / "adapter_model.safetensors")
    assert main([*arguments[:-1], str(tmp_path / "other")]) == 2
    assert "differs from the base's" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {n.replace("layers.1", "layers.5"): v for n, v in t.items()}, "no such layer"),
        (lambda t: {n: v[:, :-1] if "q_proj.lora_A" in n else v for n, v in t.items()}, "the update is"),
        (lambda t: t | {n.replace("model.layers", "model.language_model.layers"): v for n, v in t.items()}, "are both"),
        (lambda t: t | {n.replace("lora_A", "lora_A.other"): v for n, v in t.items()}, "comes twice"),
        (lambda t: t | {"base_model.model.lm_head.base_layer.weight": torch.ones(3, 4)}, "vocabulary resized"),
        (lambda t: t | {"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(3, 4)}, "linear layers"),
        (lambda t: t | {"base_model.model.lm_head.lora_B.bias": torch.ones(4)}, "lora_bias=False"),
        (lambda t: t | {"base_model.model.lm_head.lora_magnitude_vector": torch.ones(4)}, "use_dora=False"),
        (lambda t: t | {"a.stranger": torch.ones(4)}, "no part of a plain LoRA"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_base_is_refused_with_the_remedy(saved, tmp_path, change, message):
    folder, base, old = saved
    save_file({n: t.contiguous().clone() for n, t in change(old).items()}, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=message):
        adopt(folder, tmp_path / "out", base=base)
    assert not (tmp_path / "out").exists()


def test_another_task_is_refused(saved, tmp_path, rewrite):
    folder, base, _ = saved
    rewrite(folder / "adapter_config.json", task_type="SEQ_CLS")
    with pytest.raises(AdapterError, match="another head"):
        adopt(folder, tmp_path / "out", base=base)


def test_a_head_in_bfloat16_hears_its_adapter(tiny_policy):
    model = tiny_policy.family.model
    head = tiny_policy.family.model.lm_head
    hidden = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    A, B = torch.randn(2, 64) * 0.1, torch.randn(head.weight.shape[0], 2) * 0.1
    tensors = {f"base_model.model.lm_head.lora_{side}.weight": tensor for side, tensor in (("A", A), ("B", B))}
    tiny_policy.load_adapter("head", {"r": 2, "lora_alpha": 4}, tensors)
    model.lm_head.base_layer.weight.data = model.lm_head.base_layer.weight.data.bfloat16()
    plain = head_logits(model.lm_head, hidden)
    tiny_policy.activate(["head"])
    torch.testing.assert_close(head_logits(model.lm_head, hidden) - plain, 2 * hidden @ A.T @ B.T, rtol=1e-4, atol=1e-5)


def test_patterns_by_hand():
    assert pattern_values({"q_proj": 3, "0.q_proj": 5, "v": 7}, "layers.0.q_proj", 1) == [3, 5]
    assert pattern_values({"(q|v)_proj": 3}, "layers.0.q_proj", 1) == [3]
    assert pattern_values(None, "layers.0.q_proj", 1) == [1]
    for forever in ("(a+)+", "(a|a)(a|a)", "(?=a)", "a*b*c*d*"):
        with pytest.raises(AdapterError, match="take forever"):
            pattern_values({forever: 1}, "layers.0.q_proj", 1)
    config = {"r": 2, "lora_alpha": 4, "rank_pattern": {"q": 3, ".*q": 5}, "alpha_pattern": {"v": 1, ".*v": 2}}
    assert alpha_of(config, ["a.q"], 3, "here") == alpha_of(config, ["a.q"], 5, "here") == 4
    with pytest.raises(AdapterError, match="says rank 3, the factors have 2"):
        alpha_of(config, ["a.q"], 2, "here")
    for strange in (True, "8", None, float("nan"), float("inf"), 10**400):
        with pytest.raises(AdapterError, match="expected a finite number"):
            alpha_of({"r": 2, "lora_alpha": strange}, ["a.q"], 2, "here")
    with pytest.raises(AdapterError, match=r"gives it \[1, 2\]"):
        alpha_of(config, ["a.v"], 2, "here")


def test_a_merge_whose_experts_do_not_fit_the_live_base_is_refused(saved, tmp_path, monkeypatch, capsys, tiny_policy):
    folder, base, _ = saved
    adopt(folder, tmp_path / "good", base=base)
    adapter = read_adapter(tmp_path / "good", base_fingerprint=None)
    strange = {name.replace("layers.1", "layers.6"): tensor for name, tensor in adapter.tensors.items()}
    manifest = {"kind": "dsa", "base_fingerprint": base.fingerprint}
    write_adapter(tmp_path / "bad", adapter.config, strange, manifest)

    class Live(MergeAnswers):
        def __init__(self):
            pass

        def base(self):
            return base

    monkeypatch.setattr(live_model, "merge_answers", lambda *_, **__: Live())
    recipe = {"sources": {"a": "bad"}, "method": "mean", "out": "out", "live": {"config": "made.yaml", "gate_n": 0}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["run", "--config", str(tmp_path / "recipe.yaml")]) == 2
    assert "bad: model.language_model.layers.6.self_attn.q_proj: the base has no such layer" in capsys.readouterr().err
    assert not (tmp_path / "out/adapter").exists()
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe | {"sources": {"a": "good"}}))
    assert main(["run", "--config", str(tmp_path / "recipe.yaml")]) == 0
