"""Reference: OpenAI's chat completions as its clients send them. Run: pytest tests/answering/test_chat_request.py."""

import base64
import copy
import io
import json
import random
import struct
import zlib

import pytest
from PIL import Image

from answering.conversation import Turn
from answering.serving.chat_request import ChatRequest, Offer, read_request
from answering.serving.errors import ApiError
from answering.serving.sent_picture import SentPicture

OFFER = Offer(["base", "gba/alpha"], {"bayesian": "Reason by odds.", "neutral": ""}, 64, 512)


def png(size=(8, 6)):
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, "PNG")
    return stream.getvalue()


def url(content=None, kind="png"):
    return f"data:image/{kind};base64," + base64.b64encode(png() if content is None else content).decode()


def shown(address):
    return {"type": "image_url", "image_url": {"url": address}}


def body(**changes):
    content = [shown(url()), {"type": "text", "text": "wide?"}]
    return {"model": "gba/alpha", "messages": [{"role": "user", "content": content}], **changes}


def read(content):
    return read_request(json.dumps(content).encode(), OFFER)


def refused(content):
    with pytest.raises(ApiError) as error:
        read(content)
    told = error.value.body["error"]
    assert 400 <= error.value.status < 500
    assert told["message"]
    assert set(told) == {"message", "type", "param", "code"}
    return error.value


def test_what_clients_send_is_read():
    found = read(
        body(max_completion_tokens=9, temperature=0.5, seed=3, stream=True, user="u", n=1, stop=None, top_p=1.0)
    )
    (turn,) = found.turns
    picture, text = turn.parts
    assert (found.model, turn.role, text, found.stream, found.system) == ("gba/alpha", "user", "wide?", True, None)
    assert (found.decoding.max_new_tokens, found.decoding.temperature, found.decoding.seed) == (9, 0.5, 3)
    assert picture().size == (8, 6)
    told = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "c"}]},
    ]
    found = read(body(messages=told, stream_options={"include_usage": True}, top_p=0.1))  # nothing is drawn at 0
    assert (found.system, found.counts) == ("be brief", True)
    assert found.turns == (Turn("user", ("a",)), Turn("assistant", ("b",)), Turn("user", ("c",)))
    assert found.decoding.max_new_tokens == 64


def test_a_guideline_ends_the_last_text_as_in_an_examination():
    assert read(body(guideline="bayesian")).turns[-1].parts[1] == "wide?\nReason by odds."
    assert read(body(guideline="neutral")).turns[-1].parts[1] == "wide?"
    assert refused(body(guideline="../../etc/x.yaml")).param == "guideline"


@pytest.mark.parametrize(
    "address",
    [
        *("http://169.254.169.254/x.png", "https://example.org/x.png", "file:///etc/passwd", "/etc/passwd", "x.png"),
        *("ftp://h/x", "data:text/html;base64,QQ==", "data:image/png,QQ", "data:image/png;base64,!!!", "", "a" * 10**5),
        *(url(b"no picture"), url(png()[:40]), url(b"<svg/>", "svg+xml"), None, 7, {"x": 1}),
    ],
)
def test_a_picture_is_sent_and_never_fetched(address):
    error = refused(body(messages=[{"role": "user", "content": [shown(address)]}]))
    assert error.status == 400
    assert "messages[0].content[0]" in error.param
    assert len(error.message) < 700


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_bomb_is_known_by_its_header():
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    assert "over the limit" in refused(body(messages=[{"role": "user", "content": [shown(url(bomb))]}])).message
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 7000, 7000, 8, 2, 0, 0, 0))
    large = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    error = refused(body(messages=[{"role": "user", "content": [shown(url(large)), shown(url(large))]}]))
    assert error.code == "image_too_large"
    error = refused(body(messages=[{"role": "user", "content": [shown(url())] * 17}]))
    assert error.code == "too_many_images"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": "gpt-4"}, "model"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "messages[1].role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "x" * 30000}]}, "messages[0]"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 65}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": 1, "top_p": 0.5}, "top_p"),
        ({"n": 2}, "n"),
        ({"stop": ["a"]}, "stop"),
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"x": 1}}, "stream_options"),
        ({"seed": 1.5}, "seed"),
        ({"best_of": 2}, "best_of"),
    ],
)
def test_what_is_not_done_here_is_refused_by_name(changes, param):
    assert refused(body(**changes)).param == param


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"[" * 10**5, b'{"a":1,"a":2}', b"null", b'"x"'])
def test_what_is_no_json_object_is_refused(raw):
    with pytest.raises(ApiError) as error:
        read_request(raw, OFFER)
    assert error.value.code == "invalid_json"


JUNK = (None, True, 0, -1, 1e308, "", "x", [], {}, [[]], {"url": "x"}, "\ud800", float("nan"), 10**400)


def mutated(value, draw):
    """A value with one of its parts replaced, removed or repeated."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(sorted(value))
        if draw.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutated(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        place = draw.randrange(len(value))
        return [*value[:place], mutated(value[place], draw), *value[place + draw.randrange(2) :]]
    return copy.deepcopy(draw.choice(JUNK))


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_is_read_or_refused(seed):
    draw = random.Random(seed)
    for _ in range(60):
        content = body(max_tokens=9, stream_options={"include_usage": True}, stop=[], top_p=1)
        for _ in range(draw.randrange(1, 4)):
            content = mutated(content, draw)
        try:
            found = read(content)
        except ApiError as error:
            assert 400 <= error.status < 500  # noqa: PT017 - read may also succeed
        else:
            assert isinstance(found, ChatRequest)
            assert all(isinstance(part, str | SentPicture) for turn in found.turns for part in turn.parts)
