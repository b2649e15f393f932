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
    },
    group="autoprune.inherit",
)

DEFAULT = ("bn_recalibration",)
"""What is done where nobody asks for anything else."""
