"""Schedules: how the learning rate changes over a training; one file per schedule, one card in the table below.

A schedule is a function `(done, warm, **settings) -> factor` of the highest learning rate: `done` is the share of the
training that is over and `warm` the share that is warm-up; it is asked from `warm` to 1 only.
"""

from autoprune.registry import Part, Registry

SCHEDULES = Registry(
    "schedule",
    {
        "cosine": Part(
            "autoprune.training.schedules.cosine:cosine",
            "SGDR: Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5, without restarts",
            "The default: no more than the number of epochs to choose.",
        ),
        "step": Part(
            "autoprune.training.schedules.step:step",
            "ResNet: He et al. 2016, arXiv 1512.03385, section 4.2",
            "To train as the pruning papers do on CIFAR-10.",
        ),
        "one_cycle": Part(
            "autoprune.training.schedules.one_cycle:one_cycle",
            "super-convergence: Smith & Topin 2018, arXiv 1708.07120; shape: torch.optim.lr_scheduler.OneCycleLR",
            "For a high learning rate over few epochs.",
        ),
        "constant": Part(
            "autoprune.training.schedules.constant:constant",
            "no schedule",
            "With optimizers that adapt by themselves, or where the weights are averaged (ema).",
        ),
    },
    group="autoprune.schedules",
    called_with=2,
)
