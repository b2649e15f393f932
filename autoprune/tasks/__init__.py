"""What networks are for: data, objective and measure; one file per task, one card per task in the table below.

A task is built as `Task(given, **settings)` with the `TaskInputs` of `autoprune.tasks.base`. One that trains by a
recipe is derived from `autoprune.tasks.trained.RecipeTask`, and names its data, its objective and its measure.
"""

from autoprune.registry import Part, Registry

TASKS = Registry(
    "task",
    {
        "classification": Part(
            "autoprune.tasks.classification:classification",
            "cross entropy and top-1 accuracy, as in the pruning papers",
            "The default: labelled examples, one class each.",
        ),
        "multilabel": Part(
            "autoprune.tasks.multilabel:multilabel",
            "binary cross entropy and average precision of each label",
            "Labelled examples, of which each may have several labels or none.",
        ),
        "regression": Part(
            "autoprune.tasks.regression:regression",
            "mean squared error",
            "Numbers as targets: one or many for each example, pictures to restore among them.",
        ),
        "segmentation": Part(
            "autoprune.tasks.segmentation:segmentation",
            "pixel cross entropy and mean intersection over union: Long et al. 2015, arXiv 1411.4038",
            "A class for every pixel: U-Nets, torchvision's networks.",
        ),
        "detection": Part(
            "autoprune.tasks.detection:detection",
            "mean average precision of COCO: Lin et al. 2014, arXiv 1405.0312",
            "Boxes: torchvision's detectors as they are, others with a loss and detections of their own.",
        ),
        "unlabelled": Part(
            "autoprune.tasks.unlabelled:unlabelled",
            "the base network's outputs in place of labels, as in Luo and Wu 2020, arXiv 1911.08114",
            "A pretrained network and inputs without labels, or targets of any kind that are to be ignored.",
        ),
        "language_model": Part(
            "autoprune.tasks.language_model:language_model",
            "perplexity per token; masked: Devlin et al. 2019, arXiv 1810.04805, section 3.1",
            "Texts: each token from those before it (causal), or hidden ones from all around them (masked).",
        ),
        "sequence_classification": Part(
            "autoprune.tasks.sequence_classification:sequence_classification",
            "cross entropy and top-1 accuracy",
            "Texts with one class each: tokens and what else the network takes as keyword inputs.",
        ),
        "callable": Part(
            "autoprune.tasks.callable:by_functions",
            "your own functions",
            "Anything that can be scored: give score_func, and train_func for trainings.",
            needs={"score": "module:function that takes a network and returns a number, higher is better"},
        ),
    },
    group="autoprune.tasks",
    called_with=1,
)
