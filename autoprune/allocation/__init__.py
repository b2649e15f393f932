"""Allocations give widths in one shot for a budget; one file per rule, one line per rule in the table below.

A rule is called as `rule(domain, scores) -> Widths`, where `scores[g]` holds the importance of each channel of group g.
"""

from autoprune.registry import Registry

ALLOCATIONS = Registry(
    "allocation",
    {
        "uniform_all": "autoprune.allocation.uniform_all:uniform_all",
        "uniform_inner": "autoprune.allocation.uniform_inner:uniform_inner",
        "global_threshold": "autoprune.allocation.global_threshold:global_threshold",
    },
    group="autoprune.allocation",
)
