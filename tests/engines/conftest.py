"""Ray gives its workers a low priority, with which they hardly start beside other tests; not so here."""

from __future__ import annotations

import os

os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - the name is ray's
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
