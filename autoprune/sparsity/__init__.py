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
            "Networks whose channels have batch norms: the cheapest of these, nothing is added to the network.",
        ),
        "sss": Part(
            "autoprune.sparsity.sss:SparseStructureSelection",
            "Sparse Structure Selection: Huang & Wang 2018, arXiv 1707.01213, section 3.3",
            "Any network, also without norms: scales on channels that reach 0 exactly.",
        ),
        "ista": Part(
            "autoprune.sparsity.ista:IstaOnScales",
            "Ye et al. 2018, Rethinking the Smaller-Norm-Less-Informative Assumption, arXiv 1802.00124, section 4",
            "As network_slimming, where scales are to reach 0 exactly, sooner where a channel costs more memory.",
        ),
        "autopruner": Part(
            "autoprune.sparsity.autopruner:AutoPruner",
            "AutoPruner: Luo & Wu 2018, arXiv 1805.08941, section 3",
            "Convolutional networks: which channels stay is read off their activations; keeps a share by itself.",
        ),
        "gal": Part(
            "autoprune.sparsity.gal:GenerativeAdversarialLearning",
            "GAL: Lin et al. 2019, arXiv 1903.09291, section 3",
            "Data whose labels are not to be used: soft masks that imitate the base network.",
        ),
        "variational": Part(
            "autoprune.sparsity.variational:VariationalPruning",
            "Zhao et al. 2019, Variational Convolutional Neural Network Pruning, section 3",
            "Networks with batch norms: how sure a scale is counts beside how large it is.",
        ),
        "implicit": Part(
            "autoprune.sparsity.implicit:ImplicitSparsity",
            "Mehta et al. 2019, On Implicit Filter Level Sparsity, arXiv 1811.12495",
            "Batch norm and ReLU: sparsity for nothing, by the choice of the optimizer.",
        ),
        "bar": Part(
            "autoprune.sparsity.bar:BudgetAwareRegularization",
            "Lemaire et al. 2019, Structured Pruning with Budget-Aware Regularization, arXiv 1811.09332",
            "The training meets the budget by itself: hard-concrete gates under a barrier.",
        ),
    },
    group="autoprune.sparsity",
)
