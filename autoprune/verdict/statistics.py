"""Is the winner better than uniform pruning? Paired differences over seeds, their interval, and one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from autoprune.allocation import UNIFORM
from autoprune.errors import EvaluationError
from autoprune.texts import ScoreScale, difference_text, interval_text, score_text
from autoprune.verdict.record import Comparison, Conclusion, FinalTraining, Verdict

_THAN = {"better": "better than", "worse": "worse than", "not distinguishable": "not distinguishable from"}


def paired_comparison(
    winner: Sequence[float], rival: Sequence[float], *, protocol: str, rival_name: str, confidence: float = 0.95
) -> Comparison:
    """Compare two networks by the differences of their scores, paired by seed (paired t interval).

    An interval needs a spread to be estimated from. With one pair, or with the same difference on every seed (seeds
    without effect, or a score too coarse to show one), there is none: the interval is infinite and the outcome
    "not distinguishable". A spread of 0 would otherwise turn two lucky seeds into certainty.

    Args:
        winner: (n,) scores of the winner.
        rival: (n,) scores of the rival, in the order of the same seeds.
        protocol: how both were trained.
        rival_name: the rival's arm.
        confidence: coverage of the interval.

    Raises:
        EvaluationError: no pairs, unequal lengths, or a score that is not finite.
    """
    ours, theirs = np.asarray(winner, dtype=np.float64), np.asarray(rival, dtype=np.float64)
    if ours.shape != theirs.shape or not ours.size or not np.isfinite([ours, theirs]).all():
        raise EvaluationError(
            f"{protocol}: winner and {rival_name} need finite scores for the same seeds, at least one, "
            f"got {list(winner)} and {list(rival)}"
        )
    differences = ours - theirs
    n, mean = differences.size, float(differences.mean())
    half = math.inf
    rounding = 1e-9 * float(np.abs([ours, theirs]).max())
    if float(np.ptp(differences)) > rounding:
        half = float(stdtrit(n - 1, 0.5 + confidence / 2) * differences.std(ddof=1) / math.sqrt(n))
    outcome: Conclusion = "better" if mean > half else "worse" if mean < -half else "not distinguishable"
    return Comparison(protocol, rival_name, mean, mean - half, mean + half, n, outcome)


def better_uniform(finals: Sequence[FinalTraining], protocol: str) -> str:
    """Return the uniform arm with the higher mean score under a protocol; `uniform_all` on a tie.

    Raises:
        EvaluationError: no uniform network was trained by the protocol.
    """
    scores = {arm: list(_by_seed(finals, protocol, arm).values()) for arm in UNIFORM}
    trained = [arm for arm in UNIFORM if scores[arm]]
    if not trained:
        raise EvaluationError(f"no uniform network was trained by {protocol!r}; train one of {', '.join(UNIFORM)}")
    return max(trained, key=lambda arm: float(np.mean(scores[arm])))


def judge(
    finals: Sequence[FinalTraining],
    *,
    protocols: Mapping[str, str],
    budget_text: str,
    scale: ScoreScale,
    identical: Sequence[str] = (),
    unseen_data: bool = True,
    unpruned: float | None = None,
) -> Verdict:
    """Compare the winner with the better uniform network under each protocol; the first one decides.

    Scores are paired on the seeds that both networks have. A protocol without such a seed is named in the sentence
    and left out; without any comparison the outcome is "not distinguishable".

    Args:
        finals: every final training.
        protocols: label -> how a sentence says it ("fine-tuned"), in order of weight.
        budget_text: completes "At …", for example "50 % of the FLOPs".
        scale: of every score.
        identical: uniform arms whose widths are the winner's.
        unseen_data: the scores were taken on data that played no part in choosing the winner.
        unpruned: score of the unpruned network on the same data; None if unknown.
    """
    comparisons = tuple(found for protocol in protocols if (found := against_uniform(finals, protocol)) is not None)
    missing = [protocol for protocol in protocols if protocol not in {c.protocol for c in comparisons}]
    clauses = [_clause(comparison, comparisons[0], scale, protocols[comparison.protocol]) for comparison in comparisons]
    if missing:
        clauses.append(f"no seed to compare winner and uniform pruning by: {', '.join(missing)}")
    if not comparisons:
        clauses[:0] = ["the searched widths could not be compared with uniform pruning"]
    if comparisons and comparisons[0].rival in identical:
        clauses = [f"the search chose the uniform network itself ({comparisons[0].rival}): there is nothing to compare"]
    if comparisons and not unseen_data:
        clauses.append("the scores are of the data that also chose the winner, which flatters it")
    decides = comparisons[0].protocol if comparisons else next(iter(protocols), "")
    loss = _against_unpruned(list(_by_seed(finals, decides, "winner").values()), unpruned, scale)
    sentence = f"At {budget_text} {'; '.join(clauses)}.{loss}"
    return Verdict(sentence, comparisons[0].outcome if comparisons else "not distinguishable", comparisons)


def against_uniform(finals: Sequence[FinalTraining], protocol: str, arm: str = "winner") -> Comparison | None:
    """An arm against the better uniform network, paired by the seeds of both; None where there is no such seed."""
    ours = _by_seed(finals, protocol, arm)
    shared = [final for final in finals if final.seed in ours]
    if not any(final.protocol == protocol and final.arm in UNIFORM for final in shared):
        return None
    rival = better_uniform(shared, protocol)
    theirs = _by_seed(shared, protocol, rival)
    pairs = sorted(theirs)
    return paired_comparison(
        [ours[seed] for seed in pairs], [theirs[seed] for seed in pairs], protocol=protocol, rival_name=rival
    )


def _by_seed(finals: Sequence[FinalTraining], protocol: str, arm: str) -> Mapping[int, float]:
    return {final.seed: final.score for final in finals if final.protocol == protocol and final.arm == arm}


def _against_unpruned(ours: Sequence[float], unpruned: float | None, scale: ScoreScale) -> str:
    """What pruning costs, as a sentence with a space before it; empty where one of the two is not known."""
    if unpruned is None or not ours:
        return ""
    mean = float(np.mean(ours))
    size = difference_text(abs(mean - unpruned), scale).lstrip("+-")
    change = "neither loses nor gains" if not float(size) else "loses" if mean < unpruned else "gains"
    amount = f" {size}{scale.of_difference}" if float(size) else ""
    scores = f"{score_text(mean, scale)} after {score_text(unpruned, scale)}"
    return f" Against the unpruned network the searched one {change}{amount} ({scores})."


def _clause(comparison: Comparison, first: Comparison, scale: ScoreScale, how: str) -> str:
    difference, interval = difference_text(comparison.difference, scale), "no interval"
    if math.isfinite(comparison.low):
        interval = interval_text(comparison.low, comparison.high, scale)
    if comparison is not first:
        against = f"against {comparison.rival}: " if comparison.rival != first.rival else ""
        return f"{how} they are {comparison.outcome} ({against}{difference}, {interval})"
    counted = scale.of_difference
    if not scale.higher_is_better:
        counted += f" of {scale.name or 'score'} (lower is better)"
    seeds = f"{comparison.seeds} seed{'s' * (comparison.seeds > 1)}"
    confidence = f"95 % confidence interval {interval}" if math.isfinite(comparison.low) else f"{interval} possible"
    return (
        f"the searched widths are {_THAN[comparison.outcome]} uniform pruning ({comparison.rival}): "
        f"{difference}{counted}, {confidence} ({how}, {seeds})"
    )
