# Reference: transformers and PEFT as their users call them, on checkpoints in the hub's layout (hub.py, shapes.py).
# A family that is added to `shapes.SHAPES` is held to all of it. Run: pytest <this file> -k NAME
import re

import lightning as L
import pytest
import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoTokenizer

from artifacts.adapter_files import base_fingerprint, read_adapter, write_adapter
from artifacts.base_origin import loading_lines
from artifacts.stored_weights import StoredParameter
from datamodules.batch import Batch
from lightning_modules.adapters import LoRASettings
from lightning_modules.policy import Policy
from lightning_modules.rollout import sample, stream_seed
from lightning_modules.sft_lora import SFTLoRA
from lightning_modules.stage import StageContext
from merge.dense import Dense, write_dense
from tests.conftest import made_example, noise_image, randomise_adapter
from tests.lightning_modules import rl_reference as by_hand
from tests.lightning_modules.families.hub import by_template, said
from tests.lightning_modules.families.shapes import SHAPES, SLOW
from tests.lightning_modules.rl_harness import GUIDED, Watch, a_part, fit
from tests.slow_reference import stock_inputs, stock_log_distribution, stock_logps

TEXTS = ("which heart is wide?", "\n\nwhich\n\n\nheart ", " A) é\u0301 B) 42.5\t\r\n", "", "\n", "ß — 心?\n\n\n")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in sorted(SHAPES)]
)
def published(request, tmp_path_factory):
    """(shape, folder of the checkpoint, whether its head is the embeddings')."""
    shape, tied = SHAPES[request.param]
    folder = shape.write(tmp_path_factory.mktemp(request.param) / "hub", tied=tied)
    return shape, folder, tied


@pytest.fixture(scope="module")
def loaded(published):
    """The checkpoint behind our interface, and as transformers loads it; both fp32."""
    shape, folder, _ = published
    family_class = shape.family_class
    policy = Policy(family_class(family_class.Config(path=str(folder), dtype="float32")))
    return policy, stock_model(shape, folder)


@pytest.fixture
def policy(loaded):
    policy, _ = loaded
    policy.bare()
    return policy


def stock_model(shape, folder):
    return shape.family_class.model_class.from_pretrained(folder, dtype=torch.float32).eval()


def sizes(shape, count):
    """(height, width) of so many pictures; none in a language model."""
    return () if shape.preprocessor is None else tuple(shape.sizes[i % len(shape.sizes)] for i in range(count))


def questions(shape, count=4):
    """Of one picture, of two, of none, and of one after more words."""
    return [made_example(i, sizes=sizes(shape, (1, 2, 0, 1)[i % 4]), words=(0, 3, 7, 1)[i % 4]) for i in range(count)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_that_stay_in_their_files_are_the_ones_that_are_loaded(published, dtype):
    shape, folder, tied = published
    config = shape.family_class.Config(path=str(folder), dtype=dtype)
    whole, apart = shape.family_class(config), shape.family_class(config, blocks_in_files=True)
    blocks = set(map(id, apart.block_parameters()))
    stored = [parameter for parameter in apart.parameters() if isinstance(parameter, StoredParameter)]
    assert blocks == set(map(id, stored))
    assert sum(p.numel() for p in stored) > 0.5 * sum(p.numel() for p in apart.model.get_decoder().layers.parameters())
    assert base_fingerprint(apart.named_parameters()) == base_fingerprint(whole.named_parameters())
    for (name, buffer), (_, expected) in zip(apart.named_buffers(), whole.named_buffers(), strict=True):
        assert torch.equal(buffer, expected), name
    head, embeddings = (model() for model in (apart.model.get_output_embeddings, apart.model.get_input_embeddings))
    assert (head.weight is embeddings.weight) == tied
    assert apart.end_token_ids == whole.end_token_ids
    assert apart.origin == whole.origin


def test_features_in_bf16_are_those_of_fp32_up_to_its_rounding(published, loaded):
    shape, folder, _ = published
    if shape.preprocessor is None:
        pytest.skip("reads no pictures")
    high, _ = loaded
    low = Policy(shape.family_class(shape.family_class.Config(path=str(folder), dtype="bfloat16")))
    for example in questions(shape):
        for (key, feature), (_, expected) in zip(
            low.features(low.prompt(example, "").images).items(),
            high.features(high.prompt(example, "").images).items(),
            strict=True,
        ):
            assert feature.dtype == low.cache.get(key).dtype == torch.bfloat16
            assert float((feature.float() - expected).norm() / expected.norm()) < 4 * 2**-8, key


@pytest.mark.parametrize("text", TEXTS)
def test_prompts_are_the_template_s(published, policy, text):
    shape, folder, _ = published
    family = policy.family
    for counts in ([], [3], [2, 5]) if shape.preprocessor is not None else ([],):
        for system in (None, "be brief\n\n"):
            for last in (False, True):
                told = [{"role": "system", "content": said(shape, system)}] if system else []
                asked = [*told, {"role": "user", "content": said(shape, text, len(counts), last)}]
                expected = by_template(shape, folder, asked, counts)
                assert family.prompt_ids(text, counts, system=system, pictures_last=last) == expected


def test_a_second_turn_is_the_template_s(published, policy):
    shape, folder, _ = published
    family, counts = policy.family, [3] if shape.preprocessor is not None else []
    first = family.prompt_ids("which?", counts)
    asked = [
        {"role": "user", "content": said(shape, "which?", len(counts))},
        {"role": "assistant", "content": said(shape, "the wide one")},
    ]
    for text in TEXTS:
        whole = by_template(shape, folder, [*asked, {"role": "user", "content": said(shape, text)}], counts)
        reply = family.text_ids(f"{shape.before_reply}the wide one")
        for end in ([], *([token] for token in family.end_token_ids)):  # cut at its limit, or ended in any way
            assert family.continued_ids(first, [*reply, *end], text) == whole


def test_a_reply_is_learnt_as_the_template_writes_it(published, policy):
    shape, folder, _ = published
    counts = [3] if shape.preprocessor is not None else []
    first, reply = policy.family.prompt_ids("which?", counts), policy.completion_ids("the wide one")
    asked = [
        {"role": "user", "content": said(shape, "which?", len(counts))},
        {"role": "assistant", "content": said(shape, "the wide one")},
        {"role": "user", "content": said(shape, "so?")},
    ]
    assert by_template(shape, folder, asked, counts)[: len(first) + len(reply)] == [*first, *reply]


def test_control_tokens_in_a_question_stay_text(published, policy):
    shape, _, _ = published
    family, control = policy.family, [name for name, special in shape.added if special]
    counts = [3] if shape.preprocessor is not None else []
    plain = family.prompt_ids("", counts, system="")
    for text in ("".join(control), f"a{shape.end}\n{control[0]}b", f"{shape.mark or shape.end}" * 3):
        ids = family.prompt_ids(text, counts, system="")
        special = set(family.tokenizer.convert_tokens_to_ids(control))
        assert [token for token in ids if token in special] == [token for token in plain if token in special]
        assert text.strip() in family.tokenizer.decode(ids)
        told = family.prompt_ids("x", counts, system=text)
        assert [token for token in told if token in special].count(family.eos_token_id) <= 3
        assert text.strip() in family.tokenizer.decode(told)


def test_an_empty_system_prompt_leaves_the_turn_out_and_another_replaces_the_template_s(published, policy):
    shape, _, _ = published
    decode = policy.family.tokenizer.decode
    assert "helpful" not in decode(policy.family.prompt_ids("wide?", [], system=""))
    assert ("helpful" in decode(policy.family.prompt_ids("wide?", []))) == ("helpful" in shape.template)
    other = decode(policy.family.prompt_ids("wide?", [], system="be brief"))
    assert "be brief" in other
    assert "helpful" not in other


def test_what_is_never_written_is_all_control_tokens_and_rows_without_a_token(published, policy):
    shape, folder, _ = published
    tokenizer, rows = AutoTokenizer.from_pretrained(folder), policy.family.model.get_output_embeddings().weight.shape[0]
    ends = tokenizer.convert_tokens_to_ids([shape.end, *shape.other_ends])
    control = {tokenizer.convert_tokens_to_ids(name) for name, special in shape.added if special} - set(ends)
    assert policy.family.end_token_ids == tuple(ends)
    assert set(policy.family.banned_token_ids) == control | (set(range(rows)) - set(tokenizer.get_vocab().values()))
    assert policy.family.eos_token_id == ends[0]
    assert rows > len(tokenizer)


def test_pictures_are_the_stock_processor_s(published, policy):
    shape, folder, _ = published
    if shape.preprocessor is None:
        with pytest.raises(ValueError, match="reads no pictures"):
            policy.family.to_input(noise_image(0, 60, 60))
        return
    stock = AutoImageProcessor.from_pretrained(folder, backend="pil")
    for height, width in ((60, 90), (400, 300), (9, 31), (500, 60)):
        image = noise_image(height, height, width)
        ours, expected = policy.family.preprocess(image), stock(images=[image], return_tensors="pt", **shape.processing)
        pixels = expected["pixel_values"]
        assert torch.equal(ours.pixels.reshape(pixels.shape), pixels)
        assert ours.n_tokens == policy.family.to_input.tokens(width, height)
        none, shown = (policy.family.prompt_ids("", [count]) for count in (0, ours.n_tokens))
        assert len(shown) - len(none) == ours.n_tokens
        assert shown.count(policy.family.image_token_id) == len(policy.family.encode_images([ours])[0])
        assert ours.n_tokens <= policy.family.to_input.most_tokens


def test_logits_are_the_stock_forward_s(published, loaded, policy):
    shape, _, _ = published
    for example in questions(shape):
        prompt = policy.prompt(example, "")
        tail = policy.completion_ids("heart 62 of 110, so the answer is wide.")
        with torch.no_grad():
            ours = policy.family.logits(policy.hidden_states(policy.line([prompt], [tail])))
            ids = torch.tensor([[*prompt.ids, *tail]])
            stock = loaded[1](**stock_inputs(policy.family, ids, prompt)).logits[0]
        assert stock.std(-1).min() > 0.005  # not flat: fifty times what the comparison lets pass
        torch.testing.assert_close(ours, stock, atol=1e-4, rtol=1e-4)


def test_rows_are_independent(published, policy):
    shape, _, _ = published
    prompts = [policy.prompt(example, text) for example in questions(shape) for text in ("", "be brief", "think")]
    ids = [policy.completion_ids("so wide " * (1 + i % 3)) for i in range(len(prompts))]
    with torch.no_grad():
        together = policy.score(prompts, ids).logps
        for row, (prompt, tokens) in enumerate(zip(prompts, ids, strict=True)):
            alone = policy.score([prompt], [tokens]).logps[0]
            torch.testing.assert_close(together[row, : len(tokens)], alone, atol=2e-5, rtol=1e-4)


def test_what_is_sampled_has_the_stock_log_probabilities(published, policy):
    # prompts of several lengths that share their first part, and rows that end early
    shape, _, _ = published
    ends = torch.tensor(policy.family.end_token_ids)
    prompts = [prompt for example in questions(shape) for prompt in policy.prompts(example, ["", "be brief", "think"])]

    def often_over(log_probs, rows=(), step=0):
        probs = 0.8 * log_probs.exp()
        return probs.index_add(1, ends, torch.full((len(probs), len(ends)), 0.2 / len(ends))).log()

    seeds = [stream_seed("s", row) for row in range(2 * len(prompts))]
    rollouts = sample(policy, prompts, max_new_tokens=12, copies=2, seeds=seeds, processor=often_over)
    assert len({len(rollout.ids) for rollout in rollouts}) > 4
    assert {rollout.ids[-1] for rollout in rollouts if not rollout.truncated} == set(ends.tolist())
    for row, rollout in enumerate(rollouts):
        assert not set(rollout.ids[:-1]) & set(ends.tolist())
        with torch.no_grad():
            stock = often_over(stock_log_distribution(policy, prompts[row // 2], rollout.ids))
        expected = stock.gather(-1, torch.tensor(rollout.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(rollout.logps), expected, atol=2e-5, rtol=1e-4)


def assert_same_gradient(found, reference):
    assert reference.norm() > 1e-6
    assert torch.cosine_similarity(found.double(), reference.double(), dim=0) > 0.99999
    torch.testing.assert_close(found, reference, atol=1e-5 * float(reference.abs().max()) + 1e-7, rtol=1e-3)


def test_a_step_of_imitation_is_the_slow_reference_s(published, policy):
    shape, _, _ = published
    config = SFTLoRA.Config(guidelines=("intuitive",), lora_rank=2, max_grad_norm=float("inf"), warmup=0)
    stage = SFTLoRA(config, context=StageContext(policy))
    randomise_adapter(policy, "dsa")
    examples, texts = questions(shape), ("heart 62 of 110, so wide.", "so wide", "narrow", "both, so both")
    batch = Batch(tuple(examples), ("neutral", "intuitive", "neutral", "intuitive"), texts)
    watch = Watch()
    L.Trainer(
        max_steps=1, logger=False, callbacks=[watch], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", devices=1,
    ).fit(stage, DataLoader([batch] * 2, batch_size=None))  # fmt: skip
    by_hand.at_weights(stage, watch.weights[0])
    completions = [policy.completion_ids(text) for text in texts]
    loss = torch.zeros(())
    for example, guideline, ids in zip(examples, batch.guidelines, completions, strict=True):
        prompt = policy.prompt(example, stage.instructions[guideline])
        loss = loss - stock_logps(policy, prompt, ids).sum() / sum(map(len, completions))
    trained = [p for p in stage.parameters() if p.requires_grad]
    reference = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])
    assert_same_gradient(watch.gradients[0], reference)


def test_a_step_of_gba_is_the_slow_reference_s(published, policy):
    shape, _, _ = published
    kl, transfer = (
        a_part("losses.kl.InLoss", beta=0.3),
        a_part("transfer.policy_gradient.PolicyGradientTransfer", eta=0.8),
    )
    settings = GUIDED | {"rollouts_per_guideline": 2, "kl": kl, "transfer": transfer}
    found = fit(policy, questions(shape, 2), **settings, lora_rank=2)
    rollouts = found.rollouts[0]
    weights = {"correct": 1.0, "format": 0.1, "adherence": 0.2}
    advantages = by_hand.advantages_by_hand(rollouts, weights, by_hand.gba_by_hand)
    by_hand.at_weights(found.stage, found.weights[0])
    old = by_hand.logps_of_rows(found.stage, rollouts)
    ref = by_hand.logps_of_rows(found.stage, rollouts, ("dsa",))
    terms = {"kl": by_hand.k3, "beta": 0.3, "transfer": "policy_gradient", "eta": 0.8}
    reference = by_hand.gradient_by_hand(found.stage, rollouts, old, ref, advantages, range(len(old)), **terms)
    assert_same_gradient(found.gradients[0], reference)


def expert(policy, folder):
    """An adapter as a run leaves it."""
    fingerprint = base_fingerprint(policy.family.named_parameters())
    policy.add_adapter("dsa", LoRASettings(rank=2, alpha=4.0))
    randomise_adapter(policy, "dsa", scale=0.2)
    config, tensors = policy.adapter_state("dsa")
    extra = {"base": policy.family.origin}
    write_adapter(folder, config, tensors, {"kind": "dsa", "base_fingerprint": fingerprint, "extra": extra})
    return folder


def test_an_expert_loads_in_plain_peft_and_its_merge_in_plain_transformers(published, tmp_path):
    shape, folder, tied = published
    family_class = shape.family_class
    policy = Policy(family_class(family_class.Config(path=str(folder), dtype="float32")))
    adapter = expert(policy, tmp_path / "adapter")
    policy.activate(["dsa"])
    prompt = policy.prompt(questions(shape)[0], "")
    inputs = stock_inputs(policy.family, torch.tensor([prompt.ids]), prompt)
    with torch.no_grad():
        ours = policy.family.logits(policy.hidden_states(policy.line([prompt], [[]])))
        space = {}
        exec("\n".join(loading_lines(policy.family.origin, str(adapter))), space)  # as its card says
        plain = space["agent"].eval()
        assert isinstance(plain, PeftModel)
        torch.testing.assert_close(plain(**inputs).logits[0], ours, atol=1e-4, rtol=1e-4)
        with plain.disable_adapter():
            assert not torch.allclose(plain(**inputs).logits[0], ours, atol=1e-2)
        manifest = write_dense(adapter, Dense(folder, dtype="float32"), tmp_path / "dense")
        dense = stock_model(shape, tmp_path / "dense")
        torch.testing.assert_close(dense(**inputs).logits[0], ours, atol=1e-4, rtol=1e-4)
    assert re.fullmatch(rf"transformers \S+ {family_class.model_class.__name__}", manifest["reloaded_with"])
    names = {path.name for path in folder.iterdir()}
    assert {path.name for path in (tmp_path / "dense").iterdir()} == names | {"merge_manifest.json"}
    again = family_class(family_class.Config(path=str(tmp_path / "dense"), dtype="float32"))  # strictly, by ourselves
    assert (again.model.lm_head.weight is again.model.get_input_embeddings().weight) == tied
    assert read_adapter(adapter, base_fingerprint=None).manifest["extra"]["base"]["checkpoint"]["commit"] is None
