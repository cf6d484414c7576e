# Reference: the bytes put in, and replies by hand. Run: pytest tests/curation/test_curation_replies.py
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.asking import ask
from curation.local import LocalModel
from curation.replies import Replies
from curation.teachers import Request, read_reply
from datamodules.batch import Example
from tests.curation.fake_endpoint import completion

KEY = "ab" + "0" * 62


@given(body=st.binary(max_size=300))
def test_any_bytes_come_back(tmp_path_factory, body):
    replies = Replies(tmp_path_factory.mktemp("replies"))
    replies.put(KEY, 200, body, {"row": "ü"})
    assert replies.get(KEY) == (200, body)


@pytest.mark.parametrize("damage", [lambda t: t[: len(t) // 2], lambda t: t.replace("hello", "jello"), lambda t: "[]"])
def test_a_damaged_file_counts_as_not_there(tmp_path, damage):
    replies = Replies(tmp_path)
    replies.put(KEY, 200, b"hello", {})
    replies.path(KEY).write_text(damage(replies.path(KEY).read_text()))
    assert replies.get(KEY) is None
    assert replies.get("cd" + KEY[2:]) is None


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (completion("words"), ""),
        (completion("words", finish="length"), "truncated"),
        (completion(None, finish="length"), "truncated"),
        (completion(""), "empty"),
        (completion(None), "empty"),
        (completion("no", finish="content_filter"), "filtered"),
        (completion("half \ud800 a pair"), "not_text"),
        (completion(["a", "list"]), "malformed"),
        (completion("words", model="other"), "wrong_model"),
        (completion("words", model=None), ""),
        (completion("words", usage="many"), ""),
        (completion("words", choices=[]), "malformed"),
        (b'{"choices": [], "choices": [{"message": {"content": "words"}}]}', "malformed"),
        (b"null", "malformed"),
    ],
)
def test_faults_by_hand(body, fault):
    reply = read_reply(200, body, ["fake-1"])
    assert (reply.fault, reply.text) == (fault, "" if fault else "words")


def test_an_error_status_is_no_answer_whatever_the_body_says():
    assert read_reply(422, completion("words")).fault == "refused"


def test_replies_are_read_one_by_one(tmp_path):
    body = completion("word " * 20_000)  # 100 kB each
    teacher = LocalModel(LocalModel.Config(config="never.yaml"))
    teacher._identity = {"model": "made"}
    requests = [Request("r", Example("p", (), f"{i}?", ("a", "b"), "a", f"{i}"), ()) for i in range(40)]
    replies = Replies(tmp_path)
    for request in requests:
        replies.put(teacher.key(request), 200, body, {})
    tracemalloc.start()
    lengths = [len(reply.text) for reply in ask(teacher, requests, replies, "made")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lengths == [100_000] * 40
    assert peak < 2_000_000  # all together are 4 MB


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "message", "content", "model", "usage", "finish_reason"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_json_raises(content):
    reply = read_reply(200, json.dumps(content).encode(), ["m"])
    assert bool(reply.text) != bool(reply.fault)


@given(st.binary(max_size=200))
def test_no_bytes_raise(body):
    assert read_reply(200, body).fault in ("malformed", "empty")
