"""What is done to inherited weights after the cut, before a candidate is scored; one file and one card per method.

A method is built as `Method(**settings)`; see `inherit.base.Inheritance`.
"""

from autoprune.registry import Part, Registry

INHERITANCE = Registry(
    "inheritance",
    {
        "bn_recalibration": Part(
            "autoprune.inherit.bn_recalibration:BatchNormRecalibration",
            "EagleEye: Li et al. 2020, arXiv 2007.02491, section 3.3",
            "The default: nearly free, and without it scores of cut networks with batch norms rank by chance.",
        ),
        "least_squares": Part(
            "autoprune.inherit.least_squares:LeastSquares",
            "Channel Pruning: He et al. 2017, arXiv 1707.06168, section 3.1 (ii), from moments of the dense network",
            "Scores of candidates that were not torn apart, for triangular solves; before bn_recalibration.",
        ),
        "sequential_least_squares": Part(
            "autoprune.inherit.sequential_least_squares:SequentialLeastSquares",
            "Channel Pruning: He et al. 2017, arXiv 1707.06168, sections 3.1 and 3.2",
            "The best network right after the cut, for a pass over the calibration data: finalists and exports.",
        ),
        "mean_fold": Part(
            "autoprune.inherit.mean_fold:MeanFold",
            "FLAP's bias compensation: An et al. 2024, arXiv 2312.11983; dead norms: Ye et al. 2018, arXiv 1802.00124",
            "Nearly free, for layers with no batch norm behind them (transformers); stands before bn_recalibration.",
        ),
        "bias_compensation": Part(
            "autoprune.inherit.mean_fold:MeanFold",
            "FLAP: An et al. 2024, arXiv 2312.11983, section 3.3",
            "FLAP's name for mean_fold, for whoever looks for it; the two are one method.",
        ),
        "merge": Part(
            "autoprune.inherit.merge:Merge",
            "C-SGD: Ding et al. 2019, arXiv 1904.03837, its merge without the training",
            "There are no data to fit on: similar channels become one instead of being dropped; first in a list.",
        ),
        "reuse": Part(
            "autoprune.inherit.reuse:Reuse",
            "Reduce and Reuse: Polyak and Wolf 2015, Channel-Level Acceleration of Deep Face Representations",
            "Cheap least squares on unlabelled inputs: kept channels stand in for cut ones, alike at each position.",
        ),
        "thinet_scale": Part(
            "autoprune.inherit.thinet_scale:ThiNetScale",
            "ThiNet: Luo et al. 2017, arXiv 1707.06342, section 3.2.3",
            "To compare with ThiNet: one factor for each kept channel of a layer, few unknowns for few data.",
        ),
        "sparsegpt": Part(
            "autoprune.inherit.sparsegpt:SparseGPT",
            "Frantar and Alistarh 2023, SparseGPT, arXiv 2301.00774, algorithm 1",
            "Single weights go (a space of densities): those that stay make up for them; the default there.",
        ),
    },
    group="autoprune.inherit",
)

SEARCH_DEFAULT = ("least_squares", "bn_recalibration")
"""What is done to candidates where nobody asks for anything else: the best whose cost a search can pay for each."""

FINAL_DEFAULT = ("sequential_least_squares", "bn_recalibration")
"""The same for networks that are compared at the end: the best there is."""

WITHOUT_INPUTS = ("bn_recalibration",)
"""The same where there are no calibration inputs."""

OF_DENSITIES = ("sparsegpt", "bn_recalibration")
"""The same for all networks of a space of densities, with calibration inputs."""
