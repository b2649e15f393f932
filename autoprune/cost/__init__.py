"""What widths cost, in closed form; one file per metric, one line per metric in the table below."""

from autoprune.registry import Registry

METRICS = Registry(
    "metric",
    {
        "flops": "autoprune.cost.flops:flops",
        "params": "autoprune.cost.params:params",
    },
    group="autoprune.metrics",
)
