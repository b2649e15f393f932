"""Measures say what a score counts; one file per measure, one card per measure in the table below.

A measure is built as `Measure(**settings)` and gives one value, or row of numbers, for each example (see
`autoprune.measures.base`).
"""

from autoprune.registry import Part, Registry

MEASURES = Registry(
    "measure",
    {
        "accuracy": Part(
            "autoprune.measures.accuracy:Accuracy",
            "top-1 accuracy, as the pruning papers report it",
            "The default of classification: labelled data, and what most readers want to know.",
        ),
        "loss": Part(
            "autoprune.measures.loss:Loss",
            "cross entropy of the labels, the cost that Molchanov et al. 2017, arXiv 1611.06440, keep small",
            "Labelled data: finer than accuracy where few examples decide, and it sees confidence.",
        ),
        "divergence": Part(
            "autoprune.measures.divergence:Divergence",
            "Kullback and Leibler 1951; to judge pruned networks: Luo and Wu 2020, CURL, arXiv 1911.08114",
            "No labels: how far outputs are from those of the base network, classifier or not.",
        ),
        "agreement": Part(
            "autoprune.measures.agreement:Agreement",
            "top-1 agreement of two networks: Stanton et al. 2021, arXiv 2106.05945",
            "No labels, classifiers: in percent, so easier to read than divergence, but coarser.",
        ),
        "top_k_accuracy": Part(
            "autoprune.measures.top_k_accuracy:TopKAccuracy",
            "top-5 error: Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks",
            "Many classes, of which several may be meant.",
        ),
        "balanced_accuracy": Part(
            "autoprune.measures.balanced_accuracy:BalancedAccuracy",
            "Brodersen et al. 2010, The Balanced Accuracy and Its Posterior Distribution",
            "Classes of very different frequency: each counts alike.",
        ),
        "macro_f1": Part(
            "autoprune.measures.macro_f1:MacroF1",
            "mean over classes of F1: Opitz and Burst 2019, arXiv 1911.03347, equation 1",
            "As balanced accuracy, where wrong alarms count, too.",
        ),
        "label_accuracy": Part(
            "autoprune.measures.label_accuracy:LabelAccuracy",
            "1 - Hamming loss: Schapire and Singer 2000, BoosTexter",
            "Several labels at once, each about as often there as not; a mean over examples, so that candidates race.",
        ),
        "multilabel_average_precision": Part(
            "autoprune.measures.multilabel_average_precision:MultilabelAveragePrecision",
            "average precision by label, as the PASCAL VOC challenge ranks: Everingham et al. 2010; scikit-learn",
            "The default of several labels at once: it knows no threshold.",
        ),
        "multilabel_f1": Part(
            "autoprune.measures.multilabel_f1:MultilabelF1",
            "F1 by label, macro or micro: scikit-learn",
            "Several labels at once, decided at a threshold.",
        ),
        "mean_squared_error": Part(
            "autoprune.measures.mean_squared_error:SquaredError",
            "Gauss 1821, Theoria combinationis",
            "The default of regression.",
        ),
        "mean_absolute_error": Part(
            "autoprune.measures.mean_absolute_error:AbsoluteError",
            "Willmott and Matsuura 2005, Climate Research 30",
            "Regression: in the unit of the targets, and single large errors count less.",
        ),
        "r2": Part(
            "autoprune.measures.r2:R2",
            "coefficient of determination: Wright 1921, Correlation and Causation",
            "Regression: readable without knowing the scale of the targets.",
        ),
        "mean_iou": Part(
            "autoprune.measures.mean_iou:MeanIoU",
            "the PASCAL VOC segmentation measure: Everingham et al. 2015; the Jaccard index",
            "The default of segmentation.",
        ),
        "dice": Part(
            "autoprune.measures.dice:Dice",
            "Dice 1945, Measures of the Amount of Ecologic Association Between Species",
            "Segmentation of medical images, whose papers report it.",
        ),
        "mean_average_precision": Part(
            "autoprune.measures.mean_average_precision:MeanAveragePrecision",
            "COCO's AP: Lin et al. 2014, arXiv 1405.0312; computed by pycocotools",
            "The default of detection; needs pycocotools (autoprune[detection]).",
        ),
        "perplexity": Part(
            "autoprune.measures.perplexity:Perplexity",
            "per token: Jelinek et al. 1977, J. Acoust. Soc. Am. 62, S63",
            "Language models: what their papers report.",
        ),
        "torchmetrics": Part(
            "autoprune.measures.of_torchmetrics:OfTorchmetrics",
            "Detlefsen et al. 2022, TorchMetrics, Journal of Open Source Software 7",
            "Any metric of that package by its name; needs torchmetrics (autoprune[torchmetrics]).",
            needs={"metric": "name of a class of torchmetrics, such as classification.MulticlassAUROC"},
        ),
    },
    group="autoprune.measures",
)
