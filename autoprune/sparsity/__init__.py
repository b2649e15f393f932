"""Sparsity trainings: widths that a training finds; one file per method, one card per method in the table below.

A method is built as `Part(**settings)` for each training; see `sparsity.base.SparsityTraining`.
"""

from autoprune.registry import Part, Registry

SPARSITY = Registry(
    "sparsity training",
    {
        "network_slimming": Part(
            "autoprune.sparsity.network_slimming:NetworkSlimming",
            "Network Slimming: Liu et al. 2017, arXiv 1708.06519, section 3",
            "Networks whose channels have batch norms: the cheapest of these trainings, nothing is added to the network.",
        ),
        "sss": Part(
            "autoprune.sparsity.sss:SparseStructureSelection",
            "Sparse Structure Selection: Huang & Wang 2018, arXiv 1707.01213, section 3.3",
            "Any network, also without norms: scales on channels that reach 0 exactly.",
        ),
    },
    group="autoprune.sparsity",
)
