# Reference: questions made here whose kinship is known. Run: pytest tests/curation/test_curation_repeats.py
import io

import numpy as np
from PIL import Image

from curation.repeats import examined, linked_patients, repeated
from datamodules.batch import Example, image_key, load_image
from datamodules.check.audit import Item, Picture
from datamodules.pictures import difference_hash

LONG = "A child of five years has had fever and a cough for three days and breathes fast; which finding is likely here?"


def picture(seed: int) -> Image.Image:
    """A field of large blocks: enough structure to be told apart."""
    blocks = np.random.RandomState(seed).randint(0, 255, (8, 8), dtype=np.uint8)
    return Image.fromarray(blocks).resize((128, 128), Image.Resampling.NEAREST).convert("RGB")


def as_jpeg(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.resize((150, 150)).save(stream, "JPEG", quality=80)
    return load_image(lambda: Image.open(stream))


def item(name: str, question="Where is it?", *images, answer="left", options=("left", "right"), patient="") -> Item:
    pictures = tuple(Picture(image_key(i), opened=True, look=difference_hash(i)) for i in images)
    return Item(Example(patient or name, tuple(images), question, options, answer, name), "made", 0, pictures)


def test_repeats_by_hand():
    one, other = picture(1), picture(2)
    items = {
        "a": item("a", "Where is it?", one),
        "b": item("b", "where is it", one, options=("right", "left")),  # same but for spelling and order
        "c": item("c", "Where is it?", other),  # a template about another picture
        "d": item("d", "Where is it?", as_jpeg(one)),  # the same picture, saved with loss
        "e": item("e", "Where is it now?", one),
        "f": item("f", "Where is it?", other, one),  # another number of pictures
    }
    assert repeated(items) == {"b": ("duplicate", "of a"), "d": ("duplicate", "of a")}


def test_of_questions_that_contradict_each_other_none_is_kept():
    one = picture(1)
    items = {"a": item("a", "Where?", one), "b": item("b", "Where?", one, answer="right"), "c": item("c", "Else?", one)}
    found = repeated(items)
    assert set(found) == {"a", "b"}
    assert {reason for reason, _ in found.values()} == {"contradiction"}


def test_flat_pictures_do_not_look_the_same():
    black, dark = Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), (3, 3, 3))
    assert repeated({"a": item("a", "Where?", black), "b": item("b", "Where?", dark)}) == {}


def test_overlap_by_hand():
    seen, other, free = picture(1), picture(2), picture(3)
    tests = [item("t1", "What?", seen), item("t2", LONG, other), item("t3", "Short, no picture?")]
    items = {
        "image": item("image", "Something else?", seen),
        "look": item("look", "Something else?", as_jpeg(seen)),
        "text": item("text", LONG.upper(), free),
        "distractors": item("distractors", LONG, free, options=("left", "right", "up"), answer="up"),
        "short": item("short", "short  no picture"),
        "template": item("template", "What?", free),
        "free": item("free", "Quite another question?"),
    }
    found = {row: reason for row, (reason, _) in examined(items, tests).items()}
    assert found == {
        "image": "overlap_image",
        "look": "overlap_look",
        "text": "overlap_text",
        "distractors": "overlap_text",
        "short": "overlap_text",
    }
    assert examined(items, []) == {}


def test_many_candidates_are_compared_in_blocks(monkeypatch):
    seen = picture(1)
    items = {str(i): item(str(i), f"Question {i}?", picture(i + 10)) for i in range(20)}
    items["hit"] = item("hit", "Question?", as_jpeg(seen))
    whole = examined(items, [item("t", "What?", seen)])
    monkeypatch.setattr("curation.repeats.BLOCK", 3)
    assert examined(items, [item("t", "What?", seen)]) == whole
    assert set(whole) == {"hit"}


def test_patients_who_share_a_picture_or_a_text_are_one():
    one, two = picture(1), picture(2)
    items = {
        "a": item("a", "First?", one),
        "b": item("b", "Second?", one, two),
        "c": item("c", "Third?", two),
        "d": item("d", "Fourth?", picture(4)),
        "e": item("e", "No picture?"),
        "f": item("f", "no picture"),
    }
    patients = {"a": "pool/9", "b": "pool/5", "c": "other/7", "d": "pool/1", "e": "pool/2", "f": "pool/3"}
    found = linked_patients(patients, items)
    assert found == {"a": "other/7", "b": "other/7", "c": "other/7", "d": "pool/1", "e": "pool/2", "f": "pool/2"}
