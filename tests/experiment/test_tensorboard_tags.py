"""Reference: the tags that `lightning_modules/rl_metrics.py` names, read back with TensorBoard's own reader.

Run: pytest tests/experiment/test_tensorboard_tags.py.
"""

import csv
import io
import json
import os
import re
import time
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
from PIL import Image
from tensorboard import default, program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from callbacks.layout import CHARTS, GUIDELINE_QUANTITIES, ScalarLayout, scalar_layout
from experiment import board
from lightning_modules.rl_metrics import choice_metrics

SFT = {"train/loss", "train/token_probability"}
GBA = {
    *(f"train/reward/{name}" for name in ("total", "correct", "format", "adherence")),
    *(f"train/dead_groups/{name}" for name in ("total", "correct", "format")),
    *(f"train/clip_fraction/{name}" for name in ("low", "high")),
    *(f"train/completion/{name}" for name in ("tokens", "truncated", "parsed", "gated", "letter_distance")),
    *(
        f"train/guideline/{name}/{quantity}"
        for name in ("differential", "bayesian")
        for quantity in ("reward", "correct", "adherence", "advantage", "won")
    ),
    "train/kl/ref_nats",
    "train/entropy_nats",
    "train/loss/policy",
    "train/grad_norm",
    "train/ratio/sampler_log_max",
    "train/ratio/sampler_log_mean",
}


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0}).Reload()


@pytest.mark.parametrize("specialty", ["alpha", "beta"])
@pytest.mark.parametrize(("experiment", "expected"), [("dsa", SFT), ("gba", GBA)])
def test_every_promised_scalar_is_there_once_per_step(lineage, experiment, expected, specialty):
    assert len([*(lineage.runs / experiment / specialty).glob("events.*")]) == 1  # TensorBoard sorts files by name
    events = read(lineage.runs / experiment / specialty)
    assert expected <= set(events.Tags()["scalars"])
    for tag in expected:
        assert [event.step for event in events.Scalars(tag)] == [0, 1], tag


def test_the_first_step_of_gba_stands_on_its_expert(lineage):
    events = read(lineage.runs / "gba" / "alpha")
    assert events.Scalars("train/kl/ref_nats")[0].value == 0.0
    assert events.Scalars("train/clip_fraction/high")[0].value == 0.0
    assert events.Scalars("train/kl/ref_nats")[1].value > 0.0


@pytest.mark.parametrize("experiment", ["dsa", "gba"])
def test_one_card_per_probe_at_every_look(lineage, experiment):
    events = read(lineage.runs / experiment / "beta")
    assert events.Tags()["images"] == ["samples/beta/0", "samples/beta/1"]
    for tag in events.Tags()["images"]:
        assert [event.step for event in events.Images(tag)] == [0, 2]
        card = Image.open(io.BytesIO(events.Images(tag)[0].encoded_image_string))
        assert len(card.convert("RGB").getcolors(2**20)) > 10  # something is drawn


def test_the_matrix_is_a_figure_and_one_scalar_per_cell(lineage):
    events = read(lineage.runs / "gba" / "evaluation")
    assert events.Tags()["images"] == ["evaluation/matrix"]
    rows = (lineage.runs / "gba/evaluation/matrix.csv").read_text().splitlines()[1:]
    for row in rows:
        model, accuracy = row.split(",")[:2]
        tag = f"test/accuracy/alpha/{model.replace('/', '.')}"
        assert events.Scalars(tag)[0].value == pytest.approx(float(accuracy), abs=1e-6)


def table_of(folder):
    """Settings and values of one row of the HParams table."""
    events = read(folder)
    held = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(held)
    settings = {key: one.string_value or one.number_value for key, one in start.session_start_info.hparams.items()}
    values = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return settings, values


def test_the_hparams_table_has_test_accuracies_and_the_settings_that_differ(lineage):
    folder = lineage.runs / "gba/evaluation"
    with open(folder / "matrix.csv") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert {path.name for path in (folder / "models").iterdir()} == {model.replace("/", ".") for model in rows}
    for model, row in rows.items():
        settings, values = table_of(folder / "models" / model.replace("/", "."))
        assert set(values) == {f"test/accuracy/{name}" for name in ("alpha", "beta", "macro")}
        for name in ("alpha", "beta", "macro"):
            ((step, value),) = values[f"test/accuracy/{name}"]
            assert (step, value) == (0, pytest.approx(float(row[f"{name}/accuracy"]), abs=1e-6))
        assert settings["experiment"] == model.partition("/")[0]
    dsa, _ = table_of(folder / "models/dsa.alpha")
    gba, _ = table_of(folder / "models/gba.alpha")
    assert dsa["specialty"] == gba["specialty"] == "alpha"
    assert (dsa["module.class_path"], gba["module.class_path"]) == (
        "lightning_modules.sft_lora.SFTLoRA",
        "lightning_modules.rl_gba.GBA",
    )
    assert "module.init_args.lora_rank" not in gba  # the same in both
    assert "trainer.max_steps" not in gba
    assert table_of(folder / "models/gba.merged.ties")[0]["merge"] == "ties"
    assert not any("hparams" in tag for tag in read(lineage.runs / "gba/alpha").summary_metadata)


def test_tensorboard_itself_shows_what_tells_the_models_apart_and_how_they_did(lineage):
    shown = program.TensorBoard(default.get_plugins())
    shown.configure(["tensorboard", "--logdir", str(lineage.runs), "--port", "0", "--load_fast", "false"])
    request = Request(f"{shown.launch()}data/plugin/hparams/experiment", b"{}", {"Content-Type": "application/json"})
    until, seen, table = time.monotonic() + 120, None, {}
    while not seen or table != seen:  # it reads the files while it answers
        assert time.monotonic() < until, table
        seen = table
        time.sleep(2)
        with urlopen(request, timeout=60) as reply:
            table = json.loads(reply.read())
    columns = {info["name"] for info in table["hparamInfos"]}
    assert {"experiment", "specialty", "merge", "module.class_path", "seed"} <= columns
    assert not {"module.init_args.lora_rank", "trainer.max_steps", "budget"} & columns  # all models have the same
    assert {info["name"]["tag"] for info in table["metricInfos"]} == {
        f"test/accuracy/{name}" for name in ("alpha", "beta", "macro")
    }


def test_the_board_opens_on_validation_reward_and_kl(lineage, capsys, monkeypatch):
    started = []
    monkeypatch.setattr(os, "execv", lambda path, command: started.append(command))
    board.main([str(lineage.runs), "--port", "6123"])
    told = capsys.readouterr().out.split()[1]
    query = parse_qs(urlsplit(told).query)
    tags = [card["tag"] for card in json.loads(query["pinnedCards"][0])]
    drawn = {*read(lineage.runs / "gba/alpha").Tags()["scalars"], *read(lineage.runs / "gba/beta").Tags()["scalars"]}
    assert tags[:2] == ["val/accuracy/alpha", "val/accuracy/beta"]
    assert set(tags) - drawn == {"val/accuracy/mixed", "train/loss"}  # of the base, and of imitation
    assert {"train/reward/total", "train/kl/ref_nats"} <= set(tags)
    assert "127.0.0.1" in started[0]
    assert board.main([str(lineage.runs / "nowhere")]) == 2


def test_the_layout_is_written_once_and_every_chart_finds_its_curve(lineage):
    folder = lineage.runs / "gba" / "layout"
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    events = read(folder)
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert len(layout.category) == len(CHARTS) + len(GUIDELINE_QUANTITIES)
    known = {*read(lineage.runs / "gba/alpha").Tags()["scalars"], *read(lineage.runs / "dsa/alpha").Tags()["scalars"]}
    for category in layout.category:
        for chart in category.chart:
            for pattern in chart.multiline.tag:
                assert any(re.match(pattern, tag) for tag in known), f"{category.title}: {chart.title}"


def test_charts_of_gba_and_of_its_control_are_the_same_ones():
    gba, grpo = scalar_layout(("differential", "bayesian")), scalar_layout(("neutral",))
    for category in CHARTS:
        assert gba[category] == grpo[category]
    shared = gba["guidelines: advantage"]["all guidelines"][1][0]
    for name in ("differential", "neutral"):
        assert re.match(shared, f"train/guideline/{name}/advantage")
        assert not re.match(shared, f"train/guideline/{name}/advantage/other")


@pytest.mark.parametrize("choice", [None, {"class_path": "lightning_modules.choices.learned.Learned"}])
def test_where_questions_choose_their_guidelines_charts_find_what_was_chosen(tmp_path, choice):
    names = ("differential", "bayesian")
    module = SimpleNamespace(guidelines=names, config=SimpleNamespace(choice=choice))
    experiment = SimpleNamespace(folder=SimpleNamespace(path=tmp_path))
    ScalarLayout(experiment=experiment).on_fit_start(SimpleNamespace(is_global_zero=True), module)
    held = read(tmp_path / "layout").Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    charts = {category.title: category.chart for category in layout_pb2.Layout.FromString(held).category}
    assert ("guidelines: chosen" in charts) == (choice is not None)
    if choice:
        priors = {"neutral": 1.0, **dict.fromkeys(names, 1.0)}
        written = choice_metrics(SimpleNamespace(carried=[("bayesian", "bayesian", "neutral")], prior=priors))
        found = [
            {tag for tag in written for pattern in chart.multiline.tag if re.match(pattern, tag)}
            for chart in charts["guidelines: chosen"]
        ]
        assert found == [{f"train/choice/{name}" for name in names}, {"train/choice/distinct"}]
