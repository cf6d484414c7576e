# Reference: tests/slow_reference.py, one row at a time through transformers' own forward. Run: pytest <this file>
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_modules import adapters
from lightning_modules.adapters import LoRASettings
from lightning_modules.families.lite0_smollm2 import Lite0SmolLM2
from lightning_modules.packing import Packing
from lightning_modules.policy import Policy
from lightning_modules.prompts import common_length
from lightning_modules.rollout import sample, stream_seed
from lightning_modules.row_cache import RowCache
from tests.conftest import made_example, randomise_adapter
from tests.slow_reference import stock_log_distribution, stock_logps

INSTRUCTIONS = ("", "wide or narrow", "which heart is wide, really")


@pytest.fixture(params=["qwen2_5_vl", "lite0_smollm2"])
def policy(request, tiny_policy):
    """Each family with two adapters that act, the upper one trainable."""
    chosen = tiny_policy
    if request.param == "lite0_smollm2":
        chosen = Policy(Lite0SmolLM2(Lite0SmolLM2.Config(random=True, seed=3)))
    for seed, name in enumerate(("dsa", "gba")):
        chosen.add_adapter(name, LoRASettings(rank=4))
        randomise_adapter(chosen, name, seed)
    chosen.activate(["dsa", "gba"], trainable="gba")
    return chosen


def gradient(policy, value):
    trained = [p for p in policy.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, trained)])


def assert_equal_to_the_slow_reference(policy, prompts, completions, temperature=1.0):
    """Values to 1e-5, LoRA gradients of a weighted sum to cosine 0.99999 and relative length 1e-4."""
    scores = policy.score(prompts, completions, temperature)
    slow = [stock_logps(policy, p, c, temperature) for p, c in zip(prompts, completions, strict=True)]
    for row, expected in enumerate(slow):
        torch.testing.assert_close(scores.logps[row, : len(expected)], expected, atol=1e-5, rtol=1e-5)
        assert not scores.logps[row, len(expected) :].any()
        assert int(scores.completion_mask[row].sum()) == len(expected)
    weights = torch.linspace(-1, 1.5, len(slow))
    ours = gradient(policy, (scores.logps * weights[:, None]).sum())
    theirs = gradient(policy, sum(w * row.sum() for w, row in zip(weights, slow, strict=True)))
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99999
    torch.testing.assert_close(ours.norm(), theirs.norm(), atol=1e-6, rtol=1e-4)


def test_groups_that_share_a_prefix_equal_the_slow_reference(policy, mixed_examples):
    # pictures of several sizes and counts, none at all, prompts of different length, K = 3 instructions, g = 2
    prompts, completions = [], []
    for index, example in enumerate(mixed_examples):
        for prompt in policy.prompts(example, INSTRUCTIONS):
            assert prompt.shared > len(prompt.ids) // 2 or not prompt.images
            for copy in range(2):
                prompts.append(prompt)
                completions.append([50 + (index + copy + j) % 30 for j in range(1 + (3 * index + copy) % 6)])
    line = policy.line(prompts, completions)
    assert len(line.packing.prefix_lengths) == len(mixed_examples)
    assert_equal_to_the_slow_reference(policy, prompts, completions, temperature=0.7)


@pytest.mark.parametrize("size", [1, 5])
def test_one_question_equals_the_slow_reference(policy, mixed_examples, size):
    # G = 1 shares nothing; one-token completions leave no completion token in the line
    for tokens in ([60], [60, 61, 62]):
        prompts = [policy.prompt(mixed_examples[1], "")] * size
        assert_equal_to_the_slow_reference(policy, prompts, [tokens] * size)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_batch_equals_the_slow_reference(policy, data):
    prompts, completions = [], []
    for index in range(data.draw(st.integers(1, 3))):
        sizes = data.draw(st.lists(st.sampled_from([(56, 56), (112, 56), (84, 140)]), max_size=2))
        example = made_example(index, sizes=tuple(sizes), words=data.draw(st.integers(0, 9)))
        for prompt in policy.prompts(example, INSTRUCTIONS[: data.draw(st.integers(1, 3))]):
            for _ in range(data.draw(st.integers(1, 3))):
                prompts.append(prompt)
                completions.append(data.draw(st.lists(st.integers(20, 90), min_size=1, max_size=8)))
    order = data.draw(st.permutations(range(len(prompts))))
    assert_equal_to_the_slow_reference(policy, [prompts[i] for i in order], [completions[i] for i in order])


def test_sampled_tokens_follow_the_stock_distribution(policy, mixed_examples):
    # Every recorded log-probability is the stock one given the row so far, rows of different prompts and lengths.
    eos = policy.family.eos_token_id
    original = policy.family.logits

    def eager_to_end(hidden):
        logits = original(hidden).clone()
        logits[..., eos] += 3.5
        return logits

    prompts = [prompt for example in mixed_examples for prompt in policy.prompts(example, INSTRUCTIONS)]
    seeds = [stream_seed("t", row) for row in range(2 * len(prompts))]
    policy.family.logits = eager_to_end
    with policy.folded():
        rollouts = sample(policy, prompts, max_new_tokens=14, temperature=0.8, copies=2, seeds=seeds)
    assert len({len(rollout.ids) for rollout in rollouts}) > 4
    policy.family.logits = original
    for row, rollout in enumerate(rollouts):
        bias = torch.zeros(len(policy.family.tokenizer))
        bias[eos] = 3.5 / 0.8
        with torch.no_grad():
            stock = stock_log_distribution(policy, prompts[row // 2], rollout.ids, 0.8)
        stock = (stock + bias[: stock.shape[1]]).log_softmax(-1)
        expected = stock.gather(-1, torch.tensor(rollout.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(rollout.logps), expected, atol=2e-5, rtol=1e-5)


def test_shares_of_first_tokens_are_those_of_the_stock_softmax(policy, mixed_examples):
    # 4000 draws against the exact distribution; chi-square over the likely tokens, p above 1e-4
    prompt, n = policy.prompt(mixed_examples[0], ""), 4000
    rollouts = sample(
        policy, [prompt], max_new_tokens=1, copies=n, seeds=[stream_seed("d", i) for i in range(n)], rows_at_once=n
    )
    with torch.no_grad():
        expected = n * stock_log_distribution(policy, prompt, [60])[0].exp()
    counts = torch.bincount(torch.tensor([rollout.ids[0] for rollout in rollouts]), minlength=len(expected))
    assert not counts[policy.banned].any()
    likely = expected >= 5
    statistic = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    degrees = int(likely.sum()) - 1
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5


def test_checkpointed_layers_change_nothing_and_keep_less(policy, mixed_examples, monkeypatch):
    prompts = [prompt for example in mixed_examples for prompt in policy.prompts(example, INSTRUCTIONS)]
    completions = [[60, 61, 62]] * len(prompts)

    def run():
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            logps = policy.score(prompts, completions).logps
        return sum(sizes), logps.detach(), gradient(policy, logps.sum())

    kept, logps, slopes = run()
    policy.checkpoint_layers()
    kept_then, logps_then, slopes_then = run()
    assert kept_then < kept / 3
    assert torch.equal(logps_then, logps)
    torch.testing.assert_close(slopes_then, slopes, atol=1e-6, rtol=1e-6)
    monkeypatch.setattr(adapters, "checkpoint", None)  # not asked for where nothing is differentiated, nor once bare
    with torch.no_grad():
        assert torch.equal(policy.score(prompts, completions).logps, logps)
    policy.bare(keep=policy.adapters)
    policy.family.train()
    policy.score(prompts, completions)


def test_a_line_holds_nothing_twice(policy, mixed_examples):
    prompts = [p for p in policy.prompts(mixed_examples[0], INSTRUCTIONS) for _ in range(4)]
    line = policy.line(prompts, [[60, 61]] * len(prompts))
    shared = prompts[0].shared
    assert len(line.ids) == shared + sum(len(p.ids) - shared + 2 for p in prompts)
    assert int((line.ids == policy.family.image_token_id).sum()) == prompts[0].images[0][1].n_tokens


def test_places_by_hand():
    packing = Packing([3, 2], [(1, 2), (None, 1), (0, 1)])
    # 0 1 2 | 3 4 | 5 6 | 7 | 8
    assert len(packing) == 9
    assert [packing.row_places(row) for row in range(3)] == [[3, 4, 5, 6], [7], [0, 1, 2, 8]]
    assert packing.row_ends == [6, 7, 8]


def test_finished_slots_are_taken_by_the_last():
    packing = Packing([], [(None, 1)] * 5, keep=True)
    packing.kept[0] = (torch.arange(5.0).view(5, 1, 1), torch.arange(5.0).view(5, 1, 1))
    cache = RowCache(packing, range(5), 3)
    assert cache.drop([1, 3]) == [0, 4, 2]
    assert cache.buffers[0][0][: cache.rows, 0, 0, 0].tolist() == [0, 4, 2]
    assert cache.drop([2, 0]) == [1]
    assert cache.buffers[0][0][: cache.rows, 0, 0, 0].tolist() == [4]


def test_common_length_by_hand():
    assert common_length([(1, 2, 3, 4), (1, 2, 9, 4)]) == 2
    assert common_length([(1, 2, 3)]) == 2  # one token is left to predict from
    assert common_length([(1, 2), (1, 2, 3)]) == 1
