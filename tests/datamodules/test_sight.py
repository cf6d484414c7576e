"""Reference: lengths counted row by row with a tokenizer of one token per two bytes.

Run: pytest tests/datamodules/test_sight.py.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from datamodules.batch import BadExampleError, Example, PictureError, load_image
from datamodules.check.__main__ import main as check
from datamodules.loading import Demand
from datamodules.mmedexpert import MMedExpert
from datamodules.prompts import prompt_text
from datamodules.sight import Sight
from evaluation.detectable import smallest_told
from experiment.seeing import KeptSight, sight_of
from tests.datamodules.test_targets import PLAIN, rows

WRAPPING = 5


class Squares:
    """Takes pictures of at most four times their height; one token per 10 000 pixels."""

    most_tokens = 30

    def tokens(self, width, height):
        if width > 4 * height:
            raise PictureError("over_limits", f"{width}x{height} is too wide")
        return 1 + width * height // 10_000


@dataclass
class Halves:
    """Two bytes are a token, or one at the end of a text."""

    context: int
    to_input = Squares()
    asked: int = 0

    def prompt_ids(self, text, image_tokens):
        self.asked += 1
        return [0] * (WRAPPING + sum(2 + n for n in image_tokens) + len(self.text_ids(text)))

    def text_ids(self, text):
        return [0] * -(-len(text.encode()) // 2)


def drawn(rng: random.Random) -> list:
    """Pictures of three kinds of source."""
    size = (rng.randrange(1, 500), rng.randrange(200, 500))
    return [Image.new("L", size), lambda: Image.new("L", size)]


def test_what_is_left_out_is_what_is_too_long_by_hand():
    rng, said = random.Random(0), 0
    demand = Demand(("", "reason"), new_tokens=60, traces=frozenset(["a"]))
    examples = []
    for number in range(300):
        question = "ä" * rng.randrange(1, 120) + "b" * rng.randrange(120)
        traces = {"a": "c" * rng.randrange(1, 200), "b": "d" * 5000}
        images = tuple(source for _ in range(rng.randrange(3)) for source in drawn(rng)[: rng.randrange(1, 3)])
        examples.append(Example("p", images, question, ("x", "y"), "x", f"q{number}", traces))
    model = Halves(context=190)
    unfit = Sight(lambda: model, {"train": demand}).unfit("train", examples, "letter")
    for example in examples:
        pictures = [
            model.to_input.tokens(*(source if isinstance(source, Image.Image) else source()).size)
            for source in example.images
        ]
        prompt = max(len(model.prompt_ids(prompt_text(example, text), pictures)) for text in demand.instructions)
        after = max(60, 1 + len(model.text_ids(example.trace("a"))))
        assert (example.question_id in unfit) == (prompt + after > 190), example.question_id
        if example.question_id in unfit:
            said += 1
            assert f"{prompt} tokens, {sum(pictures)} of them for pictures" in unfit[example.question_id]
            assert f"together {prompt + after}, over the model's context of 190" in unfit[example.question_id]
    assert 30 < said < 270


def test_short_questions_are_not_tokenised():
    model = Halves(context=1000)
    examples = [Example(f"p{n}", (), "wide?", ("x", "y"), "x", f"q{n}") for n in range(50)]
    assert Sight(lambda: model, {}).unfit("test", examples, "letter") == {}
    assert model.asked == 1  # what stands around every prompt


def test_the_model_is_made_once_for_a_split_and_for_an_empty_one_never():
    made: list[Halves] = []
    sight = Sight(lambda: made.append(Halves(1000)) or made[-1], {})
    assert sight.unfit("test", [], "letter") == {}
    assert not made
    sight.unfit("test", [Example(f"p{n}", (), "wide?", ("x", "y"), "x", f"q{n}") for n in range(50)], "letter")
    assert len(made) == 1


def test_each_split_is_asked_in_its_own_way():
    example = Example("p", (), "wide?", ("x", "y"), "x", "q", {"a": "c" * 400})
    sight = Sight(lambda: Halves(150), {"train": Demand(traces=None), "val": Demand(new_tokens=140)})
    assert sight.unfit("test", [example], "letter") == {}
    assert "completion may have 2" in sight.unfit("train", [example], "letter")["q"]
    assert "completion may have 140" in sight.unfit("val", [example], "letter")["q"]


def test_two_uses_of_a_split_ask_for_both():
    one, other = Demand(("",), 8, frozenset("a")), Demand(("x", ""), 5, frozenset("b"))
    assert one.joined(other) == Demand(("", "x"), 8, frozenset("ab"))
    assert one.joined(Demand(traces=None)).traces is None


def test_what_was_looked_at_is_remembered_for_the_same_model_and_rows(tmp_path):
    long, short = (Example("p", (), "wide" * n, ("x", "y"), "x", "q", {"a": "c", "b": "d"}) for n in (400, 1))
    models: list[Halves] = []

    def unfit(example, *, named="model", demand=None):
        def model():
            models.append(Halves(120))
            return models[-1]

        demand = demand or Demand(traces=frozenset("ab"))
        return KeptSight(model, {"train": demand}, memory=tmp_path, named=named).unfit("train", [example], "letter")

    first = unfit(long)
    assert first
    assert not unfit(short)
    count = len(models)
    assert unfit(long) == first
    assert len(models) == count  # not asked again
    for other in ({"named": "another"}, {"demand": Demand(new_tokens=9)}):
        assert unfit(long, **other)
        assert len(models) == count + 1
        count += 1


def seen(root: Path, **options) -> MMedExpert:
    """A set that a model of context 120 looks at."""
    data = MMedExpert(MMedExpert.Config(root=str(root), val_fraction=0.0, **options), specialty="shapes")
    data.sight = Sight(lambda: Halves(120), {"train": Demand(traces=None)})
    return data


def test_bad_rows_are_refused_or_skipped_by_the_sets_own_rule(tmp_path, capsys):
    rows(tmp_path, *[PLAIN] * 4, PLAIN * 9, *[PLAIN] * 5)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)
    lines[6] = lines[6].replace("0.png", "wide.png")
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    Image.new("L", (900, 30)).save(tmp_path / "wide.png")
    with pytest.raises(BadExampleError, match="the model cannot take 2 of 10 rows") as caught:
        _ = seen(tmp_path).splits
    assert "rows.jsonl, row 5: its prompt has" in str(caught.value)
    assert f"rows.jsonl, row 7: {tmp_path / 'wide.png'}: 900x30 is too wide" in str(caught.value)
    data = seen(tmp_path, on_bad_row="skip")
    assert {e.question_id for e in data.splits["train"]} == {f"q{n}" for n in (0, 1, 2, 3, 5, 7, 8)}
    assert len(data.splits["test"]) == 1
    assert "LEFT OUT 2 of 10 rows that the model cannot take" in capsys.readouterr().err


def test_nothing_left_is_refused_under_skip_too(tmp_path):
    rows(tmp_path, *[PLAIN * 9] * 3, PLAIN)
    with pytest.raises(BadExampleError, match="no question of the train split"):
        _ = seen(tmp_path, on_bad_row="skip").splits


def test_the_check_asks_the_model_of_a_configuration(tmp_path, capsys):
    rows(tmp_path, *[PLAIN] * 4, PLAIN, *[PLAIN] * 5)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)
    lines[4] = lines[4].replace("0.png", "strip.png")
    lines[6] = lines[6].replace("Which shape", "Which shape " * 900)
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    Image.new("L", (1200, 4)).save(tmp_path / "strip.png")
    (tmp_path / "c.yaml").write_text(
        "model: {class_path: lightning_modules.families.tiny.TinyQwen2_5_VL, init_args: {vocab_size: 400}}\n"
        "specialties:\n"
        f"  shapes: {{class_path: datamodules.mmedexpert.MMedExpert, init_args: {{root: {tmp_path}}}}}\n"
    )
    assert check(["--config", str(tmp_path / "c.yaml"), "--sheet", str(tmp_path / "out" / "sheet.png")]) == 1
    told = capsys.readouterr().out
    assert "rows.jsonl, row 5: " in told
    assert "one side is 300 times the other" in told
    assert "rows.jsonl, row 7: its prompt has" in told
    assert "over the model's context of 2048" in told
    assert f"smallest visible difference between two models, in points: {smallest_told(1, 1)} (80 % power" in told
    page = Image.open(tmp_path / "out" / "sheet.png")
    assert page.width == 1200


@pytest.mark.parametrize(("frames", "shade"), [("first", 0), ("middle", 120)])
def test_of_several_frames_the_setting_chooses(tmp_path, frames, shade):
    rows(tmp_path, *[PLAIN] * 4)
    first, *rest = (Image.new("L", (30, 30), 60 * number) for number in range(4))
    first.save(tmp_path / "cine.tif", save_all=True, append_images=rest)
    lines = (tmp_path / "rows.jsonl").read_text().replace("0.png", "cine.tif")
    (tmp_path / "rows.jsonl").write_text(lines)
    data = MMedExpert(MMedExpert.Config(root=str(tmp_path), val_fraction=0.0, frames=frames, on_bad_row="skip"))
    assert load_image(data.splits["train"][0].images[0]).getpixel((9, 9)) == (shade,) * 3
    refusing = MMedExpert(MMedExpert.Config(root=str(tmp_path), val_fraction=0.0, on_bad_row="skip"))
    assert [fault.row for fault in refusing.scan.faults] == [1, 2, 3, 4]
    assert all("holds 4 frames or pages" in fault.reason for fault in refusing.scan.faults)


def test_another_model_at_the_same_path_is_looked_at_anew(tmp_path):
    settings = {"path": str(tmp_path / "model"), "system": "", "vocab_size": 512}
    model = SimpleNamespace(class_path="lightning_modules.families.qwen2_5_vl.Qwen2_5_VL", init_args=settings)
    context = SimpleNamespace(
        experiment=SimpleNamespace(model=model, module=None),
        resolved={"model": {"class_path": model.class_path, "init_args": settings}},
        base_folder=tmp_path / "base",
        callbacks=list,
    )
    names = [sight_of(context, None).named]
    for file, text in (("model/config.json", "{}"), ("model/config.json", "{ }"), ("base/tokenizer.json", "{}")):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
        names.append(sight_of(context, None).named)
    assert sight_of(context, None).named == names[-1]
    assert len(set(names)) == 4
