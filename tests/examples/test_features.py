"""The examples of tags, dependencies and batches run, in memory and on a real Redis, and show what they say."""

from __future__ import annotations

import os
import re
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
        check=False,
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


@on_both_stores
def test_monitoring_prints_what_there_is_to_see(url: str, prefix: str) -> None:
    """The same calls as counters, as sources, as events in the log and as series of Prometheus."""
    told = output("monitoring.py", url, prefix=prefix)
    assert "INFO memover.events: invalidate monitoring/price" in told
    assert "answers came from: loaded, loaded, fresh, fresh, loaded" in told
    assert "2 hits, 3 misses, 3 loads, of which 1 raised" in told
    series = f'namespace="monitoring/price",prefix="{prefix}"'
    assert f'memover_hits_total{{{series},source="fresh",version="1"}} 2.0' in told or "pip install" in told


def test_every_example_is_listed() -> None:
    """And every link of the list leads to one."""
    listed = set(re.findall(r"\]\(([\w./]+)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
    assert [each for each in sorted(listed) if not (EXAMPLES / each).exists()] == []
    there = {each.name for each in EXAMPLES.iterdir()} - {"README.md", "__pycache__"}
    assert {each.partition("/")[0] for each in listed} == there
