"""What a run shows while it works, and who else is told: one card per callback in the table below."""

from autoprune.registry import Part, Registry

CALLBACKS = Registry(
    "callback",
    {
        "tensorboard": Part(
            "autoprune.progress.tensorboard:TensorBoard",
            "https://www.tensorflow.org/tensorboard",
            "The default: curves of scores and pace in the run directory; nothing without tensorboardX.",
        ),
        "mlflow": Part(
            "autoprune.progress.mlflow:MLflow",
            "https://mlflow.org",
            "Runs are compared in MLflow: job, score and costs of each trial, verdict; needs `autoprune[mlflow]`.",
        ),
    },
    group="autoprune.callbacks",
    reserved=("clock",),  # the tests' own
)
