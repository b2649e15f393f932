"""Job files that were mutated: each is read and checked, or is one clear error; nothing is written."""

from __future__ import annotations

import copy
import random
import time
import traceback
from pathlib import Path
from typing import Any

import yaml

from autoprune.config.job import load_job
from autoprune.errors import AutopruneError
from fault_campaign.cases import CHARACTERS, LINES, Case
from fault_campaign.network import JOB

SECONDS = 2.0
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 1e300, -(10**40), 2**63, float("nan"), float("inf"), "", "nonsense", "50%", "x" * 5000, [],
    [[]], [1, "a", None], {}, {"a": {"b": 1}}, "/dev/zero", "../" * 200, "os:system", "${NOT_SET}", "2024-01-01",
)  # fmt: skip
TEXTS = (b"\x00", b"\xff\xfe", b"{", b"[", b"&a [*a]", b"!!python/object:os.system {}", b"\t", b"'", b": :", b"- -")


def mutated_job(folder: Path, number: int, rng: random.Random) -> Case:
    """Mutations of values, keys and bytes.

    Args:
        folder: to work in.
        number: of the case.
        rng: chooses.
    """
    content, name = _mutated(rng) if number % 3 else _torn(rng)
    path = folder / "job.yaml"
    path.write_bytes(content)
    before, started = sorted(folder.iterdir()), time.process_time()
    try:
        load_job(path)
    except AutopruneError as error:
        text, raw = str(error), False
    except Exception:  # noqa: BLE001 - which is what is looked for
        text, raw = traceback.format_exc(), True
    else:
        text, raw = "", False
    slow = time.process_time() - started > SECONDS
    long = len(text.splitlines()) > LINES or len(text) > CHARACTERS
    if raw:
        return Case("mutated job", name, "traceback", text[-400:])
    if slow or long or sorted(folder.iterdir()) != before:
        return Case("mutated job", name, "wrong", "slow" if slow else "long" if long else "wrote something")
    return Case("mutated job", name, "clear error" if text else "survived", text)


def _mutated(rng: random.Random) -> tuple[bytes, str]:
    """One to three values or keys are others."""
    job, told = copy.deepcopy(JOB), []
    for _ in range(rng.randint(1, 3)):
        place: Any = job
        while True:
            key = rng.choice([*place])
            if not isinstance(place[key], dict) or not place[key] or rng.random() < 0.4:
                break
            place = place[key]
        what = rng.choice(("value", "value", "value", "key", "gone"))
        if what == "gone":
            del place[key]
        elif what == "key":
            place[rng.choice((f"{key}s", key[:-1], 3, "x" * 300))] = place.pop(key)
        else:
            place[key] = rng.choice(VALUES)
        told.append(f"{key} {what}")
        if not job:
            break
    return yaml.safe_dump(job).encode(), ", ".join(told)


def _torn(rng: random.Random) -> tuple[bytes, str]:
    """Bytes of the file are others."""
    content = yaml.safe_dump(JOB).encode()
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(content))
        what = rng.choice(TEXTS) if rng.random() < 0.6 else content[place : place + rng.randint(1, 80)]
        content = content[:place] + what + content[place + rng.choice((0, len(what))) :]
    return content, "bytes"
