# Reference: a made folder in the release's shape, and what was done to it.
# Run: pytest tests/judging/test_judging_release.py
import json
import shutil

import pytest

from datamodules.batch import BadExampleError, load_image
from judging.cases import DIMENSIONS, ORGANS
from judging.made import write_made
from judging.release import data_sha256, read_release

ORGANS_HERE = ("brain", "chest")
SOUND = dict.fromkeys(DIMENSIONS, "A")


@pytest.fixture
def root(tmp_path):
    return write_made(tmp_path / "release", cases=3, organs=ORGANS_HERE)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, content):
    path.write_text("".join(json.dumps(row) + "\n" for row in content))


def changed(root, file, number, **fields):
    path = root / "pair_gt_all" / file
    held = rows(path)
    held[number].update(fields)
    write(path, held)


def added(root, file, *more):
    path = root / "pair_gt_all" / file
    write(path, [*rows(path), *more])


def faults(root, organs=ORGANS_HERE):
    found = read_release(root, organs)
    return found, [str(fault) for fault in found.faults]


def test_a_sound_folder_is_read_whole_and_verbatim(root):
    changed(root, "parquet/brain.jsonl", 0, question="  What is it?\n", answer2_text="Text. ")
    found, told = faults(root)
    assert (told, len(found.cases)) == ([], 6)
    first = found.cases[0]
    assert (first.case_id, first.question, first.answers[1]) == ("brain/brain_0", "  What is it?\n", "Text. ")
    truth = rows(root / "pair_gt_all" / "brain.jsonl")[0]["human_answer"]
    assert first.truth == truth
    assert first.tags["department"]
    assert load_image(first.picture).size == (32, 32)
    assert found.usable() == found.cases
    for place in ("data", "."):  # also from the folders above and below
        below = root.parent / "moved" / place
        shutil.copytree(root / "pair_gt_all", below / "pair_gt_all")
        base = root.parent / "moved"
        assert data_sha256(read_release(base, ORGANS_HERE).cases) == data_sha256(found.cases)
        shutil.rmtree(base)
    assert len(read_release(root / "pair_gt_all", ORGANS_HERE).cases) == 6


HUMAN = {
    "a missing key": ({k: v for k, v in SOUND.items() if k != "overall"}, "human_answer lacks overall"),
    "a misspelled key": ({**{k: v for k, v in SOUND.items() if k != "overall"}, "Overall": "A"}, "it has ['Overall']"),
    "lower case": ({**SOUND, "creativity": "b"}, "'creativity': 'b'}, expected 'A' or 'B'"),
    "a tie": ({**SOUND, "accuracy": "tie"}, "expected 'A' or 'B'"),
    "a list": ({**SOUND, "accuracy": ["A"]}, "expected 'A' or 'B'"),
    "no object": ("A", "human_answer is 'A', expected an object"),
    "nothing": (None, "human_answer is None"),
}


@pytest.mark.parametrize("kind", HUMAN)
def test_a_wrong_ground_truth_is_named_with_its_place(root, kind):
    value, reason = HUMAN[kind]
    changed(root, "brain.jsonl", 1, human_answer=value)
    found, (told,) = faults(root)
    assert told.startswith("pair_gt_all/brain.jsonl, row 2: ")
    assert reason in told
    assert [case.question_id for case in found.cases if case.organ == "brain"] == ["brain_0", "brain_2"]
    with pytest.raises(BadExampleError, match=r"1 rows cannot be used[\s\S]*row 2"):
        found.usable()
    assert len(found.usable("skip")) == 5


INPUTS = {
    "another organ's": ({"modality_type": "lung"}, "modality_type is 'lung', and the file is that of 'brain'"),
    "no organ": ({"modality_type": None}, "modality_type is missing"),
    "no picture": ({"image": None}, "image is None"),
    "a lost picture": ({"image": "gone.png"}, "no such file below"),
    "the hub's path without bytes": ({"image": {"bytes": None, "path": "gone.png"}}, "no such file below"),
    "a picture elsewhere": ({"image": "../../etc/passwd"}, "lies outside the root"),
    "no answer": ({"answer2_text": ""}, "answer2_text is missing or empty"),
    "no question": ({"question": None}, "question is missing"),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_a_wrong_input_is_named_with_its_place(root, kind):
    fields, reason = INPUTS[kind]
    changed(root, "parquet/brain.jsonl", 2, **fields)
    found, (told,) = faults(root)
    assert told.startswith("pair_gt_all/parquet/brain.jsonl, row 3: ")
    assert reason in told
    assert len(found.cases) == 5


def test_a_picture_that_does_not_open_is_named(root):
    (root / "pair_gt_all" / "images" / "chest_1.png").write_bytes(b"no picture")
    _, (told,) = faults(root)
    assert "chest.jsonl, row 2" in told
    assert "cannot be read as an image" in told
    path = root / "pair_gt_all" / "images" / "chest_2.png"
    path.write_bytes(path.read_bytes()[:60])  # begins as a picture should
    assert len(faults(root)[1]) == 2
    assert len(read_release(root, ORGANS_HERE, decode=False).faults) == 1


def test_repeated_ids(root):
    truth = rows(root / "pair_gt_all" / "brain.jsonl")[0]
    added(root, "brain.jsonl", truth)  # the same again: the first is kept
    found, (told,) = faults(root)
    assert "row 4: question_id 'brain_0' stands in row 1 already, the same again" in told
    assert len(found.cases) == 6
    flipped = {name: "B" if side == "A" else "A" for name, side in truth["human_answer"].items()}
    added(root, "brain.jsonl", {**truth, "human_answer": flipped})  # two truths: neither is kept
    found, told = faults(root)
    assert len(found.cases) == 5
    assert any("differ" in line for line in told)
    assert any("row 1: question_id 'brain_0' is repeated further down" in line for line in told)


def test_rows_without_their_other_half(root):
    added(root, "brain.jsonl", {"question_id": "alone", "human_answer": SOUND})
    added(root, "parquet/chest.jsonl", {**rows(root / "pair_gt_all/parquet/chest.jsonl")[0], "question_id": "lonely"})
    found, told = faults(root)
    assert len(found.cases) == 6
    assert "brain.jsonl, row 4: question_id 'alone' has no usable row among the inputs" in told[0]
    assert "parquet/chest.jsonl, row 4: question_id 'lonely' has no usable ground truth" in told[1]


def test_an_id_of_two_organs(root):
    inputs, truth = (rows(root / f"pair_gt_all/{file}brain.jsonl")[0] for file in ("parquet/", ""))
    added(root, "parquet/chest.jsonl", {**inputs, "modality_type": "chest"})
    added(root, "chest.jsonl", truth)
    found, (told,) = faults(root)  # the same case again would count twice
    assert "parquet/chest.jsonl, row 4" in told
    assert "stands in pair_gt_all/parquet/brain.jsonl, row 1" in told
    assert len(found.cases) == 6
    changed(root, "parquet/chest.jsonl", 3, question="Another one?")  # each organ numbers its own: allowed, and told
    found, told = faults(root)
    assert (told, len(found.cases)) == ([], 7)
    assert any("used by two organs" in note for note in found.notes)
    assert len({case.case_id for case in found.cases}) == 7


def test_what_was_not_read_is_never_left_out_silently(root):
    (root / "pair_gt_all" / "parquet" / "chest.jsonl").unlink()
    found, told = faults(root)
    assert any("parquet/chest.parquet: cannot be read" in line for line in told)
    with pytest.raises(BadExampleError, match="were not read"):
        found.usable("skip")
    with pytest.raises(BadExampleError, match="organs takes a part"):
        read_release(root).usable("skip")  # 11 organs have no file
    with pytest.raises(BadExampleError, match=r"'Brain' unknown; the release has abdomen"):
        read_release(root, ("Brain",))
    with pytest.raises(BadExampleError, match="Layout: pair_gt_all"):
        read_release(root / "pair_gt_all" / "images")


def test_two_input_files_of_one_organ_are_refused(root):
    (root / "pair_gt_all" / "parquet" / "brain.parquet").write_bytes(b"PAR1")
    found = read_release(root, ("chest",))
    assert len(found.usable()) == 3
    with pytest.raises(BadExampleError, match=r"one of them must be meant|pyarrow"):
        read_release(root, ("brain",)).usable()


def test_cases_of_one_picture_share_a_cluster(root):
    changed(root, "parquet/chest.jsonl", 1, image="chest_0.png")
    shutil.copy(root / "pair_gt_all/images/chest_0.png", root / "pair_gt_all/images/again.png")
    changed(root, "parquet/chest.jsonl", 2, image="again.png")
    found, _ = faults(root)
    assert len({case.cluster for case in found.cases if case.organ == "chest"}) == 1


def test_parquet_as_released(root):
    arrow = pytest.importorskip("pyarrow", reason="Parquet is read by an optional package")
    parquet = pytest.importorskip("pyarrow.parquet")
    before = read_release(root, ORGANS_HERE)
    for organ in ORGANS_HERE:
        path = root / "pair_gt_all" / "parquet" / f"{organ}.jsonl"
        held = rows(path)
        for row in held:
            content = (root / "pair_gt_all" / "images" / row["image"]).read_bytes()
            row["image"] = {"bytes": content, "path": row["image"]}
        parquet.write_table(arrow.Table.from_pylist(held), path.with_suffix(".parquet"), row_group_size=2)
        path.unlink()
    after = read_release(root, ORGANS_HERE)
    assert not after.faults
    assert data_sha256(after.usable()) == data_sha256(before.usable())
    assert [load_image(case.picture).tobytes() for case in after.cases] == [
        load_image(case.picture).tobytes() for case in before.cases
    ]


def test_the_made_folder_holds_all_organs(tmp_path):
    found = read_release(write_made(tmp_path, cases=1))
    assert [case.organ for case in found.usable()] == list(ORGANS)
    assert any("13 cases, and the release has 1026" in note for note in found.notes)
