"""The lasso for all penalties: Efron et al. 2004, Least Angle Regression, Ann. Statist. 32, section 3.1."""

from __future__ import annotations

import numpy as np

from autoprune.space.arrays import BoolArray, FloatArray


def entry_penalties(gram: FloatArray, target: FloatArray) -> FloatArray:
    """(n,) largest λ at which each variable is not zero in argmin ½ βᵀGβ - tᵀβ + λ ‖β‖₁; 0 where it never is.

    Between two changes of the set of non-zero variables, β is linear in λ; the path goes from the largest λ, where all
    are zero, through all changes.

    Args:
        gram: (n, n) G, positive definite.
        target: (n,) t.
    """
    n = len(target)
    beta, entered = np.zeros(n), np.zeros(n)
    active: BoolArray = np.zeros(n, dtype=np.bool_)
    penalty, dropped = float(np.abs(target).max(initial=0.0)), -1
    signs = np.zeros(n)
    if penalty == 0:
        return entered
    first = int(np.abs(target).argmax())
    active[first], signs[first], entered[first] = True, np.sign(target[first]), penalty
    for _ in range(16 * n + 16):
        direction = np.zeros(n)
        direction[active] = np.linalg.solve(gram[np.ix_(active, active)], signs[active])
        residual = target - gram @ beta
        step, change = _next_change(
            residual, gram @ direction, beta, direction, active, penalty, dropped, signs[dropped]
        )
        beta, penalty = beta + step * direction, penalty - step
        if change < 0:
            break
        if active[change]:
            active[change], beta[change], dropped = False, 0.0, change
            continue
        residual = target - gram @ beta
        active[change], signs[change], dropped = True, np.sign(residual[change]), -1
        entered[change] = max(entered[change], penalty)
    return entered


def _next_change(
    residual: FloatArray,
    turn: FloatArray,
    beta: FloatArray,
    direction: FloatArray,
    active: BoolArray,
    penalty: float,
    dropped: int,
    left: float,
) -> tuple[float, int]:
    """How far λ falls until a variable enters or leaves, and which one; -1 where it reaches 0 first.

    As λ falls by γ, β grows by γ · direction and the residual t - Gβ falls by γ · turn; one enters where its residual
    is ±λ, one leaves where it is 0. The last that left, whose residual is λ times its sign, cannot enter there.
    """
    steps = np.full(len(beta), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for sign in (1.0, -1.0):
            nearer = 1 - sign * turn
            reach = np.where(nearer > 1e-12, np.maximum((penalty - sign * residual) / nearer, 0.0), np.inf)
            if dropped >= 0 and left == sign:
                reach[dropped] = np.inf  # it has just left, at this very λ
            steps = np.minimum(steps, reach)
        leave = np.where(direction * beta < 0, -beta / direction, np.inf)
    steps = np.where(active, leave, steps)
    change = int(steps.argmin())
    return (float(steps[change]), change) if steps[change] < penalty else (penalty, -1)
