"""Terms: what is added to the loss of a training, or done to its gradients or weights; one file and one card per term.

A term is built as `Part(**settings)` for each training; see `terms.base.Term`.
"""

from autoprune.registry import Part, Registry

TERMS = Registry(
    "term",
    {
        "bn_l1": Part(
            "autoprune.training.terms.bn_l1:BatchNormL1",
            "Network Slimming: Liu et al. 2017, arXiv 1708.06519, section 3, equation 1",
            "Before pruning by `bn_scale`: scales of batch norms that matter little go to 0.",
        ),
        "rigl": Part(
            "autoprune.training.terms.rigl:RigL",
            "RigL: Evci et al. 2020, Rigging the Lottery, arXiv 1911.11134, section 3",
            "Densities that are trained for long, from scratch above all: which weights stay is found on the way.",
        ),
    },
    group="autoprune.terms",
)
