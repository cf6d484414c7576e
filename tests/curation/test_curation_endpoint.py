# Reference: what the fake endpoint sent and was asked. Run: pytest tests/curation/test_curation_endpoint.py
import pytest

from curation.endpoint import Endpoint
from curation.teachers import Request
from datamodules.batch import Example, image_key, load_image
from endpoints.answerer import UnusableError
from endpoints.asking import UnfinishedError
from endpoints.asking import ask as ask_all
from endpoints.replies import Replies
from tests.conftest import noise_image
from tests.endpoints.fake_endpoint import Says, completion, serving

GOOD = "<think>The heart is wide.</think><answer>A</answer>"


def teacher(fake, **options):
    settings = {"retries": 2, "backoff_s": 0.01, "timeout_s": 5.0, "concurrency": 2, "max_reply_bytes": 5000}
    return Endpoint(Endpoint.Config(base_url=fake.url, model="fake-1", **settings | options))


def request(number=0, pictures=()):
    example = Example(f"p{number}", pictures, f"How wide is heart {number}?", ("wide", "narrow"), "wide", f"q{number}")
    return Request(f"pool/q{number}", example, tuple(image_key(load_image(p)) for p in pictures), "reason by looking.")


def ask(one, requests):
    heard = []
    one.answer(requests, lambda item: heard.append(item) or True)
    return [item for item in heard if item is not None]


def test_words_and_pictures_arrive_and_the_reply_comes_back():
    picture = noise_image(3, 40, 60)
    with serving(lambda asked, n: Says(completion(GOOD))) as fake:
        one = teacher(fake, temperature=0.5, max_new_tokens=77)
        (heard,) = ask(one, [request(1, (picture,))])
        reply = one.read(heard.status, heard.body)
    (asked,) = fake.asked
    assert (reply.text, reply.fault, reply.model, reply.tokens) == (GOOD, "", "fake-1", 30)
    assert asked.pictures == (image_key(picture),)
    assert asked.text == "How wide is heart 1?\nA) wide\nB) narrow\nHow to reason: reason by looking."
    assert "wide" not in asked.system  # the right answer is told nowhere but among the options
    assert {name: asked.content[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "fake-1",
        "temperature": 0.5,
        "max_tokens": 77,
    }


def test_large_pictures_are_scaled_down():
    with serving(lambda asked, n: Says(completion(GOOD))) as fake:
        ask(teacher(fake, max_side=32), [request(1, (noise_image(3, 64, 128),))])
        small = noise_image(3, 64, 128)
        small.thumbnail((32, 32), 3)
    assert fake.asked[0].pictures == (image_key(small),)


HOSTILE = {
    "page": Says(b"<html><body>Please log in</body></html>"),
    "not UTF-8": Says(b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'),
    "no choices": Says(b'{"model": "fake-1", "object": "chat.completion"}'),
    "no message": Says(b'{"choices": [{}]}'),
    "a list": Says(b"[1, 2]"),
    "a number for a text": Says(completion(7)),
    "cut-off JSON": Says(completion(GOOD)[:-9]),
    "nothing": Says(b""),
    "huge": Says(completion("x" * 100_000)),
    "nested": Says(b"[" * 4000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_completion_is_asked_again_and_then_malformed(name):
    with serving(lambda asked, n: HOSTILE[name]) as fake:
        one = teacher(fake)
        (heard,) = ask(one, [request()])
    assert one.read(heard.status, heard.body).fault == "malformed"
    assert len(fake.asked) == 3


def test_another_model_is_not_believed_but_a_dated_name_is():
    for model, fault in (("fake-2", "wrong_model"), ("fake-1-2026-01-01", ""), ("fake-10", "wrong_model")):
        with serving(lambda asked, n, model=model: Says(completion(GOOD, model=model))) as fake:
            one = teacher(fake)
            (heard,) = ask(one, [request()])
        assert one.read(heard.status, heard.body).fault == fault


def test_a_reply_of_another_model_is_not_kept(tmp_path):
    def behave(asked, number):
        return Says(completion(GOOD, model="fake-2" if "heart 1?" in asked.text else "fake-1"))

    with serving(behave) as fake:
        with pytest.raises(UnfinishedError, match="answers as model 'fake-2', asked was 'fake-1'"):
            ask_all(teacher(fake, retries=0), [request(0), request(1)], Replies(tmp_path), "made")
        assert len(list(tmp_path.glob("*/*.json"))) == 1
        fake.behave = lambda asked, number: Says(completion(GOOD))
        replies = list(ask_all(teacher(fake), [request(0), request(1)], Replies(tmp_path), "made"))
    assert [reply.text for reply in replies] == [GOOD, GOOD]


@pytest.mark.parametrize(
    "bad",
    [
        Says(status=429, headers={"Retry-After": "0"}),
        Says(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Says(status=500, body=b"oops"),
        Says(status=503),
        Says(reset=True),
        Says(completion(GOOD), announced=50),
        Says(b"\x00\x01"),
    ],
    ids=["429", "429 date", "500", "503", "reset", "broken off", "noise"],
)
def test_failures_that_pass_are_asked_again(bad):
    with serving(lambda asked, n: bad if n < 3 else Says(completion(GOOD))) as fake:
        one = teacher(fake)
        (heard,) = ask(one, [request()])
    assert one.read(heard.status, heard.body).text == GOOD
    assert len(fake.asked) == 3


@pytest.mark.parametrize(
    "bad",
    [Says(completion(GOOD), stall=60), Says(completion(GOOD), drip=0.1), Says(status=500), Says(reset=True)],
    ids=["stall", "drip", "500", "reset"],
)
def test_failures_that_stay_are_told_and_are_no_reply(bad):
    with serving(lambda asked, n: bad) as fake:
        (heard,) = ask(teacher(fake, timeout_s=0.4, retries=1), [request()])
    assert heard.body is None
    slow = bad.stall or bad.drip
    assert ("no whole reply within timeout_s=0.4" in heard.trouble) == bool(slow)
    assert heard.trouble
    assert len(fake.asked) == 2


def test_nobody_is_left_waiting_by_a_server_that_is_not_there():
    with serving(lambda asked, n: Says()) as fake:
        pass
    (heard,) = ask(teacher(fake, retries=1), [request()])
    assert heard.body is None
    assert "ConnectionRefusedError" in heard.trouble


def test_an_endpoint_that_asks_for_hours_is_left_alone():
    with serving(lambda asked, n: Says(status=429, headers={"Retry-After": "7200"})) as fake:
        (heard,) = ask(teacher(fake, max_wait_s=30), [request()])
    assert heard.trouble == "HTTP 429 with Retry-After above max_wait_s"
    assert len(fake.asked) == 1


@pytest.mark.parametrize("status", [302, 401, 404])
def test_what_no_request_can_cure_ends_at_once_and_tells_no_key(status, monkeypatch):
    monkeypatch.setenv("MADE_KEY", "sk-made-secret")
    echo = Says(b"bad key sk-made-secret", status=status, headers={"Location": "http://127.0.0.1:9/elsewhere"})
    with serving(lambda asked, n: echo) as fake:
        one = teacher(fake, key_variable="MADE_KEY", concurrency=1)
        with pytest.raises(UnusableError, match=f"HTTP {status}: 'bad key \\*\\*\\*'") as caught:
            ask(one, [request(i) for i in range(5)])
    assert "sk-made" not in str(caught.value)
    assert len(fake.asked) == 1
    assert fake.asked[0].headers["Authorization"] == "Bearer sk-made-secret"


def test_replies_under_way_are_kept_when_another_request_ends_everything():
    def behave(asked, number):
        return Says(status=401) if number == 2 else Says(completion(GOOD), stall=0.3)

    heard = []
    with serving(behave) as fake, pytest.raises(UnusableError, match="HTTP 401"):
        teacher(fake).answer([request(i) for i in range(5)], lambda one: heard.append(one) or True)
    assert [one.body is not None for one in heard if one] == [True]


def test_a_wish_to_stop_is_heard_while_the_endpoint_says_nothing():
    with serving(lambda asked, n: Says(completion(GOOD), stall=60)) as fake:
        teacher(fake, timeout_s=0.7).answer([request()], lambda one: False)
    assert len(fake.asked) == 1  # no further attempt


def test_a_defect_of_ours_is_told_and_no_request_is_forgotten(monkeypatch):
    def broken(*_):
        raise IndexError("made")

    monkeypatch.setattr("endpoints.chat.data_url", broken)
    with serving(lambda asked, n: Says()) as fake, pytest.raises(IndexError, match="made"):
        ask(teacher(fake), [request(1, (noise_image(3, 40, 60),))])


def test_a_missing_key_is_told_before_anything_is_asked(monkeypatch):
    monkeypatch.delenv("MADE_KEY", raising=False)
    with serving(lambda asked, n: Says()) as fake, pytest.raises(UnusableError, match="MADE_KEY"):
        teacher(fake, key_variable="MADE_KEY")


def test_a_reply_that_repeats_the_key_is_freed_of_it(monkeypatch):
    monkeypatch.setenv("MADE_KEY", "sk-made-secret")
    with serving(lambda asked, n: Says(completion("your key is sk-made-secret"))) as fake:
        (heard,) = ask(teacher(fake, key_variable="MADE_KEY"), [request()])
    assert b"sk-made" not in heard.body
    assert b"your key is ***" in heard.body


def test_a_refused_request_is_refused_without_asking_again():
    with serving(lambda asked, n: Says(b'{"error": "picture too large"}', status=400)) as fake:
        one = teacher(fake)
        (heard,) = ask(one, [request()])
    assert one.read(heard.status, heard.body).fault == "refused"
    assert len(fake.asked) == 1


def test_the_budget_of_requests_holds():
    with serving(lambda asked, n: Says(completion(GOOD))) as fake:
        heard = ask(teacher(fake, max_requests=3), [request(i) for i in range(10)])
    assert len(fake.asked) == 3
    assert sum(item.body is not None for item in heard) == 3
    assert {item.trouble for item in heard} == {"", "the budget is spent: max_requests, max_tokens or max_cost"}


def test_the_budget_of_tokens_counts_what_the_endpoint_says():
    # each reply costs 30; a request may start while its upper bound is left
    with serving(lambda asked, n: Says(completion(GOOD))) as fake:
        probe = teacher(fake, concurrency=1)
        bound = probe.most_tokens(request())
        ask(teacher(fake, concurrency=1, max_tokens=bound + 4 * 30), [request(i) for i in range(10)])
    assert len(fake.asked) == 5


@pytest.mark.parametrize(
    "option",
    [
        {"base_url": "ftp://a"},
        {"base_url": "http://key@a/v1"},
        {"base_url": "http://a:b/v1"},
        {"top_p": 0.0},
        {"retries": -1},
        {"timeout_s": float("inf")},
        {"key_variable": "sk-the key itself"},
    ],
)
def test_settings_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        Endpoint.Config(**{"base_url": "http://a/v1", "model": "m"} | option)
