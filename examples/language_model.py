"""For whoever serves a language model: 60 % of its parameters without training after the cut.

    python examples/language_model.py [--run runs/language_model] [--trials 20] [--epochs 4]

A small Llama is trained on the topics of Python's manual, which ship with Python. Its heads with their queries, MLPs
and embedding are searched by the divergence from its own logits, no label and no training after the cut; what is left
is refitted by least squares. Uniform pruning gets the same. Then the perplexity of each on text that nothing has seen.

With a network of transformers the call is the same: `AutoModelForCausalLM.from_pretrained(folder)` with
`use_cache=False`, the example {"input_ids": …}, and `result.save(folder, formats=["transformers"])` writes a folder for
`from_pretrained`, where every layer has the same widths (`space={"per": "model"}`). Under two minutes on two cores.
"""

# ruff: noqa: T201 - it shows what it finds
from __future__ import annotations

import argparse
from pathlib import Path

import torch

import autoprune
from autoprune.data import load_data
from autoprune.tasks.base import TaskInputs, make_task
from autoprune.training.recipe import Recipe
from autoprune.zoo import build_model

CONTEXT = 64
RECIPE = {
    "lr": 3e-3,
    "batch_size": 16,
    "warmup_epochs": 0.5,
    "optimizer": "adamw",
    "weight_decay": 0.1,
    "clip_norm": 1.0,
}


def main() -> None:
    """Train, search, refit, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/language_model", help="a new folder")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=4, help="of the training before the cut")
    parser.add_argument("--seeds", type=int, default=3, help="draws of text that weights are refitted on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = load_data("python_manual", arguments={"context": CONTEXT, "limit": 100_000})
    sizes = {"width": 64, "layers": 2, "heads": 4, "key_value_heads": 2, "hidden": 176}
    network = build_model("char_llama", {"vocabulary": 128, "context": CONTEXT, **sizes})
    recipe = Recipe(epochs=options.epochs, **RECIPE)
    task = make_task("language_model", {}, TaskInputs(network, text, recipe, torch.device("cpu")))
    task.train(network, epochs=options.epochs, seed=0)

    result = autoprune.search(
        network,
        task.example_input(),
        constraints={"params": "60%"},
        data=text,
        task="language_model",
        measure="divergence",
        space={"min_ratio": 0.25, "kinds": {"embedding": {"divisor": 8, "min_ratio": 0.5}, "mlp": {"divisor": 16}}},
        evaluator={"name": "inherited", "settings": {"validation_limit": 64, "paired": True}},
        inherit=["least_squares"],
        trials=options.trials,
        training=RECIPE | {"epochs": options.epochs},
        verdict={
            "protocols": ["no_training"],
            "seeds": options.seeds,
            "inherit": ["sequential_least_squares"],
            "latency": False,
        },
        threads=1,
        run_dir=Path(options.run),
    )
    assert result.verdict is not None
    print(result.verdict.sentence)
    print(f"before the cut: perplexity {-task.score(network, split='test'):.2f} per character")
    for arm in result.record.arms:
        print(f"{arm.name}: perplexity {-task.score(result.network(arm.name), split='test'):.2f}")


if __name__ == "__main__":
    main()
