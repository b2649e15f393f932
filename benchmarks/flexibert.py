"""Do proxies of shapes rank trained encoders? 500 BERT-like ones with layer-wise widths and their GLUE scores.

    python benchmarks/flexibert.py BERT_benchmark.json [--write docs/results/flexibert.md]

The table is that of github.com/aaronserianni/training-free-nas (Serianni & Kalita, ACL 2023, arXiv 2306.00288), one
training for each encoder. Matrices are listed as in the code of NSC (Zhu et al. 2026, arXiv 2609.23087): queries, keys
and values of self-attention as one. Rank correlations with GLUE, over all pairs and over pairs whose parameters differ
by less than a tenth; 95 % intervals by a bootstrap over encoders. Seconds. Ends with an error where NSC is not within
0.001 of the published 0.695.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from autoprune.proxies.nsc import capacity

PUBLISHED, CLOSE, DRAWS, TOKENS = 0.695, 0.1, 200, 128
_ATTENTION = {"SA": ((3, 1), (1, 1)), "LT": ((1, 1), (1, 1)), "DSC": ((1, 1),)}  # in hidden sizes


def matrices(encoder: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """(n, 2) rows and columns of the weights of an encoder."""
    given = encoder["hparams"]["model_hparam_overrides"]
    hidden, sizes = given["hidden_size"], []
    for layer in given["nas_config"]["encoder_layers"]:
        sizes += [(hidden * a, hidden * b) for a, b in _ATTENTION[layer["operation_type"]]]
        inner = layer["feed_forward_dimension"] // layer["num_feed_forward"]
        sizes += [(inner, hidden), (hidden, inner)] * layer["num_feed_forward"]
    return np.array(sizes, dtype=np.float64)


def proxies(encoders: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Name -> (encoders,) values."""
    found: dict[str, list[float]] = {"nsc": [], "log_width": [], "parameters": [], "FLOPs": [], "matrices": []}
    for encoder in encoders:
        m, n = matrices(encoder).T
        found["nsc"].append(capacity(m, n, 2 / (m + n)).sum())
        found["log_width"].append(np.log(m).sum())
        found["parameters"].append((m * n).sum())
        layers = encoder["hparams"]["model_hparam_overrides"]["nas_config"]["encoder_layers"]
        attention = sum(layer["operation_type"] == "SA" for layer in layers)
        hidden = encoder["hparams"]["model_hparam_overrides"]["hidden_size"]
        found["FLOPs"].append(TOKENS * (m * n).sum() + 2 * TOKENS**2 * hidden * attention)
        found["matrices"].append(len(m))
    return {name: np.array(values) for name, values in found.items()}


def near_tau(values: np.ndarray[Any, Any], glue: np.ndarray[Any, Any], sizes: np.ndarray[Any, Any]) -> float:
    """Kendall's tau-a over the pairs whose parameters differ by less than `CLOSE` of the larger; ties count nothing."""
    first, second = np.triu_indices(len(glue), 1)
    near = np.abs(sizes[first] - sizes[second]) < CLOSE * np.maximum(sizes[first], sizes[second])
    first, second = first[near], second[near]
    return float(np.sign((values[first] - values[second]) * (glue[first] - glue[second])).mean())


def main() -> int:
    """Print the table; return 1 where the published figure is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--write", type=Path, help="a markdown file for the results")
    options = parser.parse_args()
    encoders = json.loads(options.table.read_text())
    glue = np.array([encoder["scores"]["glue"] for encoder in encoders])
    values = proxies(encoders)
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(glue), size=len(glue)) for _ in range(DRAWS)]
    lines = [
        "# Proxies of shapes on 500 BERT-like encoders",
        "",
        "`python benchmarks/flexibert.py BERT_benchmark.json`: rank correlation with GLUE (one training each) of the "
        "500 encoders of Serianni & Kalita 2023, arXiv 2306.00288 (CC-BY-4.0). 95 % intervals by a bootstrap over "
        "encoders. "
        f"Published for NSC (Zhu et al. 2026, arXiv 2609.23087): Kendall's τ {PUBLISHED}.",
        "",
        "| proxy | Kendall's τ | interval | Spearman's ρ | τ, pairs within 10 % of parameters | interval |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in values.items():
        tau, near = kendalltau(found, glue)[0], near_tau(found, glue, values["parameters"])
        taus = np.quantile([kendalltau(found[d], glue[d])[0] for d in draws], [0.025, 0.975])
        nears = np.quantile([near_tau(found[d], glue[d], values["parameters"][d]) for d in draws], [0.025, 0.975])
        rho = spearmanr(found, glue)[0]
        lines.append(
            f"| {name} | {tau:.3f} | {taus[0]:.3f} to {taus[1]:.3f} | {rho:.3f} | {near:.3f} | "
            f"{nears[0]:.3f} to {nears[1]:.3f} |"
        )
    met = abs(kendalltau(values["nsc"], glue)[0] - PUBLISHED) < 1e-3
    lines += ["", f"NSC as published: {'met' if met else 'not met'}.", ""]
    print("\n".join(lines))
    if options.write is not None:
        options.write.write_text("\n".join(lines))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
