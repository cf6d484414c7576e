"""What test_mutations.py spoils: a place in the code, what stands there instead, why it matters, who must notice."""

from dataclasses import dataclass

FOLDER = "tests/lightning_modules/"
STEP, SETTINGS = f"{FOLDER}test_policy_gradient.py", f"{FOLDER}test_rl_settings.py"
MATHS = f"{FOLDER}test_distillation_maths.py"
SEEING, ROLLOUT, LORA = (f"{FOLDER}test_{name}.py" for name in ("seeing", "rollout", "lora"))
CONTRACT, STOCK = (f"{FOLDER}families/test_{name}.py" for name in ("published_contract", "stock_processors"))
STAGE, SFT, DEVICES, VLLM = (f"{FOLDER}test_{name}.py" for name in ("stage", "sft", "rl_devices", "vllm_engine"))


UNKNOWN = f"{FOLDER}test_unknown_rewards.py"


@dataclass(frozen=True)
class Sabotage:
    """One of them.

    Attributes:
        file: beneath `lightning_modules`.
        old: exact text, which stands there once.
        new: what stands there instead.
        why: what would go wrong unseen.
        tests: a file of tests, and which of them (pytest's -k).
    """

    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, str]


def step(k: str) -> tuple[str, str]:
    """Tests of test_policy_gradient.py."""
    return STEP, k


def unknown(k: str) -> tuple[str, str]:
    """Tests of test_unknown_rewards.py."""
    return UNKNOWN, k


def choices(k: str) -> tuple[str, str]:
    """Tests of test_guideline_choices.py."""
    return f"{FOLDER}test_guideline_choices.py", k


def settings(k: str) -> tuple[str, str]:
    """Tests of test_rl_settings.py."""
    return SETTINGS, k


def vllm(k: str) -> tuple[str, str]:
    """Tests of test_vllm_engine.py."""
    return VLLM, k


def stage(k: str) -> tuple[str, str]:
    """Tests of test_stage.py."""
    return STAGE, k


def devices() -> tuple[str, str]:
    """The test of test_rl_devices.py."""
    return DEVICES, "two_devices"


def chosen() -> tuple[str, str]:
    """The test of questions that are chosen before any step."""
    return "tests/experiment/test_pass_rates.py", "a_run_takes"


def integrated(k: str) -> tuple[str, str]:
    """Tests of test_distillation.py."""
    return f"{FOLDER}test_distillation.py", k


def resumed() -> tuple[str, str]:
    """The test of an integration that is interrupted."""
    return "tests/experiment/test_integration.py", "interrupted"


def starts() -> tuple[str, str]:
    """The test of where a student starts."""
    return "tests/experiment/test_integration.py", "starts_where"


SABOTAGES = [
    Sabotage(*row)
    for row in (
        # -- the module
        ("policy_gradient.py", "in parts * c.updates_per_rollout]", "in parts]",
         "rollouts are used once whatever μ", step("second_update")),
        ("policy_gradient.py", "weights = (c.reduction, c.temperature,", "weights = (c.reduction, 1.0,",
         "another distribution is scored than was sampled from", step("temperature")),
        ("policy_gradient.py", "limits = (c.max_new_tokens, c.temperature,", "limits = (c.max_new_tokens, 1.0,",
         "another distribution is sampled from than is scored", settings("drawn_from")),
        ("policy_gradient.py", "if c.minibatches > 1:  #", "if c.minibatches > 99:  #",
         "later minibatches are compared with a policy that has moved", step("minibatches_are")),
        ("rl_parts.py", "c.rollouts_per_guideline, c.neutral_share)", "c.rollouts_per_guideline, 0.0)",
         "no rollout is under the prompt that is used at test time", settings("under_every_guideline")),
        ("policy_gradient.py", "if not (c.mask_truncated and rollouts.completions[row].truncated)]", "]",
         "cut completions stay in the loss", step("truncated")),
        ("policy_gradient.py", "if not rollouts.rewards[row].unknown]", "]",
         "what could not be rewarded stays in the loss", unknown("without_the_unknown")),
        ("advantages/advantage.py", "if bool(known.all()):", "if bool(known.any()):",
         "what could not be rewarded counts as 0", unknown("changes_nothing")),
        ("functional/advantages.py", "prior = prior[present]", "prior, guideline_of = prior, present[guideline_of]",
         "a guideline whose rollouts are all unknown takes part", unknown("changes_nothing")),
        ("policy_gradient.py", "[row for row in counted if self.objective.needs(rollouts, row)]",
         "[row for row in rows if self.objective.needs(rollouts, row)]",
         "cut completions stay in the loss, but not in its denominator", step("truncated")),
        ("policy_gradient.py", "few, sizes, tally)",
         "few, Denominators.of(rollouts.lengths[few], c.max_new_tokens), tally)",
         "denominators are those of a micro-batch", step("micro_batches and token_mean")),
        ("policy_gradient.py", "sizes = Denominators(int(tokens), int(sequences), c.max_new_tokens)",
         "sizes = Denominators.of(rollouts.lengths, c.max_new_tokens)",
         "denominators are those of the whole batch, not of the update", step("minibatches_are")),
        ("policy_gradient.py", "(purpose, self.context.seed, step))", "(purpose, self.context.seed))",
         "every step repeats the random numbers of the first", settings("drawn_from")),
        ("policy_gradient.py", "(purpose, self.context.seed, step))", "(purpose, 0, step))",
         "runs with other seeds roll out the same", settings("drawn_from")),
        ("policy_gradient.py", '("again", self.context.seed, step, number)', '("again", self.context.seed, step)',
         "asking again repeats the random numbers of the round before", settings("stream_of_another")),
        ("policy_gradient.py", 'Feed("questions", c.questions_per_step,', 'Feed("questions", 0,',
         "the data set's batch size rules", settings("data_set")),
        ("policy_gradient.py", "spare = c.dynamic_rounds * c.questions_per_step", "spare = c.questions_per_step",
         "rounds after the first find no question", settings("data_set")),
        ("policy_gradient.py", "LoRASettings(c.lora_rank, c.lora_alpha, c.lora_seed)",
         "LoRASettings(c.lora_rank, c.lora_alpha)", "A is the same whatever the seed", settings("adapter")),
        ("policy_gradient.py", "trainable=self.adapter)", "trainable=context.start[0])",
         "the expert is trained and not what stands on it", step("kl_zero")),
        ("policy_gradient.py", "self.policy.activate([*context.start, self.adapter]",
         "self.policy.activate([self.adapter]", "the expert is left out", step("kl_zero")),
        ("rl_parts.py", "part(spec, RewardTerm, \"rewards\") for spec in c.rewards]",
         "part(spec, RewardTerm, \"rewards\") for spec in c.rewards[:2]]",
         "a third reward term is ignored", settings("weighted_sum")),
        ("policy_gradient.py", "list(questions)), tally", "list(rollouts.examples[0].question_id)), tally",
         "a skipped step names other questions", settings("not_finite")),
        # -- several devices
        ("policy_gradient.py", "self.over_devices(sum(map(len, rollouts.ids(counted))), len(counted))",
         "(sum(map(len, rollouts.ids(counted))), len(counted))",
         "denominators are those of one device", devices()),
        ("policy_gradient.py", "places = [share.rank + share.ranks * number for", "places = [number for",
         "all devices share their random numbers", devices()),
        ("policy_gradient.py", "Tally.joined(parts).metrics()", "parts[0].metrics()",
         "reported losses are means of shares", devices()),
        # -- the objective
        ("objective.py", "self.kl.config.beta * reduce(", "0.02 * reduce(", "β is ignored", step("k3 or k2")),
        ("objective.py", "reductions.REDUCTIONS[self.reduction]", 'reductions.REDUCTIONS["token_mean"]',
         "the reduction is ignored", step("k2 or Dr")),
        ("objective.py", "loss = loss - bonus", "loss = loss + bonus", "the entropy bonus is a penalty",
         step("entropy")),
        ("objective.py", "entropy_gradient=self.entropy_bonus != 0", "entropy_gradient=False",
         "the entropy bonus moves nothing", step("entropy")),
        ("objective.py", "sampled, self.sampler_weight_cap)", "sampled, 1e9)", "the cap is ignored", step("drifts")),
        ("objective.py", "values = values * weights\n", "", "importance weights are ignored", step("drifts")),
        ("objective.py", "if rows[0] not in rollouts.old_logps:", "if True:",
         "every update is compared with itself, so that nothing is ever clipped", step("second_update")),
        ("objective.py", "self.policy.acting(self.reference)", "self.policy.acting(self.policy.active)",
         "the reference is the policy itself", step("k3")),
        ("objective.py", "rollouts.ids(missing), self.temperature)", "rollouts.ids(missing))",
         "the reference is scored at another temperature", step("temperature")),
        ("objective.py", "rollouts.ids(rows), self.temperature)\n            rollouts.remember",
         "rollouts.ids(rows))\n            rollouts.remember",
         "old log-probabilities are those of another temperature", step("minibatches_are")),
        ("objective.py", "logps(prompts, rollouts.ids(rows), self.temperature)", "logps(prompts, rollouts.ids(rows))",
         "the teacher is scored at another temperature", step("temperature")),
        ("objective.py", "term = eta * reductions", "term = reductions", "η is ignored", step("transfer")),
        ("objective.py", "reductions.sequence_mean(self.transfer(crossing)",
         "reductions.token_mean(self.transfer(crossing)", "long completions rule the transfer", step("transfer")),
        ("objective.py", "padded(rollouts.old_logps, rows) if teacher_logps is None else teacher_logps",
         "neutral_logps.detach() if teacher_logps is None else teacher_logps", "the shaped ratio is always 1",
         step("shaped")),
        ("objective.py", "return neutral and rollouts.teacher_prompt(row) is not None",
         "return rollouts.teacher_prompt(row) is not None", "guided rollouts are distilled too", step("distillation")),
        ("objective.py", "if (self.kl is not None and not self.kl.in_reward) or self.entropy_bonus:\n",
         "if self.entropy_bonus:\n", "rows of dead groups are not held near the reference",
         step("without_an_advantage")),
        ("objective.py", "if (self.kl is not None and not self.kl.in_reward) or self.entropy_bonus:\n",
         "if self.kl is not None and not self.kl.in_reward:\n", "rows of dead groups get no entropy bonus",
         step("without_an_advantage")),
        ("objective.py", ".double().sum(dim=1)", ".double().mean(dim=1)",
         "the KL in the reward is a mean over tokens", step("kl_in_the_reward")),
        ("objective.py", "total=own.total - penalty, between=own.between - penalty", "total=own.total - penalty",
         "GBA sees no KL in the reward", step("kl_in_the_reward")),
        ("objective.py", "if not self.kl.in_reward:\n", "if True:\n", "the KL counts twice", step("kl_in_the_reward")),
        ("objective.py", "* mask).sum())\n            if not", "* mask).mean())\n            if not",
         "the reported KL is no mean over tokens", step("metrics")),
        ("objective.py", 'tally.sums["loss/entropy"] -= float', 'tally.sums["loss/entropy"] += float',
         "the reported entropy loss has the other sign", step("metrics")),
        # -- rollouts
        ("rollouts.py", "return self.advantages.flatten()[list(rows)]",
         "return self.advantages.t().flatten()[list(rows)]", "advantages are those of other rows",
         step("one_step and RLOO")),
        ("rollouts.py", "return self.neutral_prompts[row // self.layout.size]", "return self.prompt(row)",
         "transfer acts on the guided prompt", step("transfer")),
        ("rollouts.py", "torch.tensor(list(self.prior.values()), dtype", "torch.ones(len(self.prior), dtype",
         "a guideline file's prior is ignored",
         settings("own_prior")),
        ("rollouts.py", "best = max((name", "best = min((name", "the worst guideline teaches", step("distillation")),
        ("rollouts.py", "means.get(NEUTRAL, float(\"inf\"))", "-1.0",
         "a guideline teaches although the neutral prompt answers better", step("answers_better")),
        ("rollouts.py", "self.places[row // self.layout.size] * count // questions",
         "row * count // len(self.completions)", "minibatches depend on what dynamic sampling did, and on devices",
         step("minibatches_follow")),
        ("rollouts.py", "[*piece, row], neutral_too) > tokens:\n                    yield piece\n",
         "[*piece, row], neutral_too) > tokens:\n", "rows beyond the bound fall out of the update",
         step("micro_batches and token_mean")),
        ("rollouts.py", "for row in rows if neutral_too]", "for row in rows if False]",
         "the bound on tokens forgets the neutral prompts", settings("no_more_tokens")),
        # -- asking
        ("asker.py", "self.layout.seeds(*stream, place)", "self.layout.seeds(*stream)",
         "all questions of a step share their random numbers", settings("drawn_from or stream_of")),
        ("layout.py", "self.guidelines[k], copy)", "self.guidelines[k])",
         "all copies of a prompt are the same rollout", settings("stream_of")),
        ("layout.py", "max(1, round(neutral_share / (1 - neutral_share) * sum(guided.values())))", "1",
         "one rollout is neutral whatever the share", settings("under_every_guideline")),
        ("asker.py", "self.guidelines[found.guideline(row)],", "self.guidelines[self.layout.guidelines[-1]],",
         "rollouts are held to another guideline's criteria", settings("weighted_sum")),
        ("asker.py", "                    examples[row // self.layout.size],", "                    examples[0],",
         "answers are compared with another question's", settings("weighted_sum")),
        ("rollouts.py", "self.carried[question][self.layout.places[place][0]]",
         "self.layout.guidelines[self.layout.places[place][0]]",
         "a guideline that stands in for another goes by the other's name", settings("question_names")),
        ("asker.py", "instruction for name in own] for own in carried]",
         "instruction for name in carried[0]] for _ in carried]",
         "all questions are asked under what was chosen for the first one", settings("question_names")),
        ("rollouts.py", "if own == carried]", "if own]", "groups are weighed by another question's guidelines",
         choices("every_step")),
        ("asker.py", "with self.policy.acting(()):", "with self.policy.acting(self.policy.active):",
         "questions are told apart by a model that changes", choices("every_step")),
        ("policy_gradient.py", "            self._seen = []\n", "", "what a step earned counts again in the next",
         choices("every_step")),
        ("policy_gradient.py", "        self.see(rollouts, number)\n", "",
         "a choice never hears of the questions that were asked in place of others", choices("dead_groups")),
        ("asker.py", "truncated=completion.truncated,", "truncated=False,",
         "cut completions are not punished for it", settings("weighted_sum")),
        ("asker.py", "n_tokens=len(completion.ids)", "n_tokens=len(completion.text)",
         "lengths are counted in letters", settings("weighted_sum")),
        ("asker.py", "max_new_tokens=self.max_new_tokens", "max_new_tokens=96", "T_max is ignored",
         settings("drawn_from")),
        ("asker.py", "version=version,", "version=0,", "an engine never learns that its weights are old",
         settings("stream_of")),
        ("engines/packed.py", "rows_at_once=self.config.rows_at_once", "rows_at_once=128",
         "the bound on rows is ignored", settings("drawn_from")),
        # -- rollouts by vLLM
        ("engines/vllm.py", "(name := digest(factors)) == self._digest", "version == 3",
         "the version decides what is served, not the weights", vllm("version_has")),
        ("engines/vllm.py", "self._number, self._digest = int(reply.get(\"adapters\", 0)), \"\"",
         "self._number, self._digest = 0, \"\"", "a server meets a number twice", vllm("by_hand")),
        ("engines/vllm_adapter.py", "B * (alpha / (rank**0.5 if config.get(\"use_rslora\") else rank))", "B",
         "an adapter's scale is left out", vllm("becomes_one")),
        ("engines/vllm_request.py", "there != len(prompt.ids),", "False,", "another prompt is answered",
         vllm("pictures")),
        ("engines/vllm_request.py", "\"banned\": list(family.banned_token_ids)", "\"banned\": []",
         "banned tokens are drawn", vllm("its_place")),
        ("engines/vllm_server.py", "seed=seed,", "seed=0,", "all rollouts of a prompt are one", vllm("its_place")),
        ("objective.py", "> math.log(self.sampler_weight_cap)) & mask", "> 0) & mask",
         "more weights than those at the cap count as cut", vllm("reports_drift")),
        ("policy_gradient.py", "self.asker.engine.close()", "pass", "a server outlives its training",
         vllm("reports_drift")),
        ("policy_gradient.py", "parts.engine.accept(self.policy.family)", "pass",
         "a model that cannot be served is found out at the first rollout", vllm("refused_before")),
        # -- dynamic sampling
        ("dynamic_sampling.py", "len(dead) >= share * questions",
         "len(dead) >= 1.0 * questions", "the share is ignored", step("dynamic")),
        ("dynamic_sampling.py", "range(1, rounds + 1)", "range(1, 100)", "the bound on rounds is ignored",
         step("dynamic")),
        ("dynamic_sampling.py", "list(own), number)", "list(range(len(own))), number)",
         "a further question takes the place of a live one", step("dynamic")),
        ("dynamic_sampling.py", "zip(dead, range(asked, held), strict=False)",
         "zip(dead, range(0, held), strict=False)",
         "the same further questions are asked in every round", settings("data_set")),
        ("dynamic_sampling.py", "taken = {fresh.places[q] for q in found}",
         "taken = set(rollouts.places[: len(found)])",
         "places are filled by questions of other places", step("dynamic")),
        # -- advantages
        ("functional/advantages.py", "(lambda_ - 1) * between", "lambda_ * between", "λ = 1 is not GRPO",
         step("grpo or one_step and GBA")),
        ("functional/advantages.py", "advantages + alpha * within_guideline(adherence, guideline_of, eps=eps)",
         "advantages + alpha * within_guideline(adherence, torch.zeros_like(guideline_of), eps=eps)",
         "adherence is compared over the whole group", step("one_step and GBA")),
        ("functional/advantages.py", "return torch.where(mean > 0, centred_rewards(rewards.detach()) / mean",
         "return torch.where(mean > 0, centred_rewards(rewards.detach()) / 1.0 * (mean > -1).double() / mean.max()",
         "hard questions do not weigh more", step("MaxRL")),
        ("advantages/guideline_based.py", "prior = [c.priors.get(name, own)", "prior = [own", "priors are ignored",
         step("every and option")),
        ("advantages/guideline_based.py", "tau=c.tau", "tau=math.inf", "τ is ignored", step("every and option")),
        ("advantages/guideline_based.py", "outcome.between,\n", "outcome.total,\n",
         "adherence is compared between guidelines", step("one_step and GBA")),
        ("advantages/grpo.py", "scale_by_std=self.config.scale_by_std", "scale_by_std=True",
         "Dr. GRPO divides by the deviation", step("Dr")),
        ("advantages/rloo.py", "leave_one_out_advantages(outcome.total)", "leave_one_out_advantages(outcome.between)",
         "a term is left out of RLOO", step("RLOO")),
        # -- losses
        ("losses/clipped.py", "clip_low=c.clip_low, clip_high=c.clip_high)",
         "clip_low=c.clip_high, clip_high=c.clip_low)",
         "the bounds are swapped", step("two and bounds")),
        ("losses/gspo.py", "sequence_log_ratio(clamped_log_ratio(logps, old_logps), completion_mask)",
         "clamped_log_ratio(logps, old_logps)", "GSPO's ratio is that of each token", step("GSPO")),
        ("losses/gspo.py", "clamped_log_ratio(logps, old_logps)", "clamped_log_ratio(logps, logps.detach())",
         "GSPO's ratio is always 1", step("GSPO")),
        ("losses/cispo.py", "clamped_log_ratio(logps, old_logps)", "clamped_log_ratio(logps, logps.detach())",
         "CISPO's weight is always 1", step("CISPO")),
        ("losses/loss.py", "\"clip_fraction/high\": ratio > 1 + clip_high", "\"clip_fraction/high\": ratio > 1",
         "the reported share of clipped tokens is another", step("second_update")),
        ("losses/kl.py", "ESTIMATORS[self.config.estimator]", 'ESTIMATORS["k3"]', "there is one estimator",
         step("k2")),
        ("functional/policy_loss.py", "torch.minimum(surrogate, -bound * column)",
         "torch.minimum(surrogate, bound * column)", "the dual clip has the other sign", step("dual")),
        ("functional/policy_loss.py", "weight = log_ratio.detach().exp()", "weight = log_ratio.exp()",
         "CISPO's weight has a gradient", step("CISPO")),
        # -- transfer
        ("transfer/shaped.py", "shaped_ratio(log_ratio, self.config.gamma)", "shaped_ratio(log_ratio)",
         "γ is ignored", step("shaped")),
        ("transfer/policy_gradient.py", "-crossing.advantages[:, None] * crossing",
         "crossing.advantages[:, None] * crossing",
         "transfer unlearns", step("transfer and policy and gradient and one_step")),
        # -- rewards
        ("rewards/combine.py", "        for term in self.terms:\n            score = parts[term.name]\n",
         "        for term, other in zip(self.terms, self.terms[::-1]):\n            score = parts[other.name]\n",
         "weights are swapped between terms", settings("weighted_sum")),
        ("rewards/combine.py", "between += term.config.weight * score", "between += score", "weights are ignored",
         settings("weighted_sum")),
        ("rewards/combine.py", "within = (within or 0.0) + term.config.weight * score",
         "within = (within or 0.0) + score",
         "the weight of adherence is ignored", settings("weighted_sum")),
        ("rewards/combine.py", "if score is not None and term.within_guideline:", "if False:",
         "adherence is compared between guidelines", settings("weighted_sum")),
        ("rewards/combine.py", "if term.only_if_right and not judged.right:", "if False:",
         "wrong answers are paid for what needs a right one", settings("of_one_s_own")),
        ("rewards/overlong.py", "if judged.truncated or judged", "if judged",
         "cut completions are not punished", settings("weighted_sum")),
        # -- every stage
        ("stage.py", "clip_grad_norm_(parameters, self.config.max_grad_norm)",
         'clip_grad_norm_(parameters, float("inf"))',
         "gradients are not clipped", settings("scaled_down")),
        ("stage.py", "if self.agreed(bool(loss.isfinite()) and bool(norm.isfinite())):", "if True:",
         "a step that is not finite is taken", settings("not_finite")),
        ("stage.py", "                self.lr_schedulers().step()\n", "", "the learning rate never changes",
         settings("rate")),
        ("stage.py", "                self.lr_schedulers().step()\n                self.bad_steps.good()\n",
         "                self.bad_steps.good()\n            self.lr_schedulers().step()\n",
         "a skipped step moves the schedule", stage("not_finite")),
        ("stage.py", "            optimizer.zero_grad()\n", "", "gradients of all steps add up", step("second_update")),
        ("stage.py", "self.manual_backward(loss * self.trainer.world_size)", "self.manual_backward(loss)",
         "the gradient shrinks with every further device", stage("two_devices and unequal")),
        ("stage.py", "c.learning_rate, betas=c.betas", "c.learning_rate, betas=(0.9, 0.99)", "betas are ignored",
         stage("moments")),
        ("bad_steps.py", "        self.in_a_row = 0\n", "        pass\n", "bad steps of a whole run count as in a row",
         stage("good_step")),
        ("functional/accumulation.py", "a if b is None else a + b for", "a if b is None else b for",
         "only the last micro-batch counts", step("micro_batches and token_mean")),
        ("schedule.py", "if step < rise:", "if step < 0:", "warm-up is ignored", settings("rate")),
        ("schedule.py", "return floor + (1 - floor) * left", "return left", "the floor is ignored", settings("rate")),
        ("schedule.py", "round(warmup * max_steps) if warmup < 1 else round(warmup)", "round(warmup)",
         "a share of the steps is no warm-up", settings("rate")),
        ("schedule.py", "return made(trained, lr=learning_rate, betas=betas, weight_decay=weight_decay)",
         "return torch.optim.AdamW(trained, lr=learning_rate, betas=betas, weight_decay=0.0)",
         "weight decay is ignored", stage("decay")),
        # -- what is asked at all
        ("../experiment/question_choice.py", 'settings.get("pass_rate") or (0.0, 1.0)', "(0.0, 1.0)",
         "the range of pass rates is ignored", chosen()),
        ("../experiment/question_choice.py", 'settings["pass_rate_samples"]', "8",
         "the number of samples of a pass rate is ignored", chosen()),
        ("../experiment/question_choice.py", 'bool(settings.get("curriculum"))', "False",
         "the curriculum is ignored", chosen()),
        # -- imitation
        ("imitation.py", "instructions[guideline], batch", '"", batch', "traces are learnt without their instruction",
         (SFT, "slow_reference")),
        ("imitation.py", "sizes = Denominators(tokens, ", "sizes = Denominators(self.tokens, ",
         "denominators are those of one device", stage("two_devices and unequal")),
        ("imitation.py", "loss = token_mean(-scores.logps, scores.completion_mask, sizes)",
         "loss = token_mean(-scores.logps, scores.completion_mask, Denominators(scores.completion_mask.sum(), 1, 1))",
         "denominators are those of a micro-batch", (SFT, "slow_reference")),
        # -- integration
        ("distillation.py", "self.policy, self.context.teachers[specialty]",
         "self.policy, next(iter(self.context.teachers.values()))",
         "one expert teaches every specialty", integrated("slow_reference")),
        ("distillation.py", "yield loss * (weights[specialty] / tokens[specialty])",
         "yield loss * (weights[specialty] / sum(map(len, rollouts.ids(own))))",
         "denominators are those of one device", integrated("two_devices")),
        ("distillation.py", "policy.acting(teacher):\n            theirs = policy.completion_states",
         "policy.acting(policy.active):\n            theirs = policy.completion_states",
         "the student is compared with itself", integrated("slow_reference")),
        ("distillation.py", "with self.whole_base():\n            rollouts", "if True:\n            rollouts",
         "the base lies in parts while answers are written", integrated("half_a_base")),
        ("distillation.py", "            self.follow(means)\n", "            pass\n", "weights never follow",
         integrated("weights_follow")),
        ("distillation.py", "self.gaps = dict(checkpoint", "dict(checkpoint", "distances are lost in a resume",
         resumed()),
        ("teacher_gate.py", "self.policy.acting(teacher), ", "", "the student is asked instead of the teacher",
         integrated("asked_each_question")),
        ("distillation.py", "with self.policy.acting(teacher):\n                    parts",
         "if own:\n                    parts", "the student writes what the experts should",
         integrated("experts_write")),
        ("distillation.py", 'c.form == "forward"}', 'c.form == "reverse"}', "the KL is always the reverse one",
         integrated("slow_reference")),
        ("schedule.py", "rate_factor(step - first,", "rate_factor(step,", "later specialties have the end's rate",
         ("tests/experiment/test_joint.py", "one_after_the_other")),
        ("functional/distillation.py", "log_p.exp().sub_(q)", "log_p.exp()",
         "the forward gradient forgets the teacher", (MATHS, "gradient")),
        ("functional/distillation.py", "p.mul_(log_ratio.sub_(kl[:, None]))", "p.mul_(log_ratio)",
         "the gradient is that of a sum that is not normalised", (MATHS, "gradient")),
        ("functional/distillation.py", "(logps - teacher_logps).detach()", "(logps - teacher_logps)",
         "the reward of a token is differentiated", (MATHS, "reinforce")),
        ("../experiment/integration.py", "return [adapter_folder(Path(start))] if start else []", "return []",
         "a folder to start from is ignored", starts()),
        ("../experiment/integration.py", "for parent in reversed(context.lineage[:-1])]\n", "for parent in []]\n",
         "a merge to start from is ignored", starts()),
        # -- which tokens see which
        ("seeing.py", "(key > query - window)", "(key >= query - window)", "windows are one token wider than meant",
         (SEEING, "any_line")),
        ("seeing.py", "seen = seen | (own.ge(0) & ", "seen = seen | (own.ge(-1) & ", "all text is seen ahead",
         (SEEING, "any_line")),
        ("seeing.py", "(place in begins or not inside[place - 1])", "not inside[place - 1]",
         "pictures of two rows are taken for one", (SEEING, "any_line or numbered")),
        ("packing.py", "numbers = self.pictures[self._rows.places].masked_fill(~self._rows.real, -1)",
         "numbers = self.pictures[self._rows.places]", "a row's pictures see its padding", (SEEING, "any_line")),
        ("row_cache.py", "first = 0 if window is None else max(0, self.length - window)", "first = 0",
         "what is sampled sees beyond the window, and what is scored does not", (SEEING, "new_token")),
        ("row_cache.py", "hidden | (self.columns <= self.newest - window)", "hidden",
         "what is sampled on a card sees beyond the window", (SEEING, "new_token")),
        ("row_cache.py", "hidden = self.columns > self.newest", "hidden = self.columns > self.newest + 1",
         "on a card rows see a column that nothing was written to", (SEEING, "new_token")),
        ("row_cache.py", "if self.mask is None else self.mask[: self.rows] + mask", "",
         "on a card rows see what fills up shorter prompts", (SEEING, "new_token")),
        ("rollout.py", "2 * len(finished) >= cache.rows and", "len(finished) > cache.rows and",
         "finished rows are decoded to the end on a card", (ROLLOUT, "fixed")),
        ("adapters.py", "held[0] == layer._active_adapter and not torch", "not torch",
         "factors that were prepared for one set of adapters act for another", (LORA, "low_precision")),
        ("packing.py", "*line, scaling, sliding_window)[None]", "*line, scaling)[None]",
         "layers with a window see everything", (CONTRACT, "gemma3 and (logits or sampled)")),
        ("policy.py", "if self.family.whole_pictures else None", "if False else None",
         "pictures are seen word by word", (CONTRACT, "gemma3 and logits")),
        ("families/idefics3.py", 'before = f"{cut}\\n"', 'before = f"{cut}"',
         "the picture as a whole does not follow a blank line", (STOCK, "idefics3")),
        ("families/chat_template.py", 'return blanks if blanks.isspace() else ""', 'return ""',
         "what is learnt is not what the template writes", (CONTRACT, "smolvlm and reply")),
        ("decoding.py", "if token in self.ends:", "if token == self.policy.family.eos_token_id:",
         "rows go on after an end token", (CONTRACT, "gemma3 and sampled")),
    )
]  # fmt: skip
