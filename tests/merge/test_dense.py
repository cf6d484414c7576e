# Reference: the sum in fp64, and transformers' loader. Run: pytest tests/merge/test_dense.py
import json
import os
import shutil
import signal

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from artifacts.adapter_files import AdapterError, base_fingerprint, read_adapter
from artifacts.manifest import file_sha256
from merge import dense
from merge.__main__ import main
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
    assert manifest["reloaded_with"] == "safetensors"  # transformers knows no such model
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


def test_the_base_is_never_written_over(expert, tmp_path):
    base, weights = base_folder(tmp_path / "base")
    adapter, before = expert("a", seed=1, manifest=fingerprint_of(weights)), contents(base)
    for out in (base, base / "dense"):
        with pytest.raises(ValueError, match=r"lies in dense\.base"):
            write_dense(adapter, Dense(base), out)
    assert contents(base) == before


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def killed_after(shards, *arguments):
    """Write a dense checkpoint in another process, which is killed when so many shards are done; -1: while moving."""
    child = os.fork()
    if not child:
        keep, assemble, done = dense.keep, os.replace, []

        def counted(*args):
            if len(done) == shards:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(args)
            return keep(*args)

        def moved(place, to):
            assemble(place, to)
            if shards < 0 and ".dense." in str(to) and str(to).endswith("model-0.safetensors"):
                os.kill(os.getpid(), signal.SIGKILL)

        dense.keep, os.replace = counted, moved
        dense.write_dense(*arguments)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("after", [0, 1, 2, -1])
def test_a_dense_checkpoint_that_was_killed_goes_on_and_gives_the_same_bytes(expert, tmp_path, monkeypatch, after):
    base, tensors = base_folder(tmp_path / "base", torch.bfloat16, shards=3)
    adapter = expert("a", seed=1, manifest=fingerprint_of(tensors))
    write_dense(adapter, Dense(base), tmp_path / "whole")
    out = tmp_path / "out/dense"
    killed_after(after, adapter, Dense(base), out)
    assert not out.exists()
    (parts,) = out.parent.glob(".dense.parts-*")
    whole = [p for p in parts.glob("*.json") if p.with_suffix(".safetensors").exists()]
    assert len(whole) == (after if after >= 0 else 2)
    written = []
    keep = dense.keep
    monkeypatch.setattr("merge.dense.keep", lambda place, *rest: written.append(place) or keep(place, *rest))
    write_dense(adapter, Dense(base), out)
    assert len(written) == 3 - len(whole)
    assert contents(out) == contents(tmp_path / "whole")
    assert [p.name for p in out.parent.iterdir()] == ["dense"]


def test_a_shard_that_was_torn_is_written_again_and_those_of_another_base_are_dropped(expert, tmp_path):
    base, tensors = base_folder(tmp_path / "base", shards=2)
    adapter = expert("a", seed=1, manifest=fingerprint_of(tensors))
    write_dense(adapter, Dense(base), tmp_path / "whole")
    out = tmp_path / "out/dense"
    killed_after(1, adapter, Dense(base), out)
    (shard,) = out.parent.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    write_dense(adapter, Dense(base), out)
    assert contents(out) == contents(tmp_path / "whole")
    shutil.rmtree(out)
    killed_after(1, adapter, Dense(base), out)
    (before,) = out.parent.glob(".dense.parts-*")
    (base / "tokenizer.json").write_text('{"tokens": 2}')
    killed_after(1, adapter, Dense(base), out)
    (after,) = out.parent.glob(".dense.parts-*")
    assert before != after
    write_dense(adapter, Dense(base), out)
    assert (out / "tokenizer.json").read_text() == '{"tokens": 2}'


def test_a_checkpoint_that_stands_whole_is_left_and_a_damaged_or_other_one_is_replaced(expert, tmp_path, monkeypatch):
    base, tensors = base_folder(tmp_path / "base", torch.bfloat16, shards=2)
    adapter = expert("a", seed=1, scale=1e-6, manifest=fingerprint_of(tensors))
    accepted = Dense(base, accept_rounding=True)
    manifest = write_dense(adapter, accepted, tmp_path / "out")
    before, inode = contents(tmp_path / "out"), (tmp_path / "out").stat().st_ino
    assert write_dense(adapter, accepted, tmp_path / "out") == manifest
    assert (tmp_path / "out").stat().st_ino == inode
    with pytest.raises(ValueError, match="rounding takes"):  # what was accepted then is not accepted now
        write_dense(adapter, Dense(base), tmp_path / "out")
    shard = tmp_path / "out/model-1.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    write_dense(adapter, accepted, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    write_dense(adapter, Dense(base, dtype="float32"), tmp_path / "out")
    assert contents(tmp_path / "out") != before


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
    save_file(
        tensors | {"model.language_model.layers.0.q_proj.weight": torch.ones(24, 16)}, base / "model-0.safetensors"
    )
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
    told = capsys.readouterr().err.splitlines()
    assert ["dense.base: missing" in line for line in told] == [True, False]
    assert "dense.bse: unknown key; did you mean 'base'?" in told[1]
