# Reference: one row at a time, teacher-forced scoring, the softmax itself. Run: pytest <this file>
import pytest
import torch

from lightning_modules import rollout as sampling
from lightning_modules.decoding import inverse_cdf
from lightning_modules.rollout import sample, stream_seed
from lightning_modules.row_cache import FixedRowCache
from tests.slow_reference import stock_log_distribution


def prompts_of(policy, examples):
    return [policy.prompt(example, "") for example in examples]


def test_log_probabilities_as_sampled_equal_scoring(tiny_policy, mixed_examples):
    prompts = prompts_of(tiny_policy, mixed_examples)
    seeds = [stream_seed("t", row) for row in range(8)]
    for temperature in (1.0, 0.7):
        rollouts = sample(tiny_policy, prompts, max_new_tokens=12, temperature=temperature, copies=2, seeds=seeds)
        doubled = [prompt for prompt in prompts for _ in range(2)]
        scored = tiny_policy.score(doubled, [rollout.ids for rollout in rollouts], temperature).logps
        for row, rollout in enumerate(rollouts):
            torch.testing.assert_close(
                torch.tensor(rollout.logps), scored[row, : len(rollout.ids)], atol=1e-5, rtol=1e-5
            )


def test_a_rollout_does_not_depend_on_its_batch(tiny_policy, mixed_examples):
    prompts = prompts_of(tiny_policy, mixed_examples)
    seeds = [stream_seed("t", row) for row in range(12)]
    together = sample(tiny_policy, prompts, max_new_tokens=16, copies=3, seeds=seeds)
    for i, prompt in enumerate(prompts):
        alone = sample(tiny_policy, [prompt], max_new_tokens=16, copies=3, seeds=seeds[3 * i : 3 * i + 3])
        assert [rollout.ids for rollout in alone] == [rollout.ids for rollout in together[3 * i : 3 * i + 3]]
    cut = sample(tiny_policy, prompts, max_new_tokens=16, copies=3, seeds=seeds, rows_at_once=5)
    assert [rollout.ids for rollout in cut] == [rollout.ids for rollout in together]


def test_who_follows_hears_every_token_once_and_may_end_it(tiny_policy, mixed_examples):
    prompts, heard = prompts_of(tiny_policy, mixed_examples), {}

    def follow(row, ids):
        assert list(ids[: len(heard.get(row, ()))]) == list(heard.get(row, ()))
        assert len(ids) > len(heard.get(row, ()))
        heard[row] = tuple(ids)

    seeds = [stream_seed("t", row) for row in range(12)]
    told = sample(tiny_policy, prompts, max_new_tokens=9, copies=3, seeds=seeds, rows_at_once=5, follow=follow)
    assert heard == {row: rollout.ids for row, rollout in enumerate(told)}
    assert told == sample(tiny_policy, prompts, max_new_tokens=9, copies=3, seeds=seeds, rows_at_once=5)

    def leave(row, ids):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(tiny_policy, prompts, max_new_tokens=9, temperature=0, follow=leave)


def test_greedy_is_the_argmax_of_the_stock_forward(tiny_policy, mixed_examples):
    prompt = tiny_policy.prompt(mixed_examples[0], "")
    (rollout,) = sample(tiny_policy, [prompt], max_new_tokens=6, temperature=0)
    log_probs = stock_log_distribution(tiny_policy, prompt, rollout.ids)
    assert tuple(log_probs.argmax(-1).tolist()) == rollout.ids


def test_rows_that_end_leave_and_the_others_go_on(tiny_policy, mixed_examples):
    # make the end token likely, so that rows end at different steps
    eos = tiny_policy.family.eos_token_id
    original = tiny_policy.family.logits

    def eager_to_end(hidden):
        logits = original(hidden).clone()
        logits[..., eos] += 4.5
        return logits

    tiny_policy.family.logits = eager_to_end
    prompts = prompts_of(tiny_policy, mixed_examples)
    rollouts = sample(tiny_policy, prompts, max_new_tokens=30, copies=4, seeds=list(range(16)))
    lengths = {len(rollout.ids) for rollout in rollouts}
    assert len(lengths) > 2
    for rollout in rollouts:
        assert (rollout.ids[-1] == eos) != rollout.truncated
        assert eos not in rollout.ids[:-1]
        assert len(rollout.ids) == len(rollout.logps)


def test_inverse_cdf_follows_the_distribution_and_never_hits_a_ban():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    n = 20_000
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = inverse_cdf(probabilities.log().expand(n, 6), uniform)
    shares = torch.bincount(drawn, minlength=6) / n
    assert shares[[0, 2, 5]].sum() == 0
    assert (shares - probabilities).abs().max() < 4 * (0.25 / n) ** 0.5  # four standard errors
    edges = inverse_cdf(probabilities.log().expand(2, 6), torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert edges.tolist() == [1, 4]


def test_a_distribution_that_is_not_finite_is_named(tiny_policy, mixed_examples):
    logits = tiny_policy.family.logits
    tiny_policy.family.logits = lambda hidden: logits(hidden) * torch.nan
    prompts = prompts_of(tiny_policy, mixed_examples[:1])
    with pytest.raises(RuntimeError, match="not finite"):
        sample(tiny_policy, prompts, max_new_tokens=4, seeds=[1])
    # greedy answers of an agent whose logits overflow are for a gate to judge
    assert len(sample(tiny_policy, prompts, max_new_tokens=4, temperature=0)[0].ids) == 4


def fixed(monkeypatch):
    """Decode as a card does, without a recording: shapes stay, and the host looks seldom."""
    monkeypatch.setattr(sampling, "worth_recording", lambda device, limit: True)
    monkeypatch.setattr(sampling, "Recorded", lambda step: step)


def test_fixed_shapes_write_what_growing_ones_do(tiny_policy, mixed_examples, monkeypatch):
    eos, original = tiny_policy.family.eos_token_id, tiny_policy.family.logits
    lift = torch.zeros(tiny_policy.family.model.config.get_text_config().vocab_size)
    lift[eos] = 4.5  # rows end at different steps
    tiny_policy.family.logits = lambda hidden: original(hidden) + lift
    prompts = prompts_of(tiny_policy, mixed_examples)
    assert len({len(prompt.ids) for prompt in prompts}) > 1
    how = {"max_new_tokens": 30, "copies": 4, "seeds": list(range(16))}
    growing = sample(tiny_policy, prompts, **how)
    dropped = []
    drop = FixedRowCache.drop
    monkeypatch.setattr(FixedRowCache, "drop", lambda self, slots: dropped.append(len(slots)) or drop(self, slots))
    fixed(monkeypatch)
    for look_every, worth, moves in ((1, 4, True), (7, 4, True), (1, 31, False)):  # too little is left for another one
        dropped.clear()
        monkeypatch.setattr(sampling, "WORTH", worth)
        monkeypatch.setattr(sampling, "look_interval", lambda device, every=look_every: every)
        found = sample(tiny_policy, prompts, **how)
        assert [row.ids for row in found] == [row.ids for row in growing]
        for ours, theirs in zip(found, growing, strict=True):
            assert ours.logps == pytest.approx(theirs.logps, abs=2e-5)
        assert bool(dropped) == moves


def test_streams_are_functions_of_their_keys():
    assert stream_seed("train", 0, 3, "q1", 2) == stream_seed("train", 0, 3, "q1", 2)
    assert len({stream_seed("train", 0, step, q, row) for step in range(5) for q in "ab" for row in range(4)}) == 40


@pytest.mark.parametrize("bad", [{"temperature": -1.0}, {"max_new_tokens": 0}, {"seeds": [1]}])
def test_bad_requests_are_refused(tiny_policy, mixed_examples, bad):
    arguments = {"max_new_tokens": 4, "copies": 2, "seeds": [1, 2]} | bad
    with pytest.raises(ValueError, match=r"temperature|seeds"):
        sample(tiny_policy, prompts_of(tiny_policy, mixed_examples[:1]), **arguments)
