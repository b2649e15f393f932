"""Evaluators turn widths into a score; one file per evaluator, one card per evaluator in the table below."""

from autoprune.registry import Part, Registry

EVALUATORS = Registry(
    "evaluator",
    {
        "inherited": Part(
            "autoprune.evaluators.inherited:Inherited",
            "EagleEye: Li et al. 2020, arXiv 2007.02491, section 3.3",
            "The default: seconds per candidate, hundreds of trials.",
        ),
        "racing": Part(
            "autoprune.evaluators.racing:Racing",
            "Maron and Moore 1993, Hoeffding Races; paired as in F-Race, Birattari et al. 2002",
            "As `inherited` with much validation data: who is clearly below the best so far stops after a part of it.",
        ),
        "scratch": Part(
            "autoprune.evaluators.scratch:Scratch",
            "a short training from fresh weights; why: Liu et al. 2019, arXiv 1810.05270",
            "The widths alone are to be judged, and each trial may cost a training.",
        ),
        "chain": Part(
            "autoprune.evaluators.chain:EvaluatorChain",
            "successive halving over evaluators: Li et al. 2020, arXiv 1810.05934; joined: Kennedy and O'Hagan 2000",
            "A dear evaluator is to judge few candidates, which cheaper ones have chosen from many.",
            needs={"steps": "a list of evaluators, the cheapest first, such as [inherited, scratch]"},
        ),
        "blend": Part(
            "autoprune.evaluators.blend:Blend",
            "averaged votes: Abdelfattah et al. 2021, arXiv 2101.08134; NAS-Bench-Suite-Zero, arXiv 2210.03230",
            "No single score is trusted: the mean of several cheap ones, such as `inherited` and `zero_cost`.",
            needs={"parts": "a list of evaluators, such as [inherited, zero_cost]"},
        ),
        "short_training": Part(
            "autoprune.evaluators.short_training:ShortTraining",
            "a few steps before judging: DarwinLM (Tang et al. 2025, arXiv 2502.07780), Minitron (arXiv 2407.14679)",
            "Scores that rank as training does, for some tens of steps; the last step of a chain.",
        ),
        "supernet": Part(
            "autoprune.evaluators.supernet:Supernet",
            "AutoSlim: Yu & Huang 2019, arXiv 1903.11728, section 3; two sides: BCNet, arXiv 2105.10533",
            "One training serves all candidates and budgets; then seconds per candidate, as `inherited`.",
        ),
        "fbs": Part(
            "autoprune.evaluators.fbs:FeatureBoosting",
            "FBS: Gao et al. 2019, arXiv 1810.05331, section 3",
            "What widths could be worth if each example chose its channels, at equal cost, after a training.",
        ),
        "packnet": Part(
            "autoprune.evaluators.packnet:PackNet",
            "PackNet: Mallya & Lazebnik 2018, arXiv 1711.05769, section 3",
            "What densities could be worth if one network held several tasks, at equal cost on average.",
        ),
        "zero_cost": Part(
            "autoprune.evaluators.zero_cost:ZeroCost",
            "Abdelfattah et al. 2021, arXiv 2101.08134; the proxies by their own papers",
            "Milliseconds per candidate: shapes, or one batch through fresh weights; `autoprune parts proxies`.",
        ),
    },
    group="autoprune.evaluators",
    called_with=1,
)
