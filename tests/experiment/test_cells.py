"""Reference: the finished lineage's own answers, and its questions and pictures changed by hand.

Run: pytest tests/experiment/test_cells.py.
"""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

import train
from artifacts.manifest import beside, entry_of, read_manifest
from datamodules import embedded
from datamodules.batch import load_image
from datamodules.hashes import data_sha256
from datamodules.mmmu_med import MMMUMed
from evaluation.compare import load_systems, refuse_unlike
from evaluation.predictions import read_predictions
from tests.datamodules import released_shapes

CUTS = {"amid a line": lambda text: text[: len(text) // 2], "a line less": lambda text: text.partition("\n")[2]}
CUTS |= {"empty": lambda text: "", "a line twice": lambda text: text + text.partition("\n")[0] + "\n"}


def test_a_cell_that_was_cut_off_is_refused_and_computed_again_once_it_is_gone(lineage, tmp_path, capsys):
    made = lineage.copy(tmp_path / "runs")
    cell = sorted((made.runs / "gba/evaluation/cells").glob("*.jsonl"))[0]
    whole, answers = cell.read_text("utf-8"), (made.runs / "gba/evaluation/predictions.jsonl").read_bytes()
    for cut in CUTS.values():
        cell.write_text(cut(whole), "utf-8")
        assert made.run("gba") == 1
        said = capsys.readouterr().err
        assert f"{cell}: is damaged" in said
        assert f"delete {cell}" in said
        assert (made.runs / "gba/evaluation/predictions.jsonl").read_bytes() == answers
    cell.unlink()
    assert made.run("gba") == 0
    assert cell.read_text("utf-8") == whole
    assert (made.runs / "gba/evaluation/predictions.jsonl").read_bytes() == answers


def test_tags_are_those_that_the_questions_have_now(lineage, tmp_path):
    made = lineage.copy(tmp_path / "runs")
    answers = (made.runs / "gba/evaluation/predictions.jsonl").read_bytes()
    for cell in (made.runs / "gba/evaluation/cells").glob("*.jsonl"):
        rows = [json.loads(line) for line in cell.read_text("utf-8").splitlines()]
        cell.write_text("".join(json.dumps(row | {"tags": {"modality": "unknown"}}) + "\n" for row in rows), "utf-8")
        content = read_manifest(beside(cell))
        beside(cell).write_text(json.dumps(content | {"files": {cell.name: entry_of(cell)}}))
    (made.runs / "gba/evaluation/predictions.jsonl").unlink()
    assert made.run("gba") == 0
    assert (made.runs / "gba/evaluation/predictions.jsonl").read_bytes() == answers


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(stream, "PNG")
    return stream.getvalue()


def test_pictures_that_stand_in_the_rows_count_by_their_bytes(tmp_path, monkeypatch):
    class ParquetFile:
        """The package's reading, of a file that holds rows as JSON and a picture's colour as text."""

        num_row_groups = 1

        def __init__(self, path):
            self.rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
            self.schema_arrow = SimpleNamespace(names=[*self.rows[0]], metadata=None)
            self.metadata = SimpleNamespace(row_group=lambda group: SimpleNamespace(num_rows=len(self.rows)))

        def read_row_group(self, group, columns=None):
            rows = [row | {"image_1": {"bytes": png(row["image_1"])}} for row in self.rows]
            pictures = {"image_1": SimpleNamespace(to_pylist=lambda: [row["image_1"] for row in rows])}
            return pictures if columns else SimpleNamespace(to_pylist=lambda **_: rows)

    monkeypatch.setattr(embedded, "parquet_reader", lambda: SimpleNamespace(ParquetFile=ParquetFile))

    def key(folder, colour):
        for split in ("dev", "validation"):
            rows = [released_shapes.mmmu_row(i, split) | {"image_1": colour} for i in range(3)]
            rows = [row | {"image_2": None, "image_3": None} for row in rows]
            released_shapes.write_lines(tmp_path / folder / "Pharmacy" / f"{split}-00000-of-00001.parquet", rows)
        data = MMMUMed(MMMUMed.Config(root=str(tmp_path / folder)), specialty="mmmu")
        assert load_image(data.splits["test"][0].images[0]) == Image.new("RGB", (20, 20), colour)
        return data_sha256(data, "test")

    assert key("a", "red") == key("b", "red") != key("c", "blue")


def examine(machine, name, guideline, *overrides):
    """The base on two questions of beta, under one guideline; the folder of its result."""
    content = yaml.safe_load((machine.files / "gba.yaml").read_text())
    data = machine.runs.parent / "beta.yaml"
    data.write_text(yaml.safe_dump({"specialties": {"beta": content["specialties"]["beta"]}, "data": content["data"]}))
    model = machine.files / "base.yaml"
    arguments = [f"model={model}", f"requires=[{model}]", f"data={data}", f"runs_dir={machine.runs}", "workers=1"]
    arguments.append("trust=[made_bars]")
    options = ["n=2", "max_new_tokens=4", f"guidelines=[{guideline}]"]
    arguments += [f"name={name}", *(f"callbacks.evaluate.init_args.{option}" for option in options), *overrides]
    assert train.main(["--config", "evaluate.yaml", *arguments]) == 0
    return machine.runs / name


def test_another_instruction_under_the_same_name_does_not_compare(lineage, tmp_path):
    made = lineage.copy(tmp_path / "runs")
    folders = []
    for number, text in enumerate(("Think step by step.", "Answer B always.", "Think step by step.")):
        guideline = {"name": "x", "instruction": text, "prior": 1.0, "source": "made"}
        guideline["criteria"] = [{"name": "short", "kind": "max_words", "at_most": 9}]
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(guideline))
        folders.append(examine(made, f"run{number}", tmp_path / "x.yaml"))
    with pytest.raises(ValueError, match="was put with another stem, instruction or picture"):
        refuse_unlike(*load_systems(folders[:2]))
    refuse_unlike(*load_systems(folders[:2]), ("prompt",))
    refuse_unlike(*load_systems(folders[::2]))


@pytest.mark.parametrize("change", ["stem", "picture", "version"])
def test_another_stem_picture_or_prompt_does_not_compare(lineage, tmp_path, monkeypatch, change):
    made = lineage.copy(tmp_path / "runs")
    first = examine(made, "first", "neutral")
    content = yaml.safe_load((made.files / "gba.yaml").read_text())
    own = Path(content["specialties"]["beta"]["init_args"]["root"])
    other = tmp_path / "beta"
    other.mkdir()
    for file in own.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    if change == "stem":
        table = (other / "questions.csv").read_text()
        (other / "questions.csv").write_text(table.replace("how long is the bar?", "what size is it?"))
    elif change == "picture":
        for number, path in enumerate(sorted(other.glob("*.png"))):
            Image.new("RGB", (56, 56), (number, 0, 0)).save(path)
    else:
        for module in ("callbacks.matrix_cells", "datamodules.hashes"):
            monkeypatch.setattr(f"{module}.VERSION", "another")
    second = examine(made, "second", "neutral", f"specialties.beta.init_args.root={other}")
    with pytest.raises(ValueError, match="was put with another stem, instruction or picture"):
        refuse_unlike(*load_systems([first, second]))


def test_answers_of_before_can_be_read_and_compared(lineage, tmp_path):
    new = (lineage.runs / "gba/evaluation/predictions.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in new.splitlines()]
    assert all(len(row.pop("prompt_sha256")) == 16 for row in rows)
    old = tmp_path / "old.jsonl"
    old.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert {item.prompt_sha256 for item in read_predictions(old)} == {""}
    refuse_unlike(*load_systems([lineage.runs / "gba", old], ["base"]))
