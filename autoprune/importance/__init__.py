"""Criteria rank the channels inside a group; one file per criterion, one card per criterion in the table below.

A criterion is called as `criterion(evidence, rng, **settings) -> importances`; `evidence.criterion` marks what it needs
besides weights.
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
        "apoz": Part(
            "autoprune.importance.apoz:apoz",
            "Hu et al. 2016, Network Trimming, arXiv 1607.03250, section 3.1",
            "Networks with ReLU and unlabelled data; batch norms make it weak, as they leave half of the values zero.",
        ),
        "taylor_weight": Part(
            "autoprune.importance.taylor_weight:taylor_weight",
            "Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, arXiv 1906.10771, equation 8",
            "Labelled data: scores mean the same in all layers, so it suits global thresholds.",
        ),
        "fisher": Part(
            "autoprune.importance.fisher:fisher",
            "Theis et al. 2018, Faster gaze prediction with dense networks and Fisher pruning, arXiv 1801.05787",
            "Labelled data and a network near a minimum of its loss, for which its second-order argument holds.",
        ),
        "random": Part(
            "autoprune.importance.random_order:random_order",
            "a random order; as a control in Li et al. 2017, arXiv 1608.08710, section 4.4",
            "The control: a criterion that does not beat it has no information about the channels.",
        ),
    },
    group="autoprune.importance",
    called_with=2,
    shared={
        "reduction": "sum, mean, max, l2 or first: scores each layer of a group by itself and joins them so",
        "normalise": "mean, max, sum or l2: divides the scores of a group by that of them, so that groups compare",
    },
)
