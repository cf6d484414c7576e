"""Reference: the policy's own log-probabilities, against those of a real vLLM that serves it.

Run: VLLM_PYTHON=<bin/python of vLLM's environment> pytest -m slow tests/experiment/test_vllm_served.py (three minutes
on two cores; requirements-vllm.txt says how the environment is made).
"""

import os
import signal
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_modules.engines.vllm import VLLM
from lightning_modules.engines.vllm_process import Link
from tests.conftest import made_example, randomise_adapter
from tests.lightning_modules.test_vllm_engine import policy_of, write_checkpoint

PYTHON = os.environ.get("VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="VLLM_PYTHON names no interpreter of an environment with vLLM"),
]
SMALL = {"python": PYTHON, "context": 1024, "rows_at_once": 64, "enforce_eager": True}
CLOSE = 5e-4
"""Nats by which two programs of the same sums may differ, in float32."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("hub"))


@pytest.fixture(autouse=True)
def _small_cache(monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; without a card vLLM would take half of the memory


def test_what_is_served_is_the_policy(checkpoint):
    policy, engine = policy_of(checkpoint), VLLM(VLLM.Config(**SMALL))
    sizes = (((112, 112),), ((112, 112), (80, 160)), (), ((160, 80),))
    prompts = [policy.prompt(made_example(i, sizes=s, words=i), "") for i, s in enumerate(sizes)]
    copies, rows = [2] * 4, [prompt for prompt in prompts for _ in range(2)]
    asked = {"max_new_tokens": 40, "temperature": 0.7}
    before, seen = None, []
    for version in range(3):
        randomise_adapter(policy, "gba", seed=20 + version, scale=0.1)
        seeds = [100 * version + row for row in range(8)]
        found = engine.generate(policy, prompts, copies, seeds, version=version, **asked)
        sampled = torch.nn.utils.rnn.pad_sequence([torch.tensor(item.logps) for item in found], batch_first=True)
        with torch.no_grad():
            own = policy.score(rows, [item.ids for item in found], 0.7).logps
            with policy.acting(["dsa"]):
                other = policy.score(rows, [item.ids for item in found], 0.7).logps
        assert float((own - sampled).abs().max()) < CLOSE
        assert float((other - sampled).abs().max()) > 0.05  # the new adapter is in what was sampled
        assert before != found
        before = found
        seen += [token for item in found for token in item.ids]
    assert not set(seen) & set(policy.family.banned_token_ids)
    again = engine.generate(policy, prompts, copies, [200 + row for row in range(8)], version=2, **asked)
    assert [item.ids for item in again] == [item.ids for item in before]  # a rollout is its seed's
    close = policy_frequencies(policy, prompts[0], engine)
    engine.close()
    assert close < 4


def policy_frequencies(policy, prompt, engine) -> float:
    """Standard deviations between how often the likeliest first tokens come and how often they should, at most."""
    count = 400
    first = engine.generate(policy, [prompt], [count], list(range(count)), max_new_tokens=1, temperature=0.7, version=2)
    tokens = [item.ids[0] for item in first]
    allowed = [i for i in range(policy.family.model.config.text_config.vocab_size) if i not in policy.banned.tolist()]
    with torch.no_grad():
        chances = policy.score([prompt] * len(allowed), [(token,) for token in allowed], 0.7).logps[:, 0].exp()
    assert float(chances.sum()) == pytest.approx(1, abs=1e-4)
    likely = chances.topk(5).indices.tolist()
    expected = [(tokens.count(allowed[i]), count * float(chances[i])) for i in likely]
    return max(abs(n - mean) / (mean * (1 - mean / count)) ** 0.5 for n, mean in expected)


def test_the_command_trains_on_it_and_goes_on_after_its_death(machine, checkpoint, tmp_path, monkeypatch, capsys):
    engine = {"class_path": "lightning_modules.engines.vllm.VLLM", "init_args": SMALL | {"folder": str(tmp_path)}}
    settings = {
        "lora_rank": 2, "lora_alpha": 4.0, "guidelines": ["differential", "bayesian"], "rollouts_per_guideline": 2,
        "questions_per_step": 2, "max_new_tokens": 60, "learning_rate": 0.01, "sampler_weight_cap": 2.0,
        # Random answers earn nothing, so that every row is in the gradient by its entropy alone.
        "entropy_bonus": 0.1, "engine": engine,
    }  # fmt: skip
    family = {"dtype": "float32", "path": str(checkpoint), "min_pixels": 3136, "max_pixels": 3136, "system": ""}
    made = machine.at(tmp_path / "runs").write(
        tmp_path / "files",
        "gba",
        requires=[],
        callbacks={},
        model={"class_path": "lightning_modules.families.qwen2_5_vl.Qwen2_5_VL", "init_args": family},
        module={"class_path": "lightning_modules.rl_gba.GBA", "init_args": settings},
        trainer={"max_steps": 3, "log_every_n_steps": 1},
    )
    command = ("gba", "only=[alpha]", "fit.checkpoint_every_steps=1")
    ask, killed = Link.ask, []

    def ask_and_kill(link, message, *more, **how):
        for reply in ask(link, message, *more, **how):
            if message.get("number") == 2 and "row" in reply and not killed:
                killed.append(link.process.pid)
                os.kill(link.process.pid, signal.SIGKILL)
            yield reply

    monkeypatch.setattr(Link, "ask", ask_and_kill)
    assert made.run(*command) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if "vLLM" in line]
    assert len(told) == 1
    assert "gba: VLLMError: vLLM died while it wrote rollouts (killed by SIGKILL); its log is" in told[0]
    assert "Traceback" not in told[0]
    (log,) = tmp_path.glob("vllm-*")
    assert log.read_text()
    assert made.run(*command) == 0
    events = EventAccumulator(str(made.runs / "gba" / "alpha")).Reload()
    for tag in ("sampler_log_max", "sampler_log_mean", "sampler_capped", "sampler_weight"):
        points = events.Scalars(f"train/ratio/{tag}")
        assert [point.step for point in points] == [0, 1, 2]
        values = [point.value for point in points]
        assert all(value < CLOSE for value in values) or tag == "sampler_weight"
    assert values == pytest.approx([1, 1, 1], abs=CLOSE)
    assert [point.value > 0 for point in events.Scalars("train/grad_norm")] == [True] * 3
    assert (made.runs / "gba" / "alpha" / "adapter" / "manifest.json").exists()
    assert list(tmp_path.glob("vllm-*")) == [log]
    assert not Path(f"/proc/{killed[0]}").exists()
