# Reference: the definition of the work, and a merge by hand. Run: pytest tests/benchmarks/test_merge_benchmark.py
import json

import pytest
import torch

from artifacts.adapter_files import read_adapter
from artifacts.adoption import adopt
from benchmarks import merge_vs_peers, ours_merge
from benchmarks.merge_inputs import MergeWork, lora_config, tensor_name, write_experts
from merge.peft_layout import task_vector_of

SMALL = MergeWork(layers=2, hidden=24, inner=40, heads=4, kv_heads=2, rank=4, experts=3)


def test_a_tensor_depends_on_nothing_but_its_own_place():
    more = MergeWork(**{**vars(SMALL), "layers": 5, "experts": 9})
    for layer, name, (m, n) in SMALL.modules():
        for expert in range(SMALL.experts):
            A, B = SMALL.factors(expert, layer, name)
            assert (A.shape, B.shape) == ((4, n), (m, 4))
            assert torch.equal(A, more.factors(expert, layer, name)[0])
            assert torch.equal(B, more.factors(expert, layer, name)[1])
    first, second = (SMALL.factors(expert, 0, "mlp.up_proj")[0] for expert in (0, 1))
    assert not torch.equal(first, second)


def test_an_update_has_the_size_that_the_work_says():
    A, B = MergeWork(layers=1).factors(0, 0, "self_attn.q_proj")
    assert (2 * B @ A).square().mean().sqrt().item() == pytest.approx(2e-4, rel=0.1)


def test_our_side_merges_what_the_work_defines(tmp_path):
    for path in write_experts(SMALL, tmp_path / "plain"):
        assert json.loads((path / "adapter_config.json").read_text()) == lora_config(SMALL)
        adopt(path, tmp_path / "inputs" / path.name, base=merge_vs_peers.base_of(SMALL))
    out = tmp_path / "worker.json"
    for work in ("task_arithmetic", "ties", "five"):
        folder = tmp_path / work
        arguments = ["--inputs", str(tmp_path / "inputs"), "--work", work, "--rank", "4", "--folder", str(folder)]
        ours_merge.main([*arguments, "--out", str(out)])
        found = json.loads(out.read_text())
        assert found["cpu_s"] > 0
        assert found["alone_cpu_s"] > 0
        assert set(found["energy"]) == set(found["adapters"]) == set(ours_merge.FIVE if work == "five" else [work])
    merged = task_vector_of(read_adapter(tmp_path / "task_arithmetic/task_arithmetic/adapter", base_fingerprint=None))
    for layer, name, _ in SMALL.modules():
        total = sum(2.0 * B @ A for A, B in (SMALL.factors(e, layer, name) for e in range(3)))
        U, S, Vh = torch.linalg.svd(total.double(), full_matrices=False)
        expected = ((U[:, :4] * S[:4]) @ Vh[:4]).float()
        torch.testing.assert_close(merged.delta(f"model.layers.{layer}.{name}"), expected, rtol=1e-4, atol=1e-8)
        assert tensor_name(layer, name, "A").startswith(f"base_model.model.model.layers.{layer}.{name}.lora_A")


def test_rows_are_ratios_below_one_where_ours_takes_less(monkeypatch):
    monkeypatch.setattr(merge_vs_peers, "difference", lambda *_: {"max_abs_diff": 0.0, "share_apart": 0.0})
    ours = {"cpu_s": 1.0, "alone_cpu_s": 0.5, "peak_added_mib": 10.0, "energy": {}}
    sides = {"ties": [ours, ours | {"cpu_s": 3.0}], "peft_ties_svd": [{"cpu_s": 20.0, "peak_added_mib": 40.0}]}
    found = merge_vs_peers.row("ties", "peft_ties_svd", sides, None)
    assert (found["ratio_cpu"], found["ratio_cpu_alone"], found["ratio_memory"]) == (0.1, 0.025, 0.25)
    text = merge_vs_peers.markdown([found], type("Chosen", (), {"layers": 1, "repeats": 2}))
    assert "| 1/10.0 | 1/40.0 |" in text
