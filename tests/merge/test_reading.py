# Reference: tokenizers and templates that differ in one thing. Run: pytest tests/merge/test_reading.py
import json

import pytest

from artifacts.adapter_checks import READING, check_reading, reading
from artifacts.adapter_files import AdapterError, read_manifest
from lightning_modules.families.tiny import TinyQwen2_5_VL
from merge.__main__ import main
from merge.methods.mean import Mean
from merge.plan import plan
from merge.recipe import Recipe, Source
from merge.run import merge_adapters, report_of
from tests.merge.conftest import BASE, READS


def other_corpus():
    """Texts for another tokenizer."""
    yield from ["<think>lungs are clear</think><answer>A</answer> nothing else to see here"] * 30


def tiny(corpus="tests.conftest.corpus", **options):
    sizes = {"hidden": 32, "layers": 1, "heads": 2, "intermediate": 32, "vision_hidden": 32, "vision_layers": 1}
    return TinyQwen2_5_VL(TinyQwen2_5_VL.Config(corpus=corpus, **sizes, **options))


def read_by(family):
    return reading(family.tokenizer.backend_tokenizer.to_str(), family.prompt_ids("Is this normal?", [1]))


def test_a_family_reads_like_itself_and_unlike_one_with_another_vocabulary():
    family = tiny()
    first = read_by(family)
    family.tokenizer(["a heart", "a"], padding=True, truncation=True, max_length=1)  # leaves its settings behind
    assert read_by(family) == first == read_by(tiny())
    other = read_by(tiny("tests.merge.test_reading.other_corpus"))
    assert other["tokenizer_sha256"] != first["tokenizer_sha256"]


def test_another_system_prompt_is_another_template_and_the_tokenizer_stays():
    plain, told = read_by(tiny()), read_by(tiny(system="Be brief."))
    assert plain["tokenizer_sha256"] == told["tokenizer_sha256"]
    assert plain["chat_template_sha256"] != told["chat_template_sha256"]


def test_records_are_compared_key_by_key():
    a, b = READS, READS | {"chat_template_sha256": "3" * 64}
    assert check_reading({"a": a, "b": dict(a)}) == (READS, [])
    assert check_reading({"a": a, "b": None, "c": {"note": 1}, "d": {READING[0]: "1" * 64}})[1] == ["b", "c", "d"]
    with pytest.raises(AdapterError, match=r"c: chat_template_sha256 is '333.*that of a is '222"):
        check_reading({"a": a, "b": None, "c": b})
    with pytest.raises(AdapterError, match=r"b: chat_template_sha256 must be 64 hexadecimal digits"):
        check_reading({"b": READS | {"chat_template_sha256": [1]}})
    with pytest.raises(AdapterError, match=r"b: extra must be an object or null"):
        check_reading({"a": a, "b": [1]})


@pytest.mark.parametrize("key", READING)
def test_experts_that_read_differently_are_not_merged(expert, tmp_path, key, capsys):
    chains = {"a": [expert("a", seed=1)], "b": [expert("b", seed=2, manifest={"extra": READS | {key: "9" * 64}})]}
    out = tmp_path / "out"
    recipe = Recipe({name: [Source(path) for path in chain] for name, chain in chains.items()}, Mean(), out)
    for refused in (lambda: merge_adapters(chains, Mean(), out, base_fingerprint=BASE), lambda: plan(recipe)):
        with pytest.raises(AdapterError, match=rf"b.adapter: {key} is '999.*that of .*a.adapter is"):
            refused()
    with pytest.raises(AdapterError, match=key):
        report_of(recipe)
    assert not out.exists()
    (tmp_path / "r.yaml").write_text("{sources: {a: a/adapter, b: b/adapter}, method: mean, out: out}")
    assert main(["run", "--config", str(tmp_path / "r.yaml")]) == 2
    assert "cannot share one agent" in capsys.readouterr().err


def test_a_parent_that_reads_differently_is_not_subtracted(expert, tmp_path):
    parent = expert("p", seed=1, manifest={"extra": {key: "9" * 64 for key in READING}})
    child = expert("c", seed=2)
    recipe = Recipe({"c": [Source(child, relative_to=parent)]}, Mean(), tmp_path / "out")
    with pytest.raises(AdapterError, match=r"p.adapter: tokenizer_sha256 is '999"):
        report_of(recipe)


def test_experts_that_record_nothing_are_merged_with_one_warning(expert, tmp_path):
    old = {"extra": None}
    chains = {name: [expert(name, seed=seed, manifest=old if name != "b" else None)] for seed, name in enumerate("abc")}
    chains["a"].append(expert("a2", seed=7, manifest=old))
    summary = merge_adapters(chains, Mean(), tmp_path / "out", base_fingerprint=BASE)
    told = [gate["text"] for gate in summary.report["gates"]["gates"] if "not recorded" in gate["text"]]
    assert told == [
        "a, c: tokenizer and chat template are not recorded (tokenizer_sha256, chat_template_sha256); "
        "are they the others'?"
    ]
    assert summary.accepted
    assert not set(READING) & set(read_manifest(summary.out / "adapter")["extra"])  # nor is the merge's own known
    assert summary.report["gates"]["verdict"] == "warn"
    for name in ("conflict.md", "README.md"):
        assert (tmp_path / "out" / name).read_text().count(told[0]) == 1
    assert told[0] in json.loads((tmp_path / "out/conflict.json").read_text())["gates"]["gates"][0]["text"]
