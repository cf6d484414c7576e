"""Reference: what a made server was asked; arithmetic by hand. Run: pytest tests/endpoints/test_endpoint_client.py."""

import json
import threading
import time
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoints.asking import UnfinishedError, ask
from endpoints.budget import Budget, Price
from endpoints.chat import Chat
from endpoints.endpoint import Endpoint
from endpoints.reading import read_reply
from endpoints.replies import Replies
from endpoints.structured import faults, structured
from tests.conftest import noise_image
from tests.endpoints.fake_endpoint import Says, completion, serving

SCHEMA = {
    "type": "object",
    "properties": {
        "verdict": {"type": "string", "enum": ["A", "B"]},
        "scores": {"type": "array", "items": {"type": "number"}},
    },
    "required": ["verdict"],
    "additionalProperties": False,
}


def client(fake, **options):
    settings = {"retries": 2, "backoff_s": 0.01, "timeout_s": 20.0, "concurrency": 2}
    return Endpoint(Endpoint.Config(base_url=fake.url, model="fake-1", **settings | options))


def chat(number=0, **changes):
    return replace(Chat(f"q{number}", (("user", f"How wide is heart {number}?"),), (), 64), **changes)


def test_what_is_known_is_replayed_without_a_server(tmp_path):
    replies, chats = Replies(tmp_path), [chat(i, images=(noise_image(i, 30, 40),)) for i in range(4)]
    with serving(lambda asked, n: Says(completion(f"said to {asked.text}"))) as fake:
        first = list(ask(client(fake), chats, replies, "made"))
        assert len(fake.asked) == 4
        fake_gone = client(fake, retries=0)
    assert [reply.text for reply in first] == [f"said to How wide is heart {i}?" for i in range(4)]
    assert list(ask(fake_gone, chats, replies, "made")) == first
    with pytest.raises(UnfinishedError, match="ConnectionRefusedError"):
        list(ask(fake_gone, [chat(9)], replies, "made"))


def test_a_key_is_all_that_the_reply_depends_on_and_nothing_else():
    class Server:
        url = "http://127.0.0.1:9/v1"

    one, first = client(Server), chat(images=(noise_image(1, 30, 40),))
    other = {
        "turns": (("user", "How wide is heart 0? "),),
        "images": (noise_image(2, 30, 40),),
        "max_new_tokens": 65,
        "temperature": 0.1,
        "top_p": 0.9,
        "seed": 1,
        "pictures_last": True,
        "schema": SCHEMA,
    }
    assert {*other, "about"} == {field.name for field in fields(Chat)}
    keys = [one.key(first), *(one.key(replace(first, **{name: value})) for name, value in other.items())]
    assert len(set(keys)) == len(keys)
    assert one.key(replace(first, about="another name", images=(noise_image(1, 30, 40).copy(),))) == keys[0]
    assert client(Server, timeout_s=1.0, max_requests=1, price_prompt=3.0).key(first) == keys[0]
    for changed in ({"system": "Be brief."}, {"body": {"reasoning_effort": "low"}}, {"max_side": 100}):
        assert client(Server, **changed).key(first) != keys[0]


def test_fields_of_a_request_can_be_added_and_left_out():
    with serving(lambda asked, n: Says(completion("words"))) as fake:
        body = {"temperature": None, "reasoning_effort": "low"}
        one = client(fake, body=body, limit_field="max_completion_tokens", system="Be brief.")
        one.answer([chat(), chat(1, turns=(("system", "Be long."), ("user", "why?")))], lambda heard: True)
    for asked in fake.asked:
        assert not {"temperature", "max_tokens"} & asked.content.keys()
        assert (asked.content["max_completion_tokens"], asked.content["reasoning_effort"]) == (64, "low")
    assert sorted(asked.system for asked in fake.asked) == ["Be brief.", "Be long."]
    for own in ({"messages": []}, {"max_tokens": None}, {"temperature": 0.5}):
        with pytest.raises(ValueError, match=f"body must not hold '{next(iter(own))}'"):
            Endpoint.Config("http://a/v1", "m", body=own)
    with pytest.raises(ValueError, match="max_cost needs price_prompt"):
        Endpoint.Config("http://a/v1", "m", max_cost=1.0)


def test_who_asks_for_patience_is_left_alone_by_all():
    times, lock = [], threading.Lock()

    def behave(asked, number):
        with lock:
            times.append(time.monotonic())
        return Says(status=429, headers={"Retry-After": "1"}) if number == 1 else Says(completion("words"), stall=0.5)

    with serving(behave) as fake:
        heard = []
        client(fake, concurrency=4).answer([chat(i) for i in range(8)], lambda one: heard.append(one) or True)
    assert sum(one is not None for one in heard) == 8
    # the four that were under way when the word came; the next threads are free after half a second, and wait
    assert len([t for t in times if t - times[0] < 0.95]) <= 4
    assert len(times) == 9


def test_the_bound_of_a_request_holds_for_a_square_picture_of_the_largest_side():
    one = Endpoint(Endpoint.Config("http://a/v1", "m"))
    pictured, plain = chat(images=(noise_image(1, 30, 40),)), chat()
    # Qwen2.5-VL makes a token of 28 x 28 pixels, sides rounded to whole ones, and puts two marks around them
    assert one.most_tokens(pictured) - one.most_tokens(plain) >= round(one.config.max_side / 28) ** 2 + 2


def test_what_an_endpoint_refuses_costs_no_tokens():
    with serving(lambda asked, n: Says(status=429) if n % 3 else Says(completion("words"))) as fake:
        one = client(fake, concurrency=1)
        bound = one.most_tokens(chat())
        one = client(fake, concurrency=1, max_tokens=bound + 30)
        heard = []
        one.answer([chat(i) for i in range(2)], lambda item: heard.append(item) or True)
    assert [item.trouble for item in heard if item] == ["", ""]
    assert len(fake.asked) == 6
    assert one.budget.tokens == bound + 30 - 60  # the made server counts 30 tokens a reply


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 500)] * 2, *[st.floats(0, 1)] * 2), max_size=40))
def test_no_budget_is_overdrawn_and_nothing_is_lost(attempts):
    price, spent = Price(3.0, 9.0), [0, 0, 0.0]
    budget = Budget(20, 3000, 0.01, price)
    for asked, answered, part, other in attempts:
        used = (int(asked * part), int(answered * other))
        if budget.take(asked, answered):
            budget.settle((asked, answered), used)
            spent = [spent[0] + 1, spent[1] + sum(used), spent[2] + price.of(*used)]
    assert budget.requests == 20 - spent[0] >= 0
    assert budget.tokens == 3000 - spent[1] >= 0
    assert budget.money == pytest.approx(0.01 - spent[2], abs=1e-12)
    assert budget.money > -1e-12


def test_a_schema_goes_into_its_own_field_where_the_server_has_it():
    with serving(lambda asked, n: Says(completion('{"verdict": "B"}'))) as fake:
        client(fake).answer([chat(schema=SCHEMA)], lambda heard: True)
    (asked,) = fake.asked
    sent = asked.content["response_format"]["json_schema"]
    assert (sent["schema"], sent["strict"], asked.text) == (SCHEMA, True, "How wide is heart 0?")


def test_a_server_without_schemas_is_asked_in_words_and_from_then_on_only_so():
    def behave(asked, number):
        if "response_format" in asked.content:
            return Says(b'{"error": "unknown field response_format"}', status=400)
        return Says(completion('Sure!\n```json\n{"verdict": "A"}\n```'))

    pictured = chat(0, schema=SCHEMA, images=(noise_image(1, 30, 40),))
    with serving(behave) as fake:
        one, heard = client(fake, concurrency=1), []
        one.answer([pictured, chat(1, schema=SCHEMA)], lambda item: heard.append(item) or True)
    assert ["response_format" in asked.content for asked in fake.asked] == [True, False, False]
    assert all(json.dumps(SCHEMA) in text for text in fake.texts()[1:])
    texts = [read_reply(item.status, item.body).text for item in heard if item]
    assert [structured(text, SCHEMA) for text in texts] == [{"verdict": "A"}] * 2


def test_a_request_that_is_refused_for_itself_teaches_nothing_about_schemas():
    def behave(asked, number):
        return Says(status=400) if "heart 0" in asked.text else Says(completion('{"verdict": "A"}'))

    with serving(behave) as fake:
        one = client(fake, concurrency=1)
        one.answer([chat(0, schema=SCHEMA), chat(1, schema=SCHEMA)], lambda heard: True)
    assert ["response_format" in asked.content for asked in fake.asked] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"verdict": "A"}', {"verdict": "A"}),
        ('<think>{"verdict": "A"}?</think>{"verdict": "B"}', {"verdict": "B"}),
        ('First {"verdict": "A"}, no: {"verdict": "B", "scores": [1, 0.5]}.', {"verdict": "B", "scores": [1, 0.5]}),
        ('{"verdict": "C"}', None),
        ('{"verdict": "A", "why": "wide"}', None),
        ('{"verdict": "A", "scores": [true]}', None),
        ('{"scores": []}', None),
        ('[{"verdict": "A"}]', {"verdict": "A"}),
        ('{"verdict": "A"', None),
        ("{" * 3000, None),
        ("A", None),
    ],
)
def test_an_answer_is_found_by_its_schema(text, found):
    assert structured(text, SCHEMA) == found


NOISE = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), max_size=40)


@settings(deadline=None)
@given(NOISE, NOISE, st.sampled_from("AB"), st.lists(st.integers(-9, 9), max_size=3), st.sampled_from([None, 1, 2]))
def test_whatever_is_written_around_it(before, after, verdict, scores, indent):
    answer = {"verdict": verdict, "scores": scores}
    assert structured(f"{before}{json.dumps(answer, indent=indent)}{after}", SCHEMA) == (
        None if "</think>" in after else answer
    )


def test_a_schema_that_would_be_checked_by_half_is_refused():
    with pytest.raises(ValueError, match="'minimum' is not read here"):
        faults({"n": 1}, {"type": "object", "properties": {"n": {"type": "integer", "minimum": 2}}})


CUT = {"role": "assistant", "content": None, "reasoning_content": "The heart is"}


def test_a_reasoning_that_was_cut_off_is_kept_open():
    body = json.dumps({"choices": [{"message": CUT, "finish_reason": "length"}], "usage": {"completion_tokens": 3}})
    reply = read_reply(200, body.encode())
    assert (reply.text, reply.fault, reply.completion_tokens) == ("<think>The heart is", "truncated", 3)


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        *((f"fake-1{version}", "") for version in ("", "-2026-01-01", "-20260101", "-0613", "-002")),
        *((f"fake-1{more}", "wrong_model") for more in ("-mini", "-5", "-32k", "-mini-2026-01-01", "-002b", "-", "0")),
    ],
)
def test_a_smaller_model_of_the_family_is_another_one(model, fault):
    assert read_reply(200, completion("words", model=model), ["fake-1"]).fault == fault


def test_a_placeholder_for_a_key_is_not_taken_out_of_answers(tmp_path, monkeypatch):
    words = "None of these; key none-of-your-business"
    for key, kept in (("none", words), ("none-of-your-business", "None of these; key ***")):
        monkeypatch.setenv("MADE_KEY", key)
        with serving(lambda asked, n: Says(completion(words))) as fake:
            (reply,) = ask(client(fake, key_variable="MADE_KEY"), [chat()], Replies(tmp_path / key), "made")
        assert fake.asked[0].headers["Authorization"] == f"Bearer {key}"
        assert reply.text == kept


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"total_tokens": 1000}, (936 * 1 + 64 * 10) / 1e6),  # an answer has 64 tokens at most
        ({"total_tokens": 30}, 30 * 10 / 1e6),
        ({"prompt_tokens": 20, "total_tokens": 30}, (20 * 1 + 10 * 10) / 1e6),
        ({"completion_tokens": 10, "total_tokens": 30}, (20 * 1 + 10 * 10) / 1e6),
        ({"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}, (20 * 1 + 10 * 10) / 1e6),
    ],
)
def test_where_only_the_sum_is_told_as_much_as_can_be_is_the_answer(usage, cost):
    for words in ("words", ""):  # hidden reasoning is paid for where no word came
        with serving(lambda asked, n, words=words: Says(completion(words, usage=usage))) as fake:
            one = client(fake, max_cost=1.0, price_prompt=1.0, price_completion=10.0)
            one.answer([chat()], lambda heard: True)
        assert 1.0 - one.budget.money == pytest.approx(cost)
        assert 200_000_000 - one.budget.tokens == usage["total_tokens"]


def test_where_only_the_sum_is_told_and_prompts_cost_more_it_counts_as_the_prompt():
    with serving(lambda asked, n: Says(completion("words", usage={"total_tokens": 100}))) as fake:
        one = client(fake, max_cost=1.0, price_prompt=10.0, price_completion=1.0)
        one.answer([chat()], lambda heard: True)
    assert 1.0 - one.budget.money == pytest.approx(100 * 10 / 1e6)


@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_no_request_takes_more_attempts_than_is_told(schema):
    def behave(asked, number):  # knows no schemas, and fails in words
        return Says(b"no such field", status=400) if "response_format" in asked.content else Says(status=500)

    with serving(behave) as fake:
        one = client(fake)
        told = one.attempts(chat(schema=schema))
        one.answer([chat(schema=schema)], lambda heard: True)
    assert len(fake.asked) == told == 3 + (schema is not None)
