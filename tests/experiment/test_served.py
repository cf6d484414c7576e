"""Reference: the examination's answers. The real server over HTTP, asked by our client, OpenAI's, and by hand."""

import base64
import json
import selectors
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack

import pytest
import uvicorn
import yaml

from answering.__main__ import main
from answering.serving import serve_command, worker
from answering.serving.app import Doors
from answering.serving.errors import ApiError
from configs.load import load
from datamodules.prompts import prompt_text
from evaluation.predictions import read_predictions
from experiment.run import assemble
from tests.experiment.conftest import bars

KEY = "sixteen-letters-at-least"


class Asked:
    """Stands for a request, of which only the headers count."""

    def __init__(self, **headers):
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "localhost"])
def test_without_a_key_only_this_machine_s_own_names_are_answered(host):
    doors = Doors("", serve_command.LOOPBACK)
    doors.refuse(Asked(host=host))
    for strange in ("evil.example", f"{host}.evil.example", "", "[::2]", "127.0.0.1.evil"):
        with pytest.raises(ApiError) as error:
            doors.refuse(Asked(host=strange))
        assert error.value.status == 403


def test_with_a_key_it_must_be_brought():
    doors = Doors(KEY)
    doors.refuse(Asked(host="any.example", authorization=f"Bearer {KEY}"))
    for wrong in ("", KEY, "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", "Bearer \u00ff"):
        with pytest.raises(ApiError) as error:
            doors.refuse(Asked(host="any.example", authorization=wrong))
        assert error.value.status == 401


def test_other_machines_need_a_key(lineage, capsys, monkeypatch):
    run = str(lineage.runs / "gba/alpha")
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        assert main(["serve", run, "--host", host]) == 2
        assert "set a key with --key-variable" in capsys.readouterr().err
    monkeypatch.setenv("SHORT", "abc")
    for name in ("SHORT", "NOT_SET_ANYWHERE"):
        assert main(["serve", run, "--key-variable", name]) == 2
        told = capsys.readouterr().err
        assert "at least 16" in told
        assert "abc" not in told


def test_the_command_for_vllm_exports_the_base_that_was_trained_here(lineage):
    served = serve_command.of_one_base(serve_command.trained([str(lineage.runs / "gba/alpha")]))
    *exports, serve = serve_command.vllm_lines(served)
    assert exports[0].endswith("base/mixed/base --out exported/base")
    assert "--adapter --base exported/base --out exported/gba/alpha" in exports[1]
    assert serve == (
        "vllm serve exported/base --dtype float32 --enable-lora --max-lora-rank 8 "
        "--lora-modules gba/alpha=exported/gba/alpha"
    )


@pytest.fixture(scope="module")
def served(lineage):
    """The address of a server of the lineage's experts, which asks for a key."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = []

    class Kept(uvicorn.Server):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn, "Server", Kept)
        patch.setenv("SERVED_KEY", KEY)
        command = ["serve", str(lineage.runs / "gba"), "--port", str(port), "--key-variable", "SERVED_KEY"]
        thread = threading.Thread(target=main, args=([*command, "--max-tokens", "60"],), daemon=True)
        thread.start()
        until = time.monotonic() + 120
        while not (made and made[0].started):
            assert thread.is_alive()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
        made[0].should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def question(lineage):
    """A question of the examination with its answer, and the same as a request has it."""
    context = assemble(load(str(lineage.files / "gba.yaml"), [f"runs_dir={lineage.runs}"]))
    item = next(p for p in read_predictions(lineage.runs / "gba") if (p.model, p.specialty) == ("gba/alpha", "alpha"))
    (example,) = [e for e in context.data("alpha").splits["test"] if e.question_id == item.question_id]
    address = "data:image/png;base64," + base64.b64encode(example.images[0].read_bytes()).decode()
    shown = {"type": "image_url", "image_url": {"url": address}}
    text = {"type": "text", "text": prompt_text(example, "")}
    return item, {
        "model": "gba/alpha",
        "messages": [{"role": "user", "content": [shown, text]}],
        "max_tokens": 20,
        "temperature": 0,
    }


def post(address, content, **headers):
    """Status and body."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"} | headers
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    request = urllib.request.Request(f"{address}/chat/completions", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_answer_is_the_examination_s_in_one_piece_and_in_many(served, question):
    item, asked = question
    status, body = post(served, asked)
    whole = json.loads(body)
    assert status == 200
    assert whole["choices"][0]["message"]["content"] == item.completion
    assert whole["choices"][0]["finish_reason"] == ("length" if item.truncated else "stop")
    assert whole["usage"]["completion_tokens"] == item.n_tokens
    status, body = post(served, asked | {"stream": True, "stream_options": {"include_usage": True}})
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events if e["choices"]) == item.completion
    assert events[-1]["usage"] == whole["usage"]
    assert len(events) > 5


def test_our_own_examination_by_the_endpoint_is_the_one_with_the_weights(served, lineage, tmp_path, monkeypatch):
    monkeypatch.setenv("SERVED_KEY", KEY)
    endpoint = {"base_url": served, "model": "gba/alpha", "key_variable": "SERVED_KEY", "timeout_s": 60.0}
    content = {
        "trust": ["made_bars"],
        "model": {"class_path": "endpoints.endpoint.Endpoint", "init_args": endpoint},
        "data": {"batch_size": 2, "val_fraction": 0.2, "test_fraction": 0.25},
        "specialties": {name: bars(lineage.files.parent / "data" / name) for name in ("alpha", "beta")},
        "callbacks": {
            "evaluate": {
                "class_path": "callbacks.evaluate_experts.EvaluateExperts",
                "init_args": {"n": 4, "max_new_tokens": 20},
            }
        },
    }
    (tmp_path / "api.yaml").write_text(yaml.safe_dump(content))
    import train

    assert train.main(["--config", str(tmp_path / "api.yaml"), f"runs_dir={tmp_path / 'runs'}"]) == 0
    there = {p.question_id: (p.completion, p.truncated) for p in read_predictions(tmp_path / "runs" / "api")}
    here = {
        p.question_id: (p.completion, p.truncated)
        for p in read_predictions(lineage.runs / "gba")
        if p.model == "gba/alpha"
    }
    assert len(here) == 8
    assert there == here


def test_openai_s_own_client_is_served(served, question):
    openai = pytest.importorskip("openai")
    item, asked = question
    client = openai.OpenAI(base_url=served, api_key=KEY, max_retries=0)
    assert [model.id for model in client.models.list()] == [
        "base",
        *("gba/alpha", "gba/beta", "gba/merged/task_arithmetic", "gba/merged/ties"),
    ]
    assert client.models.retrieve("gba/merged/ties").id == "gba/merged/ties"
    assert client.chat.completions.create(**asked).choices[0].message.content == item.completion
    pieces = client.chat.completions.create(**asked, stream=True)
    assert "".join(event.choices[0].delta.content or "" for event in pieces) == item.completion
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**asked | {"model": "gpt-4"})
    shown = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}
    fetched = asked | {"messages": [{"role": "user", "content": [shown]}]}
    with pytest.raises(openai.BadRequestError, match="no address is fetched"):
        client.chat.completions.create(**fetched)
    stranger = openai.OpenAI(base_url=served, api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_what_is_refused_is_refused_in_openai_s_form(served, question):
    _, asked = question
    far = {"messages": [{"role": "user", "content": "wide " * 3000}]}
    for content, headers, expected in (
        (asked, {"Authorization": "Bearer wrong"}, (401, "invalid_api_key")),
        (asked, {"Content-Type": "text/plain"}, (415, "invalid_content_type")),
        (b"{", {}, (400, "invalid_json")),
        (b"x" * (64 * 2**20 + 1), {}, (413, "request_too_large")),
        (asked | far, {}, (400, "context_length_exceeded")),
        (asked | far | {"stream": True}, {}, (400, "context_length_exceeded")),
    ):
        try:
            status, body = post(served, content, **headers)
        except (BrokenPipeError, ConnectionResetError, urllib.error.URLError):
            assert expected[0] == 413  # the server may close before all of it was sent
            continue
        assert (status, json.loads(body)["error"]["code"]) == expected
    for path, status in (("/nothing", 404), ("/chat/completions", 405)):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{served}{path}", timeout=60)
        assert error.value.code == status
        assert "message" in json.loads(error.value.read())["error"]


def connected(served, asked):
    """A connection over which something was asked."""
    body = json.dumps(asked).encode()
    host, port = served.removeprefix("http://").removesuffix("/v1").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection((host, int(port)))
    connection.sendall(head.encode() + body)
    return connection


def heard(connections, seconds):
    """Those on which something has come, waited for."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(seconds)]


def test_more_than_the_line_holds_are_sent_away_until_there_is_room(served, question, monkeypatch):
    item, asked = question
    free, original = threading.Event(), worker.reply

    def slow(*arguments):
        assert free.wait(120)
        return original(*arguments)

    monkeypatch.setattr(worker, "reply", slow)
    with ExitStack() as stack:
        stack.callback(free.set)
        sent = [stack.enter_context(connected(served, asked)) for _ in range(33)]
        (over,) = heard(sent, 60)
        head, _, body = over.makefile("rb").read().partition(b"\r\n\r\n")  # which may come in several pieces
        assert head.startswith(b"HTTP/1.1 429")
        told = json.loads(body)["error"]
        assert (told["type"], told["code"]) == ("rate_limit_error", "server_busy")
        assert told["message"] == "32 requests are waiting; come again later"
        sent.remove(over)
        sent.pop().close()  # who leaves makes room, once the server has looked
        until = time.monotonic() + 60
        while heard([late := stack.enter_context(connected(served, asked))], 5):
            assert late.recv(4096).startswith(b"HTTP/1.1 429")
            assert time.monotonic() < until
            late.close()
            time.sleep(0.2)  # the server looks once a second; who asks without a pause runs out of files first
        free.set()
        for connection in [*sent, late]:
            answered = json.loads(connection.makefile("rb").read().partition(b"\r\n\r\n")[2])
            assert answered["choices"][0]["message"]["content"] == item.completion


def test_an_answer_that_nobody_waits_for_is_given_up(served, question):
    item, asked = question
    for _ in range(3):
        with connected(served, asked | {"stream": True, "max_tokens": 60, "temperature": 2.0}) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    _, answer = post(served, asked)  # the model is whole: its weights were put back
    assert json.loads(answer)["choices"][0]["message"]["content"] == item.completion
