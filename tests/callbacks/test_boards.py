# Reference: what is drawn, read back from the figures; texts by hand. Run: pytest tests/callbacks/test_boards.py
import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.evaluation_board import REACH, write_board
from callbacks.heat_maps import grids, lines, panels, readable_on
from callbacks.merge_board import verdict
from evaluation.predictions import Prediction
from evaluation.scoring import matrix

GATES = {
    "verdict": "warn",
    "gates": [{"verdict": "accept", "text": "0 of 4 loop"}, {"verdict": "warn", "text": "b is weak"}],
}


def fits(figure):
    """Whether all that is drawn lies on the paper."""
    figure.canvas.draw()
    box, page = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page[0] and box.y1 <= page[1]


def test_text_is_black_on_light_and_white_on_dark():
    # luma: yellow 0.299 + 0.587 = 0.886, blue 0.114, mid red 0.299
    assert [readable_on(c) for c in ((1, 1, 0, 1), (0, 0, 1, 1), (1, 0, 0), (1, 1, 1))] == [
        "black",
        "white",
        "white",
        "black",
    ]


def test_numbers_can_be_read_and_zero_has_no_sign():
    (axes,) = grids({"panel": [[0.0, 1.0], [-0.001, None]]}, ["a", "b"], ["x", "y"], "title").axes
    assert [(t.get_text(), t.get_color()) for t in axes.texts] == [
        ("0.00", "white"),
        ("1.00", "black"),
        ("0.00", "white"),
    ]
    assert axes.get_title() == "panel"
    assert [label.get_text() for label in (*axes.get_yticklabels(), *axes.get_xticklabels())] == ["a", "b", "x", "y"]


@pytest.mark.parametrize(
    ("rows", "end"), [([[0.0], [0.0]], REACH), ([[2.0], [-30.0]], 30.0), ([[None], [None]], REACH)]
)
def test_differences_have_a_symmetric_scale(rows, end):
    names = ["base", "run/merged/regmean"]
    figure = grids({"a_long_name": rows}, names, ["image=none"], "difference, points", REACH)
    assert figure.axes[0].images[0].get_clim() == (-end, end)
    assert fits(figure)


def test_a_grid_fits_whatever_the_names():
    assert fits(grids({"oncology_surgery": [[1.0]]}, ["e" * 40], ["p" * 40], "difference to the main way, points"))
    maps = {f"a measure of many words, {i}": [[0.5] * 9] * 9 for i in range(6)}
    assert fits(grids(maps, [f"dsa.{i}" for i in range(9)], list("abcdefghi"), "t"))


def test_grids_have_a_scale_each():
    figure = grids({"cosine": [[0.0, 1.0]], "norm": [[5.0, 9.0]]}, ["a"], ["x", "y"], "t")
    assert [axes.images[0].get_clim() for axes in figure.axes] == [(0.0, 1.0), (5.0, 9.0)]
    assert [[t.get_text() for t in axes.texts] for axes in figure.axes] == [["0.00", "1.00"], ["5.00", "9.00"]]


@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_experts_share_a_colour_scale_and_each_has_its_panel(count):
    maps = {f"gba.oncology_surgery_{k}": [[0.5 + k, 1.0], [None, 2.0]] for k in range(count)}
    figure = panels(maps, ["0", "1"], ["mlp.down_proj", "self_attn.q_proj"], "retention by expert")
    assert fits(figure)
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in drawn] == list(maps)
    for axes, rows in zip(drawn, maps.values(), strict=True):
        assert axes.images[0].get_clim() == (0.5, max(2.0, 0.5 + count - 1))
        shown = axes.images[0].get_array()
        assert [[None if math.isnan(v) else v for v in row] for row in shown.filled(math.nan).tolist()] == rows
    names = [label.get_text() for label in drawn[0].get_yticklabels()]
    assert names == ["0", "1"]


@pytest.mark.parametrize(("values", "kind"), [((0.6, 25.0), "LogNorm"), ((0.0, 25.0), "Normalize")])
def test_panels_of_a_wide_range_have_a_logarithmic_scale(values, kind):
    figure = panels({f"e{v}": [[v]] for v in values}, ["0"], ["q"], "norm by expert")
    assert {type(axes.images[0].norm).__name__ for axes in figure.axes if axes.images} == {kind}


def test_lines_differ_and_the_legend_hides_none():
    layers = {str(i): {"q": f"m.{i}"} for i in range(4)}
    values = {f"dsa.specialty_{k}": {f"m.{i}": 0.5 for i in range(4)} for k in range(6)}
    fewer = dict(list(values.items())[1:])
    figure = lines({"norm": values, "interference": values, "retention": fewer}, layers)
    assert fits(figure)
    (legend,) = figure.legends
    assert [axes.get_title() for axes in figure.axes] == ["norm", "interference", "retention"]
    assert not any(axes.get_window_extent().overlaps(legend.get_window_extent()) for axes in figure.axes)
    assert [text.get_text() for text in legend.get_texts()] == list(values)
    styles = [{(line.get_linestyle(), line.get_marker(), line.get_color()) for line in a.lines} for a in figure.axes]
    assert [len(found) for found in styles] == [6, 6, 5]
    assert styles[2] < styles[1] == styles[0]  # an expert looks alike everywhere
    widths = [line.get_linewidth() for line in figure.axes[0].lines]
    assert widths == sorted(set(widths), reverse=True)  # equal values: one inside the other


@pytest.mark.parametrize(
    ("values", "scale"),
    [((0.6, 25.0), "log"), ((0.6, 5.0), "linear"), ((-5.0, 25.0), "linear"), ((0.0, 25.0), "linear")],
)
def test_a_wide_range_of_positive_values_has_a_logarithmic_axis(values, scale):
    of = {f"e{i}": {"m": value} for i, value in enumerate(values)}
    other = {name: {"m": 1.0} for name in of}
    assert [axes.get_yscale() for axes in lines({"norm": of, "retention": other}, {"0": {"q": "m"}}).axes] == [
        scale,
        "linear",
    ]


def test_lines_leave_gaps():
    figure = lines({"survival": {"a": {"m.0": 1.0, "m.1": None}}}, {"0": {"q": "m.0"}, "1": {"q": "m.1"}})
    assert math.isnan(figure.axes[0].lines[0].get_ydata()[1])


def test_an_expert_that_is_zero_everywhere_has_an_empty_plot():
    assert len(lines({"retention": {"zero": {"m": None}}}, {"0": {"q": "m"}}).axes[0].lines) == 1


def test_the_verdict_names_every_gate_and_finding():
    report = {"gates": GATES, "verdict": "good", "findings": []}
    told = "gates: **warn**\n\n- accept: 0 of 4 loop\n- warn: b is weak\n\nreport: **good**\n\n- no findings"
    assert verdict(report, rejected=False) == told
    assert verdict(report, rejected=True) == f"**rejected**: kept apart, never the result\n\n{told}"
    bare = {"gates": {"verdict": "accept", "gates": []}, "verdict": "warn", "findings": ["b is lost"]}
    assert verdict(bare, rejected=False) == "gates: **accept**\n\n- all passed\n\nreport: **warn**\n\n- b is lost"


def test_variants_are_on_the_board(tmp_path):
    options = ("left", "right")
    rows = [
        Prediction("base", "skin", f"q{i}", f"p{i}", "neutral", options, "A", f"<answer>{said}</answer>", protocol=way)
        for way, said in (({}, "A"), ({"image": "none"}, "B"))
        for i in range(4)
    ]
    write_board(tmp_path, matrix(rows[:4]), rows)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert "evaluation/variants/skin" in events.Tags()["images"]
