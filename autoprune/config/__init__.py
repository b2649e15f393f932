"""Job files: what a job may say, checked before anything is built."""

from __future__ import annotations

from autoprune.deprecation import moved_names

__getattr__ = moved_names(
    __name__,
    {
        **dict.fromkeys(
            ("Job", "ModelOptions", "DataOptions", "SearchOptions", "VerdictOptions", "load_job"),
            "autoprune.config.job",
        ),
        "TrainingOptions": "autoprune.config.training:Recipe",
        **dict.fromkeys(
            ("SpaceOptions", "WidthRule", "Override", "KindRules", "load_space_options"), "autoprune.config.space"
        ),
    },
)
