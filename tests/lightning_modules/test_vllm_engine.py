# Reference: a stub of vLLM (stub_vllm.py) that samples from a fixed table, behind the real server script and a real
# process; what is served and how well it fits is test_vllm_served.py's matter. Run: pytest this file.
import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_modules.adapters import LoRASettings
from lightning_modules.engines import vllm_process, vllm_server
from lightning_modules.engines.vllm import VLLM
from lightning_modules.engines.vllm_adapter import acting_adapter, rank_of, room_for
from lightning_modules.engines.vllm_process import VLLMError
from lightning_modules.families.qwen2_5_vl import Qwen2_5_VL
from lightning_modules.families.tiny import TinyQwen2_5_VL
from lightning_modules.losses.kl import InReward
from lightning_modules.policy import Policy
from lightning_modules.rl_gba import GBA
from tests.conftest import made_example, randomise_adapter
from tests.lightning_modules.rl_acts import acts
from tests.lightning_modules.rl_harness import GUIDED, a_part, context_of, fit

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).with_name("stub_vllm.py")
TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""  # noqa: E501
ASKED = {"max_new_tokens": 9, "temperature": 0.7, "version": 3}


def write_checkpoint(folder: Path) -> Path:
    """A tiny random Qwen2.5-VL in the hub's layout, its matrices scaled so that logits are not flat."""
    sizes = {"hidden": 128, "heads": 4, "layers": 2, "intermediate": 192, "vision_hidden": 32, "vision_layers": 2}
    family = TinyQwen2_5_VL(TinyQwen2_5_VL.Config(corpus="tests.conftest.corpus", **sizes))
    generator = torch.Generator().manual_seed(3)
    for parameter in family.model.parameters():
        if parameter.ndim == 2:
            parameter.data = torch.randn(parameter.shape, generator=generator) * parameter.shape[1] ** -0.5
    family.tokenizer.chat_template = TEMPLATE
    for part in (family.model, family.tokenizer, family.image_processor):
        part.save_pretrained(folder)
    return folder


def policy_of(checkpoint: Path) -> Policy:
    """A checkpoint with two adapters that act, of different rank and scale."""
    config = Qwen2_5_VL.Config(str(checkpoint), dtype="float32", min_pixels=3136, max_pixels=12_544, system="")
    policy = Policy(Qwen2_5_VL(config))
    policy.add_adapter("dsa", LoRASettings(rank=3, alpha=12.0))
    policy.add_adapter("gba", LoRASettings(rank=4, alpha=4.0))
    for name, seed in (("dsa", 1), ("gba", 2)):
        randomise_adapter(policy, name, seed, 0.1)
    policy.activate(["dsa", "gba"], trainable="gba")
    return policy


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def policy(checkpoint):
    return policy_of(checkpoint)


@pytest.fixture
def python(tmp_path):
    """An interpreter whose vLLM is the stub."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I {STUB} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """What the stub was asked."""
    monkeypatch.setenv("STUB_VLLM_RECORD", str(tmp_path / "record"))

    def lines(key):
        found = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
        return [line for line in found if key in line]

    return lines


@pytest.fixture
def engine(python, tmp_path):
    """One with the stub; its distribution is not the policy's."""
    made = VLLM(VLLM.Config(python=python, most_drift=100.0, silence_s=10.0, folder=str(tmp_path)))
    yield made
    made.close()


def questions(policy, pictures=False):
    """Three prompts."""
    sizes = ((), ((112, 112), (80, 160)), ()) if pictures else ((), (), ())
    return [policy.prompt(made_example(i, sizes=sizes[i], words=i), "") for i in range(3)]


def is_gone(process: int) -> bool:
    """Whether no process of that number is left."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until(holds) -> None:
    """Until something holds."""
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until, "it never did"
        time.sleep(0.05)


# -- what is asked, and what comes back --------------------------------------------------------------------------


def test_every_rollout_comes_in_its_place_with_its_own_stream(engine, policy, recorded):
    prompts, copies, seeds = questions(policy, pictures=True), [2, 3, 1], [7, 2**62, 9, 7, 11, 12]
    found = engine.generate(policy, prompts, copies, seeds, **ASKED)
    again = engine.generate(policy, prompts, copies, seeds, **ASKED)
    assert found == again
    assert engine.generate(policy, [], [], [], **ASKED) == []
    assert found[0] == found[3]  # the seed alone decides
    assert len({completion.ids for completion in found}) == 5
    rows = recorded("seed")[:6]
    assert [row["seed"] for row in rows] == seeds
    family = policy.family
    for row in rows:
        told = row["temperature"], row["banned"], row["end"]
        assert told == (0.7, sorted(family.banned_token_ids), list(family.end_token_ids))
    place, short = policy.family.image_token_id, rows[2]["prompt"]
    assert short.count(place) == 2 == len(rows[2]["grids"])  # each picture's placeholders are repeated there
    assert [token for token in short if token != place] == [token for token in prompts[1].ids if token != place]
    asked = [list(prompt.ids) for prompt in (prompts[0], prompts[2])]
    assert [rows[place]["prompt"] for place in (0, 1, 5)] == [asked[0], asked[0], asked[1]]
    for completion in found:
        ended = completion.ids[-1] == policy.family.eos_token_id
        assert completion.truncated is not ended
        assert ended or len(completion.ids) == 9
        assert set(completion.logps) == {-6.0}
        assert completion.text


@acts(
    VLLM, "python", "context", "rows_at_once", "gpu_memory_utilization", "cards", "tensor_parallel_size",
    "enforce_eager", "folder",
)  # fmt: skip
def test_the_server_is_started_as_the_settings_say(python, policy, recorded, tmp_path):
    sizes = {"rows_at_once": 5, "gpu_memory_utilization": 0.25, "tensor_parallel_size": 2, "enforce_eager": True}
    config = VLLM.Config(python=python, most_drift=100.0, context=222, cards="6,7", folder=str(tmp_path), **sizes)
    engine = VLLM(config)
    engine.generate(policy, questions(policy), [1, 1, 1], [1, 2, 3], **ASKED)
    (opened,) = recorded("opened")
    arguments = opened["opened"]
    expected = sizes | {"max_num_seqs": 5, "max_model_len": 222, "max_lora_rank": 8, "dtype": "float32"}
    del expected["rows_at_once"]
    assert expected.items() <= arguments.items()
    assert arguments["model"] == policy.family.config.path
    assert arguments["trust_remote_code"] is False
    assert arguments["generation_config"] == "vllm"
    assert opened["cards"] == "6,7"
    assert not any("engines" in path or path == str(ROOT) for path in opened["path"])  # our vllm.py is not vLLM
    assert [path.name[:5] for path in tmp_path.iterdir() if path.is_dir()] == ["vllm-"]
    engine.close()
    assert is_gone(opened["pid"])
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_each_version_has_a_number_and_a_folder_of_its_own(engine, policy, recorded):
    ask = (questions(policy)[:1], [1], [1])
    for version in range(3):
        engine.generate(policy, *ask, **ASKED | {"version": version})
        engine.generate(policy, *ask, **ASKED | {"version": version})  # nothing changed: nothing is sent
        randomise_adapter(policy, "gba", seed=10 + version)
    with policy.acting(["dsa"]):  # the version is that of the weights, and yet something else acts
        engine.generate(policy, *ask, **ASKED | {"version": 2})
    with policy.acting([]):
        engine.generate(policy, *ask, **ASKED | {"version": 2})
    loaded = recorded("adapter")
    assert [item["adapter"] for item in loaded] == [1, 2, 3, 4]
    assert len({item["folder"] for item in loaded}) == 4
    assert [row["number"] for row in recorded("seed")] == [1, 1, 2, 2, 3, 3, 4, 0]
    assert loaded[0]["files"] == ["adapter_config.json", "adapter_model.safetensors"]
    assert not any(Path(item["folder"]).exists() for item in loaded)
    assert [item["removed"] for item in recorded("removed")] == [1, 2, 3]


def test_what_acts_becomes_one_adapter(policy):
    factors = acting_adapter(policy)
    layers = dict(policy.family.model.named_modules())
    assert rank_of(factors) == 7  # 3 + 4
    assert room_for(7) == 8
    assert len(factors) == 14  # seven linear layers in each of two
    for module, (A, B) in factors.items():
        layer = layers[module]
        # 12 / 3 and 4 / 4
        by_hand = 4 * layer.lora_B["dsa"].weight @ layer.lora_A["dsa"].weight
        by_hand += 1 * layer.lora_B["gba"].weight @ layer.lora_A["gba"].weight
        torch.testing.assert_close(B @ A, by_hand.detach(), atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="rank 513 together"):
        room_for(513)


# -- what is refused ---------------------------------------------------------------------------------------------

FAULTS = {
    "pictures": r"tokens there and \d+ here",
    "banned": r"banned tokens \[\d+\] were sampled",
    "beyond": "goes on after an end token",
    "cut": "tokens without an end token",
    "strange": "tokens that are none, such as 1000000",
    "long": "no 1 to 9 tokens with as many",
    "nan": "finite numbers up to 0",
    "lost": "0 of 3 rollouts came",
    "break": "IndexError: a kernel is broken",
    "adapter": "loaded the adapter of version 3: RuntimeError",
    "load": "loaded the model: MemoryError: no room for the model",
    "die": r"died while it wrote rollouts \(killed by SIGABRT\)",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_is_one_clear_error_and_nothing_is_left(engine, policy, monkeypatch, tmp_path, fault):
    monkeypatch.setenv("STUB_VLLM", fault)
    with pytest.raises(VLLMError, match=FAULTS[fault]) as caught:
        engine.generate(policy, questions(policy), [1, 1, 1], [1, 2, 3], **ASKED)
    (log,) = tmp_path.glob("vllm-*")  # the log alone
    assert log.suffix == ".log"
    assert f"its log is {log}" in str(caught.value)
    assert "The same command goes on from the last checkpoint" in str(caught.value)
    monkeypatch.delenv("STUB_VLLM")
    assert len(engine.generate(policy, questions(policy), [1, 1, 1], [1, 2, 3], **ASKED)) == 3  # by another server


@acts(VLLM, "silence_s")
def test_a_server_that_stalls_is_given_up_in_time(engine, policy, recorded, monkeypatch):
    monkeypatch.setenv("STUB_VLLM", "stall")
    engine = VLLM(replace(engine.config, silence_s=1.0))
    started = time.monotonic()
    with pytest.raises(VLLMError, match="stalled: no word for 1 s while it wrote rollouts"):
        engine.generate(policy, questions(policy), [1, 1, 1], [1, 2, 3], **ASKED)
    assert time.monotonic() - started < 20
    assert is_gone(recorded("opened")[0]["pid"])


@acts(VLLM, "start_s", "most_drift")
def test_a_slow_start_and_another_model_are_refused(engine, policy, python, tmp_path):
    asked = (questions(policy), [1, 1, 1], [1, 2, 3])
    with pytest.raises(VLLMError, match=r"no word for 0\.001 s while it loaded the model"):
        VLLM(replace(engine.config, start_s=0.001)).generate(policy, *asked, **ASKED)
    with pytest.raises(VLLMError, match=r"nats per token from the policy's own, over most_drift=0\.01"):
        VLLM(replace(engine.config, most_drift=0.01)).generate(policy, *asked, **ASKED)
    wrong = VLLM(engine.config)
    (tmp_path / "python").write_text("#!/bin/sh\necho ModuleNotFoundError: no vllm\nexit 3\n")
    with pytest.raises(VLLMError, match=r"exit code 3.*last error reads: ModuleNotFoundError: no vllm"):
        wrong.generate(policy, *asked, **ASKED)


def test_settings_that_cannot_be_right_are_refused_before_anything_starts(engine, policy, tiny_policy):
    for wrong in ({}, {"python": "x", "socket": "y"}):
        with pytest.raises(ValueError, match="either python"):
            VLLM.Config(**wrong)
    with pytest.raises(ValueError, match=r"temperatures from 0\.01 on"):
        engine.generate(policy, questions(policy), [1], [1], **ASKED | {"temperature": 1e-3})
    small = VLLM(replace(engine.config, context=40))
    with pytest.raises(ValueError, match=r"question 'q2'.*over the 40 that vLLM is given"):
        small.generate(policy, questions(policy), [1], [1], **ASKED)
    part = a_part("engines.vllm.VLLM", python=engine.config.python)
    with pytest.raises(ValueError, match="set sampler_weight_cap, 2 for example"):
        GBA.check(GBA.Config(engine=part))
    kl = a_part("losses.kl.InReward")
    assert InReward.in_reward
    with pytest.raises(ValueError, match=r"take lightning_modules\.losses\.kl\.InLoss"):
        GBA.check(GBA.Config(engine=part, sampler_weight_cap=2.0, kl=kl))
    with pytest.raises(ValueError, match=r"got TinyQwen2_5_VL.*take lightning_modules\.engines\.packed"):
        GBA(GBA.Config(engine=part, sampler_weight_cap=2.0), context=context_of(tiny_policy))
    policy.family.weights = Path("runs/base")
    with pytest.raises(ValueError, match="weights of its own, runs/base"):
        engine.accept(policy.family)


def test_bytes_that_are_no_frame_are_refused(engine, policy):
    for content in (b"\xff" * 8, b"\0" * 7 + b"\2" + b"[]", b"\0" * 7 + b"\x0c" + b'{"bytes":-1}'):
        own, other = vllm_process.socket.socketpair()
        with own, other:
            own.sendall(content)
            with pytest.raises(ValueError, match="a frame"):
                vllm_server.receive(other)


# -- processes ---------------------------------------------------------------------------------------------------

PARENT = """
import os, sys, time
from lightning_modules.engines.vllm_process import Link
link = Link(sys.argv[1], "", sys.argv[2], "")
*_, reply = link.ask({"do": "open", "settings": {"max_model_len": 9}}, doing="", silence=20)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("is_stopped", [False, True])
def test_the_server_ends_with_a_run_that_is_killed(python, recorded, tmp_path, is_stopped):
    command = [sys.executable, "-c", PARENT, python, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        (opened,) = recorded("opened")
        assert not is_gone(opened["pid"])
        if is_stopped:
            os.kill(opened["pid"], signal.SIGSTOP)
        parent.kill()
    wait_until(lambda: is_gone(opened["pid"]))


@pytest.fixture
def listening(python, recorded, tmp_path):
    """The socket of a server that was started by hand."""
    path = tmp_path / "socket"
    command = [python, vllm_server.__file__, "--socket", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(path.exists)
            yield path
        finally:
            server.kill()


@acts(VLLM, "socket")
def test_a_server_that_was_started_by_hand_serves_one_run_after_another(listening, policy, recorded, tmp_path):
    config = VLLM.Config(socket=str(listening), most_drift=100.0, folder=str(tmp_path))
    asked = (questions(policy)[:1], [2], [1, 2])
    found = []
    for _ in range(2):
        engine = VLLM(config)
        found.append(engine.generate(policy, *asked, **ASKED))
        engine.close()
    assert found[0] == found[1]
    assert [item["adapter"] for item in recorded("adapter")] == [1, 2]  # though the weights are the same
    assert stat.S_IMODE(listening.stat().st_mode) == 0o700
    with vllm_process.connected(str(listening)) as stranger:  # the server outlives what it cannot read
        stranger.sendall(b"\xff" * 8)
    with pytest.raises(VLLMError, match=r"opened with other settings, \['max_num_seqs'\].*listened at"):
        VLLM(replace(config, rows_at_once=3)).generate(policy, *asked, **ASKED)
    assert VLLM(config).generate(policy, *asked, **ASKED) == found[0]
    with pytest.raises(VLLMError, match="cannot be reached"):
        VLLM(replace(config, socket=f"{listening}-not")).generate(policy, *asked, **ASKED)


def test_a_step_of_training_reports_drift_and_leaves_no_server(policy, python, recorded, tmp_path):
    policy.bare()
    part = a_part("engines.vllm.VLLM", python=python, most_drift=100.0, folder=str(tmp_path))
    examples = [made_example(0, sizes=()), made_example(1, sizes=(), words=2)]
    shared = {"sampler_weight_cap": 2.0, "max_new_tokens": 9, "transfer": None}
    found = fit(policy, examples, steps=2, engine=part, **GUIDED, **shared)
    assert [item["adapter"] for item in recorded("adapter")] == [1, 2]
    (opened,) = recorded("opened")
    assert is_gone(opened["pid"])
    rollouts, metrics = found.rollouts[0], found.metrics[0]
    torch.nn.utils.vector_to_parameters(found.weights[0], [p for p in found.stage.parameters() if p.requires_grad])
    distances, capped = [], []
    for row, completion in enumerate(rollouts.completions):
        own = policy.score([rollouts.prompt(row)], [completion.ids]).logps[0].detach()
        distances += (own + 6).abs().tolist()
        capped += (own + 6 > torch.tensor(2.0).log()).tolist()
    assert metrics["train/ratio/sampler_log_mean"] == pytest.approx(sum(distances) / len(distances), rel=1e-4)
    assert metrics["train/ratio/sampler_log_max"] == pytest.approx(max(distances), rel=1e-4)
    assert metrics["train/ratio/sampler_capped"] == pytest.approx(sum(capped) / len(capped))
    assert 0 < metrics["train/ratio/sampler_capped"] < 1
