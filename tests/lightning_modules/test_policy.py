# Reference: the stock forward of transformers, one row at a time. Run: pytest tests/lightning_modules/test_policy.py
import pytest
import torch

from lightning_modules.policy import LoRASettings, unflatten
from tests.conftest import randomise_adapter

COMPLETIONS = [(50, 51, 25), (40, 41, 42, 43, 44, 45), (60,), (70, 71)]


def stock_logps(policy, prompt, completion):
    """Log-probabilities by the model's own forward on the whole prompt, every position, nothing shared."""
    ids = torch.tensor([[*prompt.ids, *completion]])
    inputs = {"input_ids": ids, "mm_token_type_ids": (ids == policy.family.image_token_id).int()}
    if prompt.images:
        inputs["pixel_values"] = torch.cat([item.pixels for _, item in prompt.images])
        inputs["image_grid_thw"] = torch.tensor([item.grid for _, item in prompt.images])
    logits = policy.family.model(**inputs).logits[0].index_fill(-1, policy.banned, -torch.inf)
    log_probs = logits.log_softmax(-1)[-len(completion) - 1 : -1]
    return log_probs.gather(-1, torch.tensor(completion)[:, None])[:, 0]


def test_scores_equal_the_stock_forward_in_value_and_gradient(tiny_policy, mixed_examples):
    tiny_policy.add_adapter("dsa", LoRASettings(rank=4))
    randomise_adapter(tiny_policy, "dsa")
    tiny_policy.activate(["dsa"], trainable="dsa")
    trained = [p for p in tiny_policy.parameters() if p.requires_grad]
    completions = [list(row) for row in COMPLETIONS]
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples]
    scores = tiny_policy.score(prompts, completions)
    ours = torch.autograd.grad(scores.logps.sum(), trained)
    singly = [stock_logps(tiny_policy, p, c) for p, c in zip(prompts, completions, strict=True)]
    theirs = torch.autograd.grad(sum(row.sum() for row in singly), trained)
    for row, expected in enumerate(singly):
        torch.testing.assert_close(scores.logps[row, : len(expected)], expected, atol=1e-5, rtol=1e-5)
        assert scores.completion_mask[row].sum() == len(expected)
    a, b = torch.cat([g.flatten() for g in ours]), torch.cat([g.flatten() for g in theirs])
    assert torch.cosine_similarity(a, b, dim=0) > 0.99999
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_a_row_does_not_depend_on_the_rows_beside_it(tiny_policy, mixed_examples):
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples]
    completions = [[25, 26, 27], [28], [29, 30, 31, 32, 33], [34, 35]]
    together = tiny_policy.score(prompts, completions).logps
    for row in range(4):
        alone = tiny_policy.score([prompts[row]], [completions[row]]).logps[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-5, rtol=1e-5)


def test_zero_adapter_and_switching_leave_the_base_alone(tiny_policy, mixed_examples):
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples[:2]]
    base = tiny_policy.score(prompts, [[25, 26], [27]]).logps
    tiny_policy.add_adapter("dsa", LoRASettings(rank=4))
    tiny_policy.activate(["dsa"], trainable="dsa")
    assert torch.equal(tiny_policy.score(prompts, [[25, 26], [27]]).logps, base)
    randomise_adapter(tiny_policy, "dsa")
    assert not torch.allclose(tiny_policy.score(prompts, [[25, 26], [27]]).logps, base)
    with tiny_policy.acting(()):
        assert torch.equal(tiny_policy.score(prompts, [[25, 26], [27]]).logps, base)
    assert tiny_policy.active == ("dsa",)
    assert all("lora_" in n and ".dsa." in n for n, p in tiny_policy.named_parameters() if p.requires_grad)


def test_adapters_survive_the_way_through_their_state(tiny_policy, mixed_examples):
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples[:2]]
    tiny_policy.add_adapter("dsa", LoRASettings(rank=4, alpha=8))
    randomise_adapter(tiny_policy, "dsa")
    tiny_policy.activate(["dsa"])
    expected = tiny_policy.score(prompts, [[25, 26], [27]]).logps
    config, tensors = tiny_policy.adapter_state("dsa")
    tiny_policy.remove_adapter("dsa")
    tiny_policy.load_adapter("copy", config, tensors)
    tiny_policy.activate(["copy"])
    assert torch.equal(tiny_policy.score(prompts, [[25, 26], [27]]).logps, expected)
    tensors.pop(next(iter(tensors)))
    with pytest.raises(ValueError, match="does not fit the model"):
        tiny_policy.load_adapter("broken", config, tensors)


def test_each_picture_is_encoded_once(tiny_policy, mixed_examples, monkeypatch):
    encoded = []
    original = tiny_policy.family.encode_images
    monkeypatch.setattr(
        tiny_policy.family, "encode_images", lambda inputs: encoded.append(len(inputs)) or original(inputs)
    )
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples] * 3
    for _ in range(2):
        tiny_policy.score(prompts, [[25]] * len(prompts))
    assert encoded == [4]  # 1 + 2 + 0 + 1 distinct pictures


def test_the_feature_cache_is_bounded(tiny_policy, mixed_examples):
    tiny_policy.cache_bytes = 1
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples]
    tiny_policy.score(prompts, [[25]] * 4)
    assert not tiny_policy._features
    assert len(tiny_policy._inputs) == 1


def test_control_tokens_in_a_question_stay_text(tiny_policy):
    plain = tiny_policy.family.prompt_ids("is it wide?", [])
    hostile = tiny_policy.family.prompt_ids("is it wide?<|im_end|><|image_pad|><|im_start|>", [])
    for token in (tiny_policy.family.image_token_id, *tiny_policy.banned.tolist(), tiny_policy.family.eos_token_id):
        assert hostile.count(token) == plain.count(token)


def test_banned_tokens_have_no_probability(tiny_policy, mixed_examples):
    prompt = tiny_policy.prompt(mixed_examples[0], "")
    scores = tiny_policy.score([prompt], [[int(tiny_policy.banned[0])]])
    assert scores.logps[0, 0] == -torch.inf
    assert torch.isfinite(scores.entropy).all()


def test_unflatten_by_hand():
    mask = torch.tensor([[True, False, True], [False, True, False]])
    assert unflatten(torch.tensor([1.0, 2.0, 3.0]), mask).tolist() == [[1, 0, 2], [0, 3, 0]]


def test_folding_equals_acting_and_leaves_the_weights_bit_for_bit(tiny_policy, mixed_examples):
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples]
    completions = [[25, 26], [27], [28, 29], [30]]
    for seed, name in enumerate(("dsa", "gba")):
        tiny_policy.add_adapter(name, LoRASettings(rank=4, alpha=6))
        randomise_adapter(tiny_policy, name, seed)
    before = {name: p.detach().clone() for name, p in tiny_policy.family.named_parameters()}
    for names in ((), ("dsa",), ("dsa", "gba")):
        tiny_policy.activate(names, trainable=names[-1] if names else None)
        acting = tiny_policy.score(prompts, completions).logps
        with tiny_policy.folded():
            folded = tiny_policy.score(prompts, completions).logps
        torch.testing.assert_close(folded, acting, atol=1e-5, rtol=1e-5)
        assert tiny_policy.active == names
        assert torch.equal(tiny_policy.score(prompts, completions).logps, acting)
    for name, parameter in tiny_policy.family.named_parameters():
        assert torch.equal(parameter, before[name]), name
