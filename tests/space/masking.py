"""The reference for cut networks, under its name in this folder."""

from autoprune.testing.masking import outputs, randomised

__all__ = ["outputs", "randomised"]
