"""Reference: the whole file decoded and cut at once. Run: pytest tests/datamodules/test_streaming.py."""

import json
import random
import tracemalloc
from dataclasses import dataclass

import pytest

from datamodules.base import VQADataModule
from datamodules.batch import Example
from datamodules.decoding import EncodingError, decoded, streams
from datamodules.json_rows import json_lines
from datamodules.loading import Rows
from datamodules.prompts import NEUTRAL
from datamodules.readers import read_rows
from datamodules.rows import Fault, Record

ROW = json.dumps({"id": "a", "text": "brain é 脳 😀"}, ensure_ascii=False).encode()
PIECES = [ROW, ROW, ROW, b"{", b'{"id": 1}{"id": 2}', b"", b" ", b"\xe4", b"\xf0\x9f", b"\0", "\u2028".encode(), b"[1]",
          b'{"a": 1, "a": 2}', b"\xef\xbb\xbf", "\ud800".encode("utf-8", "surrogatepass")]  # fmt: skip
ENDS = [b"\n", b"\n", b"\r\n", b"\r", b"\r\r\n", b"\n\r", b""]


def whole(content: bytes, encoding: str) -> list[Record | Fault] | str:
    try:
        text, damaged = decoded(content, encoding)
    except EncodingError as error:
        return str(error)
    return list(json_lines(text, "f.jsonl", encoding, damaged))


@pytest.mark.parametrize("seed", range(200))
def test_lines_of_any_bytes_are_those_of_the_whole_file(tmp_path, seed):
    drawn = random.Random(seed)
    start = drawn.choice([b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
    content = start + b"".join(drawn.choice(PIECES) + drawn.choice(ENDS) for _ in range(drawn.randrange(12)))
    encoding = drawn.choice(["utf-8", "utf-8", "cp1252"])
    file = tmp_path / "f.jsonl"
    file.write_bytes(content)
    expected, found = whole(content, encoding), list(read_rows(file, tmp_path, encoding))
    if isinstance(expected, str):
        assert [fault.reason for fault in found] == [f"cannot be read: {expected}"]
    elif not expected:
        assert [fault.reason for fault in found] == ["holds no row; was it written, or downloaded, whole?"]
    else:
        assert found == expected


def test_utf_8_streams_and_what_needs_the_whole_file_does_not():
    assert streams(ROW, "utf-8")
    assert streams(b"\xef\xbb\xbf" + ROW, "cp1252")
    assert not streams(ROW, "cp1252")
    assert not streams("a".encode("utf-16"), "utf-8")
    assert not streams("ab".encode("utf-16-le"), "utf-8")


def peak(file, root) -> int:
    tracemalloc.start()
    assert sum(isinstance(row, Record) for row in read_rows(file, root)) > 0
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_memory_does_not_grow_with_the_file(tmp_path):
    for count in (200, 8000):
        (tmp_path / f"{count}.jsonl").write_bytes((ROW + b"\n") * count)
    peak(tmp_path / "200.jsonl", tmp_path)  # what is loaded once
    few, many = (peak(tmp_path / f"{count}.jsonl", tmp_path) for count in (200, 8000))
    assert many < few + 20_000  # the file grew by 340,000 bytes


@dataclass(frozen=True)
class Count(VQADataModule.Config):
    """Rows to make."""

    count: int = 40


class Made(VQADataModule):
    """Questions with one or two traces."""

    Config = Count

    def examples(self):
        for n in range(self.config.count):
            traces = {"intuitive": f"seen {n}"} | ({"bayesian": f"prior {n}"} if n % 2 else {})
            yield Example(f"p{n}", (), f"question {n}", ("yes", "no"), "yes", f"q{n}", traces)


@pytest.mark.parametrize("guidelines", [None, ("bayesian",), ("intuitive", "bayesian"), ()])
def test_rows_are_written_when_asked_for_and_are_all_there(guidelines):
    data = Made()
    expected = [
        (example, instruction, example.trace(name, "letter"))
        for example in data.splits["train"]
        for name in example.reasoning
        if guidelines is None or name in guidelines
        for instruction in (name, NEUTRAL)
    ]
    rows = data.rows(guidelines)
    assert isinstance(rows, Rows)
    assert (list(rows), len(rows), bool(rows)) == (expected, len(expected), bool(expected))
    assert [rows[i] for i in range(-len(rows), 0)] == expected
    assert rows[1:7:2] == expected[1:7:2]
    with pytest.raises(IndexError):
        rows[len(rows)]
