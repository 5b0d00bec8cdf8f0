"""Takes the pictures of `memover top` and of the page: `PYTHONPATH=. python docs/pictures/photograph.py` writes top.svg, page.png,
page-dark.png and namespace.png beside it.

It starts a Redis server of its own, three processes that call functions and report, and `memover serve`; the page is
photographed by chromium (Debian: chromium, chromium-driver) through selenium.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from memover.cli.reports import Watcher
from memover.cli.running import Place
from memover.cli.top import Screen
from tests.servers.chromium import INSTALLED, start_chromium
from tests.servers.redis import RedisServer

HERE = Path(__file__).parent
WORKERS = 3
SECONDS = 30
"""How long the history is that the pictures show."""
WORK = """
import random, time, sys
import memover
from memover import versioned_cache

memover.configure(sys.argv[1], prefix="shop", report=1)
old = sys.argv[2] == "0"

@versioned_cache(namespace="profiles", version=1 if old else 2, ttl=20, near=True)
def profile(user_id):
    time.sleep(0.002)
    return {"id": user_id, "name": "Ada", "region": "eu"}

@versioned_cache(namespace="prices/quote", version=4, ttl=10, tags=("product:{product}",))
def quote(product, amount):
    time.sleep(0.012)
    return {"product": product, "total": product * amount}

@versioned_cache(namespace="search/results", version=12, ttl=3, stale_while_revalidate=30)
def search(words):
    time.sleep(0.06)
    return [words] * 20

@versioned_cache(namespace="catalogue/items", version=3, ttl=60, audit=0.02)
def item(number):
    time.sleep(0.004)
    if random.random() < 0.003:
        raise LookupError(number)
    return {"number": number, "title": "a thing", "stock": 7}

pick = random.Random(sys.argv[2])
while True:
    wave = 1 + 0.8 * abs((time.time() / 12) % 2 - 1)
    for _ in range(int(12 * wave)):
        profile(int(pick.paretovariate(0.9)) % 4000)
    for _ in range(int(5 * wave)):
        try:
            item(int(pick.paretovariate(0.7)) % 9000)
        except LookupError:
            pass
    quote(pick.randrange(300), pick.randrange(1, 3))
    if pick.random() < 0.4:
        search(str(pick.randrange(60)))
    time.sleep(0.02)
"""


def main() -> None:
    """Run the shop for a while, and take the pictures."""
    if not INSTALLED:
        sys.exit("chromium or chromedriver is not installed: apt-get install chromium chromium-driver")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MEMOVER_")}
    environment = {**clean, "PYTHONPATH": str(HERE.parent.parent)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(RedisServer())
        python = [sys.executable]
        for number in range(WORKERS):
            worker = subprocess.Popen([*python, "-c", WORK, server.url, str(number)], env=environment)
            stack.callback(worker.wait)
            stack.callback(worker.terminate)
        page = subprocess.Popen(
            [*python, "-m", "memover", "serve", "--port", "0", "--url", server.url, "--prefix", "shop"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(page.wait)
        stack.callback(page.terminate)
        assert page.stdout is not None
        line = page.stdout.readline()
        found = re.search(r"http://\S+:\d+", line)
        assert found is not None, line
        photograph_page(found[0], folder, lambda: photograph_top(server.url))


def photograph_top(url: str) -> None:
    """Watch as `memover top` does, and save the last screen."""
    place = Place.find(url, "shop", None, "top")
    watcher, screen = Watcher(place.survey, place.prefix), Screen(place)
    for _ in range(SECONDS):
        screen.saw(watcher.look())
        time.sleep(1)
    with (HERE / "top.svg").open("w") as out, open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=150, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(screen.drawn(150, 24))
        text = console.export_svg(title="memover top", unique_id="memover-top")
        # The address is that of this run's own server.
        out.write(re.sub(r"redis://[\w.:/]*?(?=&#160;|\s|<)", "redis://cache:6379/0", text))


def photograph_page(address: str, folder: Path, meanwhile: object) -> None:
    """Open the page, let `meanwhile` pass, and save what it shows."""
    driver = start_chromium(folder / "profile", 1360, 800, "--hide-scrollbars")
    try:
        driver.get(address)
        assert callable(meanwhile)
        meanwhile()
        for scheme, name in (("light", "page.png"), ("dark", "page-dark.png")):
            driver.execute_cdp_cmd(
                "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            )
            time.sleep(1)
            driver.save_screenshot(str(HERE / name))
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
        )
        driver.get(f"{address}/namespace/prices/quote")
        time.sleep(2)
        driver.save_screenshot(str(HERE / "namespace.png"))
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
