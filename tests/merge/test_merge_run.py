# Reference: the methods applied by hand to dense matrices. Run: pytest tests/merge/test_merge_run.py
import errno
import itertools
import json
import os
import subprocess
import sys

import pytest
import torch
import yaml

from merge.__main__ import main
from merge.adapter_files import AdapterError, adapter_sha256, is_complete, read_adapter
from merge.methods.task_arithmetic import TaskArithmetic
from merge.methods.ties import Ties, ties
from merge.peft_layout import task_vector_of
from merge.recipe import RecipeError, build_method, load_recipe
from merge.run import merge_adapters, run_recipe

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
    assert sorted(os.listdir(tmp_path / "out")) == ["adapter", "conflict.json", "conflict.md", "recipe.yaml"]


def test_ties_end_to_end_at_full_rank(sources, tmp_path):
    summary = merge(sources, tmp_path / "out", Ties(Ties.Config(trim="tensor", density=0.4)), rank=30)
    vectors = [vector_in(sources[name][0]) for name in sorted(sources)]
    merged = vector_in(tmp_path / "out/adapter")
    for module in merged:
        expected = ties(torch.stack([v.delta(module) for v in vectors]), density=0.4)
        torch.testing.assert_close(merged.delta(module), expected, rtol=1e-4, atol=1e-4)
    assert summary.retained_energy == pytest.approx(1)
    kept = summary.report["method"]["kept_fraction"]["model.layers.0.q_proj"]
    assert kept == [pytest.approx(0.4, abs=0.01)] * 3


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


@pytest.mark.parametrize("damage", ["adapter/adapter_model.safetensors", "conflict.json", "conflict.md", "recipe.yaml"])
def test_a_result_that_was_damaged_is_made_again(sources, tmp_path, damage):
    merge(sources, tmp_path / "out")
    before = contents(tmp_path / "out")
    content = bytearray((tmp_path / "out" / damage).read_bytes())
    content[-2] ^= 1
    (tmp_path / "out" / damage).write_bytes(content)
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
    real, calls, limit = os.fsync, [], 1

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == limit:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    # Three texts take two flushes each (file, folder), the adapter four before it stands.
    for limit in range(1, 11):  # noqa: B007 (read by `full`)
        calls.clear()
        with pytest.raises(OSError, match="No space"):
            merge(sources, tmp_path / "out")
        assert not is_complete(tmp_path / "out/adapter")
        assert not [p for p in tmp_path.rglob("*.tmp")]
    monkeypatch.undo()
    assert not merge(sources, tmp_path / "out").skipped
    assert merge(sources, tmp_path / "out").skipped


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
    assert set(manifest["extra"]["reports"]) == {"recipe.yaml", "conflict.json", "conflict.md"}
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
    result = command("--config", tmp_path / "recipe.yaml")
    assert result.returncode == 0, result.stderr
    assert "# Conflict report" in result.stdout
    assert f"sha256 {summary.sha256}" in result.stdout
    # The two folders are siblings, so that even the relative paths in the recipes agree.
    assert contents(tmp_path / "by_command") == contents(tmp_path / "out")
    assert main(["--config", str(tmp_path / "by_command/recipe.yaml")]) == 0
    assert "unchanged" in capsys.readouterr().out
    assert main(["--config", str(tmp_path / "absent.yaml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_written_recipe_refuses_sources_that_changed(sources, expert, tmp_path):
    merge(sources, tmp_path / "out")
    expert("adult", seed=99, ranks=(3, 6))
    with pytest.raises(AdapterError, match="the recipe names"):
        run_recipe(load_recipe(tmp_path / "out/recipe.yaml"))


def test_every_problem_of_a_recipe_is_reported_at_once(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "surces: {}\nsources: {a: 3}\nmethod: {class_path: merge.methods.ties.Ties, init_args: {densty: 0.2}}\n"
        "rank: half\nweights: {b: 1}\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "r.yaml")
    text = str(caught.value)
    for part in ("'surces'", "'out' is missing", "sources.a", "Did you mean: 'density'", "Ties accepts", "rank='half'"):
        assert part in text
    assert len(text.splitlines()) == 5


@pytest.mark.parametrize(
    ("class_path", "init_args", "message"),
    [
        ("merge.methods.ties.Tis", {}, "cannot be imported"),
        ("Ties", {}, "cannot be imported"),
        ("merge.factors.TaskVector", {}, "no merge method"),
        ("merge.methods.ties.Ties", {"density": 2.0}, "density must lie in"),
        ("merge.methods.ties.Ties", {"trim": "layer"}, "trim"),
        ("merge.methods.task_arithmetic.TaskArithmetic", {"lambda_": "much"}, "lambda_"),
    ],
)
def test_methods_that_cannot_be_built_are_refused(class_path, init_args, message):
    with pytest.raises(RecipeError, match=message):
        build_method(class_path, init_args)
