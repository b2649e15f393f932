"""A pretrained network cut in half with no training at all: demosaicing by photographs that are their own labels.

    pip install --no-deps demosaicnet==0.0.14
    python examples/pretrained_demosaic.py [--trials 40] [--flops 50%] [--run runs/demosaic]

The network (Gharbi et al. 2016, Deep Joint Demosaicking and Denoising; weights MIT) restores the two colours that each
pixel of a camera's sensor lacks. Any photograph gives examples: half of its colours are taken away, and asked for again.
scikit-learn ships two. Candidates are refitted by least squares on unlabelled crops and scored by their PSNR on others.
A few minutes on two cores. `configs/pretrained_demosaic.yaml` is the same search as a job file.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

import autoprune

DEPTH, WIDTH, SIDE = 15, 64, 96
"""Of the network: layers and their channels; of a crop: pixels."""


class BayerDemosaick(nn.Module):
    """The network of the package `demosaicnet`, with its names, so that its weights fit; written out here because the
    package itself imports much that scoring does not need.

    No layer pads its maps: the output is smaller than the mosaic.
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

    def forward(self, mosaic: Tensor) -> Tensor:
        """Map mosaics (N, 3, H, W), whose missing colours are 0, to images (N, 3, H - 64, W - 64)."""
        filters, masks = self.main_processor(mosaic).chunk(2, dim=1)
        upsampled = self.upsampler(self.residual_predictor(filters * masks))
        return self.fullres_processor(torch.cat([cropped(mosaic, upsampled), upsampled], dim=1))  # type: ignore[no-any-return]


def network() -> BayerDemosaick:
    """The network with the weights of the package, which is found without being imported.

    Raises:
        SystemExit: the package is not installed.
    """
    found = importlib.util.find_spec("demosaicnet")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("this example needs weights: pip install --no-deps demosaicnet==0.0.14")
    weights = Path(found.submodule_search_locations[0]) / "data" / "bayer.pth"
    model = BayerDemosaick()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def cropped(image: Tensor, like: Tensor) -> Tensor:
    """The middle of (…, H, W) images in the size of others."""
    top, left = (image.shape[-2] - like.shape[-2]) // 2, (image.shape[-1] - like.shape[-1]) // 2
    return image[..., top : top + like.shape[-2], left : left + like.shape[-1]]


def mosaic(images: Tensor) -> Tensor:
    """What a Bayer sensor sees of (N, 3, H, W) images: one colour per pixel, the others 0 (G R over B G)."""
    seen = torch.zeros_like(images)
    seen[:, 1, ::2, ::2], seen[:, 1, 1::2, 1::2] = images[:, 1, ::2, ::2], images[:, 1, 1::2, 1::2]
    seen[:, 0, ::2, 1::2], seen[:, 2, 1::2, ::2] = images[:, 0, ::2, 1::2], images[:, 2, 1::2, ::2]
    return seen


def crops(part: str) -> Tensor:
    """(N, 3, SIDE, SIDE) crops of scikit-learn's photographs: of their left thirds for "train", of the middle ones for
    "validation", of the right ones for "test"; no two overlap."""
    third = ("train", "validation", "test").index(part)
    found = []
    for name in ("china.jpg", "flower.jpg"):
        image = torch.from_numpy(np.array(load_sample_image(name))).permute(2, 0, 1) / 255
        width = image.shape[-1] // 3
        own = image[:, :, third * width : (third + 1) * width]
        tiles = own.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE)
        found.append(tiles.flatten(1, 2).transpose(0, 1))
    return torch.cat(found)


def psnr(model: nn.Module, images: Tensor) -> float:
    """Mean over the images of 10 log10(1 / mean squared error), in dB."""
    with torch.inference_mode():
        restored = model(mosaic(images)).clamp(0, 1)
    errors = (restored - cropped(images, restored)).square().mean(dim=(1, 2, 3))
    return float((-10 * errors.log10()).mean())


def main() -> None:
    """Search, and print what the search, uniform widths and the full network give."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--flops", default="50%")
    parser.add_argument("--run", type=Path, help="where everything is written; by default a free folder below runs/")
    options = parser.parse_args()
    train, validation, test = (crops(part) for part in ("train", "validation", "test"))
    print({"crops": [len(c) for c in (train, validation, test)], "full dB": psnr(network(), test)})


if __name__ == "__main__":
    main()
