# Reference: the methods applied by hand to dense matrices. Run: pytest tests/merge/test_merge_run.py
import errno
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml

from artifacts.adapter_files import AdapterError, adapter_sha256, is_complete, read_adapter, write_adapter
from artifacts.manifest import entry_of
from configs.problems import ConfigError
from merge.__main__ import main
from merge.factors import Factors
from merge.gates import Answers, Examination
from merge.grams import StoredGrams, made_before, write_grams
from merge.methods.regmean import RegMean, regmean
from merge.methods.task_arithmetic import TaskArithmetic
from merge.methods.ties import Ties, ties
from merge.parts import Parts
from merge.peft_layout import task_vector_of
from merge.plan import plan
from merge.recipe import Recipe, Source, build_method, load_recipe, read_method
from merge.run import merge_adapters, merged_module, run_recipe, run_recipes

BASE = "b" * 64


def vector_in(folder):
    return task_vector_of(read_adapter(folder, base_fingerprint=BASE))


def merge(sources, out, method=None, **options):
    return merge_adapters(sources, method or TaskArithmetic(), out, base_fingerprint=BASE, **options)


def contents(out):
    return {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


@pytest.fixture
def sources(expert):
    return {
        "pediatrics": [expert("pediatrics", seed=1)],
        "adult": [expert("adult", seed=2, ranks=(3, 6))],
        "brain": [expert("brain", seed=3, ranks=(5, 2), use_rslora=True, alpha=3)],
    }


def test_task_arithmetic_end_to_end_with_mixed_ranks_and_scales(sources, tmp_path):
    summary = merge(sources, tmp_path / "out", weights={"brain": 0.5})
    vectors = {name: vector_in(chain[0]) for name, chain in sources.items()}
    merged = vector_in(tmp_path / "out/adapter")
    for module in merged:
        expected = sum((0.5 if name == "brain" else 1.0) * v.delta(module) for name, v in vectors.items())
        torch.testing.assert_close(merged.delta(module), expected, rtol=1e-4, atol=1e-4)
    assert summary.retained_energy == 1.0
    assert not summary.skipped
    assert summary.sha256 == adapter_sha256(tmp_path / "out/adapter")
    assert sorted(os.listdir(tmp_path / "out")) == [
        "README.md",
        "adapter",
        "conflict.json",
        "conflict.md",
        "manifest.json",
        "recipe.yaml",
    ]


def test_ties_end_to_end_at_full_rank(sources, tmp_path):
    summary = merge(sources, tmp_path / "out", Ties(Ties.Config(trim="tensor", density=0.4)), rank=30)
    vectors = [vector_in(sources[name][0]) for name in sorted(sources)]
    merged = vector_in(tmp_path / "out/adapter")
    for module in merged:
        expected = ties(torch.stack([v.delta(module) for v in vectors]), torch.ones(3), density=0.4)
        torch.testing.assert_close(merged.delta(module), expected, rtol=1e-4, atol=1e-4)
    assert summary.retained_energy == pytest.approx(1)
    survival = summary.report["modules"]["model.layers.0.q_proj"]["survival"]
    assert survival == dict.fromkeys(("adult", "brain", "pediatrics"), pytest.approx(0.4, abs=0.01))
    by_model = merge(sources, tmp_path / "global", Ties(Ties.Config(density=0.4)), rank=30).report["experts"]
    assert [e["survival"] for e in by_model.values()] == [pytest.approx(0.4, abs=0.002)] * 3


def test_ties_cut_to_the_rank_of_the_experts_reports_what_it_loses(sources, tmp_path):
    summary = merge(sources, tmp_path / "out", Ties(), rank="max")
    assert 0.1 < summary.retained_energy < 0.9
    assert any("the rank is too small" in sentence for sentence in summary.report["findings"])
    assert {f.rank for f in vector_in(tmp_path / "out/adapter").values()} == {5, 6}


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("method", [TaskArithmetic(), Ties(Ties.Config(density=1.0))])
def test_one_expert_alone_comes_back(expert, tmp_path, method, rslora):
    folder = expert("only", seed=5, use_rslora=rslora)
    summary = merge({"only": [folder]}, tmp_path / "out", method)
    alone, merged = vector_in(folder), vector_in(tmp_path / "out/adapter")
    for module in alone:
        torch.testing.assert_close(merged.delta(module), alone.delta(module), rtol=1e-4, atol=1e-4)
        assert merged[module].rank == alone[module].rank
    assert summary.report["experts"]["only"]["retention"] == pytest.approx(1, abs=1e-5)
    assert summary.retained_energy == pytest.approx(1)


@pytest.mark.parametrize("method", [TaskArithmetic(), Ties()])
def test_the_order_of_the_sources_does_not_change_a_byte(sources, tmp_path, method):
    results = []
    for number, order in enumerate(itertools.permutations(sources)):
        out = tmp_path / f"out{number}"
        merge({name: sources[name] for name in order}, out, method)
        results.append(contents(out))
    assert all(result == results[0] for result in results)


def test_a_chain_is_summed_before_the_method_sees_it(expert, tmp_path):
    dsa = expert("dsa", seed=1)
    parent = {"parent": {"sha256": adapter_sha256(dsa), "specialty": "dsa"}, "kind": "gba"}
    gba = expert("gba", seed=2, ranks=(2, 2), scale=0.1, manifest=parent)
    summary = merge({"agent": [dsa, gba]}, tmp_path / "out")
    merged = vector_in(tmp_path / "out/adapter")
    for module in merged:
        expected = vector_in(dsa).delta(module) + vector_in(gba).delta(module)
        torch.testing.assert_close(merged.delta(module), expected, rtol=1e-4, atol=1e-4)
    assert list(summary.report["experts"]) == ["agent"]
    apart = merge({"agent": [dsa], "agent.rl": [gba]}, tmp_path / "apart")
    assert list(apart.report["experts"]) == ["agent", "agent.rl"]


def test_a_child_of_another_parent_is_not_summed(expert, tmp_path):
    parent = {"parent": {"sha256": "0" * 64, "specialty": "elsewhere"}}
    chain = [expert("dsa", seed=1), expert("gba", seed=2, manifest=parent)]
    with pytest.raises(AdapterError, match="only an expert and its own parent"):
        merge({"agent": chain}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_recipe_is_verified_and_skipped(sources, tmp_path):
    first = merge(sources, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    second = merge(dict(reversed(list(sources.items()))), tmp_path / "out")
    assert second.skipped
    assert (second.sha256, second.retained_energy) == (first.sha256, first.retained_energy)
    assert second.report == json.loads(json.dumps(first.report))
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before


@pytest.mark.parametrize("place", range(8))
def test_a_result_that_was_damaged_is_named_and_made_again_once_it_is_deleted(sources, tmp_path, place):
    merge(sources, tmp_path / "out")
    before, draw, manifest = contents(tmp_path / "out"), random.Random(place), tmp_path / "out/manifest.json"
    files = (path for path in (tmp_path / "out").rglob("*") if path.is_file() and path != manifest)
    damage = draw.choice(sorted(files))
    content = bytearray(damage.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    damage.write_bytes(content)
    with pytest.raises(ValueError, match=damage.name) as refused:
        merge(sources, tmp_path / "out")
    assert f"delete {damage.parent}" in str(refused.value) or f"delete {tmp_path / 'out'}" in str(refused.value)
    assert damage.read_bytes() == content, "what is damaged is left to be looked at"
    shutil.rmtree(tmp_path / "out")
    assert not merge(sources, tmp_path / "out").skipped
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    "change",
    [{"rank": 2}, {"weights": {"adult": 2.0}}, {"method": TaskArithmetic(TaskArithmetic.Config(lambda_=0.5))}],
)
def test_another_recipe_is_carried_out(sources, tmp_path, change):
    first = merge(sources, tmp_path / "out")
    second = merge(sources, tmp_path / "out", **change)
    assert not second.skipped
    assert first.sha256 != second.sha256


def test_a_retrained_source_at_the_same_place_is_merged_anew(sources, expert, tmp_path):
    first = merge(sources, tmp_path / "out")
    expert("adult", seed=99, ranks=(3, 6))
    second = merge(sources, tmp_path / "out")
    assert not second.skipped
    assert first.sha256 != second.sha256


def test_moving_the_experiment_does_not_undo_the_merge(sources, expert, tmp_path):
    merge(sources, tmp_path / "out")
    moved = tmp_path / "elsewhere"
    (tmp_path / "adult").rename(moved)
    assert merge(sources | {"adult": [moved / "adapter"]}, tmp_path / "out").skipped


def test_a_full_disk_leaves_nothing_that_counts_as_complete(sources, tmp_path, monkeypatch):
    merge(sources, tmp_path / "whole")
    real, calls, limit = os.fsync, [], 1

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == limit:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    # The texts, the adapter, the manifest: whichever of the flushes fails, up to the rename of the whole.
    refused = 0
    while True:
        calls.clear()
        out = tmp_path / f"out{limit}"
        try:
            merge(sources, out)
        except OSError:
            limit, refused = limit + 1, refused + (not (out / "manifest.json").exists())
            assert not [p for p in out.glob("*.tmp")]
        else:
            break
    assert refused >= limit - 2 > 10  # only after the last flush but one does the agent stand
    monkeypatch.undo()
    for number in (1, 5, 10):  # each goes on from where it stood
        assert not merge(sources, tmp_path / f"out{number}").skipped
        assert contents(tmp_path / f"out{number}") == contents(tmp_path / "whole")


@pytest.mark.parametrize("method", [TaskArithmetic(), Ties()])
def test_a_merge_that_was_killed_goes_on_and_gives_the_same_bytes(sources, tmp_path, monkeypatch, method):
    merge(sources, tmp_path / "whole", method)
    child = os.fork()
    if not child:
        put, count = Parts.put, []

        def killed(self, *args):
            if count:
                os.kill(os.getpid(), signal.SIGKILL)
            count.append(put(self, *args))

        Parts.put = killed
        merge(sources, tmp_path / "out", method)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (folder,) = (tmp_path / "out").glob(".parts-*")
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".safetensors"]
    computed = []
    monkeypatch.setattr("merge.run.merged_module", lambda *a: computed.append(a[1]) or merged_module(*a))
    merge(sources, tmp_path / "out", method)
    assert computed == ["model.layers.1.down_proj"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_damaged_part_is_computed_again_and_parts_of_another_recipe_are_dropped(sources, tmp_path):
    merge(sources, tmp_path / "whole")
    parts = Parts(tmp_path / "out", "0" * 64, ["model.layers.0.q_proj"])
    parts.put("model.layers.0.q_proj", Factors(torch.ones(1, 3), torch.ones(2, 1)), {"rank": 1})
    assert set(Parts(tmp_path / "out", "0" * 64, ["model.layers.0.q_proj"]).facts) == {"model.layers.0.q_proj"}
    (parts.folder / "00000.safetensors").write_bytes(b"damaged")
    assert Parts(tmp_path / "out", "0" * 64, ["model.layers.0.q_proj"]).facts == {}
    merge(sources, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("method", ["ties", "task_arithmetic", "swudi", "tsv_m"])
def test_the_number_of_threads_does_not_change_a_byte(tmp_path, method):
    # Large enough that sums are split over threads where nothing holds them together.
    sources = {}
    for seed, name in enumerate("abc"):
        generator = torch.Generator().manual_seed(seed)
        factors = {"A": torch.randn(32, 384, generator=generator), "B": torch.randn(512, 32, generator=generator)}
        tensors = {f"base_model.model.layer.lora_{side}.weight": factor for side, factor in factors.items()}
        config = {"peft_type": "LORA", "r": 32, "lora_alpha": 64}
        write_adapter(tmp_path / name, config, tensors, {"kind": "dsa", "base_fingerprint": BASE})
        sources[name] = [tmp_path / name]
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            merge(sources, tmp_path / f"out{threads}", read_method(method))
            assert torch.get_num_threads() == threads
            results.append(contents(tmp_path / f"out{threads}"))
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1] == results[2]


def test_recipes_that_run_together_give_what_each_gives_alone(sources, tmp_path):
    chains = {name: [Source(path) for path in chain] for name, chain in sources.items()}
    methods = {name: read_method(name) for name in ("mean", "ties", "swudi", "tsv_m", "iso_c")}
    together = run_recipes([Recipe(chains, m, tmp_path / "together" / name) for name, m in methods.items()])
    for (name, method), summary in zip(methods.items(), together, strict=True):
        alone = merge(sources, tmp_path / "alone" / name, method)
        assert alone.sha256 == summary.sha256
        assert alone.report == summary.report
    with pytest.raises(ValueError, match="same sources"):
        run_recipes(
            [Recipe(chains, method, tmp_path / "x"), Recipe({"adult": chains["adult"]}, method, tmp_path / "y")]
        )


@pytest.fixture
def weak(expert):
    """The paper's setting: four SFT experts and an RL vector of a tenth of their norm."""
    return {f"sft{i}": [expert(f"sft{i}", seed=i)] for i in range(4)} | {"rl": [expert("rl", seed=9, scale=0.1)]}


HUGE = TaskArithmetic(TaskArithmetic.Config(lambda_=30.0))
"""Out of all proportion: rejected where no answers tell."""


def test_the_papers_ties_moves_against_a_planted_weak_expert_and_says_so(weak, tmp_path):
    noted = merge(weak, tmp_path / "ties", read_method("caci"))
    assert noted.accepted
    assert noted.report["gates"]["verdict"] == "note"
    for name in ("conflict.md", "README.md"):
        assert re.search(
            r"- note: retention of rl is -\d.*: the agent moves against it", (noted.out / name).read_text()
        )
    for name in ("default", "ties_unit"):
        passed = merge(weak, tmp_path / name, read_method(name))
        assert passed.accepted
        assert passed.report["experts"]["rl"]["retention"] > 0.3


def test_a_rejected_merge_lies_apart_and_is_not_made_again(weak, tmp_path):
    rejected = merge(weak, tmp_path / "sum", HUGE)
    assert not rejected.accepted
    assert rejected.report["gates"]["verdict"] == "reject"
    assert os.listdir(tmp_path / "sum") == ["rejected"]
    assert is_complete(tmp_path / "sum/rejected/adapter")
    again = merge(weak, tmp_path / "sum", HUGE)
    assert (again.skipped, again.out) == (True, rejected.out)


def test_a_rejected_merge_leaves_no_result_where_another_stood(weak, tmp_path):
    for gate in ("reject", "warn"):
        first = read_method("default") if gate == "reject" else HUGE  # accepted, or let through once
        assert merge(weak, tmp_path / gate, first, gate=gate).accepted
        (tmp_path / gate / "events.out.tfevents.1").write_bytes(b"the board of what stands")
        assert not merge(weak, tmp_path / gate, HUGE).accepted
        assert sorted(path.name for path in (tmp_path / gate).iterdir()) == ["recipe.yaml", "rejected"]
        assert is_complete(tmp_path / gate / "rejected/adapter")
        assert merge(weak, tmp_path / gate, read_method("default")).accepted
        assert not (tmp_path / gate / "rejected").exists()


def test_the_gates_ask_the_agent_and_another_examination_is_another_merge(sources, tmp_path):
    asked = []

    def examination(right, n=20):
        def answers(adapter):
            asked.append(read_adapter(adapter, base_fingerprint=BASE).manifest["kind"])
            return {"adult": Answers([True] * 10 + [False] * 10, [True] * n, [i < right for i in range(n)])}

        return Examination({"right": right}, answers)

    good = merge(sources, tmp_path / "out", examination=examination(20))
    assert (good.accepted, good.report["gates"]["verdict"], asked) == (True, "accept", ["merged"])
    assert merge(sources, tmp_path / "out", examination=examination(20)).skipped
    bad = merge(sources, tmp_path / "out", examination=examination(0))
    assert not bad.accepted
    assert "adult: 0.000 is below the base's 0.500" in (bad.out / "conflict.md").read_text()
    assert len(asked) == 2
    assert not (tmp_path / "out/adapter").exists()
    assert not list(tmp_path.rglob(".parts-*"))


def test_what_killed_processes_left_is_removed(sources, tmp_path):
    for name in (".adapter.999999999.tmp", ".adapter.999999999.old", ".parts-0123456789abcdef"):
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out/.adapter.1.tmp").mkdir()  # process 1 always runs
    merge(sources, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob(".*")) == [".adapter.1.tmp"]


def test_a_gate_that_only_warns_lets_it_through_and_says_so(weak, tmp_path):
    summary = merge(weak, tmp_path / "out", HUGE, gate="warn")
    assert summary.accepted
    manifest = read_adapter(tmp_path / "out/adapter", base_fingerprint=BASE).manifest
    assert manifest["extra"]["gates"] == "reject"
    assert yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())["gate"] == "warn"
    assert "Gates: **reject**" in (tmp_path / "out/README.md").read_text()


def test_an_expert_relative_to_its_parent_is_what_training_added(expert, tmp_path):
    sft = expert("sft", seed=1)
    grown = {"parent": {"sha256": adapter_sha256(sft), "specialty": "sft"}, "kind": "gba"}
    rl = expert("rl", seed=2, ranks=(2, 6), manifest=grown)
    recipe = Recipe({"rl": [Source(rl, relative_to=sft)]}, TaskArithmetic(), tmp_path / "out")
    run_recipe(recipe)
    merged = vector_in(tmp_path / "out/adapter")
    for module in merged:
        expected = vector_in(rl).delta(module) - vector_in(sft).delta(module)
        torch.testing.assert_close(merged.delta(module), expected, rtol=1e-4, atol=1e-4)
    assert run_recipe(load_recipe(tmp_path / "out/recipe.yaml")).skipped
    stranger = expert("stranger", seed=3)
    with pytest.raises(AdapterError, match="only its own parent may be subtracted"):
        run_recipe(Recipe({"rl": [Source(rl, relative_to=stranger)]}, TaskArithmetic(), tmp_path / "out"))


def test_a_module_that_only_some_experts_have_is_refused_or_taken_as_unchanged(expert, tmp_path):
    a, b = expert("a", seed=1), expert("b", seed=2)
    adapter = read_adapter(b, base_fingerprint=BASE)
    tensors = {name: t for name, t in adapter.tensors.items() if "q_proj" in name}
    write_adapter(b, adapter.config, tensors, {"kind": "dsa", "base_fingerprint": BASE})
    recipe = Recipe({"a": [Source(a)], "b": [Source(b)]}, TaskArithmetic(), tmp_path / "out")
    with pytest.raises(ValueError, match=r"differ in 1 modules, e\.g\. \['model\.layers\.1\.down_proj'\]"):
        run_recipe(recipe)
    run_recipe(replace(recipe, missing="zero"))
    merged = vector_in(tmp_path / "out/adapter")
    both = vector_in(a).delta("model.layers.0.q_proj") + vector_in(b).delta("model.layers.0.q_proj")
    torch.testing.assert_close(merged.delta("model.layers.0.q_proj"), both, rtol=1e-4, atol=1e-4)
    alone = vector_in(a).delta("model.layers.1.down_proj")
    torch.testing.assert_close(merged.delta("model.layers.1.down_proj"), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare", "cat"])
def test_experts_that_cannot_be_represented_are_refused(expert, tmp_path, method):
    huge = {name: [expert(name, seed=seed, scale=3e37)] for seed, name in enumerate("ab")}
    with pytest.raises(ValueError, match=r"NaN or infinity|too large for fp32"):
        merge(huge, tmp_path / "out", read_method(method))
    for alpha in (math.nan, math.inf, 1e300):
        with pytest.raises(AdapterError, match=r"lora_alpha|too large for fp32"):
            merge({"a": [expert("c", alpha=alpha if alpha == alpha else "NaN")]}, tmp_path / "out", read_method(method))
    assert not is_complete(tmp_path / "out/adapter")


@pytest.mark.parametrize("key", ["((.|.)*)Z", "(a+)+", ".*.*.*.*Z", "x" * 600])
def test_patterns_that_could_take_forever_are_refused(expert, tmp_path, key):
    with pytest.raises(AdapterError, match="take forever"):
        merge({"a": [expert("a", alpha_pattern={key: 2})]}, tmp_path / "out")


def stored(folder, matrices, metadata=None):
    """Gram matrices on disk."""
    return write_grams(folder, {m: len(G) for m, G in matrices.items()}, lambda _: matrices, metadata or {})


def test_a_written_recipe_holds_grams_and_parents_to_their_hashes(expert, tmp_path):
    sft = expert("sft", seed=1)
    rl = expert("rl", seed=2, ranks=(2, 6))
    shapes = {m: f.shape for m, f in vector_in(sft).items()}
    stored(tmp_path / "grams", {m: torch.eye(n) for m, (_, n) in shapes.items()})
    grams = {"rl": tmp_path / "grams/grams.safetensors"}
    recipe = Recipe({"rl": [Source(rl, relative_to=sft)]}, RegMean(), tmp_path / "out", grams=grams)
    run_recipe(recipe)
    again = load_recipe(tmp_path / "out/recipe.yaml")
    assert run_recipe(again).skipped
    stored(tmp_path / "grams", {m: 2 * torch.eye(n) for m, (_, n) in shapes.items()})
    with pytest.raises(AdapterError, match=r"grams\.safetensors: has sha256"):
        run_recipe(again)
    expert("sft", seed=7)
    with pytest.raises(AdapterError, match=r"sft.*the recipe names"):
        run_recipe(again)


def test_gram_matrices_are_read_from_files_and_bind_the_recipe(sources, tmp_path):
    grams = {}
    for seed, (name, chain) in enumerate(sources.items()):
        inputs = {
            module: torch.randn(50, f.shape[1], generator=torch.Generator().manual_seed(seed))
            for module, f in vector_in(chain[0]).items()
        }
        matrices = {module: x.T @ x / 50 for module, x in inputs.items()}
        grams[name] = stored(tmp_path / "grams" / name, matrices, {"rows": "50"})
        assert made_before(grams[name].parent, {"rows": "50"})
    first = merge(sources, tmp_path / "out", RegMean(), grams=grams)
    names = sorted(sources)
    for module, merged in vector_in(tmp_path / "out/adapter").items():
        expected = regmean(
            [vector_in(sources[n][0])[module] for n in names], [StoredGrams(grams[n])[module] for n in names], [1.0] * 3
        )
        torch.testing.assert_close(merged.B @ merged.A, expected.B @ expected.A, rtol=1e-4, atol=1e-4)
    assert run_recipe(load_recipe(tmp_path / "out/recipe.yaml")).skipped
    stored(tmp_path / "grams/adult", {m: 2 * G + torch.eye(len(G)) for m, G in matrices.items()})
    second = merge(sources, tmp_path / "out", RegMean(), grams=grams)
    assert second.sha256 != first.sha256
    with pytest.raises(ValueError, match="needs Gram matrices"):
        merge(sources, tmp_path / "out", RegMean())
    (tmp_path / "bad").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="cannot be read as Gram matrices"):
        merge(sources, tmp_path / "out", RegMean(), grams=grams | {"adult": tmp_path / "bad"})


def test_experts_of_another_base_are_refused(sources, expert, tmp_path):
    with pytest.raises(AdapterError, match="do not fit another"):
        merge_adapters(sources, TaskArithmetic(), tmp_path / "out", base_fingerprint="c" * 64)
    stranger = expert("stranger", manifest={"base_fingerprint": "d" * 64})
    for fingerprint in (BASE, None):
        with pytest.raises(AdapterError, match="do not fit another"):
            merge_adapters(
                sources | {"s": [stranger]}, TaskArithmetic(), tmp_path / "out", base_fingerprint=fingerprint
            )
    merge_adapters(sources, TaskArithmetic(), tmp_path / "out", base_fingerprint=None)
    assert read_adapter(tmp_path / "out/adapter", base_fingerprint=BASE)


def test_the_manifest_ties_the_agent_to_its_recipe(sources, tmp_path):
    extra = {"experiment": "demo", "git": "abc", "extra": {"note": 1}, "metrics": {"accuracy": 0.5}}
    merge(sources, tmp_path / "out", manifest_extra=extra)
    manifest = read_adapter(tmp_path / "out/adapter", base_fingerprint=BASE).manifest
    assert (manifest["kind"], manifest["experiment"], manifest["git"]) == ("merged", "demo", "abc")
    assert manifest["metrics"] == {"accuracy": 0.5, "retained_energy": 1.0}
    assert manifest["extra"]["note"] == 1
    listed = json.loads((tmp_path / "out/manifest.json").read_text())["files"]
    assert set(listed) == {"recipe.yaml", "conflict.json", "conflict.md", "README.md", "adapter/manifest.json"}
    recipe = yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())
    assert recipe["method"]["init_args"] == {"lambda_": 1.0}
    assert recipe["sources"]["adult"][0]["sha256"] == adapter_sha256(sources["adult"][0])
    assert recipe["weights"] == {"adult": 1.0, "brain": 1.0, "pediatrics": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"surgery": 1.0}}, "no sources named"),
        ({"weights": {"adult": float("nan")}}, "finite"),
        ({"rank": "half"}, "energy:0.95"),
        ({"method": Ties(), "weights": {"adult": -1.0}}, "above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(sources, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        merge(sources, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="at least one adapter folder"):
        merge({"adult": []}, tmp_path / "out")


def command(*arguments):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    call = [sys.executable, "-m", "merge", *map(str, arguments)]
    return subprocess.run(call, cwd=root, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_line_does_what_the_function_does(sources, tmp_path, capsys):
    summary = merge(sources, tmp_path / "out", Ties(), rank=5)
    recipe = {
        "sources": {"adult": "adult/adapter", "brain": ["brain/adapter"], "pediatrics": ["pediatrics/adapter"]},
        "method": {"class_path": "merge.methods.ties.Ties", "init_args": {"density": 0.2}},
        "rank": 5,
        "out": "by_command",
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    result = command("run", "--config", tmp_path / "recipe.yaml")
    assert result.returncode == 0, result.stderr
    assert "# Conflict report" in result.stdout
    assert f"sha256 {summary.sha256}" in result.stdout
    # The two folders are siblings, so that even the relative paths in the recipes agree.
    assert contents(tmp_path / "by_command") == contents(tmp_path / "out")
    assert main(["run", "--config", str(tmp_path / "by_command/recipe.yaml")]) == 0
    assert "unchanged" in capsys.readouterr().out
    assert main(["run", "--config", str(tmp_path / "absent.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_the_report_alone_writes_nothing_but_where_it_is_told(sources, tmp_path, capsys):
    summary = merge(sources, tmp_path / "out", Ties(), rank=5)
    recipe = yaml.safe_load((tmp_path / "out/recipe.yaml").read_text()) | {"out": "../other"}
    (tmp_path / "out/copy.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["report", "--config", str(tmp_path / "out/copy.yaml"), "--json", str(tmp_path / "r.json")]) == 0
    assert capsys.readouterr().out.strip() == (tmp_path / "out/conflict.md").read_text().strip()
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(summary.report))
    assert not (tmp_path / "other").exists()


def test_verify_finds_what_was_changed_and_what_cannot_be_made_again(sources, tmp_path, capsys):
    merge(sources, tmp_path / "out")
    verify = ["verify", "--config", str(tmp_path / "out/recipe.yaml")]
    before = contents(tmp_path)
    assert main(verify) == 0
    assert "the same bytes" in capsys.readouterr().out
    assert contents(tmp_path) == before
    text = (tmp_path / "out/README.md").read_text()
    (tmp_path / "out/README.md").write_text(text + "more")
    assert main(verify) == 2
    assert "README.md: is damaged: not what the manifest recorded" in capsys.readouterr().err
    (tmp_path / "out/README.md").write_text(text)
    # An adapter that is whole, but not what its recipe makes.
    adapter = read_adapter(tmp_path / "out/adapter", base_fingerprint=BASE)
    tensors = {name: 2 * tensor for name, tensor in adapter.tensors.items()}
    manifest = {k: v for k, v in adapter.manifest.items() if k not in ("files", "format")}
    write_adapter(tmp_path / "out/adapter", adapter.config, tensors, manifest)
    assert main(verify) == 2
    assert "adapter/manifest.json: is damaged" in capsys.readouterr().err
    listed = json.loads((tmp_path / "out/manifest.json").read_text())
    listed["files"]["adapter/manifest.json"] = entry_of(tmp_path / "out/adapter/manifest.json")
    (tmp_path / "out/manifest.json").write_text(json.dumps(listed))
    assert main(verify) == 2
    assert "makes another adapter" in capsys.readouterr().err


def test_a_rejected_merge_ends_the_command_with_code_3(weak, tmp_path, capsys):
    huge = {"class_path": "merge.methods.task_arithmetic.TaskArithmetic", "init_args": {"lambda_": 30.0}}
    recipe = {"sources": {name: f"{name}/adapter" for name in weak}, "method": huge, "out": "out"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", "--config", str(tmp_path / "recipe.yaml")]) == 3
    assert "rejected" in capsys.readouterr().out
    before = contents(tmp_path / "out")
    for command, code in (("run", 3), ("verify", 0)):  # the recipe that lies beside the rejected agent is as good
        assert main([command, "--config", str(tmp_path / "out/rejected/recipe.yaml")]) == code
    assert contents(tmp_path / "out") == before


def test_a_recipe_run_without_questions_leaves_the_agent_that_was_asked(sources, tmp_path, capsys):
    right = [True] * 3
    asked = Examination({"n": 3}, lambda _: {"adult": Answers(right, right, right)})
    first = merge(sources, tmp_path / "out", examination=asked)
    before = contents(tmp_path / "out")
    assert main(["run", "--config", str(tmp_path / "out/recipe.yaml")]) == 0
    assert "unchanged" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before
    other = Examination({"n": 4}, asked.answers)  # asked otherwise, it is another merge
    assert not merge(sources, tmp_path / "out", examination=other).skipped
    assert first.sha256 == merge(sources, tmp_path / "out", examination=other).sha256


def test_a_written_recipe_refuses_sources_that_changed(sources, expert, tmp_path):
    merge(sources, tmp_path / "out")
    expert("adult", seed=99, ranks=(3, 6))
    with pytest.raises(AdapterError, match="the recipe names"):
        run_recipe(load_recipe(tmp_path / "out/recipe.yaml"))


def test_every_problem_of_a_recipe_is_reported_at_once(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "surces: {}\ngate: maybe\nsources: {a: 3}\n"
        "method: {class_path: merge.methods.ties.Ties, init_args: {densty: 0.2, lambda_: -1}}\n"
        "rank: half\nweights: {b: 1}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_recipe(tmp_path / "r.yaml", ["missing=maybe"])
    text = str(caught.value)
    for part in [
        "r.yaml:1: surces: unknown key; did you mean 'sources'?",
        "r.yaml:1: out: missing",
        "r.yaml:2: gate: expected one of 'reject', 'warn', got 'maybe'",
        "r.yaml:3: sources.a[0]: expected a mapping, got 3",
        "r.yaml:4: method.init_args.densty: unknown key; did you mean 'density'? (Ties accepts: density",
        "r.yaml:4: method.init_args.lambda_: lambda_ must",
        "r.yaml:5: rank: rank='half'",
        "command line: missing: expected one of 'error', 'zero', got 'maybe'",
    ]:
        assert part in text, text
    assert len(text.splitlines()) == 8


def test_a_recipe_that_extends_another_and_refers_to_itself(tmp_path):
    pytest.importorskip("omegaconf")
    (tmp_path / "below.yaml").write_text("sources: {a: [x]}\nmethod: caci\nout: below\n")
    (tmp_path / "r.yaml").write_text("extends: below\nout: merged/${gate}\ngate: warn\nweights: {a: 2}\n")
    recipe = load_recipe(tmp_path / "r.yaml", ["rank=4"])
    assert (recipe.out, recipe.rank, recipe.gate) == (tmp_path / "merged/warn", 4, "warn")
    assert recipe.weights == {"a": 2.0}
    assert recipe.sources == {"a": [Source(tmp_path / "x")]}
    (tmp_path / "r.yaml").write_text("extends: below\nweights: {b: 1}\n")
    with pytest.raises(ConfigError, match=r"r\.yaml:2: weights: weights: no sources named \['b'\]; sources: \['a'\]"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("class_path", "init_args", "message"),
    [
        ("merge.methods.ties.Tis", {}, "no such class or function 'merge.methods.ties.Tis'.*did you mean"),
        ("Ties", {}, "not of the form"),
        ("merge.factors.TaskVector", {}, "comes from|takes a subclass of merge.methods.interface.MergeMethod"),
        ("merge.run.MergeSummary", {}, "takes a subclass of merge.methods.interface.MergeMethod"),
        ("subprocess.Popen", {"args": "true"}, r"trust: \[subprocess\]"),
        ("merge.methods.ties.Ties", {"density": 2.0}, r"density must lie in \[0, 1\]"),
        ("merge.methods.ties.Ties", {"trim": "layer"}, "trim"),
        ("merge.methods.task_arithmetic.TaskArithmetic", {"lambda_": "much"}, "lambda_"),
    ],
)
def test_methods_that_cannot_be_built_are_refused(class_path, init_args, message):
    with pytest.raises(ConfigError, match=message):
        build_method(class_path, init_args)


def test_a_dry_run_tells_what_a_merge_needs_and_writes_nothing(sources, tmp_path, capsys):
    recipe = {
        "sources": {name: [str(path) for path in chain] for name, chain in sources.items()},
        "method": "ties",
        "out": str(tmp_path / "out"),
        "rank": 3,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", "--dry-run", "--config", str(tmp_path / "recipe.yaml")]) == 0
    told = capsys.readouterr().out
    assert "3 experts over" in told
    assert "MiB of memory" in told
    assert not (tmp_path / "out").exists()
    found = plan(load_recipe(tmp_path / "recipe.yaml"))
    shapes = [f.shape for f in vector_in(sources["adult"][0]).values()]
    assert found["output_mib"] == sum(4 * 3 * (m + n) for m, n in shapes) / 2**20
    assert found["rank"] == 12  # adult 3, brain 5, pediatrics 4; in the other module 6, 2 and 4
    dense = plan(replace(load_recipe(tmp_path / "recipe.yaml"), rank="sum"))["memory_mib"]
    assert dense > plan(replace(load_recipe(tmp_path / "recipe.yaml"), method=TaskArithmetic()))["memory_mib"]


def test_a_recipe_that_is_not_there_is_named_with_the_rejected_one_beside_it(tmp_path, capsys):
    assert main(["verify", "--config", str(tmp_path / "recipe.yaml")]) == 2
    assert f"no such file: '{tmp_path / 'recipe.yaml'}'" in capsys.readouterr().err
    rejected = tmp_path / "rejected" / "recipe.yaml"
    rejected.parent.mkdir()
    rejected.write_text("")
    with pytest.raises(ConfigError, match=rf"there is no such file; the gates rejected this merge, see {rejected}$"):
        load_recipe(tmp_path / "recipe.yaml")


def test_an_interrupted_merge_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("merge.__main__.load_recipe", lambda *words: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["run", "--config", str(tmp_path / "recipe.yaml")]) == 130
    assert capsys.readouterr().err == "merge: interrupted; the same command goes on where it stopped\n"
