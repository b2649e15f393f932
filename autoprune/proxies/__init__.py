"""Zero-cost proxies: how good widths are, from shapes or from one batch through fresh weights; no training.

One file per proxy, one card per proxy in the table below. Higher is better throughout. Two kinds, see `base.proxy`:

- of shapes, `proxy(space, **settings) -> ((N, G) widths -> (N,) values)`: a million candidates a second;
- of a network, `proxy(network, **settings) -> value`, with a `ProxyNetwork`.
"""

from autoprune.registry import Part, Registry

PROXIES = Registry(
    "proxy",
    {
        "log_width": Part(
            "autoprune.proxies.log_width:log_width",
            "our finding on the two spaces of Channel-Bench-Macro; see the allocation of this name",
            "Shapes only, of networks that cost the same: a first guess that is hard to beat there.",
        ),
        "nsc": Part(
            "autoprune.proxies.nsc:nsc",
            "Neural Spectral Capacity: Zhu et al. 2026, arXiv 2609.23087",
            "Shapes only, transformers above all: the spectra that fresh weights would have.",
        ),
        "params": Part(
            "autoprune.cost.params:params",
            "the control: more parameters are better",
            "To see what a proxy adds to the size of the network.",
        ),
        "flops": Part(
            "autoprune.cost.flops:flops",
            "the control: more FLOPs are better",
            "To see what a proxy adds to the FLOPs.",
        ),
        "synflow": Part(
            "autoprune.proxies.synflow:synflow",
            "Tanaka et al. 2020, arXiv 2006.05467; as a proxy: Abdelfattah et al. 2021, arXiv 2101.08134",
            "No data, one backward pass; rewards depth and width alike.",
        ),
        "naswot": Part(
            "autoprune.proxies.naswot:naswot",
            "Mellor et al. 2021, Neural Architecture Search without Training, arXiv 2006.04647",
            "Unlabelled inputs and networks with ReLU: how many of them fresh weights tell apart.",
        ),
        "zen": Part(
            "autoprune.proxies.zen:zen",
            "Zen-NAS: Lin et al. 2021, arXiv 2102.01063, algorithm 1",
            "Noise for inputs, networks with batch norms: how strongly features answer to small changes.",
        ),
        "grad_norm": Part(
            "autoprune.proxies.grad_norm:grad_norm",
            "Abdelfattah et al. 2021, Zero-Cost Proxies for Lightweight NAS, arXiv 2101.08134",
            "Labelled data, one backward pass: the plainest of those that use the loss.",
        ),
        "snip": Part(
            "autoprune.proxies.snip:snip",
            "Lee et al. 2019, SNIP, arXiv 1810.02340; as a proxy: Abdelfattah et al. 2021, arXiv 2101.08134",
            "Labelled data, one backward pass: gradients weighed by the weights.",
        ),
        "grasp": Part(
            "autoprune.proxies.grasp:grasp",
            "Wang et al. 2020, GraSP, arXiv 2002.07376; as a proxy: Abdelfattah et al. 2021, arXiv 2101.08134",
            "Labelled data, second derivatives; weak where it was measured (NATS-Bench sizes: Kendall's tau -0.09).",
        ),
        "fisher": Part(
            "autoprune.proxies.fisher:fisher",
            "Turner et al. 2020, BlockSwap, arXiv 1906.04113; as a proxy: Abdelfattah et al. 2021, arXiv 2101.08134",
            "Labelled data, one backward pass: what each channel of each layer would change in the loss.",
        ),
    },
    group="autoprune.proxies",
    called_with=1,
)
