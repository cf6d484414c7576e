# Reference: the sum in fp64, and transformers' loader. Run: pytest tests/merge/test_dense.py
import json

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from merge.__main__ import main
from merge.adapter_files import AdapterError, base_fingerprint, file_sha256, read_adapter
from merge.dense import Dense, rounding_loss, write_dense
from merge.peft_layout import task_vector_of
from tests.merge.conftest import SHAPES


def base_folder(folder, dtype=torch.float32, shards=1, scale=1.0):
    """A checkpoint with the experts' modules, something beside them, and a tokenizer."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    tensors = {f"{m}.weight": (scale * torch.randn(*s, generator=generator)).to(dtype) for m, s in SHAPES.items()}
    tensors |= {"model.norm.weight": torch.ones(16, dtype=dtype), "model.steps": torch.tensor([3])}
    names = sorted(tensors)
    for number in range(shards):
        part = {name: tensors[name] for name in names[number::shards]}
        save_file(part, folder / f"model-{number}.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_text('{"tokens": 1}')
    (folder / "config.json").write_text("{}")
    return folder, tensors


def fingerprint_of(tensors):
    """For an expert's manifest."""
    return {"base_fingerprint": base_fingerprint(tensors.items())}


def loaded(folder):
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dense_checkpoint_is_the_base_plus_the_update(expert, tmp_path, dtype, shards):
    base, before = base_folder(tmp_path / "base", dtype, shards)
    adapter = expert("a", seed=1, manifest=fingerprint_of(before))
    manifest = write_dense(adapter, Dense(base), tmp_path / "dense")
    vector = task_vector_of(read_adapter(adapter, base_fingerprint=None))
    after = loaded(tmp_path / "dense")
    assert set(after) == set(before)
    for module in SHAPES:
        exact = before[f"{module}.weight"].double() + vector.delta(module).double()
        found = after[f"{module}.weight"]
        assert found.dtype == dtype
        torch.testing.assert_close(found, exact.float().to(dtype), rtol=1e-6, atol=1e-6)
        loss = ((found.double() - exact).norm() / vector.delta(module).double().norm()).item()
        assert manifest["rounding_loss"][module] == pytest.approx(loss, rel=1e-3)
    for name in ("model.norm.weight", "model.steps"):
        assert torch.equal(after[name], before[name])
    assert (tmp_path / "dense/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    for name, sha256 in manifest["files"].items():
        assert file_sha256(tmp_path / "dense" / name) == sha256
    if shards > 1:
        index = json.loads((tmp_path / "dense/model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in after.values())
        for name, shard in index["weight_map"].items():
            with safe_open(tmp_path / "dense" / shard, framework="pt") as file:
                assert name in file.keys()
    again = write_dense(adapter, Dense(base), tmp_path / "again")
    assert again == manifest


def test_an_update_that_bf16_would_erase_is_refused_unless_accepted_or_kept_in_fp32(expert, tmp_path):
    # Weights near 1 have a bf16 spacing of 2^-8 to 2^-7; an update of 1e-5 vanishes.
    base, tensors = base_folder(tmp_path / "base", torch.bfloat16)
    adapter = expert("small", seed=1, scale=1e-6, manifest=fingerprint_of(tensors))
    with pytest.raises(ValueError, match=r"rounding takes .* of the update of model\.layers"):
        write_dense(adapter, Dense(base), tmp_path / "dense")
    assert not (tmp_path / "dense").exists()
    manifest = write_dense(adapter, Dense(base, accept_rounding=True), tmp_path / "dense")
    assert max(manifest["rounding_loss"].values()) > 0.5
    manifest = write_dense(adapter, Dense(base, dtype="float32"), tmp_path / "wide")
    assert max(manifest["rounding_loss"].values()) < 0.05
    after = loaded(tmp_path / "wide")
    assert {after[f"{m}.weight"].dtype for m in SHAPES} == {torch.float32}
    assert after["model.norm.weight"].dtype == torch.bfloat16


def test_rounding_loss_by_hand():
    # 1 + 2^-9 lies halfway between bf16's 1 and 1 + 2^-7 / ... : it becomes 1, and the whole update is lost
    assert rounding_loss(torch.ones(1, 1, dtype=torch.bfloat16), torch.full((1, 1), 2.0**-9), "BF16") == 1.0
    assert rounding_loss(torch.ones(1, 1, dtype=torch.bfloat16), torch.full((1, 1), 2.0**-7), "BF16") == 0.0
    assert rounding_loss(torch.ones(1, 1), torch.zeros(1, 1), "F32") == 0.0


def test_bases_that_do_not_fit_are_refused(expert, tmp_path):
    adapter = expert("a", seed=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterError, match="no safetensors"):
        write_dense(adapter, Dense(tmp_path / "empty"), tmp_path / "dense")
    base, tensors = base_folder(tmp_path / "base")
    with pytest.raises(AdapterError, match="its weights have the fingerprint"):  # same shapes, other weights
        write_dense(adapter, Dense(base), tmp_path / "dense")
    write_dense(adapter, Dense(base, accept_other_base=True), tmp_path / "dense")
    save_file({"model.layers.0.q_proj.weight": torch.ones(24, 17)}, base / "model-0.safetensors")
    with pytest.raises(AdapterError, match=r"q_proj of shape \(24, 16\) has no weight"):
        write_dense(adapter, Dense(base, accept_other_base=True), tmp_path / "dense")
    save_file(tensors | {"copy.model.layers.0.q_proj.weight": torch.ones(24, 16)}, base / "model-0.safetensors")
    with pytest.raises(AdapterError, match="or several"):
        write_dense(adapter, Dense(base, accept_other_base=True), tmp_path / "dense")
    with pytest.raises(AdapterError, match="fan_in_fan_out"):
        write_dense(expert("conv", seed=1, fan_in_fan_out=True), Dense(base), tmp_path / "dense")
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(AdapterError, match="pickled"):
        write_dense(adapter, Dense(base, accept_other_base=True), tmp_path / "dense")
    with pytest.raises(ValueError, match=r"dense\.dtype"):
        Dense(base, dtype="int8")


def test_a_recipe_may_ask_for_a_dense_checkpoint(expert, tmp_path, capsys):
    _, tensors = base_folder(tmp_path / "base")
    for seed, name in enumerate("ab"):
        expert(name, seed=seed, manifest=fingerprint_of(tensors))
    recipe = {
        "sources": {"a": "a/adapter", "b": "b/adapter"},
        "method": "mean",
        "out": "out",
        "dense": {"base": "base", "dtype": "float32"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", "--config", str(tmp_path / "recipe.yaml")]) == 0
    assert "rounding takes at most" in capsys.readouterr().out
    assert set(loaded(tmp_path / "out/dense")) == set(loaded(tmp_path / "base"))
    verify = ["verify", "--config", str(tmp_path / "recipe.yaml")]
    assert main(verify) == 0
    shard = tmp_path / "out/dense/model-0.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    assert main(verify) == 2
    assert "model-0.safetensors: missing or not what" in capsys.readouterr().err
    recipe["dense"] = {"bse": "base"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", "--config", str(tmp_path / "recipe.yaml")]) == 2
    assert "dense: " in capsys.readouterr().err
