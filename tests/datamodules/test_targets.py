"""Reference: traces written by hand, and generated ones against the strict reader.

Run: pytest tests/datamodules/test_targets.py.
"""

import json
import random

import pytest
from PIL import Image

from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError, Example
from datamodules.mmedexpert import MMedExpert
from datamodules.targets import read_strictly, refuse_unreadable, untagged

PLAIN = "The edge is straight, so it is a square."


def example(reasoning: str, options=("square", "disc"), answer="square") -> Example:
    """A question with one trace."""
    return Example("p", (), "Which shape is shown?", options, answer, "q", {"differential": reasoning})


@pytest.mark.parametrize(
    "trace",
    [
        PLAIN,
        f"<think>{PLAIN}</think><answer>A</answer>",
        f"<think>\n{PLAIN}\n</think>\n\n<answer> A </answer>\n",
        f"<think>{PLAIN}</think><answer>A) square</answer>",
        f"<think>{PLAIN}</think><answer>square</answer>",
        f"<think>{PLAIN}</think>",
    ],
)
def test_whole_completions_become_their_thinking(trace):
    assert untagged(example(trace)).reasoning == {"differential": PLAIN}
    assert untagged(untagged(example(trace))).reasoning == {"differential": PLAIN}


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (f"<think>{PLAIN}</think><answer>B</answer>", "<answer>B</answer>, read as 'B'.*'A\\) square'"),
        (f"<think>{PLAIN}</think><answer>C</answer>", "letter_out_of_range"),
        (f"<think>{PLAIN}</think><answer>A</answer><answer>B</answer>", "several_answers"),
        (f"<think>{PLAIN}<answer>A</answer>", "answer_in_thinking"),
        (f"{PLAIN}<answer>A</answer>", "no_think"),
        (f"<think>{PLAIN}</think> So A.", "no_answer"),
        (f"Well. <think>{PLAIN}</think><answer>A</answer>", "text_outside_tags"),
        (f"<think>{PLAIN}", "unclosed_think"),
    ],
)
def test_other_tags_and_contradictions_are_refused(trace, said):
    with pytest.raises(BadExampleError, match=rf"reasoning\.differential .*{said}"):
        untagged(example(trace))


def test_disguised_tags_are_found_in_the_finished_target():
    with pytest.raises(BadExampleError, match=r"training target.*answer_in_thinking"):
        refuse_unreadable(example("It is ＜answer＞B＜/answer＞."), "letter")
    with pytest.raises(BadExampleError, match="is empty"):
        refuse_unreadable(example(" "), "letter")


def test_a_text_that_is_anothers_letter_is_refused_where_texts_are_taught():
    # blood groups: the block <answer>A</answer> says option A, which is "B" here
    blood = example("Group A by agglutination.", options=("B", "A", "AB"), answer="A")
    refuse_unreadable(blood, "letter")
    with pytest.raises(BadExampleError, match=r"given as text, is read as 'A' \(letter\)"):
        refuse_unreadable(blood, "text")


def test_open_questions_are_read_by_their_text():
    opened = example("<think>Seen.</think><answer>the Heart</answer>", options=(), answer="heart")
    assert untagged(opened).reasoning == {"differential": "Seen."}
    with pytest.raises(BadExampleError, match="read as 'lung'"):
        untagged(example("<think>Seen.</think><answer>lung</answer>", options=(), answer="heart"))


PIECES = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "A",
    "B",
    "square",
    "disc",
    " ",
    "\n",
    "so",
    "< answer>",
    "＜think＞",
)


def test_generated_traces_are_right_targets_or_refused():
    rng, kept = random.Random(0), 0
    for _ in range(4000):
        pieces = rng.choices(PIECES, k=rng.randrange(1, 9))
        if rng.random() < 0.3:
            pieces = ["<think>", *pieces, "</think>", "<answer>", rng.choice("AB"), "</answer>"]
        try:
            found = untagged(example("".join(pieces)))
            refuse_unreadable(found, "letter")
        except BadExampleError:
            continue
        kept += 1
        target = found.trace("differential")
        assert read_strictly(found, target).right
        assert [target.count(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>")] == [1] * 4
    assert 200 < kept < 3800


def rows(root, *traces: str) -> None:
    """A set with one row per trace, each of another patient."""
    Image.new("RGB", (30, 30)).save(root / "0.png")
    made = [
        {
            "id": f"q{number}",
            "specialty": "pediatrics",
            "patient_id": f"p{number}",
            "images": ["0.png"],
            "question": "Which shape is shown?",
            "options": {"A": "square", "B": "disc"},
            "answer": "A",
            "reasoning": {"differential": trace},
            "split": "train" if number < len(traces) - 1 else "test",
            "provenance": {"source": "own", "source_id": "0", "licence": "CC0"},
        }
        for number, trace in enumerate(traces)
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))


def test_rows_with_tags_are_taken_by_their_own_letters_and_bad_ones_named(tmp_path):
    good, bad = f"<think>{PLAIN}</think><answer>A</answer>", f"<think>{PLAIN}</think><answer>B</answer>"
    rows(tmp_path, *[good] * 7, bad, good)
    with pytest.raises(BadExampleError, match=r"rows.jsonl, row 8: .*one of them is wrong"):
        _ = MMedExpert(MMedExpert.Config(root=str(tmp_path))).splits
    data = MMedExpert(MMedExpert.Config(root=str(tmp_path), on_bad_row="skip", val_fraction=0.0))
    targets = [(row[0].letter, row[2]) for row in data.rows()]
    assert len(targets) == 14  # 7 rows, under their own instruction and the neutral one
    assert {letter for letter, _ in targets} == {"A", "B"}  # shown in a drawn order
    assert all(text == f"<think>{PLAIN}</think><answer>{letter}</answer>" for letter, text in targets)


class Own(VQADataModule):
    """A set of somebody's own, from its rows to its splits in one method."""

    def examples(self):
        for number in range(20):
            yield Example(
                f"p{number}", (), "Which shape?", ("square", "disc"), "disc", f"q{number}", {"a": "<answer>A</answer>"}
            )


def test_sets_of_ones_own_are_read_too():
    with pytest.raises(BadExampleError, match=r"example 'q0': reasoning\.a holds the tags <answer> </answer>"):
        _ = Own(Own.Config(shuffle_options=False)).splits
