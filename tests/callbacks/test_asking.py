# Reference: tests/slow_reference.py, one option or one token at a time with the full prompt. Run: pytest <this file>
import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from answering.answer import Answer
from answering.asking import answers, ask
from answering.decoding import Decoding
from answering.protocols import TEXTS, first_prompt
from evaluation.official import medxpertqa
from evaluation.scorers import strict
from lightning_modules.adapters import LoRASettings
from lightning_modules.families.lite0_smollm2 import Lite0SmolLM2
from lightning_modules.policy import Policy
from tests.conftest import randomise_adapter
from tests.slow_reference import stock_log_distribution, stock_logps
from tests.test_imports import ROOT, sources


@pytest.fixture(params=["qwen2_5_vl", "lite0_smollm2"])
def policy(request, tiny_policy):
    """Each family with an adapter that acts."""
    chosen = tiny_policy
    if request.param == "lite0_smollm2":
        chosen = Policy(Lite0SmolLM2(Lite0SmolLM2.Config(random=True, seed=3)))
    chosen.add_adapter("dsa", LoRASettings(rank=4))
    randomise_adapter(chosen, "dsa", scale=0.2)
    chosen.activate(["dsa"])
    return chosen


def decoding(protocol, **changes):
    given = {"max_new_tokens": 7, "temperature": 0.0, "samples": 1, "seed": 0, "rows_at_once": 100, "answer_tokens": 4}
    return Decoding(protocol=protocol, **(given | changes))


def asked(policy, questions, given):
    prompts = [first_prompt(policy, example, "", given.protocol) for example in questions]
    return answers(policy, questions, prompts, "neutral", given)


@torch.no_grad()
def slow_loss(policy, example, option):
    """The release's arithmetic: tokenise prefix and option as one string, and average what comes after the prefix."""
    counts = [item.n_tokens for _, item in policy.prompt(example, "").images]
    prefix = f"Question: {example.question} The answer is"
    before, whole = (policy.family.plain_ids(text, counts) for text in (prefix, f"{prefix} {option}."))
    assert whole[: len(before)] == before
    prompt = first_prompt(policy, example, "", "likelihood")
    assert list(prompt.ids) == before
    tokens = whole[len(before) :]
    return -float(stock_logps(policy, prompt, tokens).double().mean()), len(tokens)


def test_likelihoods_equal_the_slow_reference(policy, mixed_examples):
    # pictures of several sizes and counts, none at all; options of several lengths, all questions in one batch
    found = asked(policy, mixed_examples, decoding("likelihood"))
    for example, answer in zip(mixed_examples, found, strict=True):
        expected = [slow_loss(policy, example, option) for option in example.options]
        assert list(answer.option_tokens) == [tokens for _, tokens in expected]
        assert answer.option_losses == pytest.approx([loss for loss, _ in expected], abs=1e-5)
        assert (answer.completion, answer.n_tokens, answer.truncated) == ("", 0, False)
        assert len({round(loss, 3) for loss in answer.option_losses}) == 3  # the options do differ
    alone = [asked(policy, [example], decoding("likelihood"))[0] for example in mixed_examples]
    for one, other in zip(found, alone, strict=True):
        assert one.option_losses == pytest.approx(other.option_losses, abs=1e-5)


def test_a_questions_prefix_is_computed_once(policy, mixed_examples, monkeypatch):
    sizes = []
    original = policy.hidden_states
    monkeypatch.setattr(policy, "hidden_states", lambda line: sizes.append(len(line.ids)) or original(line))
    example = mixed_examples[1]
    (answer,) = asked(policy, [example], decoding("likelihood"))
    prompt = first_prompt(policy, example, "", "likelihood")
    # the prefix without its last token, then per option that token and all of the option's but the last
    assert sizes == [len(prompt.ids) - 1 + sum(answer.option_tokens)]


@torch.no_grad()
def slow_greedy(policy, prompt, limit):
    """The most likely tokens, one forward pass of everything so far for each."""
    ids = []
    while len(ids) < limit and policy.family.eos_token_id not in ids:
        ids.append(int(stock_log_distribution(policy, prompt, [*ids, 60])[-1].argmax()))
    return ids


def test_two_turns_equal_the_slow_reference(policy, mixed_examples):
    found = asked(policy, mixed_examples, decoding("two_turn"))
    family = policy.family
    for example, answer in zip(mixed_examples, found, strict=True):
        first = first_prompt(policy, example, "", "two_turn")
        reply = slow_greedy(policy, first, 7)
        ended = [*reply, *([] if reply[-1] == family.eos_token_id else [family.eos_token_id])]
        ids = [*first.ids, *ended, *family.next_turn_ids("Therefore, among A through C, the answer is")]
        positions = family.position_ids(ids, [item.grid for _, item in first.images])
        second = type(first)(tuple(ids), first.images, positions)
        last = slow_greedy(policy, second, 4)
        texts = [family.tokenizer.decode([i for i in row if i != family.eos_token_id]) for row in (reply, last)]
        assert (*answer.turns, answer.completion) == tuple(texts)
        assert answer.n_tokens == len(reply) + len(last)
        assert answer.truncated is (family.eos_token_id not in reply or family.eos_token_id not in last)


def test_the_first_prompt_is_the_releases(policy, mixed_examples):
    example = mixed_examples[0]
    prompt = first_prompt(policy, example, "", "two_turn")
    ids = list(prompt.ids)
    text = policy.family.tokenizer.decode([token for token in ids if token != policy.family.image_token_id])
    text = text.replace("<|vision_start|><|vision_end|>", "")
    assert text == (
        "<|im_start|>system\nYou are a helpful medical assistant.<|im_end|>\n<|im_start|>user\n"
        "Q: which heart is wide\nAnswer Choices: (A) narrow (B) wide (C) both\nA: Let's think step by step."
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    image = policy.family.image_token_id
    after = policy.family.tokenizer.decode(ids[len(ids) - ids[::-1].index(image) :])  # behind the last picture token
    assert after.removeprefix("<|vision_end|>") == "<|im_end|>\n<|im_start|>assistant\n"


def test_samples_of_two_turns_have_streams_of_their_own(policy, mixed_examples):
    drawn = {"temperature": 1.5, "samples": 3}
    whole = asked(policy, mixed_examples, decoding("two_turn", **drawn))
    assert len(whole) == 3 * len(mixed_examples)
    assert len({answer.turns for answer in whole[:3]}) == 3
    few = asked(policy, mixed_examples[:1], decoding("two_turn", **(drawn | {"samples": 2}), rows_at_once=1))
    assert few == whole[:2]
    other = asked(policy, mixed_examples[:1], decoding("two_turn", **drawn, seed=1))
    assert other != whole[:3]


def test_ready_pictures_are_taken_as_they_are_and_none_is_read(policy, mixed_examples):
    def gone():
        raise FileNotFoundError

    ready = [policy.prompt(example, "").images for example in mixed_examples]
    blind = [replace(example, images=(gone,) * len(example.images)) for example in mixed_examples]
    for protocol in TEXTS:
        given = decoding(protocol)
        expected = asked(policy, mixed_examples, given)
        assert ask(policy, blind, "", given, images=ready) == ask(policy, mixed_examples, "", given) == expected
    with pytest.raises(ValueError, match="got 2 images for 1 pictures"):
        ask(policy, mixed_examples, "", decoding("single"), images=ready[1:])


def test_an_instruction_and_the_active_adapters_decide(policy, mixed_examples):
    given = Decoding(12)
    plain = ask(policy, mixed_examples, "", given)
    prompts = [policy.prompt(example, "reason by intuition.") for example in mixed_examples]
    told = ask(policy, mixed_examples, "reason by intuition.", given)
    assert [list(answer.ids) for answer in told] == [slow_greedy(policy, prompt, 12) for prompt in prompts]
    assert told != plain
    with policy.acting(()):
        assert ask(policy, mixed_examples, "", given) != plain
    assert policy.active == ("dsa",)


def test_an_answer_beside_its_question_is_what_the_scorers_read(mixed_examples):
    answer = Answer("<think>so</think><answer>B</answer>", (1, 2), 2, False)
    read = answer.prediction(mixed_examples[0], model="m", specialty="s", sample=3, protocol={"image": "none"})
    assert strict(read).right
    assert (read.model, read.specialty, read.guideline, read.sample) == ("m", "s", "neutral", 3)
    assert read.protocol == {"image": "none"}
    assert not strict(answer.prediction(replace(mixed_examples[0], answer="narrow"))).right
    free = replace(mixed_examples[0], options=(), answer="Wide")
    said = replace(answer, completion="<think>so</think><answer>wide.</answer>")
    assert [strict(one.prediction(free)).right for one in (answer, said)] == [False, True]


def test_nothing_decodes_answers_but_asking_and_training():
    others = ("lightning_modules", "benchmarks")  # the rollouts of training, and their measurement
    room = {path for path, names in sampled_from() if "sample" in names and path.parts[0] not in others}
    assert room == {Path("answering/asking.py")}


def sampled_from():
    """(file, names) of every import from the rollout's module in our sources."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module == "lightning_modules.rollout":
                yield path.relative_to(ROOT), {alias.name for alias in node.names}


def test_rows_are_bounded():
    class Question:
        options = tuple("ABCDE")

    for protocol, samples, rows, size in (
        ("single", 1, 150, 150),
        ("single", 4, 150, 37),
        ("two_turn", 4, 3, 1),
        ("likelihood", 1, 150, 30),
        ("likelihood", 1, 4, 1),
    ):
        given = decoding(protocol, samples=samples, rows_at_once=rows)
        assert given.questions_at_once([Question()]) == size
    assert decoding("likelihood").questions_at_once([]) == 100


def test_what_a_protocol_says_is_written_down():
    # The texts name a stored answer's protocol: each function's words are in them.
    assert TEXTS["single"] == ()
    assert medxpertqa.SYSTEM in TEXTS["two_turn"]
    assert "Therefore, among A through B, the answer is" in TEXTS["two_turn"]
    assert TEXTS["likelihood"][1] == " {option}."
    assert TEXTS["likelihood"][0] == "{pictures}Question: {question} The answer is"
