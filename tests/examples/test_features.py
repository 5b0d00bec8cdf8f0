"""The examples of tags, dependencies and batches run, in memory and on a real Redis, and show what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

on_both_stores = pytest.mark.parametrize("where", ["memory", "redis"])


@pytest.fixture
def url(where: str, request: pytest.FixtureRequest) -> str:
    return "memory://" if where == "memory" else request.getfixturevalue("redis_url")


def output(name: str, *args: str, prefix: str) -> str:
    known = {key: value for key, value in os.environ.items() if not key.startswith("MEMOVER_")}
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *args],
        env={**known, "MEMOVER_PREFIX": prefix, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    return ended.stdout


@on_both_stores
def test_a_product_page_goes_with_what_it_was_made_of(url: str, prefix: str) -> None:
    """A tag takes one price and one page along, a call one page; everything else stays cached."""
    told = output("product_page.py", url, prefix=prefix)
    first, second, priced, sold = told.split("asked for: ")[1:]
    assert sorted(first.partition("\n")[0].split(", ")) == sorted(
        f"{what} of {sku}" for what in ("page", "price", "stock", "reviews") for sku in ("tea", "mug")
    )
    assert second.startswith("nothing\n")
    assert priced.startswith("page of tea, price of tea\n")
    assert sold.startswith("page of mug, stock of mug\n")
    assert "tea: 4.75 EUR, 12 left, 2 reviews" in told
    assert "mug: 9.90 EUR, 2 left, 1 reviews" in told
    assert "stands under the tag product:tea and" in told


@on_both_stores
def test_a_warm_up_loads_in_bulk_and_only_what_is_missing(url: str, prefix: str) -> None:
    """Two statements for the two thousands and one for each product that is missing; the next night only those again."""
    told = output("nightly_warmup.py", url, "--products", "2000", prefix=prefix)
    assert "first night: 0 fresh, 1996 loaded, 4 failed, 6 statements" in told
    assert "second night: 1996 fresh, 0 loaded, 4 failed, 6 statements" in told
