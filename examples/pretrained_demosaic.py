"""A pretrained network cut in half with no training at all: demosaicing, where photographs are their own labels.

    pip install --no-deps demosaicnet==0.0.14
    python examples/pretrained_demosaic.py [--trials 30] [--flops 50%] [--run runs/demosaic]

The network (Gharbi et al. 2016, Deep Joint Demosaicking and Denoising; weights MIT) restores the two colours that each
pixel of a camera's sensor lacks. Any photograph gives examples: two thirds of its values are taken away, and asked for
again. scikit-learn ships two photographs. What is left after a cut is refitted by least squares on some of their
tiles, and scored by its PSNR on others. A few minutes on two cores. `pretrained_demosaic.yaml` is the same job.
"""

# ruff: noqa: T201 - it shows what it finds
from __future__ import annotations

import argparse
import importlib.util
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

import autoprune
from autoprune.data.batch import Batch
from autoprune.measures.base import Measure

DEPTH, WIDTH, SIDE = 15, 64, 96
"""Of the network: layers and their channels; of a tile: pixels."""

EXACT = ("sequential_least_squares",)
"""What is done to the weights of the networks that are compared at the end."""


class BayerDemosaick(nn.Module):
    """The network of the package `demosaicnet`, with its names, so that its weights fit; written out here because the
    package itself imports much that this does not need. The mosaic is made from the image that it is given.

    No layer pads its maps: the output is smaller than the image.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict(pack_mosaic=nn.Conv2d(3, 4, 2, stride=2))
        for i in range(DEPTH):
            before, after = 4 if i == 0 else WIDTH, 2 * WIDTH if i == DEPTH - 1 else WIDTH
            layers[f"conv{i + 1}"], layers[f"relu{i + 1}"] = nn.Conv2d(before, after, 3), nn.ReLU()
        self.main_processor = nn.Sequential(layers)
        self.residual_predictor = nn.Conv2d(WIDTH, 12, 1)
        self.upsampler = nn.ConvTranspose2d(12, 3, 2, stride=2, groups=3)
        self.fullres_processor = nn.Sequential(
            OrderedDict(post_conv=nn.Conv2d(6, WIDTH, 3), post_relu=nn.ReLU(), output=nn.Conv2d(WIDTH, 3, 1))
        )
        sensor = torch.zeros(1, 3, SIDE, SIDE)  # G R over B G
        sensor[:, 1, ::2, ::2] = sensor[:, 1, 1::2, 1::2] = sensor[:, 0, ::2, 1::2] = sensor[:, 2, 1::2, ::2] = 1
        self.register_buffer("sensor", sensor, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, 3, SIDE, SIDE) to their middles (N, 3, SIDE - 64, SIDE - 64), restored from their mosaics."""
        mosaic = image * self.sensor
        filters, masks = self.main_processor(mosaic).chunk(2, dim=1)
        upsampled = self.upsampler(self.residual_predictor(filters * masks))
        packed = torch.cat([middle(mosaic, upsampled), upsampled], dim=1)
        return self.fullres_processor(packed)  # type: ignore[no-any-return]


class PSNR(Measure):
    """Peak signal-to-noise ratio of each image, 10 log10(1 / mean squared error) of values from 0 to 1."""

    name, unit, needs_targets = "psnr", "dB", False

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """(N,) dB."""
        wanted = middle(batch.inputs.to(outputs.device), outputs)
        return -10 * (outputs.clamp(0, 1) - wanted).double().square().mean(dim=(1, 2, 3)).log10()


def network() -> BayerDemosaick:
    """The network with the weights of the package, which is found without being imported.

    Raises:
        RuntimeError: the package is not installed.
    """
    found = importlib.util.find_spec("demosaicnet")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("this example needs weights: pip install --no-deps demosaicnet==0.0.14")
    weights = Path(found.submodule_search_locations[0]) / "data" / "bayer.pth"
    model = BayerDemosaick()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def middle(image: Tensor, like: Tensor) -> Tensor:
    """The middle of (…, H, W) images, in the size of others."""
    top, left = (image.shape[-2] - like.shape[-2]) // 2, (image.shape[-1] - like.shape[-1]) // 2
    return image[..., top : top + like.shape[-2], left : left + like.shape[-1]]


def tiles(part: str) -> Tensor:
    """(N, 3, SIDE, SIDE) tiles of scikit-learn's photographs, every third one; those of different parts do not overlap.

    Args:
        part: "train", "validation" or "test".
    """
    third = ("train", "validation", "test").index(part)
    found = []
    for name in ("china.jpg", "flower.jpg"):
        image = torch.from_numpy(np.array(load_sample_image(name))).permute(2, 0, 1) / 255
        found.append(image.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE).flatten(1, 2).transpose(0, 1)[third::3])
    return torch.stack(found, dim=1).flatten(0, 1)  # in turns: any stretch has both


def photographs() -> dict[str, Tensor]:
    """All three parts, as a job file names them."""
    return {part: tiles(part) for part in ("train", "validation", "test")}


def psnr(model: nn.Module, images: Tensor) -> float:
    """Mean over the images, in dB."""
    with torch.inference_mode():
        return float(PSNR().values(model.eval()(images), Batch(images), None).mean())


def main() -> None:
    """Search, and show what the search, uniform widths and the full network give on tiles that nobody looked at."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--flops", default="50%")
    parser.add_argument("--run", type=Path, help="where everything is written; by default a free folder below runs/")
    options = parser.parse_args()
    model, data = network(), photographs()
    found = autoprune.search(
        model,
        data["train"][:1],
        constraints={"flops": options.flops},
        data=data,
        task={"name": "unlabelled", "measure": "pretrained_demosaic:PSNR"},
        inherit=["least_squares"],
        trials=options.trials,
        verdict={"seeds": 0, "inherit": list(EXACT)},
        run_dir=options.run,
    )
    print(f"the full network: {psnr(model, data['test']):.2f} dB")
    for name, widths in {"searched": found.widths, **{arm.name: arm.widths for arm in found.baselines}}.items():
        plain = found.space.slice(model, widths)
        exact = found.space.slice(model, widths, inherit=EXACT, calibration=data["train"])
        cost = found.space.cost(widths)["flops"] / found.space.cost(found.space.full)["flops"]
        print(
            f"{name}: {psnr(exact, data['test']):.2f} dB at {cost:.1%} of the FLOPs, "
            f"{psnr(plain, data['test']):.2f} dB where the weights stay as they were"
        )
    print(f"report: {found.report()}")


if __name__ == "__main__":
    main()
