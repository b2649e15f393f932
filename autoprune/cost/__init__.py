"""What widths cost, in closed form; one file per metric, one line per metric in the table below."""

from autoprune.registry import Registry

METRICS = Registry(
    "metric",
    {
        "flops": "autoprune.cost.flops:flops",
        "params": "autoprune.cost.params:params",
        "size_mb": "autoprune.cost.memory.size_mb:size_mb",
        "peak_memory_mb": "autoprune.cost.memory.peak_memory_mb:peak_memory_mb",
        "latency_ms": "autoprune.cost.latency.latency_ms:latency_ms",
    },
    group="autoprune.metrics",
)
