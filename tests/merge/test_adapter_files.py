# Reference: PEFT 0.21.2's loader, and damage done by hand. Run: pytest tests/merge/test_adapter_files.py
import errno
import json
import os
import resource
import signal

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from artifacts import adapter_checks, durable
from artifacts.adapter_files import (
    AdapterError,
    adapter_sha256,
    base_fingerprint,
    is_complete,
    open_adapter,
    read_adapter,
    write_adapter,
)
from artifacts.manifest import file_sha256
from merge.factors import Factors, TaskVector
from merge.peft_layout import merged_config, task_vector_of, tensor_name

A, B = "base_model.model.layer.lora_A.weight", "base_model.model.layer.lora_B.weight"
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
MANIFEST = {"kind": "dsa", "base_fingerprint": "f" * 64}


def factors(value=1.0):
    return {A: torch.full((2, 5), value), B: torch.full((3, 2), value)}


def refused(folder, match):
    """Both ways of reading an adapter refuse it with the same words."""
    for read in (read_adapter, open_adapter):
        with pytest.raises(AdapterError, match=match):
            read(folder, base_fingerprint=None)


def replace_weights(folder, tensors):
    """Put other weights into an adapter and correct the manifest, as an attacker or a careless script would."""
    save_file(tensors, folder / "adapter_model.safetensors")
    reseal(folder)


def reseal(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        entry.update(bytes=(folder / name).stat().st_size, sha256=file_sha256(folder / name))
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def folder(tmp_path):
    write_adapter(tmp_path / "adapter", CONFIG, factors(), MANIFEST)
    return tmp_path / "adapter"


def test_what_is_written_is_read(folder):
    adapter = read_adapter(folder, base_fingerprint="f" * 64)
    assert {name: t.tolist() for name, t in adapter.tensors.items()} == {n: t.tolist() for n, t in factors().items()}
    assert adapter.config == CONFIG
    assert adapter.manifest["kind"] == "dsa"
    assert adapter.manifest["parent"] is None
    assert adapter_sha256(folder) == file_sha256(folder / "adapter_model.safetensors")
    assert is_complete(folder)
    assert os.listdir(folder.parent) == ["adapter"]


def test_the_same_adapter_gives_the_same_bytes(folder, tmp_path):
    turned = dict(reversed(list(factors().items())))
    write_adapter(tmp_path / "again", CONFIG, turned, MANIFEST)
    for name in os.listdir(folder):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_writing_again_replaces(folder):
    before = adapter_sha256(folder)
    write_adapter(folder, CONFIG, factors(2.0), MANIFEST)
    assert adapter_sha256(folder) != before
    assert read_adapter(folder, base_fingerprint=None).tensors[A][0, 0] == 2
    assert os.listdir(folder.parent) == ["adapter"]


def test_peft_configurations_and_metrics_that_are_not_finite_can_be_written(tmp_path):
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["b", "a"]).to_dict()
    manifest = MANIFEST | {"metrics": {"loss": float("nan")}, "extra": {"place": tmp_path}}
    write_adapter(tmp_path / "adapter", config, factors(), manifest)
    adapter = read_adapter(tmp_path / "adapter", base_fingerprint=None)
    assert adapter.config["target_modules"] == ["a", "b"]
    assert adapter.config["peft_type"] == "LORA"
    assert adapter.manifest["metrics"] == {"loss": None}


def test_the_fingerprint_depends_on_names_shapes_dtypes_and_contents_but_not_on_order():
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.tensor(1)}
    reference = base_fingerprint(weights.items())
    assert reference == base_fingerprint(reversed(list(weights.items())))
    assert len(reference) == 64
    changed = [
        weights | {"a": weights["a"].reshape(3, 2)},
        weights | {"a": weights["a"] + torch.eye(2, 3) * 1e-6},
        weights | {"b": weights["b"].half()},
        weights | {"d": torch.zeros(1)},
        {"x": weights["a"], "b": weights["b"], "c": weights["c"]},
    ]
    assert len({base_fingerprint(other.items()) for other in changed} | {reference}) == 6
    assert base_fingerprint((weights | {"a": weights["a"].T.contiguous().T}).items()) == reference
    with pytest.raises(ValueError, match="twice"):
        base_fingerprint([("a", weights["a"]), ("a", weights["a"])])
    with pytest.raises(ValueError, match="no weights"):
        base_fingerprint([])


def test_another_base_is_refused_with_both_fingerprints(folder):
    with pytest.raises(AdapterError, match="adapters of one base do not fit another") as caught:
        read_adapter(folder, base_fingerprint="0" * 64)
    assert "f" * 64 in str(caught.value)
    assert "0" * 64 in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights"),
        ({"peft_type": "LOHA"}, "peft_type"),
        ({"kasa_config": {"k": 1}}, "kasa_config"),
        ({"a_variant_of_the_future": {"x": 1}}, "a_variant_of_the_future"),
    ],
)
def test_variants_whose_update_is_not_s_b_a_are_refused_by_name(folder, rewrite, setting, name):
    rewrite(folder / "adapter_config.json", **setting)
    reseal(folder)
    refused(folder, name)
    with pytest.raises(AdapterError, match=name):
        write_adapter(folder.parent / "other", CONFIG | setting, factors(), MANIFEST)
    assert not (folder.parent / "other").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(folder, value):
    tensors = factors()
    tensors[B][1, 1] = value
    with pytest.raises(AdapterError, match=r"lora_B.*NaN or infinity"):
        write_adapter(folder.parent / "other", CONFIG, tensors, MANIFEST)
    replace_weights(folder, tensors)
    refused(folder, r"lora_B.*NaN or infinity")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({A: torch.ones(2, 5), B: torch.ones(3, 4)}, "one r"),
        ({A: torch.ones(2, 5)}, "partner"),
        ({A: torch.ones(0, 5), B: torch.ones(3, 0)}, "one r"),
        ({A: torch.ones(2, 5, dtype=torch.int32), B: torch.ones(3, 2)}, "expected a matrix of"),
        ({A: torch.ones(2, 5, 1), B: torch.ones(3, 2)}, "matrix"),
        (factors() | {"base_model.model.layer.lora_magnitude_vector.weight": torch.ones(3)}, "not of the form"),
        (factors() | {"base_model.model.lm_head.weight": torch.ones(3, 3)}, "not of the form"),
        ({}, "no LoRA factors"),
    ],
)
def test_tensors_that_are_no_lora_are_refused(folder, tensors, message):
    replace_weights(folder, tensors)
    refused(folder, message)


def test_changed_bytes_are_found(folder):
    path = folder / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert is_complete(folder)  # sizes only
    refused(folder, "not what the manifest recorded")
    path.write_bytes(content[:-1])
    assert not is_complete(folder)


def test_a_folder_without_manifest_is_half_written(folder):
    (folder / "manifest.json").unlink()
    assert not is_complete(folder)
    refused(folder, "half-written")
    with pytest.raises(AdapterError, match="no such adapter folder"):
        read_adapter(folder.parent / "absent", base_fingerprint=None)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_pickles_are_refused_unread(folder, name):
    (folder / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    refused(folder, "pickle")
    assert not is_complete(folder)


@pytest.mark.parametrize(
    "content",
    [
        (2**62).to_bytes(8, "little") + b"{}",
        (10**9).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (40).to_bytes(8, "little") + b"x" * 40,
        (20_000).to_bytes(8, "little") + b"[" * 20_000,
        b"",
        b"PK\x03\x04",
    ],
)
def test_headers_that_lie_about_their_size_are_refused(folder, content):
    (folder / "adapter_model.safetensors").write_bytes(content)
    reseal(folder)
    refused(folder, "header")


def test_more_tensors_than_any_adapter_has_are_refused(folder, monkeypatch):
    monkeypatch.setattr(adapter_checks, "MAX_TENSORS", 100)
    replace_weights(folder, {f"t{i}": torch.zeros(0) for i in range(101)})
    refused(folder, "at most 100 tensors")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other/1"},
        {"files": {"../../secret": {"bytes": 1, "sha256": "0"}}},
        {"files": []},
        {"files": {"adapter_config.json": 1, "adapter_model.safetensors": 2}},
        {"surplus": 1},
    ],
)
def test_manifests_of_another_form_are_refused(folder, rewrite, changes):
    rewrite(folder / "manifest.json", **changes)
    refused(folder, r"manifest\.json")
    assert not is_complete(folder)


@pytest.mark.parametrize("manifest", [{"kind": "dsa"}, MANIFEST | {"files": {}}, MANIFEST | {"speciality": "x"}])
def test_manifest_keys_are_checked_when_writing(tmp_path, manifest):
    with pytest.raises(AdapterError, match="manifest keys"):
        write_adapter(tmp_path / "adapter", CONFIG, factors(), manifest)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_a_full_disk_leaves_the_old_adapter_or_none(tmp_path, monkeypatch, fails_at):
    write_adapter(tmp_path / "old", CONFIG, factors(), MANIFEST)
    before = adapter_sha256(tmp_path / "old")
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", full)
    # Six flushes: config, weights, manifest, the folder twice, its parent. After the fifth the new adapter is in place.
    for name in ("new", "old"):
        calls.clear()
        with pytest.raises(OSError, match="No space"):
            write_adapter(tmp_path / name, CONFIG, factors(3.0), MANIFEST)
    assert not [name for name in os.listdir(tmp_path) if name not in ("old", "new")]
    if fails_at <= 5:
        assert not (tmp_path / "new").exists()
        assert adapter_sha256(tmp_path / "old") == before
    else:
        assert read_adapter(tmp_path / "new", base_fingerprint=None).tensors[A][0, 0] == 3
    read_adapter(tmp_path / "old", base_fingerprint=None)


def in_child(act):
    """Run `act` in a forked process and return its wait status; a fork costs no second import of torch."""
    child = os.fork()
    if not child:
        try:
            act()
            os._exit(0)
        except OSError:
            os._exit(7)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def test_a_disk_full_while_the_weights_are_written(tmp_path):
    tensors = {A: torch.ones(64, 64), B: torch.ones(64, 64)}

    def act():
        # The kernel then refuses the write itself, as a full disk does.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        write_adapter(tmp_path / "adapter", CONFIG | {"r": 64}, tensors, MANIFEST)

    assert os.waitstatus_to_exitcode(in_child(act)) == 7
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("killed_at", range(1, 6))
def test_a_process_killed_while_writing_leaves_nothing_that_counts(tmp_path, monkeypatch, killed_at):
    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "fsync", fsync)
        status = in_child(lambda: write_adapter(tmp_path / "adapter", CONFIG, factors(), MANIFEST))
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert os.listdir(tmp_path), "the process was to die halfway"
    assert not is_complete(tmp_path / "adapter")
    write_adapter(tmp_path / "adapter", CONFIG, factors(), MANIFEST)
    assert is_complete(tmp_path / "adapter")


def test_peft_loads_a_merged_adapter_with_mixed_ranks_and_applies_it(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = {"inner.q_proj": (8, 6, 3), "q_proj": (4, 8, 2), "other": (5, 4, 3)}
    vector = TaskVector(
        {
            name: Factors(torch.randn(r, n, generator=generator), torch.randn(m, r, generator=generator))
            for name, (m, n, r) in shapes.items()
        }
    )

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ModuleDict({"q_proj": nn.Linear(6, 8)})
            self.q_proj, self.other = nn.Linear(8, 4), nn.Linear(4, 5)

        def forward(self, x):
            return self.other(self.q_proj(self.inner["q_proj"](x)))

    config = merged_config({name: f.rank for name, f in vector.items()}, {"task_type": None})
    tensors = {tensor_name(name, side): getattr(f, side) for name, f in vector.items() for side in "AB"}
    write_adapter(tmp_path / "adapter", config, tensors, MANIFEST)
    loaded = PeftModel.from_pretrained(Model(), tmp_path / "adapter")
    for name in shapes:
        delta = loaded.base_model.model.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(delta, vector.delta(name))
    for read in (read_adapter, open_adapter):
        ours = task_vector_of(read(tmp_path / "adapter", base_fingerprint=None))
        assert list(ours) == sorted(shapes)
        for name in shapes:
            torch.testing.assert_close(ours.delta(name), vector.delta(name))


def test_an_adapter_that_peft_trained_keeps_its_output(tmp_path):
    base = nn.Sequential(nn.Linear(6, 5))
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=7, target_modules=["0"], use_rslora=True))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.5)
    config, tensors = model.peft_config["default"].to_dict(), get_peft_model_state_dict(model)
    write_adapter(tmp_path / "adapter", config, tensors, MANIFEST)
    vector = task_vector_of(read_adapter(tmp_path / "adapter", base_fingerprint=None))
    torch.testing.assert_close(vector.delta("0"), model.base_model.model.get_submodule("0").get_delta_weight("default"))


def test_a_rank_that_disagrees_with_the_factors_is_refused(folder, rewrite):
    rewrite(folder / "adapter_config.json", r=3)
    reseal(folder)
    with pytest.raises(AdapterError, match="the configuration says rank 3, the factors have 2"):
        task_vector_of(read_adapter(folder, base_fingerprint=None))
