from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from tiny import Convolutions
from torch import nn

import autoprune


def test_a_relative_run_directory_stays_where_it_was_when_a_score_changes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def score(network: nn.Module) -> float:
        os.chdir(tmp_path / "elsewhere")
        return float(sum(p.numel() for p in network.parameters()))

    result = autoprune.search(
        Convolutions(),
        torch.zeros(1, 1, 8, 8),
        constraints={"flops": "60%"},
        score_func=score,
        trials=2,
        run_dir="run",
        progress="silent",
        threads=1,
        device="cpu",
    )
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert result.directory == tmp_path / "run"
    assert (tmp_path / "run" / "result.json").is_file()
