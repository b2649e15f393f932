"""Proximal steps on factors, and their accelerated form."""

from __future__ import annotations

from torch import Tensor


def soft_threshold(values: Tensor, threshold: float | Tensor) -> Tensor:
    """sign(x) · max(|x| - t, 0): the proximal operator of t · |x|."""
    return values.sign() * (values.abs() - threshold).clamp(min=0)


def accelerated_step(
    values: Tensor, gradient: Tensor, momentum: Tensor, *, lr: float, weight: float, mu: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One accelerated proximal gradient step for a loss + weight · ‖x‖₁ (SSS, arXiv 1707.01213, equations 9 to 11).

    Returns:
        z = S(x - lr · gradient), with exact zeros; the momentum z - x + mu · momentum; and x = z + mu · that.
    """
    z = soft_threshold(values - lr * gradient, lr * weight)
    moved = z - values + mu * momentum
    return z, moved, z + mu * moved
