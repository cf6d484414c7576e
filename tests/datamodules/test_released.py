"""Reference: the released shapes' traps, by hand, in folders made on the spot; real records where they are present.

Run: pytest tests/datamodules/test_released.py.
"""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from datamodules.batch import BadExampleError, Example, load_image
from datamodules.check import quick_check
from datamodules.labelled import stem_and_options
from datamodules.loading import Feed
from datamodules.medxpertqa import MedXpertQA
from datamodules.mmedexpert import MMedExpert
from datamodules.mmmu_med import MMMUMed
from datamodules.omnimedvqa import OmniMedVQA
from datamodules.path_vqa import PathVQA
from datamodules.pmc_vqa import PMCVQA
from datamodules.prompts import question_text
from datamodules.r1_json import R1Json
from datamodules.slake import Slake
from datamodules.vqa_rad import VQARad
from tests.datamodules import released_shapes as made
from tests.datamodules.released_shapes import TRIALS

RECORDS = Path(os.environ.get("RELEASED_RECORDS", Path(__file__).resolve().parents[3] / "shared" / "data"))
"""A folder of real records, if there is one."""


def read(cls, **options):
    return cls(cls.Config(**options), specialty="s")


def by_id(module):
    return {e.question_id: e for held in module.splits.values() for e in held}


def write_test(root, rows):
    """A MedXpertQA test file whose pictures all exist."""
    made.write_lines(root / "MM" / "test.jsonl", rows)
    for row in rows:
        for image in row["images"] if isinstance(row.get("images"), list) else []:
            if isinstance(image, str) and not {"/", "\0"} & set(image):
                made.picture(root / "images" / image, 1)
    return read(MedXpertQA, root=str(root))


def fault(module):
    """The one fault of a set."""
    (found,) = module.scan.faults
    return found


# MedXpertQA


def test_both_shapes_of_medxpertqa_are_the_same_set(tmp_path):
    hub = by_id(read(MedXpertQA, **made.medxpertqa(tmp_path / "hub")))
    github = by_id(read(MedXpertQA, **made.medxpertqa(tmp_path / "github", "github")))
    assert len(hub) == TRIALS
    for key, example in hub.items():
        other = github[key]
        assert replace(other, images=()) == replace(example, images=())
        assert [path.name for path in other.images] == [path.name for path in example.images]
    assert Counter(len(e.images) for e in hub.values()) == {1: 7, 2: 7, 3: 7, 4: 7, 5: 6, 6: 6}


def test_choices_stand_once_in_the_prompt_and_letters_are_those_of_the_release(tmp_path):
    example = by_id(read(MedXpertQA, **made.medxpertqa(tmp_path)))["MM-3"]
    assert "Answer Choices" not in example.question
    assert question_text(example).count("finding 3 b") == 1
    assert example.letter == "D"  # 3 % 5
    assert example.tags["body_system"] == "Other / NA"


def test_the_five_rows_of_dev_are_for_validation(tmp_path):
    options = made.medxpertqa(tmp_path)
    made.write_lines(tmp_path / "MM" / "dev.jsonl", [{**made.medxpertqa_row(i), "id": f"dev-{i}"} for i in range(5)])
    splits = read(MedXpertQA, **options).splits
    assert {name: len(held) for name, held in splits.items()} == {"train": 0, "val": 5, "test": TRIALS}


def test_the_text_half_has_ten_options_and_no_picture(tmp_path):
    rows = [{k: v for k, v in made.medxpertqa_row(i, letters="ABCDEFGHIJ").items() if k != "images"} for i in range(10)]
    made.write_lines(tmp_path / "Text" / "test.jsonl", rows)
    examples = by_id(read(MedXpertQA, root=str(tmp_path), part="Text"))
    assert [examples[f"MM-{i}"].letter for i in range(10)] == list("ABCDEFGHIJ")
    assert not any(e.images for e in examples.values())


def test_a_file_of_the_half_with_pictures_is_not_taken_for_the_text_half(tmp_path):
    made.medxpertqa(tmp_path, "github")
    with pytest.raises(BadExampleError, match="row 1: has 1 images, expected none in part=Text; is this a file of"):
        _ = read(MedXpertQA, root=str(tmp_path), part="Text").splits


def test_medxpertqa_is_refused_as_training_data_before_anything_else(tmp_path):
    module = read(MedXpertQA, **made.medxpertqa(tmp_path))
    assert quick_check(module, training=False)["test"]["examples"] == TRIALS
    with pytest.raises(BadExampleError, match=r"'s': never a training set: .*authors"):
        quick_check(module)
    with pytest.raises(BadExampleError, match="never a training set"):
        module.training_batches(Feed("questions", 1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": "F"}, r"label is 'F', which is none of the options A, B, C, D, E"),
        ({"label": ["A", "B"]}, r"label is \['A', 'B'\], expected one letter"),
        ({"label": 3}, r"label is 3, expected a list of texts"),
        ({"options": {"A": "one"}}, r"options are \{'A': 'one'\}, expected 2 to 10"),
        ({"options": {"B": "one", "C": "two"}}, r"texts A, B, C"),
        ({"options": {"A": "one", "B": "one"}, "label": "A"}, r"options repeat"),
        ({"options": [{"letter": "A"}, {"letter": "B"}]}, r"options are"),
        ({"options": {"A": "one", "B": None}}, r"options are"),
        ({"question": "  "}, r"question is missing or empty"),
        ({"question": None}, r"question is missing or empty; the row has \["),
        ({"question": "half a pair \ud800"}, r"question holds half a surrogate pair"),
        ({"question": "long " * 20_000}, r"characters, over the limit of 50000"),
        ({"images": []}, r"has 0 images, expected 1 to 6"),
        ({"images": [f"{i}.png" for i in range(7)]}, r"has 7 images, expected 1 to 6"),
        ({"images": "MM-0-a.png"}, r"images are 'MM-0-a.png', expected a list"),
        ({"images": [{"path": "MM-0-a.png"}]}, r"file names or objects with image_path"),
        ({"images": ["../secret.png"]}, r"'../secret.png': lies outside the root"),
        ({"images": ["/etc/passwd"]}, r"'/etc/passwd': lies outside the root"),
        ({"images": ["C:\\x.png"]}, r"lies outside the root"),
        ({"images": ["a\\..\\..\\x.png"]}, r"lies outside the root"),
        ({"images": ["https://host/x.png"]}, r"expected the name of a file below the root"),
        ({"images": ["x\0.png"]}, r"expected the name of a file below the root"),
        ({"id": "MM-1"}, r"question_id 'MM-1' stands in MM/test.jsonl, row 2 already"),
    ],
)
def test_every_bad_row_is_named_by_file_row_and_reason(tmp_path, change, reason):
    rows = [made.medxpertqa_row(i) for i in range(4)]
    rows[2] = {**rows[2], **change}
    module = write_test(tmp_path, rows)
    assert (fault(module).file, fault(module).row) == ("MM/test.jsonl", 3)
    with pytest.raises(
        BadExampleError, match=rf"1 of 4 rows .*on_bad_row: skip(.|\n)*MM/test.jsonl, row 3: .*{reason}"
    ):
        module.setup()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "MM-2", "question": "cut of', r"is not JSON .*is the line whole\?"),
        (b"[1, 2]", r"is \[1, 2\], no object"),
        (b'{"id": "a", "id": "b"}', r"is not JSON \(a key is given twice among"),
        (b'{"id": "\xff\xfe"}', r"is not JSON: byte 0xff is no character in utf-8"),
        (b"[" * 100_000, r"is not JSON"),
    ],
)
def test_lines_that_are_no_records_are_named(tmp_path, line, reason):
    rows = [json.dumps(made.medxpertqa_row(i)).encode() for i in range(3)]
    write_test(tmp_path, [made.medxpertqa_row(i) for i in range(3)])
    (tmp_path / "MM" / "test.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([*rows[:2], b"", line, rows[2]]))
    module = read(MedXpertQA, root=str(tmp_path))
    assert len(module.scan.places) == 3
    assert fault(module).row == 4
    with pytest.raises(BadExampleError, match=rf"row 4: {reason}"):
        module.setup()


def test_a_link_that_leads_out_of_the_root_is_refused(tmp_path):
    rows = [made.medxpertqa_row(i) for i in range(3)]
    module = write_test(tmp_path / "set", rows)
    Image.new("RGB", (20, 20)).save(tmp_path / "outside.png")
    (tmp_path / "set" / "images" / "MM-1-a.png").unlink()
    (tmp_path / "set" / "images" / "MM-1-a.png").symlink_to(tmp_path / "outside.png")
    assert "MM-1-a.png leads out of the root" in fault(module).reason
    module = read(MedXpertQA, root=str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere" / "MM").mkdir(parents=True)
    (tmp_path / "elsewhere" / "MM" / "test.jsonl").symlink_to(tmp_path / "set" / "MM" / "test.jsonl")
    with pytest.raises(BadExampleError, match=r"the symbolic link .*test\.jsonl leads out of the root"):
        module.setup()


def test_a_name_with_a_composed_accent_finds_the_decomposed_file(tmp_path):
    rows = [{**made.medxpertqa_row(0), "images": ["r\u00f6ntgen.png"]}]
    module = write_test(tmp_path, rows)
    (tmp_path / "images" / "r\u00f6ntgen.png").unlink()
    made.picture(tmp_path / "images" / "ro\u0308ntgen.png", 1)
    assert load_image(module.splits["test"][0].images[0]).size == (32, 24)


def test_skipped_rows_are_counted_where_nobody_can_miss_it(tmp_path, capsys):
    rows = [made.medxpertqa_row(i) for i in range(6)]
    rows[1]["label"] = "Z"
    write_test(tmp_path, rows)
    (tmp_path / "images" / "MM-3-a.png").unlink()
    whole = (tmp_path / "images" / "MM-4-a.png").read_bytes()
    (tmp_path / "images" / "MM-4-a.png").write_bytes(whole[: len(whole) // 2])
    module = read(MedXpertQA, root=str(tmp_path), on_bad_row="skip")
    assert sorted(by_id(module)) == ["MM-0", "MM-2", "MM-5"]
    said = capsys.readouterr().err
    assert "'s': LEFT OUT 3 of 6 rows" in said
    assert "row 2: label is 'Z'" in said
    assert "row 4:" in said
    assert "no such image file" in said
    assert "row 5:" in said
    assert (
        quick_check(module, training=False)["test"] | {"examples": 3, "bad_rows": 3}
        == (quick_check(module, training=False)["test"])
    )


def test_a_folder_without_the_files_says_what_was_expected(tmp_path):
    with pytest.raises(BadExampleError, match=r"holds no file of this set; Layout: MM/dev.*TsinghuaC3I/MedXpertQA"):
        read(MedXpertQA, root=str(tmp_path)).setup()


@pytest.mark.skipif(not RECORDS.is_dir(), reason="no real records here; set RELEASED_RECORDS to their folder")
def test_real_records_of_both_shapes():
    shapes = [f"medxpertqa_mm_{name}_shape.jsonl" for name in ("hf", "github")]
    hub, github = (by_id(read(MedXpertQA, root=str(RECORDS), file=name)) for name in shapes)
    assert len(hub) == 40
    assert hub == github
    assert Counter(len(e.images) for e in hub.values()) == {1: 31, 2: 4, 3: 1, 5: 3, 6: 1}
    assert all(len(e.options) == 5 and "Answer Choices" not in e.question for e in hub.values())
    module = read(OmniMedVQA, root=str(RECORDS))
    examples = module.splits["test"]
    assert Counter(e.tags["modality"] for e in examples) == {"MR": 10, "CT": 10, "X-ray": 10}
    assert Counter(len(e.options) for e in examples) == {4: 28, 2: 2}
    assert module.statement == {"subset": "OmniMedVQA open-access", "released": 88_996, "found": {"test": 30}}


# OmniMedVQA


def test_omnimedvqa_reads_two_to_four_options_and_the_odd_modalities(tmp_path):
    module = read(OmniMedVQA, **made.omnimedvqa(tmp_path))
    examples = by_id(module)
    assert Counter(len(e.options) for e in examples.values()) == {2: 14, 3: 13, 4: 13}
    assert examples["MadeSet_0000"].tags["modality"] == "MR"  # under `modality`
    assert {e.tags["modality"] for e in examples.values()} == {"MR", "OCT", "Ultrasound"}
    assert examples["MadeSet_0005"].answer == "organ 5 1"  # 5 % 4 = 1 of four options
    assert module.subset == "OmniMedVQA open-access"


def omni_rows(tmp_path, *rows):
    made.write_json(tmp_path / "QA_information" / "Open-access" / "A.json", list(rows))
    for row in rows:
        made.picture(tmp_path / row["image_path"], 1)
    return read(OmniMedVQA, root=str(tmp_path))


def test_a_gold_text_matches_by_words_but_never_by_likeness(tmp_path):
    good, bad, twice = (made.omnimedvqa_row(i) for i in range(3))
    good["gt_answer"] = " ORGAN  0 0"
    bad["gt_answer"] = "organ 1 11"
    twice |= {"option_A": "Organ X", "option_B": "organ x", "gt_answer": "ORGAN X"}
    module = omni_rows(tmp_path, good, bad, twice)
    assert module.scan.examples["test"][0].answer == "organ 0 0"
    assert [f.row for f in module.scan.faults] == [2, 3]
    assert "'organ 1 11' is not among the options" in module.scan.faults[0].reason


def test_empty_options_do_not_count_and_restricted_questions_have_no_pictures(tmp_path):
    for empty in ("", "  "):
        row = made.omnimedvqa_row(0) | {"option_C": empty, "option_D": None}
        assert omni_rows(tmp_path, row).splits["test"][0].options == ("organ 0 0", "organ 0 1")
    made.write_json(tmp_path / "QA_information" / "Restricted-access" / "B.json", [made.omnimedvqa_row(1)])
    module = read(OmniMedVQA, root=str(tmp_path), access="all")
    assert len(module.splits["test"]) == 2
    assert module.subset == "OmniMedVQA all"
    with pytest.raises(BadExampleError, match="1 of 2 pictures are bad"):
        quick_check(module, training=False)


def test_a_choice_of_source_sets_is_named_in_the_subset_and_counted(tmp_path):
    module = omni_rows(tmp_path, made.omnimedvqa_row(0), made.omnimedvqa_row(1) | {"dataset": "Other"})
    module = read(OmniMedVQA, root=str(tmp_path), datasets=("Other",))
    assert sorted(by_id(module)) == ["MadeSet_0001"]
    assert module.subset == "OmniMedVQA open-access, only Other"
    assert module.scan.left_out == {"data sets other than Other": 1}


@pytest.mark.parametrize("content", ["{}", "[1", '["a"]', "null"])
def test_a_file_that_is_no_list_of_objects_is_named(tmp_path, content):
    made.omnimedvqa(tmp_path)
    (tmp_path / "QA_information" / "Open-access" / "Z.json").write_text(content)
    faults = read(OmniMedVQA, root=str(tmp_path), on_bad_row="skip").scan.faults
    assert {found.file for found in faults} == {"QA_information/Open-access/Z.json"}
    assert content == '["a"]' or faults[-1].unread


# SLAKE, VQA-RAD, PathVQA


def test_slake_takes_yes_or_no_in_any_case_and_counts_what_it_leaves_out(tmp_path):
    module = read(Slake, **made.slake(tmp_path))
    examples = module.splits["test"]
    assert {e.options for e in examples} == {("yes", "no")}
    assert Counter(e.letter for e in examples) == {"A": TRIALS // 2, "B": TRIALS // 2}
    assert module.scan.left_out == {
        "open questions": 3 * TRIALS,
        "questions marked CLOSED whose answer is neither yes nor no": 3 * TRIALS,
        "questions in zh": 3 * TRIALS,
    }
    assert module.subset == "SLAKE en yes_no"
    assert examples[0].tags["modality"] == "X-ray"


def test_open_questions_have_no_letters_and_are_answered_with_their_text(tmp_path):
    module = read(Slake, **made.slake(tmp_path), questions="open", language="all")
    kinds = Counter((e.tags["answer_type"], e.answer) for e in module.splits["test"])
    assert kinds == {("OPEN", "Liver"): TRIALS, ("CLOSED", "Left"): TRIALS, ("CLOSED", "是"): TRIALS}
    example = module.splits["test"][0]
    assert question_text(example) == example.question
    with pytest.raises(BadExampleError, match="an open question has no letters"):
        _ = example.letter
    traced = replace(example, reasoning={"intuitive": "so"})
    assert traced.trace("intuitive") == f"<think>so</think><answer>{example.answer}</answer>"
    assert quick_check(module)["test"]["open_questions"] == 3 * TRIALS


def test_training_rows_about_an_examined_picture_leave_and_are_counted(tmp_path):
    options = made.short_answers(tmp_path, ("train", "test"))
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    seen = [{"image": f"test-{i}.png", "question": f"seen {i}?", "answer": "no"} for i in range(7)]
    made.write_lines(tmp_path / "train.jsonl", rows + seen)
    module = read(VQARad, **options)
    train, test = ({e.patient_id for e in module.splits[name]} for name in ("train", "test"))
    assert not train & test
    assert len(test) == TRIALS
    assert module.scan.left_out == {"open questions": 2 * TRIALS, "train rows whose picture is in test too": 7}
    assert len(module.splits["train"]) + len(module.splits["val"]) == TRIALS
    assert module.splits["val"]  # made of training pictures, since none was released


def test_path_vqa_keeps_its_own_validation_split(tmp_path):
    splits = read(PathVQA, **made.short_answers(tmp_path), questions="all").splits
    assert {name: len(held) for name, held in splits.items()} == dict.fromkeys(("train", "val", "test"), 2 * TRIALS)


def parquet_folder(root, image_bytes):
    """VQA-RAD as on the hub: picture bytes in the rows, row groups of three."""
    arrow = pytest.importorskip("pyarrow", reason="Parquet is read by an optional package")
    parquet = pytest.importorskip("pyarrow.parquet")
    for split, count in (("train", 30), ("test", 8)):
        rows = {
            "image": [{"bytes": image_bytes(f"{split}{i // 2}"), "path": None} for i in range(count)],
            "question": [f"is case {i} of {split} sick?" for i in range(count)],
            "answer": ["yes" if i % 3 else "no" for i in range(count)],
        }
        (root / "data").mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.table(rows), root / "data" / f"{split}-00000-of-00001-ab12.parquet", row_group_size=3)


def png_of(root):
    def content(name: str) -> bytes:
        made.picture(root / "made.png", sum(name.encode()))
        return (root / "made.png").read_bytes()

    return content


def test_parquet_shards_with_pictures_inside(tmp_path):
    parquet_folder(tmp_path, png_of(tmp_path))
    module = read(VQARad, root=str(tmp_path))
    assert len(module.splits["test"]) == 8
    assert len({e.patient_id for e in module.splits["test"]}) == 4  # two questions about each picture
    for example in module.splits["test"]:
        number = int(example.question.split()[2]) // 2
        made.picture(tmp_path / "want.png", sum(f"test{number}".encode()))
        assert load_image(example.images[0]) == load_image(tmp_path / "want.png")
    assert quick_check(module)["train"]["images"] > 0
    (tmp_path / "data" / "test-00000-of-00001-ab12.parquet").write_bytes(b"PAR1 cut")
    assert "is not Parquet" in read(VQARad, root=str(tmp_path)).scan.faults[0].reason


def test_the_hub_package_is_asked_for_by_name_only_where_a_hub_id_is_given(tmp_path):
    try:
        import datasets
    except ImportError:
        with pytest.raises(BadExampleError, match=r"needs the package datasets \(pip install datasets\)"):
            read(VQARad, hub="owner/name").setup()
        return
    assert datasets.__version__
    parquet_folder(tmp_path, png_of(tmp_path))
    hub, folder = read(VQARad, hub=str(tmp_path)), read(VQARad, root=str(tmp_path))
    for name in ("train", "test"):
        pairs = [
            [(e.question, e.answer, load_image(e.images[0]).tobytes()) for e in m.splits[name]] for m in (hub, folder)
        ]
        assert sorted(pairs[0]) == sorted(pairs[1])


def test_sets_whose_pictures_are_not_in_the_rows_refuse_a_hub_id():
    with pytest.raises(BadExampleError, match="Slake is read from a folder only"):
        read(Slake, hub="BoKelvin/SLAKE").setup()


# PMC-VQA


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_both_versions_of_pmc_vqa(tmp_path, version):
    module = read(PMCVQA, **made.pmc_vqa(tmp_path, version))
    example = by_id(module)[f"pmcvqa-test_{'clean' if version == 'v1' else '2'}-7"]
    assert example.options == ("uptake 6 a", "uptake 6 b", "uptake 6 c", "uptake 6 d")
    assert example.letter == "C"  # the seventh row has i = 6, 6 % 4 = 2
    assert len(module.splits["test"]) == TRIALS
    assert module.subset == {"v1": "PMC-VQA v1 clean", "v2": "PMC-VQA v2"}[version]
    assert quick_check(module)["test"]["images"] == TRIALS


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Choice B": " C:uptake"}, "Choice B is 'C:uptake', which carries the letter C"),
        ({"Choice B": " B: "}, "Choice B is 'B:': no text"),
        ({"Choice B": " B:uptake 2 a"}, "options repeat"),
        ({"Answer_label": "E"}, "label is 'E', which is none of the options"),
        ({"Answer_label": "uptake 9"}, "is not among the options"),
        ({"Figure_path": "../x.jpg"}, "lies outside the root"),
    ],
)
def test_bad_rows_of_pmc_vqa(tmp_path, change, reason):
    options = made.pmc_vqa(tmp_path)
    rows = [made.pmc_vqa_row(i, "test", "v1") for i in range(4)]
    rows[2] |= change
    made.write_csv(tmp_path / "test_clean.csv", rows)
    found = fault(read(PMCVQA, **options))
    assert (found.file, found.row) == ("test_clean.csv", 3)
    assert reason in found.reason


def test_torn_csv_is_named_and_says_what_was_not_read(tmp_path):
    options = made.pmc_vqa(tmp_path)
    path = tmp_path / "test_clean.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"one,two\n", *lines[3:]]))
    assert fault(read(PMCVQA, **options)).reason == "line 4: has 2 fields, and the header has 8"
    path.write_bytes(b"".join([*lines[:3], b"\xff\xfe,\n", *lines[3:]]))
    assert "byte 0xff is no character in utf-8" in fault(read(PMCVQA, **options)).reason


# MMMU-Med, R1, MMedExpert


def test_mmmu_options_are_a_list_written_as_text_and_pictures_are_numbered(tmp_path):
    module = read(MMMUMed, **made.mmmu(tmp_path))
    example = by_id(module)["validation_Pharmacy_1"]
    assert example.options == ("a rise 1", "it's a fall 1", "[image 3]")
    assert example.question.startswith("[image 1] What does")
    assert [path.name for path in example.images] == [f"validation-1-{k}.png" for k in (1, 2, 3)]
    assert example.tags["subject"] == "Pharmacy"
    assert module.scan.left_out == {"open questions": 2}


@pytest.mark.parametrize("options", ["__import__('os')", "['a'", "7", "[" * 5000])
def test_mmmu_options_run_no_code(tmp_path, options):
    settings = made.mmmu(tmp_path)
    made.write_lines(tmp_path / "Pharmacy" / "validation.jsonl", [{**made.mmmu_row(0), "options": options}])
    assert "options are" in fault(read(MMMUMed, **settings)).reason


def test_med_r1_and_medvlm_r1_rows_say_the_same(tmp_path):
    made.r1_json(tmp_path)
    made.write_json(tmp_path / "train" / "CT_train.json", [made.medr1_row(i) for i in range(8)])
    made.write_json(tmp_path / "test" / "CT_test.json", [made.medvlm_row(i, "train") for i in range(8)])
    faultless = read(R1Json, root=str(tmp_path))
    rows = {name: [] for name in ("train", "test")}
    for split, record in faultless.records():
        example: Example = faultless.example(record)
        rows[split].append((example.question, example.options, example.answer, example.images))
    assert rows["train"] == rows["test"]
    assert rows["train"][2][2] == "view 2 2"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"solution": "E"}, "label is 'E'"),
        ({"solution": "<answer> B"}, "expected a letter or <answer> letter </answer>"),
        ({"answer": "view 2 0"}, "solution 'C' is the option 'view 2 2', but answer is 'view 2 0': which"),
        ({"answer": "D"}, "solution 'C' is the option 'view 2 2', but answer is 'D': which of them is right?"),
        ({"image": []}, "image is missing"),
        ({"options": None, "problem": "What? A)x B)y"}, "problem is 'What? A)x B)y', expected options as A) …, B) …"),
        ({"options": None, "problem": "What? A) x B. y"}, "expected options as A) …, B) …"),
        ({"image": ["/data/OmniMedVQA/Images/x.png"]}, "lies outside the root"),
    ],
)
def test_bad_rows_of_r1_json(tmp_path, change, reason):
    options = made.r1_json(tmp_path)
    rows = [made.medvlm_row(i) for i in range(5)]
    rows[2] |= change
    made.write_json(tmp_path / "test" / "CT_test.json", rows)
    found = fault(read(R1Json, **options))
    assert (found.file, found.row) == ("test/CT_test.json", 3)
    assert reason in found.reason


def test_a_bad_problem_of_r1_json_is_left_out_if_asked(tmp_path, capsys):
    options = made.r1_json(tmp_path)
    rows = [made.medr1_row(i) for i in range(5)]
    rows[2]["problem"] = "What? A)x B)y"
    made.write_json(tmp_path / "test" / "CT_test.json", rows)
    assert len(read(R1Json, **options, on_bad_row="skip").splits["test"]) == 4
    assert "test/CT_test.json, row 3: problem is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("problem", "stem", "options"),
    [
        ("What did influenza A. show? A) lung B) liver", "What did influenza A. show?", "lung liver"),
        ("What did influenza A) show? A) lung B) liver", "What did influenza A) show?", "lung liver"),
        ("Is x: A. or y: B. ? A) lung B) liver C) skin", "Is x: A. or y: B. ?", "lung liver skin"),
        ("Which? A. vitamin B) one B. two", "Which?", "vitamin B) one|two"),
        ("A: one B: two C: three", "", "one two three"),
        ("Is it hepatitis A) or B) ? A. first B. second", "Is it hepatitis A) or B) ?", "first second"),
    ],
)
def test_options_inside_a_problem_are_lettered_in_one_style(problem, stem, options):
    found, texts = stem_and_options(problem)
    assert (found, tuple(texts.values())) == (stem, tuple(options.split("|" if "|" in options else " ")))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("OmniMedVQA_train/test.json", "test"),
        ("train_and_test/ct_test.json", "test"),
        ("train_and_test/ct_train.json", "train"),
        ("test/train/ct.json", "train"),
        ("train/valve.json", "train"),
        ("valve.json", "test"),
        ("train_test.json", "test"),
        ("val/validation.jsonl", "val"),
        ("trainset2.json", "train"),
        ("ct.json", "test"),
    ],
)
def test_the_file_names_the_split_and_else_its_folders_from_the_innermost(tmp_path, name, split):
    made.write_json(tmp_path / name, [])
    found = read(R1Json, root=str(tmp_path)).files()
    assert {key: held for key, held in found.items() if held} == {split: [tmp_path / name]}


def test_mmedexpert_selects_a_specialty_and_splits_by_patient(tmp_path):
    options = made.mmedexpert(tmp_path)
    whole, part = read(MMedExpert, **options), read(MMedExpert, **options, subset="pediatrics")
    assert len(by_id(whole)) == 2 * TRIALS
    assert {e.tags["specialty"] for e in by_id(part).values()} == {"pediatrics"}
    assert part.scan.left_out.keys() == {f"rows of {n}" for n in ("adult_medicine", "brain_senses", "oncology_surgery")}
    for name in ("train", "val", "test"):
        assert {e.patient_id for e in part.splits[name]} <= {e.patient_id for e in whole.splits[name]}
        assert all(e.reasoning["differential"].endswith(f"{e.answer}.") for e in whole.splits[name])


def test_a_row_of_mmedexpert_may_name_its_split(tmp_path):
    made.mmedexpert(tmp_path)
    (tmp_path / "all.jsonl").unlink()
    rows = [made.mmedexpert_row(2 * i, split=("train", "val", "test")[i % 3]) for i in range(12)]
    made.write_lines(tmp_path / "a.jsonl", rows)
    made.write_lines(tmp_path / "more" / "test.jsonl", [made.mmedexpert_row(60)])
    splits = read(MMedExpert, root=str(tmp_path)).splits
    assert {name: len(held) for name, held in splits.items()} == {"train": 4, "val": 4, "test": 5}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"specialty": "surgery"}, "specialty is 'surgery', expected one of adult_medicine"),
        ({"split": "tset"}, "split is 'tset', expected one of train, val, test"),
        ({"provenance": {"source": "made"}}, "provenance does not say source_id, licence"),
        ({"provenance": "made"}, "provenance is 'made', expected an object"),
        ({"patient_id": ""}, "patient_id is missing"),
        ({"reasoning": {"intuitive": ""}}, "reasoning.intuitive is '', expected a text"),
        ({"tags": {"age": 7}}, "tags.age is 7, expected a text"),
        ({"answer": "H"}, "label is 'H'"),
    ],
)
def test_bad_rows_of_mmedexpert(tmp_path, change, reason):
    options = made.mmedexpert(tmp_path)
    rows = [made.mmedexpert_row(i) for i in range(12)]
    rows[4] |= change
    made.write_lines(tmp_path / "all.jsonl", rows)
    found = fault(read(MMedExpert, **options))
    assert (found.file, found.row) == ("all.jsonl", 5)
    assert reason in found.reason
