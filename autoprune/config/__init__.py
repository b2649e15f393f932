"""Job files: what a job may say, checked before anything is built."""

from autoprune.deprecation import moved

__getattr__ = moved(
    __name__,
    {
        "ControllerOptions": "autoprune.config.job",
        "DataOptions": "autoprune.config.job",
        "EvaluatorOptions": "autoprune.config.job",
        "Job": "autoprune.config.job",
        "ModelOptions": "autoprune.config.job",
        "SearchOptions": "autoprune.config.job",
        "TrainingOptions": "autoprune.config.job",
        "VerdictOptions": "autoprune.config.job",
        "load_job": "autoprune.config.job",
        "KindRules": "autoprune.config.space",
        "Override": "autoprune.config.space",
        "SpaceOptions": "autoprune.config.space",
        "WidthRule": "autoprune.config.space",
        "load_space_options": "autoprune.config.space",
    },
    since="2026-11-29",
)
