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
        "csgd": Part(
            "autoprune.sparsity.csgd:CentripetalSGD",
            "Ding et al. 2019, Centripetal SGD for Pruning Very Deep Convolutional Networks, arXiv 1904.03837",
            "Weights for uniform widths: filters become equal, so that the cut itself loses nothing.",
        ),
        "admm": Part(
            "autoprune.sparsity.admm:AdmmPruning",
            "Zhang et al. 2018, A Systematic DNN Weight Pruning Framework using ADMM, arXiv 1804.03294, on channels",
            "Weights for uniform widths: they are drawn to the nearest network that has them.",
        ),
        "group_lasso": Part(
            "autoprune.sparsity.group_lasso:GroupLasso",
            "OICSR: Li et al. 2019, arXiv 1905.11664; group lasso: Yuan & Lin 2006",
            "Any network: whole channels go to 0 by what writes and reads them.",
        ),
        "soft_filter": Part(
            "autoprune.sparsity.soft_filter:SoftFilterPruning",
            "Soft Filter Pruning: He et al. 2018, arXiv 1808.06866; FPGM: He et al. 2019, arXiv 1811.00250",
            "Weights for uniform widths: filters are set to 0 after each epoch and may come back.",
        ),
        "half_space": Part(
            "autoprune.sparsity.half_space:HalfSpaceProjection",
            "Only Train Once: Chen et al. 2021, arXiv 2107.07467, section 3.2",
            "Any network: groups that no step wants are 0 exactly, and stay it.",
        ),
        "dmcp": Part(
            "autoprune.sparsity.dmcp:DifferentiableMarkov",
            "DMCP: Guo et al. 2020, arXiv 2005.03354, section 3",
            "Widths alone, not which channels: expected FLOPs are drawn to the budget.",
        ),
        "dcp": Part(
            "autoprune.sparsity.dcp:DiscriminationAware",
            "Discrimination-aware Channel Pruning: Zhuang et al. 2018, arXiv 1810.11809, section 3",
            "Deep classifiers: losses inside keep channels that tell classes apart; weights for uniform widths.",
        ),
        "aofp": Part(
            "autoprune.sparsity.aofp:ApproximatedOracle",
            "Approximated Oracle Filter Pruning: Ding et al. 2019, arXiv 1905.04748",
            "No penalty on the weights: what closing channels does to their readers, sampled while the network trains.",
        ),
        "energy": Part(
            "autoprune.sparsity.energy:EnergyAware",
            "Energy-Aware Pruning: Yang et al. 2017, arXiv 1611.05128, sections 4 and 5",
            "Where a few layers cost most of it all: they are thinned first, the others get used to it.",
        ),
    },
    group="autoprune.sparsity",
)
