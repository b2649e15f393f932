"""Allocations give widths in one shot for a budget; one file per rule, one card per rule in the table below.

A rule is called as `rule(domain, scores, **settings) -> Widths`, where `scores[g]` holds the importance of each channel
of group g; `base.allocation` marks what else it needs, and whose scores it is called with by default.
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
        "stagewise": Part(
            "autoprune.allocation.stagewise:stagewise",
            "Li et al. 2017, Pruning Filters for Efficient ConvNets, arXiv 1608.08710, section 3.3",
            "As few numbers as there are sizes of feature maps: robust where single importances are noisy.",
        ),
        "random": Part(
            "autoprune.allocation.random_widths:random",
            "Li et al. 2022, Revisiting Random Channel Pruning, arXiv 2205.05676",
            "The control of all rules: one that does not beat several seeds of it knows nothing of the network.",
        ),
        "isomorphic": Part(
            "autoprune.allocation.isomorphic:isomorphic",
            "Fang et al. 2024, Isomorphic Pruning for Vision Models, arXiv 2407.04616",
            "Networks of unlike parts (attention, MLP, residual streams), whose importances are not on one scale.",
        ),
        "slimming_quantile": Part(
            "autoprune.allocation.slimming_quantile:slimming_quantile",
            "Network Slimming: Liu et al. 2017, arXiv 1708.06519, section 3.2",
            "Networks with batch norms that were trained with an L1 penalty on their scales.",
        ),
        "apoz_sigma": Part(
            "autoprune.allocation.apoz_sigma:apoz_sigma",
            "Network Trimming: Hu et al. 2016, arXiv 1607.03250, section 3.2",
            "Networks with ReLU and no batch norm before it, where some channels are nearly always zero.",
        ),
        "cluster_count": Part(
            "autoprune.allocation.cluster_count:cluster_count",
            "Ayinde and Zurada 2018, arXiv 1802.07653",
            "No data: wide networks with repeated filters.",
        ),
        "dcp_adapt": Part(
            "autoprune.allocation.dcp_adapt:dcp_adapt",
            "Zhuang et al. 2018, Discrimination-aware Channel Pruning, arXiv 1810.11809, section 3.5",
            "Some evaluations per group: stops each group where more channels bring little.",
        ),
        "erk": Part(
            "autoprune.allocation.erk:erk",
            "Evci et al. 2020, Rigging the Lottery, arXiv 1911.11134, section 3",
            "No data and no weights: small layers stay denser.",
        ),
        "smart_ratio": Part(
            "autoprune.allocation.smart_ratio:smart_ratio",
            "Su et al. 2020, Sanity-Checking Pruning Methods, arXiv 2009.11094, section 4.3",
            "No data and no weights: early layers stay wider.",
        ),
        "sensitivity_tolerance": Part(
            "autoprune.allocation.sensitivity_tolerance:sensitivity_tolerance",
            "Li et al. 2017, arXiv 1608.08710, section 3.2; FastNAS of NVIDIA Model Optimizer",
            "Some evaluations per group, once for all budgets: no group alone loses more than another.",
        ),
        "lamp": Part(
            "autoprune.allocation.lamp:lamp",
            "Lee et al. 2021, Layer-adaptive Sparsity, arXiv 2010.07611, section 3",
            "Densities, no data: one threshold over all layers on magnitudes that are comparable between them.",
        ),
        "owl": Part(
            "autoprune.allocation.owl:owl",
            "Yin et al. 2024, Outlier Weighed Layerwise Sparsity, arXiv 2310.05175, section 3.2",
            "Densities of language models at high sparsity: close to uniform, denser where outliers are.",
        ),
        "knapsack": Part(
            "autoprune.allocation.knapsack:knapsack",
            "HALP: Shen et al. 2022, arXiv 2110.10811; Puzzle: Bercovich et al. 2024, arXiv 2411.19146",
            "Some evaluations per group, once for all budgets: the least sum of losses, by true costs or latency.",
        ),
        "log_width": Part(
            "autoprune.allocation.log_width:log_width",
            "ours: the sum of log widths ranks networks of equal FLOPs on Channel-Bench-Macro",
            "No data and no weights; a finding on two spaces, to be held against uniform on yours.",
        ),
        "published": Part(
            "autoprune.allocation.published:published",
            "for example TAS: Dong and Yang 2019, arXiv 1905.09717",
            "Widths from a paper or another tool, under your budget and training.",
            needs={"file": "the path of a YAML or JSON file, layer -> width or a list of widths"},
        ),
    },
    group="autoprune.allocation",
    called_with=2,
    reserved=("probe", "filters", "slots"),
)
