"""Training: the loop, the tasks, and the protocols of final networks, one line per protocol in the table below."""

from autoprune.registry import Registry

PROTOCOLS = Registry(
    "protocol",
    {
        "fine_tune": "autoprune.training.protocols:FINE_TUNE",
        "scratch_e": "autoprune.training.protocols:SCRATCH_E",
        "scratch_b": "autoprune.training.protocols:SCRATCH_B",
    },
    group="autoprune.protocols",
)
