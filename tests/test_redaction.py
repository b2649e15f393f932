from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.errors import AutopruneError, ConfigError, RunError
from autoprune.redaction import MASK, masked, secrets_in

SECRET = "hunter2"

URLS = [
    "postgresql+psycopg2://user:{}@127.0.0.1/name",
    "postgresql://user:{}@[::1]:5432/name?sslmode=require",
    "redis://:{}@host:6379/0",
    "mysql://user@host/db?password={}",
    "postgresql://user@host/db?sslmode=verify-full&sslpassword={}&application_name=x",
    "sqlite:///file:x.db?uri=true&password={}",
    "https://host/path?token={}",
    "https://host/path?X-Amz-Signature={}&x=1",
    "https://{}@host/path",
    "s3://AKIAX:{}@bucket/path?region=eu",
    "s3://bucket/path?access_key=AKIAX&secret_key={}&endpoint_override=host%3A9000",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC%7D%3BPWD%3D{}",
    "postgresql:/user:{}@host/db",
    "user:{}@host/db",
]


@pytest.mark.parametrize("url", URLS)
def test_a_secret_is_masked_in_every_form_of_url_alone_and_in_a_sentence(url: str) -> None:
    full = url.replace("{}", SECRET)
    assert SECRET not in masked(full)
    assert MASK in masked(full)
    for sentence in (f"ledger {full} cannot be opened", f"got {full!r}", f"(x='{full}', y={{'a': \"{full}\"}})"):
        assert SECRET not in masked(sentence)
    assert masked(full) == masked(url.replace("{}", "another-one")), "nothing of it is left, not even its length"


@pytest.mark.parametrize("url", [url for url in URLS if "://user:" in url])
@given(secret=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="@"), min_size=8))
def test_a_password_of_any_characters_is_masked(url: str, secret: str) -> None:
    full = url.replace("{}", secret)
    assert masked(full) == url.replace("{}", MASK)
    assert secret in secrets_in(full)


@pytest.mark.parametrize("secret", ["p@ss@word", "with blank", "a/b?c#d", "quo'te\"s"])
def test_a_password_that_nobody_escaped_is_masked_whole(secret: str) -> None:
    assert masked(f"postgresql://user:{secret}@host/name") == f"postgresql://user:{MASK}@host/name"


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///trials.db",
        "sqlite:////data/a:b@c.db",
        "http://host:8265/#/jobs",
        "postgresql://user@host/name",
        "s3://bucket/path?region=eu",
        "git@github.com:some/thing",
        "--arg 'x': give key=value, for example classes=100",
        "tiny:Convolutions fails with settings {'tokens': 3, 'key': 'value', 'class_token': True}",
        "runs/digits: 12:30:01, 3 @ 50%",
        "",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


def test_values_are_masked_by_their_names_and_nothing_is_changed_in_place() -> None:
    data: dict[str, Any] = {
        "password": SECRET,
        "nested": [{"api_key": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, "hf_token": SECRET}],
        "pin": {"passwd": 1234},
        "n_tokens": 77,
        "class_token": True,
        "token": None,
    }
    before = copy.deepcopy(data)
    assert masked(data) == {
        "password": MASK,
        "nested": [{"api_key": MASK, "AWS_SECRET_ACCESS_KEY": MASK, "hf_token": MASK}],
        "pin": {"passwd": MASK},
        "n_tokens": 77,
        "class_token": True,
        "token": None,
    }
    assert data == before
    assert secrets_in(data) == (SECRET, "1234")


@pytest.mark.parametrize(
    "text",
    [
        "fails with settings {'token': 'hunter2', 'n': 3}",
        'connect(password="hunter2")',
        "host=h password=hunter2 user=u",
        "Authorization: Bearer hunter2hunter2",
    ],
)
def test_a_secret_in_other_text_is_masked(text: str) -> None:
    assert SECRET not in masked(text)


def test_names_of_the_environment_are_no_secrets() -> None:
    url = "postgresql://user:${PG_PASSWORD}@host/name"
    assert masked(url) == url
    assert masked({"token": "${TOKEN}"}) == {"token": "${TOKEN}"}
    assert masked(url, references=False) == f"postgresql://user:{MASK}@host/name"
    assert SECRET not in masked("postgresql://user:${PG:-hunter2}@host/name")


@pytest.mark.parametrize("kind", [AutopruneError, ConfigError, RunError])
def test_no_error_of_ours_says_a_secret(kind: type[AutopruneError]) -> None:
    error = kind(f"ledger {URLS[0].replace('{}', SECRET)} is away")
    assert str(error) == f"ledger {URLS[0].replace('{}', MASK)} is away"
    assert SECRET not in repr(error)


@pytest.mark.parametrize("text", ["x" * 1_000_000, "a_" * 300_000, "http://" * 100_000, "token='" * 100_000])
def test_a_megabyte_is_looked_through_in_seconds(text: str) -> None:
    began = time.thread_time()
    masked(text)
    assert time.thread_time() - began < 5
