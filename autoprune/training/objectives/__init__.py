"""Objectives: the loss that a training lowers; one file per objective, one card per objective in the table below.

An objective is built as `Part(**settings)` for each training; see `objectives.base.Objective`.
"""

from autoprune.registry import Part, Registry

OBJECTIVES = Registry(
    "objective",
    {
        "cross_entropy": Part(
            "autoprune.training.objectives.cross_entropy:CrossEntropy",
            "label smoothing: Szegedy et al. 2016, arXiv 1512.00567, section 7",
            "The default: class numbers.",
        ),
        "mse": Part(
            "autoprune.training.objectives.mse:MeanSquaredError",
            "for classes: Hui & Belkin 2021, arXiv 2006.07322",
            "Numbers as targets; of class numbers it takes one-hot rows.",
        ),
        "distillation": Part(
            "autoprune.training.objectives.distillation:Distillation",
            "Hinton et al. 2015, Distilling the Knowledge in a Neural Network, arXiv 1503.02531, section 2",
            "Pruned networks are to learn from the outputs of the base network, too.",
        ),
    },
    group="autoprune.objectives",
)
