"""Reference: the examination's answers, and arithmetic on the adapters' files. What `ask`, `chat` and `export` do."""

import io
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from answering.__main__ import main
from answering.trained import ROOT, of_one_base, one, trained
from artifacts.adapter_files import AdapterError
from configs.load import load
from datamodules.prompts import question_text
from evaluation.predictions import read_predictions
from experiment import export, export_parts
from experiment.run import assemble


@pytest.fixture(scope="module")
def examples(lineage):
    """Question id -> the question as it was put."""
    data = assemble(load(str(lineage.files / "gba.yaml"), [f"runs_dir={lineage.runs}"])).data("alpha")
    return {example.question_id: example for split in data.splits.values() for example in split}


def ask(capsys, run, example, *more):
    arguments = [str(run), example.question, "--image", str(example.images[0]), "--options", *example.options, *more]
    assert main(["ask", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "run"),
    [("base", "base/mixed"), ("dsa/alpha", "dsa/alpha"), ("gba/alpha", "gba/alpha/adapter"), ("gba/merged/ties",) * 2],
)
def test_ask_gives_the_answers_of_the_examination(lineage, examples, row, run, capsys):
    found = [item for item in read_predictions(lineage.runs / "gba") if (item.model, item.specialty) == (row, "alpha")]
    assert len(found) == 4
    for item in found[:2]:
        shown = json.loads(ask(capsys, lineage.runs / run, examples[item.question_id], "--max-tokens", "20", "--json"))
        assert shown["completion"] == item.completion
        assert [held["text"] for held in shown["options"].values()] == list(item.options)


def test_ask_gives_the_samples_that_the_run_showed_at_its_end(lineage, examples, capsys):
    lines = (lineage.runs / "dsa/alpha/samples.jsonl").read_text().splitlines()
    for record in map(json.loads, lines[-2:]):
        shown = json.loads(ask(capsys, lineage.runs / "dsa/alpha", examples[record["question_id"]], "--json"))
        assert shown["completion"].startswith(record["completion"])  # that was cut off at 96 tokens, if it was


def test_what_is_shown_is_the_answer_and_its_parts(lineage, examples, capsys):
    example = next(iter(examples.values()))
    for guideline in ("neutral", "bayesian"):
        more = ["--guideline", guideline, "--max-tokens", "30"]
        shown = json.loads(ask(capsys, lineage.runs / "gba/alpha", example, "--json", *more))
        told = ask(capsys, lineage.runs / "gba/alpha", example, *more)
        assert told.startswith(shown["completion"])  # streamed
        assert f"guideline  {guideline}\n" in told
        assert shown["guideline"] == guideline
        if shown["mass"] is not None:
            assert sum(held["probability"] for held in shown["options"].values()) == pytest.approx(1)
            assert " %  A) " in told


def test_what_cannot_be_asked_is_refused_with_what_can(lineage, tmp_path, capsys):
    for arguments, words in (
        ([str(lineage.runs / "gba"), "q"], "holds 4 that can be asked; name one of them"),
        ([str(tmp_path / "none"), "q"], "no such folder"),
        ([str(lineage.files), "q"], "no manifest.json"),
        ([str(lineage.runs / "gba/alpha"), "q", "--guideline", "bayes"], "did you mean 'bayesian'?"),
        ([str(lineage.runs / "gba/alpha"), "q", "--image", str(tmp_path / "x.png")], "no such image file"),
        ([str(lineage.runs / "gba/alpha"), " "], "must not be empty"),
        ([str(lineage.runs / "gba/alpha"), "q", "--options", "a", "a"], "options repeat"),
        ([str(lineage.runs / "gba/alpha"), "q", "--temperature", "-1"], "--temperature -1.0"),
    ):
        assert main(["ask", *arguments]) == 2
        assert words in capsys.readouterr().err


def test_a_base_that_was_moved_with_its_runs_is_found_and_another_is_refused(lineage, examples, tmp_path, capsys):
    moved = tmp_path / "elsewhere" / "runs"
    shutil.copytree(lineage.runs, moved)
    origin = json.loads((moved / "gba/alpha/adapter/manifest.json").read_text())["extra"]["base"]
    assert one(str(moved / "gba/alpha")).origin["weights"] == origin["weights"]  # where it was, while it is there
    alone = tmp_path / "alone"
    shutil.copytree(moved / "gba", alone / "gba")
    with pytest.raises(AdapterError, match="grew from the adapter"):
        one(str(alone / "gba/alpha"))
    assert export.main([str(moved / "base/mixed"), "--out", str(tmp_path / "other")]) == 0
    weights = load_file(tmp_path / "other/model.safetensors")
    changed = {name: tensor + 1 for name, tensor in weights.items()}
    save_file(changed, tmp_path / "other/model.safetensors", metadata={"format": "pt"})
    example = next(iter(examples.values()))
    capsys.readouterr()
    arguments = [str(moved / "gba/alpha"), example.question, "--base", str(tmp_path / "other")]
    assert main(["ask", *arguments]) == 2
    assert "adapters of one base do not fit another" in capsys.readouterr().err


def test_a_chat_goes_on_over_turns_and_pictures_and_survives_mistakes(lineage, examples, capsys, monkeypatch, tmp_path):
    first, second = list(examples.values())[:2]
    asked = question_text(first).replace("\n", " ")

    def talk(*lines):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        assert main(["chat", str(lineage.runs / "gba/alpha"), "--max-tokens", "12"]) == 0
        return capsys.readouterr().out

    once = talk(f"/image {first.images[0]}", asked)
    again = talk(f"/image {tmp_path}/none.png", f"/image {first.images[0]}", asked, "/guideline nobody", "/what")
    assert "no such image file" in again
    assert "unknown name 'nobody' among guidelines" in again
    assert "/reset" in again
    assert once.splitlines()[2] == again.splitlines()[3]
    more = talk(f"/image {first.images[0]}", asked, f"/image {second.images[0]}", "and this?", "/reset", asked, "/quit")
    assert more.splitlines()[2] == once.splitlines()[2]
    assert "begun anew" in more
    assert (
        talk(asked, "/quit", "never read").splitlines()[1:] == more.splitlines()[-len(talk(asked).splitlines()) + 1 :]
    )


# -- export ----------------------------------------------------------------------------------------------------------


def deltas(adapter):
    """Module -> its dense update, from the files of an adapter by the definition: (alpha / r) B A."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    modules = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in tensors}
    found = {}
    for module in modules:
        A, B = (tensors[f"base_model.model.{module}.lora_{side}.weight"].double() for side in "AB")
        found[module] = config["lora_alpha"] / A.shape[0] * B @ A
    return found


@pytest.fixture(scope="module")
def exported(lineage, tmp_path_factory):
    """The trained base as a checkpoint."""
    out = tmp_path_factory.mktemp("exported") / "base"
    assert export.main([str(lineage.runs / "base/mixed"), "--out", str(out)]) == 0
    return out


def test_a_chain_becomes_one_adapter_whose_rank_is_the_sum(lineage, exported, tmp_path, capsys):
    run, out = str(lineage.runs / "gba/alpha"), tmp_path / "adapter"
    assert export.main([run, "--adapter", "--out", str(out)]) == 2
    assert "its base was trained here" in capsys.readouterr().err
    assert export.main([run, "--adapter", "--base", str(exported), "--out", str(out)]) == 0
    assert "2 stage(s) in one LoRA of rank 4; loaded again by PEFT" in capsys.readouterr().out
    whole, stages = deltas(out), [deltas(lineage.runs / stage / "alpha/adapter") for stage in ("dsa", "gba")]
    assert set(whole) == set(stages[0])
    for module, delta in whole.items():
        torch.testing.assert_close(delta, stages[0][module] + stages[1][module], atol=1e-7, rtol=1e-5)
    card = (out / "README.md").read_text()
    assert "| gba | alpha | 2 |" in card
    assert "| gba/alpha | " in card  # its results
    assert str(exported) in card
    assert sorted(path.name for path in out.iterdir() if path.suffix == ".safetensors") == ["adapter_model.safetensors"]


@pytest.mark.parametrize("run", ["gba/alpha", "gba/merged/task_arithmetic"])
def test_a_merged_export_is_the_base_and_its_updates(lineage, exported, run, tmp_path, capsys):
    out = tmp_path / "merged"
    assert export.main([str(lineage.runs / run), "--out", str(out)]) == 0
    base, found = (load_file(folder / "model.safetensors") for folder in (exported, out))
    chain = one(str(lineage.runs / run)).adapters
    changes = [deltas(adapter) for adapter in chain] if run == "gba/alpha" else None
    moved = {name for name in found if not torch.equal(found[name], base[name])}
    assert len(moved) == len(load_file(chain[0] / "adapter_model.safetensors")) // 2
    for module in changes[0] if changes else ():
        (name,) = (name for name in found if name.endswith(f"{module.rpartition('language_model.')[2]}.weight"))
        expected = base[name].double() + sum(change[module] for change in changes)
        torch.testing.assert_close(found[name].double(), expected, atol=1e-6, rtol=1e-5)


def test_an_export_that_is_not_what_was_trained_is_never_written(lineage, tmp_path, capsys, monkeypatch):
    def only_the_first(trained, family):
        short = type(trained)(trained.name, trained.adapters[:1], trained.origin)
        return summed(short, family)

    summed = export_parts.summed
    monkeypatch.setattr(export_parts, "summed", only_the_first)
    monkeypatch.setattr("experiment.export_check.LIMIT", 1e-6)  # the second stage took two small steps
    assert export.main([str(lineage.runs / "gba/alpha"), "--out", str(tmp_path / "x")]) == 1
    assert "differs from what was exported" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_stands_on_one_base_is_served_together(lineage):
    found = of_one_base(trained([str(lineage.runs / name) for name in ("gba", "dsa/alpha", "base/mixed")]))
    assert [member.name for member in found] == [
        "base",
        *("gba/alpha", "gba/beta", "gba/merged/task_arithmetic", "gba/merged/ties", "dsa/alpha"),
    ]
    assert [len(member.adapters) for member in found] == [0, 2, 2, 1, 1, 1]
    with pytest.raises(AdapterError, match="of different bases"):
        of_one_base([*found, *trained([str(ROOT / "configs/model/tiny_base")])])
