"""Reference: folders made here with known faults, counted by hand. Run: pytest tests/datamodules/test_check_command.py.

Every test calls the command's own `main`; what it prints and writes is what a user gets.
"""

import io
import json
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError, Example
from datamodules.check import quick_checks
from datamodules.check.__main__ import main
from datamodules.check.audit import audit, normal_text
from datamodules.check.overlap import overlaps
from datamodules.medxpertqa import MedXpertQA
from datamodules.mmedexpert import MMedExpert
from datamodules.phantoms.chest import ChestFilms
from datamodules.phantoms.skin import SkinLesions
from datamodules.pictures import bit_count, difference_hash
from tests.datamodules import released_shapes as made
from tests.datamodules.released_shapes import TRIALS

MEDXPERTQA = "datamodules.medxpertqa.MedXpertQA"
MMEDEXPERT = "datamodules.mmedexpert.MMedExpert"


def run(tmp_path, *arguments):
    """(exit code, JSON) of the command."""
    path = tmp_path / "out" / "check.json"
    code = main([*map(str, arguments), "--json", str(path)])
    return code, json.loads(path.read_text("utf-8"))


def test_a_good_set_by_hand(tmp_path, capsys):
    made.medxpertqa(tmp_path / "set")
    code, found = run(tmp_path, MEDXPERTQA, f"root={tmp_path / 'set'}")
    assert code == 0
    assert found["may_start"] is True
    assert found["problems"] == []
    test = found["splits"]["test"]
    pictures = sum(1 + i % 6 for i in range(TRIALS))
    assert (test["examples"], test["images"], test["images_found"], test["images_opened"]) == (40, *[pictures] * 3)
    assert test["images_missing"] == test["images_broken"] == test["images_over_limits"] == test["bad_rows"] == 0
    assert test["letter_counts"] == dict.fromkeys("ABCDE", 8)
    assert test["majority_guess"] == test["random_guess"] == 0.2
    assert test["tags"]["body_system"] == {"Skeletal": 20, "Other / NA": 20}
    assert "MedXpertQA-MM, 40 of 2000 released questions" in capsys.readouterr().out


def test_nothing_that_is_printed_acts_on_the_terminal(tmp_path, capsys):
    name = "a\x1b[31mb.png"
    (tmp_path / name).write_bytes(b"no picture")
    row = {"id": "q0", "specialty": "pediatrics", "patient_id": "p0", "images": [name], "question": "which?"}
    row |= {"options": ["a", "b"], "answer": "A", "provenance": {"source": "made", "source_id": "0", "licence": "none"}}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    assert main([MMEDEXPERT, f"root={tmp_path}"]) == 1
    printed = capsys.readouterr().out
    assert "a\\x1b[31mb.png" in printed
    assert all(line.isprintable() for line in printed.split("\n"))


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it is `side` x `side`."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_everything_that_is_wrong_is_listed_by_file_row_and_reason(tmp_path, capsys):
    root = tmp_path / "set"
    made.medxpertqa(root)
    rows = [made.medxpertqa_row(i) for i in range(12)]
    rows[1]["label"] = "F"
    rows[2]["images"] = ["../../x.png"]
    rows[9]["id"] = "MM-8"
    made.write_lines(root / "MM" / "test.jsonl", rows)
    with open(root / "MM" / "test.jsonl", "a") as file:
        file.write('{"id": ')
    images = root / "images"
    (images / "MM-3-a.png").unlink()
    (images / "MM-4-a.png").write_bytes((images / "MM-4-a.png").read_bytes()[:60])
    (images / "MM-5-a.png").write_bytes(bomb(30_000))
    (images / "MM-6-a.png").write_bytes(bomb(9_000))
    (images / "MM-7-a.png").write_bytes(b"")
    code, found = run(tmp_path, MEDXPERTQA, f"root={root}")
    assert code == 1
    assert found["may_start"] is False
    assert {problem["file"] for problem in found["problems"]} == {"MM/test.jsonl"}
    reasons = {problem["row"]: problem["reason"] for problem in found["problems"]}
    assert sorted(reasons) == [2, 3, 4, 5, 6, 7, 8, 10, 13]
    expected = {
        2: "label is 'F'",
        3: "lies outside the root",
        4: "no such image file",
        5: "cannot be read as an image",
        6: "over the limit",
        7: "9000x9000 is over the limit",
        8: "cannot be read as an image",
        10: "question_id 'MM-8' stands in MM/test.jsonl, row 9 already",
        13: "is not JSON",
    }
    assert all(text in reasons[row] for row, text in expected.items())
    test = found["splits"]["test"]
    assert (test["examples"], test["bad_rows"], test["images"]) == (9, 4, 9)
    assert (test["images_missing"], test["images_broken"], test["images_over_limits"]) == (1, 2, 2)
    said = capsys.readouterr().out
    assert "9 PROBLEMS (not usable)" in said
    assert said.endswith("training may NOT start\n")


def test_with_skip_the_same_set_may_be_used_and_its_problems_are_still_listed(tmp_path, capsys):
    made.mmedexpert(tmp_path)
    rows = [made.mmedexpert_row(i) for i in range(2 * TRIALS)]
    rows[5]["answer"] = "Z"
    made.write_lines(tmp_path / "all.jsonl", rows)
    assert run(tmp_path, MMEDEXPERT, f"root={tmp_path}")[0] == 1
    code, found = run(tmp_path, MMEDEXPERT, f"root={tmp_path}", "on_bad_row=skip")
    assert code == 0
    assert [problem["row"] for problem in found["problems"]] == [6]
    assert "1 PROBLEMS (left out by on_bad_row: skip)" in capsys.readouterr().out


def test_a_folder_with_nothing_in_it_is_a_problem_even_with_skip(tmp_path):
    code, found = run(tmp_path, MEDXPERTQA, f"root={tmp_path / 'nowhere'}", "on_bad_row=skip")
    assert code == 1
    assert "holds no file of this set" in found["problems"][0]["reason"]


def test_the_number_of_opened_pictures_can_be_limited_but_missing_ones_are_all_found(tmp_path):
    made.omnimedvqa(tmp_path)
    (tmp_path / "Images" / "MadeSet" / "9.png").unlink()  # sorts last
    _, found = run(tmp_path, "datamodules.omnimedvqa.OmniMedVQA", f"root={tmp_path}", "--pictures", 5)
    test = found["splits"]["test"]
    assert (test["images"], test["images_opened"], test["images_missing"]) == (TRIALS, 5, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected one DataModule's class path or --config"),
        (["datamodules.medxpertqa.MedXpertQB"], "no such class"),
        ([MEDXPERTQA, "rot=x"], "did you mean 'root'"),
        ([MEDXPERTQA, "part=Txt"], "expected one of 'MM', 'Text'"),
        ([MEDXPERTQA, "--config", "rl_gba.yaml"], "expected one DataModule's class path or --config"),
        (["--config", "no_such_file.yaml"], "no such file"),
        ([MEDXPERTQA, "--tokenizer", "no_such_file"], "no tokenizer"),
    ],
)
def test_wrong_commands_are_told_apart_from_bad_data(arguments, said, capsys):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


# Duplicates and overlap


def expert_set(root, rows):
    made.mmedexpert(root)
    made.write_lines(root / "all.jsonl", rows)
    return MMedExpert(MMedExpert.Config(root=str(root)), specialty="expert")


def test_duplicates_and_contradictions_by_hand(tmp_path):
    rows = [made.mmedexpert_row(2 * i, split="train") for i in range(4)]
    again = {"question": "WHICH sign does case 0 show", "images": rows[0]["images"], "options": rows[0]["options"]}
    rows.append(made.mmedexpert_row(50, split="train", **again, answer="A"))  # the same question and answer
    rows.append(made.mmedexpert_row(52, split="train", **again, answer="B"))  # another answer
    rows.append(made.mmedexpert_row(60, split="val"))
    module = expert_set(tmp_path, rows)
    made.picture(tmp_path / "images" / "3.png", 8000)  # the pixels of 0.png under another name
    train = audit(module).splits["train"]
    assert train["duplicate_questions"] == 2
    assert train["contradictions"] == 1
    assert train["duplicate_images"] == 1


def medxpert_set(root, rows):
    made.write_lines(root / "MM" / "test.jsonl", rows)
    for row in rows:
        for name in row["images"]:
            made.picture(root / "images" / name, 900 + int(row["id"].partition("-")[2]))
    return MedXpertQA(MedXpertQA.Config(root=str(root)), specialty="exam")


def test_training_on_an_examined_picture_or_question_is_seen_across_sets(tmp_path):
    exam = medxpert_set(tmp_path / "exam", [made.medxpertqa_row(i) for i in range(6)])
    rows = [made.mmedexpert_row(2 * i, split="train") for i in range(8)]
    tests = [made.mmedexpert_row(2 * i, split="test") for i in range(30, 33)]
    stem = made.medxpertqa_row(3)
    rows[1] |= {"question": stem["question"].partition("\n")[0].upper(), "options": list(stem["options"].values())}
    expert = expert_set(tmp_path / "expert", rows + tests)
    made.picture(tmp_path / "expert" / "images" / "2.png", 904)  # the pixels of MM-4's picture
    found = {(one.kind, one.train, one.examined): one for one in overlaps([audit(expert), audit(exam)])}
    assert set(found) == {("image", "expert/train", "exam/test"), ("text", "expert/train", "exam/test")}
    assert found["image", "expert/train", "exam/test"].pairs == (("made-4", "MM-4"),)
    assert found["text", "expert/train", "exam/test"].pairs == (("made-2", "MM-3"),)
    assert all(one.forbids and one.questions == 1 for one in found.values())


def test_the_quick_part_refuses_an_examined_question(tmp_path):
    rows = [made.mmedexpert_row(2 * i, split="train") for i in range(4)]
    expert = expert_set(tmp_path, [*rows, made.mmedexpert_row(60, split="test")])
    quick_checks({"expert": expert})
    rows[1] |= {"question": made.STEMS[0], "options": made.mmedexpert_row(60)["options"], "images": []}
    rows.append(
        made.mmedexpert_row(62, split="test") | {"images": []} | {k: rows[1][k] for k in ("question", "options")}
    )
    rows[-1]["answer"] = rows[1]["answer"]
    with pytest.raises(BadExampleError, match=r"1 overlaps:\n  expert/train holds the text of 1 .* made-2 and made-62"):
        quick_checks({"expert": expert_set(tmp_path, rows)})


def test_what_was_found_with_a_set_as_examined_is_not_taken_for_what_is_found_with_it_as_trained(tmp_path, capsys):
    stem = {"question": made.STEMS[0], "options": ["liver", "spleen", "kidney", "lung"], "answer": "A", "images": []}
    sets = {
        "a": [made.mmedexpert_row(2, split="train"), made.mmedexpert_row(60, split="test") | stem],
        "b": [made.mmedexpert_row(4, split="train") | stem, made.mmedexpert_row(62, split="test")],
    }
    sets = {name: expert_set(tmp_path / name, rows) for name, rows in sets.items()}
    for data in sets.values():
        data.memory = tmp_path / "memory"
    time.sleep(1.1)  # what follows from files that were just written is not remembered
    quick_checks({"a": sets["a"]}, examined={"b": sets["b"]}, training=False)
    assert "OVERLAP" not in capsys.readouterr().err
    quick_checks(sets, training=False)
    assert "OVERLAP: expert/train holds the text of 1" in capsys.readouterr().err


def test_the_quick_part_refuses_an_examined_picture_under_another_name(tmp_path, capsys):
    rows = [made.mmedexpert_row(2 * i, split="train") for i in range(4)]
    rows.append(made.mmedexpert_row(60, split="test"))
    expert = expert_set(tmp_path, rows)
    (tmp_path / "images" / "1.png").write_bytes((tmp_path / "images" / "30.png").read_bytes())
    with pytest.raises(BadExampleError, match=r"expert/train holds a picture of 1 .* made-2 and made-60"):
        quick_checks({"expert": expert})
    quick_checks({"expert": expert}, training=False)  # a release that repeats a picture can still be examined
    assert "OVERLAP: expert/train holds a picture of 1 questions of expert/test" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ([{"options": ["one", "two", "three", "four"]}], "text"),  # other options, another right answer
        ([{}, {}], "text"),  # listed twice, with two pictures
        ([{}, {"answer": "B"}], "template"),  # two pictures, two answers
        ([{}, {"answer": "B", "images": ["images/0.png"]}], "text"),  # a contradiction is no template
    ],
)
def test_a_long_stem_is_the_same_question_whatever_else_differs(tmp_path, changes, kind):
    stem = {"question": made.STEMS[0], "options": ["liver", "spleen", "kidney", "lung"], "answer": "A"}
    train = [made.mmedexpert_row(2 * i, split="train") | stem | change for i, change in enumerate(changes)]
    test = [made.mmedexpert_row(60, split="test") | stem, made.mmedexpert_row(62, split="test")]
    expert = expert_set(tmp_path, [*train, *test])
    (found,) = overlaps([audit(expert)])
    assert (found.kind, found.pairs, found.forbids) == (kind, (("made-0", "made-60"),), kind == "text")
    assert str(found).startswith("expert/train holds the text")


def test_equal_short_texts_are_noted_but_forbid_nothing(tmp_path):
    rows = [made.mmedexpert_row(2 * i, split=("train", "test")[i == 0], images=[]) for i in range(8)]
    rows.append(made.mmedexpert_row(40, split="val"))
    rows[2] |= {key: rows[0][key] for key in ("question", "options")}
    (found,) = overlaps([audit(expert_set(tmp_path, rows))])
    assert (found.kind, found.pairs, found.forbids) == ("short_text", (("made-4", "made-0"),), False)


def test_short_questions_with_pictures_of_their_own_are_no_overlap(tmp_path):
    rows = [made.mmedexpert_row(2 * i, split=("train", "test")[i % 2]) for i in range(8)]
    for row in rows:
        row |= {"question": "Normal?", "options": ["yes", "no"], "answer": "A"}
    assert overlaps([audit(expert_set(tmp_path, rows))]) == []


def test_a_picture_that_was_compressed_again_is_noted_but_forbids_nothing(tmp_path):
    films = ChestFilms(ChestFilms.Config(n_patients=60))
    picture = films.splits["test"][0].images[0]()
    assert overlaps([audit(films)]) == []  # sixty patients, no two alike
    rows = [made.mmedexpert_row(2 * i, split=("train", "test")[i == 0]) for i in range(4)]
    module = expert_set(tmp_path, rows)
    picture.save(tmp_path / "images" / "0.png")
    stream = io.BytesIO()
    picture.resize((168, 168), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=60)
    Image.open(stream).save(tmp_path / "images" / "1.png")
    (found,) = overlaps([audit(module)])
    assert (found.kind, found.pairs, found.forbids) == ("look", (("made-2", "made-0"),), False)


def test_a_look_survives_compression_and_tells_patients_apart():
    lesions = {e.patient_id: e.images[0]() for e in SkinLesions(SkinLesions.Config(n_patients=40)).examples()}
    looks = np.stack([difference_hash(picture) for picture in lesions.values()])
    distance = bit_count(looks[None] ^ looks[:, None])
    assert (distance + 256 * np.eye(len(looks), dtype=int)).min() > 20
    for picture, look in zip(lesions.values(), looks, strict=True):
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=50)
        assert bit_count(difference_hash(Image.open(stream)) ^ look) <= 20


def test_a_look_by_hand():
    # grey rises by 10 per cell from left to right: every cell is brighter than its left neighbour by more than 4
    ramp = np.repeat(np.repeat(np.arange(0, 170, 10, dtype=np.uint8)[None], 16, axis=0), 4, axis=1)
    assert bit_count(difference_hash(Image.fromarray(ramp))) == 256
    assert bit_count(difference_hash(Image.fromarray(ramp[:, ::-1].copy()))) == 0
    gentle = (ramp // 10 * 3).astype(np.uint8)  # 3 per cell: below the threshold
    assert bit_count(difference_hash(Image.fromarray(gentle))) == 0


def test_normal_text_by_hand():
    assert normal_text("  Is the\u00a0HEART \uff45nlarged? ") == "is the heart enlarged"
    assert normal_text("T1-weighted") != normal_text("T2-weighted")


# Configurations, lengths, the page


def write_config(tmp_path, text):
    path = tmp_path / "sets.yaml"
    path.write_text(text)
    return path


def test_a_configuration_is_checked_as_a_whole(tmp_path, capsys):
    made.mmedexpert(tmp_path / "expert")
    made.medxpertqa(tmp_path / "exam")
    path = write_config(
        tmp_path,
        f"specialties:\n"
        f"  pediatrics: {{class_path: {MMEDEXPERT}, init_args: {{root: {tmp_path}/expert, subset: pediatrics}}}}\n"
        f"  exam: {{class_path: {MEDXPERTQA}, init_args: {{root: {tmp_path}/exam}}}}\n"
        "data: {val_fraction: 0.2}\n",
    )
    code, found = run(tmp_path, "--config", path)
    assert code == 0
    assert {"pediatrics/train", "pediatrics/val", "pediatrics/test", "exam/test"} == set(found["splits"])
    assert sum(found["splits"][f"pediatrics/{name}"]["examples"] for name in ("train", "val", "test")) == TRIALS // 2
    (tmp_path / "exam" / "images" / "MM-0-a.png").unlink()
    code, found = run(tmp_path, "--config", path)
    assert code == 1
    assert [(p["specialty"], p["row"]) for p in found["problems"]] == [("exam", 1)]
    assert run(tmp_path, "--config", path, "specialties.exam=null")[0] == 0
    rows = [made.mmedexpert_row(i, split="train" if i < 8 else "val") for i in range(12)]
    made.write_lines(tmp_path / "expert" / "all.jsonl", rows)
    made.picture(tmp_path / "expert" / "images" / "0.png", 1010)  # the pixels of MM-1's first picture, in case 0
    code, found = run(tmp_path, "--config", path, "specialties.exam.init_args.on_bad_row=skip")
    assert code == 1
    assert [(one["kind"], one["pairs"], one["forbids"]) for one in found["overlaps"]] == [
        ("image", [["made-1", "MM-1"]], True)
    ]
    assert "OVERLAP: pediatrics/train holds a picture of 1 questions of exam/test" in capsys.readouterr().out


def test_shipped_phantoms_pass(tmp_path):
    code, found = run(tmp_path, "--config", "data/phantoms.yaml", "data.n_patients=60")
    assert code == 0
    assert sum(counts["examples"] for counts in found["splits"].values()) == 4 * 120
    assert not any(one["forbids"] for one in found["overlaps"])


def word_tokenizer(path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(path))


def test_lengths_in_tokens_by_hand(tmp_path):
    made.mmedexpert(tmp_path)
    word_tokenizer(tmp_path / "tokenizer.json")
    arguments = [MMEDEXPERT, f"root={tmp_path}", "--tokenizer", tmp_path, "--image-tokens", 100, "--max-tokens", 131]
    _, found = run(tmp_path, *arguments)
    # "Which sign does case 7 show?" 6, four options of "A) sign 7 a" 4 each, the trace "<think>two signs compete, the
    # first fits: sign 7 a.</think><answer>B</answer>" 9, one picture 100: 131 words
    lengths = found["splits"]["train"]["tokens"]
    assert lengths == {"median": 131, "p95": 131, "max": 131, "limit": 131, "cut_off": 0}
    _, found = run(tmp_path, *arguments[:-1], 130)
    train = found["splits"]["train"]
    assert train["tokens"]["cut_off"] == train["examples"] > 0


def test_the_page_shows_samples_and_runs_nothing_from_the_data(tmp_path):
    rows = [made.medxpertqa_row(i) for i in range(6)]
    for row in rows:
        row["question"] = "<script>alert(1)</script> what is shown"
        row["options"]["A"] = "<img src=x onerror=alert(2)>"
        row["body_system"] = "</p><script>"
    rows[3]["images"] = ['<b>"x".png']
    made.medxpertqa(tmp_path / "set")
    made.write_lines(tmp_path / "set" / "MM" / "test.jsonl", rows)
    main([MEDXPERTQA, f"root={tmp_path / 'set'}", "--html", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("<div class='card'>") == 6
    assert page.count("<img alt='' src='data:image/jpeg;base64,") == 5
    assert "Training may not start." in page
    for tag in ("<script", "onerror=alert(2)>", '<b>"x"', "http://", "https://"):
        assert tag not in page.replace("&lt;img src=x onerror=alert(2)&gt;", "")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_set_without_files_of_rows_names_the_question(tmp_path):
    class Films(VQADataModule):
        def examples(self):
            for i in range(30):
                yield Example(f"p{i}", (self.root / f"{i}.png",), "which?", ("a", "b"), "a", f"q{i}")

    found = audit(Films(Films.Config(root=str(tmp_path), val_fraction=0.2), specialty="teeth"))
    assert len(found.problems) == 30
    assert any("q7: " in problem.reason and "no such image file" in problem.reason for problem in found.problems)
    assert not found.usable
