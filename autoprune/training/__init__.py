"""Training: the loop, and the protocols of final networks, one card per protocol in the table below.

A protocol is made as `protocol(**settings) -> Protocol`; a `Protocol` itself is one without settings.
"""

from autoprune.registry import Part, Registry

PROTOCOLS = Registry(
    "protocol",
    {
        "fine_tune": Part(
            "autoprune.training.protocols:fine_tune",
            "Li et al. 2017, arXiv 1608.08710, section 3.4; learning rate: Wang et al. 2023, arXiv 2301.05219",
            "What practice does: the inherited weights are trained on.",
        ),
        "gradual": Part(
            "autoprune.training.protocols:gradual",
            "cubic schedule: Zhu & Gupta 2017, arXiv 1710.01878, equation 1, on widths",
            "As fine_tune, cut in steps on the way: where more than half of a network goes.",
        ),
        "no_training": Part(
            "autoprune.training.protocols:no_training",
            "post-training pruning: Frantar & Alistarh 2023, SparseGPT, arXiv 2301.00774",
            "Networks too large to train, or without labels: reconstruction alone, over several draws of inputs.",
        ),
        "lottery": Part(
            "autoprune.training.protocols:lottery",
            "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, arXiv 1803.03635; rewinding: arXiv 1912.05671",
            "Densities: are these sparse networks trainable? Masks are found in rounds of trainings of their own.",
        ),
        "scratch_e": Part(
            "autoprune.training.protocols:scratch_e",
            "Scratch-E: Liu et al. 2019, Rethinking the Value of Network Pruning, arXiv 1810.05270, section 3",
            "Are the widths themselves better? Fresh weights, as many epochs as the base network.",
        ),
        "scratch_b": Part(
            "autoprune.training.protocols:scratch_b",
            "Scratch-B: Liu et al. 2019, Rethinking the Value of Network Pruning, arXiv 1810.05270, section 3",
            "As scratch_e, with as much computation as the base network had: longer for smaller networks.",
        ),
    },
    group="autoprune.protocols",
)
