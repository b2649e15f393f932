"""Criteria rank the channels inside a group; one file per criterion, one line per criterion in the table below."""

from autoprune.registry import Registry

CRITERIA = Registry(
    "criterion",
    {
        "l1": "autoprune.importance.l1:l1",
        "l2": "autoprune.importance.l2:l2",
        "bn_scale": "autoprune.importance.bn_scale:bn_scale",
        "random": "autoprune.importance.random_order:random_order",
    },
    group="autoprune.importance",
)
