"""What widths cost, in closed form; one file per metric, one card per metric in the table below.

A metric is made as `metric(space, **settings) -> cost function`.
"""

from autoprune.registry import Part, Registry

METRICS = Registry(
    "metric",
    {
        "flops": Part(
            "autoprune.cost.flops:flops",
            "multiply-adds as the papers and fvcore count them",
            "The usual budget: compares with papers, holds for every device, and says little about time.",
            told="the FLOPs",
        ),
        "params": Part(
            "autoprune.cost.params:params",
            "the number of parameters, tied ones once",
            "Compares with papers that state parameters.",
            told="the parameters",
        ),
        "size_mb": Part(
            "autoprune.cost.memory.size_mb:size_mb",
            "bytes of parameters and buffers",
            "What has to be stored or sent is limited; a file of the network is this large.",
        ),
        "peak_memory_mb": Part(
            "autoprune.cost.memory.peak_memory_mb:peak_memory_mb",
            "lifetimes of the values in the traced graph, and the copies that PyTorch's kernels make on a CPU",
            "The memory of the device is what limits the network.",
        ),
        "latency_ms": Part(
            "autoprune.cost.latency.latency_ms:latency_ms",
            "a table of measured kernels, as in NetAdapt (Yang et al. 2018), fitted to whole networks",
            "Time on one device is what counts; it needs a profile of that device.",
            needs={"profile": "`autoprune latency profile MODEL` measures this device and writes one"},
        ),
    },
    group="autoprune.metrics",
    called_with=1,
)
