"""Reference: the reply's logits in one piece. Run: pytest tests/experiment/test_reply_kl.py."""

import pytest
import torch

from answering import merge_answers
from answering.merge_answers import reply_kl
from lightning_modules.adapters import LoRASettings
from merge.smoke import kl_to_base
from tests.conftest import randomise_adapter


@pytest.mark.parametrize("rows", [1, 4, 9, 100])
def test_a_reply_s_distance_is_measured_in_pieces(tiny_policy, mixed_examples, monkeypatch, rows):
    tiny_policy.add_adapter("dsa", LoRASettings(rank=4))
    randomise_adapter(tiny_policy, "dsa")
    tiny_policy.activate(["dsa"])
    prompt, ids = tiny_policy.prompt(mixed_examples[0], ""), [25, 26, 27, 28, 29, 30, 31, 32, 33]
    vocabulary = len(tiny_policy.family.tokenizer)
    line = tiny_policy.line([prompt], [ids[:-1]])
    with torch.no_grad():
        whole = tiny_policy.family.logits(tiny_policy.hidden_states(line)[None, -9:])
        with tiny_policy.acting(()):
            base = tiny_policy.family.logits(tiny_policy.hidden_states(line)[None, -9:])
    monkeypatch.setattr(merge_answers, "CHUNK", rows * vocabulary)
    made, original = [], tiny_policy.family.logits
    monkeypatch.setattr(tiny_policy.family, "logits", lambda hidden: made.append(hidden.shape[-2]) or original(hidden))
    expected = kl_to_base(whole, base, torch.ones(1, 9, dtype=torch.bool)).item()
    assert reply_kl(tiny_policy, prompt, ids) == pytest.approx(expected, rel=1e-5)
    assert expected > 0
    assert max(made) == min(rows, 9)
