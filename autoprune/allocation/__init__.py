"""Allocations give widths in one shot for a budget; one file per rule, one card per rule in the table below.

A rule is called as `rule(domain, scores, **settings) -> Widths`, where `scores[g]` holds the importance of each channel
of group g.
"""

from autoprune.registry import Part, Registry

UNIFORM = ("uniform_all", "uniform_inner")
"""The rules that every search is compared with."""

ALLOCATIONS = Registry(
    "allocation",
    {
        "uniform_all": Part(
            "autoprune.allocation.uniform_all:uniform_all",
            "MobileNet's width multiplier: Howard et al. 2017, arXiv 1704.04861, section 3.3",
            "The control that every search meets: one ratio on all groups, stem and residual ones included.",
        ),
        "uniform_inner": Part(
            "autoprune.allocation.uniform_inner:uniform_inner",
            "Li et al. 2017, Pruning Filters for Efficient ConvNets, arXiv 1608.08710",
            "The second control of every search: residual groups stay full, one ratio on the rest.",
        ),
        "global_threshold": Part(
            "autoprune.allocation.global_threshold:global_threshold",
            "Network Slimming: Liu et al. 2017, arXiv 1708.06519, section 3.2; normalised as Molchanov et al. 2017",
            "A cheap first proposal: it is as good as the importances are comparable between layers.",
        ),
    },
    group="autoprune.allocation",
    called_with=2,
)
