"""What a cache tells about itself: counters, where answers came from, events in the log, and what Prometheus scrapes.

    python examples/monitoring.py [redis://localhost:6379/0]

The last part needs `pip install "memover[prometheus]"`. For processes that run, see `memover top` and docs/observing.md.
"""

from __future__ import annotations

import logging
import sys
from time import sleep

import memover
from memover import versioned_cache
from memover.observe import LoggingObserver

PRICES = {"tea": 450, "mug": 990}


@versioned_cache(namespace="monitoring/price", version=1, ttl="1m")
def price(sku: str) -> int:
    """A slow query, which raises for what is not sold."""
    sleep(0.02)
    return PRICES[sku]


def main(url: str) -> None:
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="    %(levelname)s %(name)s: %(message)s")
    cache = memover.configure(url, observers=[LoggingObserver()])
    price.invalidate_all()  # the first event: it is logged

    with cache.detect() as lookups:
        for sku in ("tea", "mug", "tea", "tea", "hat"):
            try:
                price(sku)
            except KeyError:
                print(f"there is no {sku}")
    print("answers came from:", ", ".join(str(lookup.source) for lookup in lookups))

    info = price.cache_info()
    print(f"{info.hits} hits, {info.misses} misses, {info.loads} loads, of which {info.load_errors} raised")

    try:
        from prometheus_client import CollectorRegistry, generate_latest

        from memover.observe.prometheus import Collector
    except ModuleNotFoundError:
        print('and for Prometheus: pip install "memover[prometheus]"')
    else:
        registry = CollectorRegistry()
        registry.register(Collector(cache))
        print("and for Prometheus:")
        for line in generate_latest(registry).decode().splitlines():
            if line.startswith(("memover_hits_total", "memover_loads_total", "memover_load_errors_total")):
                print("   ", line)
    cache.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "memory://")
