# Reference: the bytes put in, and replies by hand. Run: pytest tests/curation/test_curation_replies.py
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.local import LocalModel
from curation.teachers import Request
from datamodules.batch import Example
from endpoints.asking import ask
from endpoints.reading import read_reply
from endpoints.replies import Replies
from tests.endpoints.fake_endpoint import completion

KEY = "ab" + "0" * 62


@settings(deadline=None)  # files are written to the end
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
    cut_off = b"words" in body and fault == "truncated"
    assert (reply.fault, reply.text) == (fault, "words" if cut_off or not fault else "")


APART = ("reasoning_content", "reasoning")


def apart(content, **said):
    """A reply whose reasoning stands beside the content."""
    message = {"role": "assistant", "content": content, **said}
    return json.dumps({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}).encode()


@pytest.mark.parametrize("name", APART)
def test_reasoning_that_came_apart_is_put_back_where_the_model_wrote_it(name):
    whole = "<think>The heart is wide.</think><answer>A</answer>"
    for content, reasoning in (
        ("<answer>A</answer>", "The heart is wide."),
        ("\n\n<answer>A</answer>", "\nThe heart is wide.\n"),
        ("</think><answer>A</answer>", "<think>The heart is wide."),
        ("<answer>A</answer>", "<think>The heart is wide.</think>"),
        (whole, "Let me first think about the form that is asked for."),
        (whole, None),
        (whole, {"effort": "high"}),
    ):
        assert read_reply(200, apart(content, **{name: reasoning})).text == whole
    assert read_reply(200, apart("", **{name: "The heart is wide."})).fault == "empty"
    assert read_reply(200, apart(None, **{name: "The heart is wide."})).fault == "empty"
    assert read_reply(200, apart("words", **{name: "half \ud800"})).fault == "not_text"


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(APART))
def test_nothing_of_a_reasoning_or_an_answer_is_lost(reasoning, content, name):
    reply = read_reply(200, apart(content, **{name: reasoning}))
    if not reply.fault and "<think>" not in content:
        inner = reasoning.strip().removeprefix("<think>").removesuffix("</think>").strip()
        assert inner in reply.text
        assert content.removeprefix("</think>").strip() in reply.text


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


FIELDS = ["choices", "message", "content", "model", "usage", "finish_reason", *APART]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=12,
)


@given(JSON)
def test_no_json_raises(content):
    reply = read_reply(200, json.dumps(content).encode(), ["m"])
    assert bool(reply.text) != bool(reply.fault)


@given(st.binary(max_size=200))
def test_no_bytes_raise(body):
    assert read_reply(200, body).fault in ("malformed", "empty")
