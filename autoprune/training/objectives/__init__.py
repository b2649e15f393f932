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
        "token_cross_entropy": Part(
            "autoprune.training.objectives.token_cross_entropy:TokenCrossEntropy",
            "label smoothing: Szegedy et al. 2016, arXiv 1512.00567, section 7",
            "Tokens, and networks of transformers: of logits, wherever they lie in the outputs.",
        ),
        "mse": Part(
            "autoprune.training.objectives.mse:MeanSquaredError",
            "for classes: Hui & Belkin 2021, arXiv 2006.07322",
            "Numbers as targets; of class numbers it takes one-hot rows.",
        ),
        "binary_cross_entropy": Part(
            "autoprune.training.objectives.binary_cross_entropy:BinaryCrossEntropy",
            "maximum likelihood of independent labels: Bishop 2006, Pattern Recognition and Machine Learning, 4.3.2",
            "Several labels at once, each there or not; the default of the task multilabel.",
        ),
        "pixel_cross_entropy": Part(
            "autoprune.training.objectives.pixel_cross_entropy:PixelCrossEntropy",
            "Long et al. 2015, Fully Convolutional Networks, arXiv 1411.4038; soft Dice: arXiv 1606.04797",
            "Maps of classes; the default of the task segmentation.",
        ),
        "detection_loss": Part(
            "autoprune.training.objectives.detection_loss:DetectionLoss",
            "the detector's own, as torchvision's return it in training",
            "Detectors; the default of the task detection.",
        ),
        "distillation": Part(
            "autoprune.training.objectives.distillation:Distillation",
            "Hinton et al. 2015, Distilling the Knowledge in a Neural Network, arXiv 1503.02531, section 2",
            "Pruned networks are to learn from the outputs of the base network, too: classes, labels, tokens, maps.",
        ),
        "feature_distillation": Part(
            "autoprune.training.objectives.feature_distillation:FeatureDistillation",
            "FitNets: Romero et al. 2015, arXiv 1412.6550, section 2.2",
            "To learn from what the base network gives inside, at the ends of its stages; any task.",
        ),
        "relative_error": Part(
            "autoprune.training.objectives.relative_error:RelativeError",
            "squared error to the teacher: Ba & Caruana 2014, arXiv 1312.6184, section 2.3; relative, as scales differ",
            "Numbers as outputs: regression, restoration, depth.",
        ),
        "combined": Part(
            "autoprune.training.objectives.combined:Combined",
            "weighted sum",
            "Several of these at once, such as distillation and feature_distillation.",
        ),
    },
    group="autoprune.objectives",
)
