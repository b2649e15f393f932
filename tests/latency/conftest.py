from __future__ import annotations

from fake_hardware import known_times

__all__ = ["known_times"]
