"""Measures say what a score counts; one file per measure, one card per measure in the table below.

A measure is built as `Measure(**settings)` and gives one value for each example (see `autoprune.measures.base`).
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
    },
    group="autoprune.measures",
)
