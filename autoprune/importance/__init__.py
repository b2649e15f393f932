"""Criteria rank the channels inside a group; one file per criterion, one card per criterion in the table below.

A criterion is called as `criterion(tensors, rng, **settings) -> importances`.
"""

from autoprune.registry import Part, Registry

CRITERIA = Registry(
    "criterion",
    {
        "l1": Part(
            "autoprune.importance.l1:l1",
            "Li et al. 2017, Pruning Filters for Efficient ConvNets, arXiv 1608.08710, section 3.1",
            "To compare with the many papers that use it; it differs little from l2.",
        ),
        "l2": Part(
            "autoprune.importance.l2:l2",
            "The group norm of DepGraph: Fang et al. 2023, arXiv 2301.12900, section 3.3",
            "The default: needs no data and works for every network.",
        ),
        "bn_scale": Part(
            "autoprune.importance.bn_scale:bn_scale",
            "Network Slimming: Liu et al. 2017, arXiv 1708.06519, section 3.2",
            "Networks that were trained with a penalty on the scales of their batch norms.",
        ),
        "random": Part(
            "autoprune.importance.random_order:random_order",
            "a random order; as a control in Li et al. 2017, arXiv 1608.08710, section 4.4",
            "The control: a criterion that does not beat it has no information about the channels.",
        ),
    },
    group="autoprune.importance",
    called_with=2,
)
