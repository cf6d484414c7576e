"""Reference: the same experiment on the weights before they were packed.

Run: pytest tests/experiment/test_nf4_lineage.py.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from answering.live_base import LiveBase
from experiment.live_model import live_model
from lightning_modules.families.nf4 import is_packed
from merge.methods.task_arithmetic import TaskArithmetic
from merge.run import merge_adapters

WIDE = "dsa:model.init_args.intermediate=128"


@pytest.mark.slow
def test_an_expert_in_four_bits_merges_onto_the_base_that_it_was_trained_on(machine, tmp_path, monkeypatch):
    monkeypatch.setattr("experiment.live_model.LIVE", LiveBase())
    here = machine.at(tmp_path / "runs")
    plain = ["dsa:requires=[]", WIDE, "dsa:precision=bf16"]
    packed = [*plain, "dsa:model.init_args.quantize=nf4", "dsa:module.init_args.optimizer=paged_adamw8bit"]
    assert here.run("dsa", *plain, "dsa:name=plain", "dsa:only=[alpha]") == 0
    assert here.run("dsa", *packed, "dsa:name=packed", "dsa:only=[beta]") == 0
    folders = {name: [here.runs / name / "adapter"] for name in ("plain/alpha", "packed/beta")}
    manifests = {name: json.loads((folder / "manifest.json").read_text()) for name, (folder,) in folders.items()}
    assert len({found["base_fingerprint"] for found in manifests.values()}) == 1
    fingerprint = manifests["plain/alpha"]["base_fingerprint"]
    merge_adapters(folders, TaskArithmetic(), tmp_path / "merged", base_fingerprint=fingerprint, gate="warn")
    merged = load_file(tmp_path / "merged/adapter/adapter_model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in merged.values())
    for settings in (plain, packed):
        model = live_model(str(here.files / "dsa.yaml"), [f"runs_dir={here.runs}", *settings])
        with model.acting([tmp_path / "merged/adapter"]) as policy:
            weights = list(policy.family.parameters())
            assert any(map(is_packed, weights)) == (settings is packed)
            assert torch.bfloat16 in {weight.dtype for weight in weights}
