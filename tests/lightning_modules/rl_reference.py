"""The slow reference of reinforcement learning: one row at a time, the stock forward, formulas in plain Python.

Nothing here calls the code that it is compared with: advantages are loops over numbers, losses stand there per token.
"""

import math
from statistics import fmean, stdev

import torch

from tests.slow_reference import stock_log_distribution, stock_logps

EPS = 1e-4


def rewards_by_hand(rollouts, weights):
    """Row -> (total, between, within) from the unweighted scores."""
    found = []
    for item in rollouts.rewards:
        within = [weights[name] * v for name, v in item.parts.items() if name == "adherence" and v is not None]
        between = sum(weights[name] * v for name, v in item.parts.items() if name != "adherence")
        found.append((between + sum(within), between, sum(within) if within else None))
    return found


def grpo_by_hand(group, scale=True):
    """Centred, divided by the sample deviation."""
    values = [total for _, total, _, _ in group]
    return [(v - fmean(values)) / (stdev(values) + EPS if scale else 1) for v in values]


def rloo_by_hand(group):
    values = [total for _, total, _, _ in group]
    return [v - fmean(values[:i] + values[i + 1 :]) for i, v in enumerate(values)]


def maxrl_by_hand(group):
    values = [total for _, total, _, _ in group]
    return [(v - fmean(values)) / fmean(values) if fmean(values) > 0 else 0.0 for v in values]


def gba_by_hand(group, lambda_=1.1, tau=math.inf, alpha=0.1, priors=None, scale=True):
    """The formula of docs/method.md over one question's (guideline, total, between, within) rows."""
    names = list(dict.fromkeys(name for name, *_ in group))
    c = [between for _, _, between, _ in group]
    mu, sigma = fmean(c), stdev(c)
    mean = {k: fmean(between for name, _, between, _ in group if name == k) for k in names}
    score = {k: (priors or {}).get(k, 1.0) * math.exp(mean[k] / tau if tau < math.inf else 0.0) for k in names}
    weight = {k: len(names) * score[k] / sum(score.values()) for k in names}
    found = []
    for name, _, between, within in group:
        bracket = (between - mu) + (lambda_ - 1) * (mean[name] - mu)
        value = weight[name] * bracket / (sigma + EPS if scale else 1)
        same = [a for other, _, _, a in group if other == name]
        if within is not None and len(same) > 1:
            value += alpha * (within - fmean(same)) / (stdev(same) + EPS)
        found.append(value)
    return found


def advantages_by_hand(rollouts, weights, formula, penalties=None, **options):
    """(P · R,) by a formula over each question's rows; `penalties` are taken from every row's reward first."""
    rows = rewards_by_hand(rollouts, weights)
    penalties = penalties or [0.0] * len(rows)
    size, found = rollouts.layout.size, []
    for start in range(0, len(rows), size):
        group = []
        for row in range(start, start + size):
            total, between, within = rows[row]
            group.append((rollouts.guideline(row), total - penalties[row], between - penalties[row], within))
        found += formula(group, **options)
    return torch.tensor(found, dtype=torch.float64)


def at_weights(stage, flat):
    """Give what is trained the values that it had."""
    start = 0
    for parameter in (p for p in stage.parameters() if p.requires_grad):
        with torch.no_grad():
            parameter.copy_(flat[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()


@torch.no_grad()
def logps_of_rows(stage, rollouts, adapters=None):
    """Row -> (T,) under each row's own prompt, without gradient."""
    policy = stage.policy
    with policy.acting(adapters if adapters is not None else policy.active):
        return [
            stock_logps(policy, rollouts.prompt(row), completion.ids, stage.config.temperature)
            for row, completion in enumerate(rollouts.completions)
        ]


def clipped(logps, old, advantage, low=0.2, high=0.28, dual=math.inf):
    ratio = (logps - old).exp()
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    return loss.clamp(max=-dual * advantage) if advantage < 0 and dual < math.inf else loss


def gspo(logps, old, advantage, low=3e-4, high=4e-4):
    mean = (logps - old).mean().detach()
    ratio = (mean + logps - logps.detach()).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def cispo(logps, old, advantage, low=1.0, high=0.28):
    return -(logps - old).exp().detach().clamp(1 - low, 1 + high) * advantage * logps


def k2(logps, ref):
    return (logps - ref) ** 2 / 2


def k3(logps, ref):
    return (ref - logps).exp() - (ref - logps) - 1


def reduced(values, reduction, rows, lengths, limit):
    """One row's share of the loss."""
    if reduction == "token_mean":
        return values.sum() / sum(lengths)
    if reduction == "sequence_mean":
        return values.mean() / rows
    return values.sum() / (rows * limit)


def gradient_by_hand(  # noqa: C901 - one line per term, so that the whole loss can be read in one place
    stage, rollouts, old, ref, advantages, rows, *, loss=clipped, reduction="token_mean", kl=None, beta=0.0,
    entropy=0.0, weights=None, transfer=None, eta=0.0, gamma=0.1, **bounds,
):  # fmt: skip
    """The gradient of one update over `rows`, as the weights stand: a sum of one-row losses."""
    policy, temperature, limit = stage.policy, stage.config.temperature, stage.config.max_new_tokens
    trained = [p for p in stage.parameters() if p.requires_grad]
    lengths = [len(rollouts.completions[row].ids) for row in rows]
    total = [torch.zeros_like(p) for p in trained]
    for row in rows:
        ids = rollouts.completions[row].ids
        log_probs = stock_log_distribution(policy, rollouts.prompt(row), ids, temperature)
        logps = log_probs.gather(-1, torch.tensor(ids)[:, None])[:, 0]
        advantage = float(advantages[row])
        values = loss(logps, old[row], advantage, **bounds)
        if weights is not None:
            values = values * weights[row]
        share = reduced(values, reduction, len(rows), lengths, limit)
        if kl is not None:
            share = share + beta * reduced(kl(logps, ref[row]), reduction, len(rows), lengths, limit)
        if entropy:
            p = log_probs.exp()
            each = -(p * log_probs.masked_fill(p == 0, 0.0)).sum(-1)
            share = share - entropy * reduced(each, reduction, len(rows), lengths, limit)
        if transfer is not None:
            neutral = stock_logps(policy, rollouts.neutral_prompt(row), ids, temperature)
            if transfer == "policy_gradient":
                share = share + eta * (-advantage * neutral).mean() / len(rows)
            elif transfer == "shaped":
                x = (neutral - old[row]).exp()
                share = share + eta * (-advantage * x / (x + gamma)).mean() / len(rows)
            elif rollouts.guideline(row) == "neutral" and (teacher := best_guideline(rollouts, row)) is not None:
                with torch.no_grad():
                    taught = stock_logps(policy, teacher, ids, temperature)
                share = share + eta * k2(neutral, taught).mean() / len(rows)
        for sum_, grad in zip(total, torch.autograd.grad(share, trained, allow_unused=True), strict=True):
            if grad is not None:
                sum_ += grad
    return torch.cat([g.flatten() for g in total])


def best_guideline(rollouts, row):
    """The prompt of the guideline with the most compared reward on the row's question, if above the neutral one's."""
    size = rollouts.layout.size
    start = row // size * size
    mean = {
        name: fmean(rollouts.rewards[r].between for r in range(start, start + size) if rollouts.guideline(r) == name)
        for name in rollouts.layout.guidelines
    }
    guided = {name: value for name, value in mean.items() if name != "neutral"}
    best = max(guided, key=guided.get)
    if guided[best] <= mean["neutral"]:
        return None
    place = next(r for r in range(start, start + size) if rollouts.guideline(r) == best)
    return rollouts.prompt(place)
