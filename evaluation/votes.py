"""Several completions per question: votes over guidelines or samples, pass@k and maj@k. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import comb


def vote(letters: Sequence[str | None]) -> str | None:
    """The letter that most completions chose; completions that could not be read abstain.

    Args:
        letters: one per completion, in a fixed order such as that of the guidelines.

    Returns:
        The winner; among equals the one that was named first; None if all abstain.

    Choice: the order decides a tie because it costs no chance and no look at the right answer. `maj_at_k` shares the
        credit instead, which is the mean over all orders.
    """
    counts = Counter(letter for letter in letters if letter is not None)
    return max(counts, key=lambda letter: counts[letter]) if counts else None  # max keeps the first of equals


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that at least one of k completions drawn from n is right; unbiased over the samples.

        pass@k = 1 - C(n - c, k) / C(n, k)

    Args:
        n: completions of one question.
        correct: c, how many of them are right.
        k: drawn without replacement, 1 to n.

    Raises:
        ValueError: a count is out of range.

    Source: Chen et al. 2021, arXiv:2107.03374, equation 1.
    """
    return float(1 - _missed(n, correct, k))


def pooled_pass_at_k(groups: Sequence[tuple[int, int]], k: int) -> float:
    """Chance that at least one of k completions is right, as many of which are drawn from each group; unbiased.

        pass@k = 1 - Π_g C(n_g - c_g, k/K) / C(n_g, k/K)

    over K groups, such as the guidelines that a question was asked under. With one group it is `pass_at_k`.

    Args:
        groups: (n_g, c_g) completions and right ones of each of K groups.
        k: drawn in all, a multiple of K.

    Raises:
        ValueError: no groups, k is not a multiple of K, or a count is out of range.

    Choice: drawn by group, as GBA rolls out, and not k from all together: groups are independent samples, so that the
        expectation of the product is the product of (1 - p_g)^(k/K), whatever the n_g.
    """
    if not groups or k % len(groups):
        raise ValueError(f"pooled_pass_at_k: k must be a multiple of the {len(groups)} groups, got {k}")
    missed = Fraction(1)
    for n, correct in groups:
        missed *= _missed(n, correct, k // len(groups))
    return float(1 - missed)


def maj_at_k(counts: Mapping[str | None, int], gold: str, k: int) -> float:
    """Chance that the majority of k completions drawn from n is right, each tied letter winning equally often.

        maj@k = Σ_S [gold is among the most frequent letters of S] / (number of those letters) / C(n, k)

    over all k-subsets S of the completions, counted exactly. Completions that could not be read (key None) are drawn
    but do not vote; a subset in which nobody votes is wrong.

    Args:
        counts: letter -> completions that chose it; n is their sum.
        gold: the right letter.
        k: drawn without replacement, 1 to n.

    Raises:
        ValueError: a count is out of range.

    Source: Wang et al. 2022, arXiv:2203.11171 (self-consistency); the mean over subsets and the tie rule are ours.
    """
    n = sum(counts.values())
    _check("maj_at_k", n, k)
    if min(counts.values()) < 0:
        raise ValueError(f"maj_at_k: counts must not be negative, got {dict(counts)}")
    silent = counts.get(None, 0)
    rivals = [count for letter, count in counts.items() if letter not in (None, gold)]
    total = Fraction(0)
    for top in range(1, min(counts.get(gold, 0), k) + 1):
        # ways[(drawn, tied)]: choices among the rivals looked at so far, none of which has more votes than `top`
        ways = {(0, 0): 1}
        for rival in rivals:
            wider: Counter[tuple[int, int]] = Counter()
            for (drawn, tied), number in ways.items():
                for votes in range(min(rival, top, k - top - drawn) + 1):
                    wider[drawn + votes, tied + (votes == top)] += number * comb(rival, votes)
            ways = wider
        own = comb(counts[gold], top)
        for (drawn, tied), number in ways.items():
            total += Fraction(own * number * comb(silent, k - top - drawn), tied + 1)
    return float(total / comb(n, k))


def _missed(n: int, correct: int, k: int) -> Fraction:
    """Chance that none of k completions drawn from n is right; errors of `pass_at_k`."""
    _check("pass_at_k", n, k)
    if not 0 <= correct <= n:
        raise ValueError(f"pass_at_k: correct must be 0 to n = {n}, got {correct}")
    return Fraction(comb(n - correct, k), comb(n, k))


def _check(name: str, n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"{name}: k must be 1 to n = {n}, the number of completions of the question, got {k}")
