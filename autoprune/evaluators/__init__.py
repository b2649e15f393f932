"""Evaluators turn widths into a score; one file per evaluator, one line per evaluator in the table below."""

from autoprune.registry import Registry

EVALUATORS = Registry(
    "evaluator",
    {
        "inherited": "autoprune.evaluators.inherited:Inherited",
        "scratch": "autoprune.evaluators.scratch:Scratch",
    },
    group="autoprune.evaluators",
)
