"""Which engine a job gets, and what is said where it cannot be had; nothing here starts one."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fake_search import Fake, session
from fake_work import calls, plain, setup
from tiny import write_job
from typer.testing import CliRunner

from autoprune.cli.main import app
from autoprune.cli.options import chosen_engine
from autoprune.config.engine import EngineOptions
from autoprune.config.job import Job, load_job
from autoprune.config.validation import validated
from autoprune.engines import local, make_engine
from autoprune.engines.base import Scoring
from autoprune.engines.local import LocalEngine
from autoprune.errors import AutopruneError, ConfigError
from autoprune.pipeline.fingerprints import job_fingerprint


def job_of(folder: Path, engine: Any) -> Job:
    return load_job(write_job(folder / "job.yaml", {} if engine is None else {"engine": engine}))


def test_a_plain_name_is_enough_and_options_are_checked(tmp_path: Path) -> None:
    assert job_of(tmp_path, "ray").engine == EngineOptions(name="ray")
    assert job_of(tmp_path, None).engine == EngineOptions()
    for wrong, said in (
        ("rya", "engine.name: input should be 'local' or 'ray', got 'rya'"),
        ({"workers": 3}, "the local engine has no workers; set name: ray, or leave it out"),
        ({"name": "ray", "worker": 3}, "unknown key 'engine.worker'. Did you mean 'workers'?"),
        ({"name": "ray", "workers": 0}, "engine.workers: input should be greater than or equal to 1, got 0"),
        ({"name": "ray", "resources": {"spot": 0}}, "engine.resources.spot: input should be greater than 0"),
    ):
        with pytest.raises(ConfigError) as caught:
            job_of(tmp_path, wrong)
        assert said in str(caught.value)


def test_a_run_does_not_depend_on_its_engine_but_its_job_file_keeps_it(tmp_path: Path) -> None:
    here, there = job_of(tmp_path, None), job_of(tmp_path, {"name": "ray", "workers": 3})
    assert job_fingerprint(here) == job_fingerprint(there)
    (tmp_path / "kept.yaml").write_text(there.text)
    assert load_job(tmp_path / "kept.yaml").engine == there.engine
    assert all(one.engine == there.engine for one in there.family)


def test_the_command_line_has_the_last_word() -> None:
    own = validated(EngineOptions, {"name": "ray", "workers": 3, "retries": 5}, "job")
    assert chosen_engine(own, None, None, None) == own
    assert chosen_engine(own, "local", None, None) == EngineOptions()
    assert chosen_engine(own, None, "auto", 7) == own.model_copy(update={"address": "auto", "workers": 7})
    assert chosen_engine(EngineOptions(), None, "auto", None).name == "ray", "only ray has an address"
    with pytest.raises(ConfigError, match="the local engine has no workers"):
        chosen_engine(own, "local", None, 2)


def test_without_ray_the_local_engine_works_and_ray_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.tune", None)
    assert isinstance(make_engine(EngineOptions()), LocalEngine)
    with pytest.raises(ConfigError, match=r'ray cannot be imported .* install it with `pip install "ray\[tune\]"`'):
        make_engine(EngineOptions(name="ray"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "nothing answers at '127.0.0.1:1'"),
        ("ray://127.0.0.1:1", "Ray Tune cannot be driven from outside a cluster"),
        ("cluster", "address 'cluster' cannot be read; allowed: auto, HOST:PORT"),
        ("host:port", "address 'host:port' cannot be read"),
    ],
)
def test_an_address_that_does_not_answer_leaves_nothing_behind(tmp_path: Path, address: str, said: str) -> None:
    pytest.importorskip("ray")
    job, run, began = write_job(tmp_path / "job.yaml", {}), tmp_path / "run", time.monotonic()
    result = CliRunner().invoke(
        app, ["search", str(job), "--run-dir", str(run), "--engine", "ray", "--address", address]
    )
    assert isinstance(result.exception, AutopruneError)
    assert said in str(result.exception)
    assert not run.exists()
    assert time.monotonic() - began < 20


def test_a_gpu_for_each_worker_needs_a_run_on_gpus() -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=r"gpus_per_worker is 0.5 but the device is cpu; set device: cuda"):
        make_engine(EngineOptions(name="ray", gpus_per_worker=0.5), device="cpu")
    make_engine(EngineOptions(name="ray", gpus_per_worker=0.5), device="cuda")


def test_the_local_engine_does_one_thing_after_the_other(tmp_path: Path) -> None:
    with make_engine(EngineOptions()) as engine:
        engine.equip(setup(tmp_path, plain))
        search, reference = session(tmp_path / "run"), session(tmp_path / "reference")
        engine.search(search)
        local.run(reference, Fake(lambda widths, seed: plain(widths, 0, tmp_path)))
        assert [t.score for t in search.trials] == [t.score for t in reference.trials]
        scored = engine.score([Scoring((16, 24, 32), 1), Scoring((8, 24, 32), 1)])
        assert next(scored)[0] == 0
        assert calls(tmp_path)[-1] == "16-24-32-full", "the second one waits until it is asked for"
        assert list(engine.train(lambda factory, piece: piece + 1, [1, 2])) == [(0, 2), (1, 3)]
        assert engine.record() == {"name": "local", "workers": 1}
        assert engine.busy == 0
