"""What networks are for: data, objective and measure; one file per task, one card per task in the table below.

A task is built as `Task(given, **settings)` with the `TaskInputs` of `autoprune.tasks.base`. One that trains by a recipe
is a `RecipeTask` of `autoprune.tasks.trained`, which leaves it data, objective and measure to name.
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
        "unlabelled": Part(
            "autoprune.tasks.unlabelled:unlabelled",
            "the base network's outputs in place of labels, as in Luo and Wu 2020, arXiv 1911.08114",
            "A pretrained network and inputs without labels, or targets of any kind that are to be ignored.",
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
