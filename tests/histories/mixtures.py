"""Mixtures of options: what a seed makes of every option there is, as the arguments of `start_history`."""

from __future__ import annotations

import random
from typing import Any

from memover.testing import FEATURES

__all__ = ["RULES", "mixture"]

RULES = ("fresh", "closed", "own", "max-age", "no-future", "error")
"""What holds whatever the options are. (How often is loaded depends on them.)"""
PATIENT: dict[str, Any] = {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}


def mixture(seed: int, *, processes: int = 2, replicas: int = 0) -> dict[str, Any]:
    """The arguments that this seed stands for: about half of everything is in each mixture, and all of it but "errors"
    (of which no tags can be known) in that of seed 0."""
    rng = random.Random(seed)

    def some(*values: Any) -> Any:
        return rng.choice(values)

    features = [feature for feature in FEATURES if rng.random() < 0.5]
    if seed == 0:
        features = [feature for feature in FEATURES if feature != "errors"]
    function_options = {
        "ttl": some(0.05, 0.3, 3600),
        "jitter": some(0.0, 0.0, 0.5),
        "stale_while_revalidate": some(0, 0.2, 3600),
        "stale_if_error": some(0, 0.2, 3600),
        "early_refresh": some(False, False, True),
        "on_store_error": some("load", "stale"),
        "error_ttl": some(0.05, 10),
        "track_dependencies": True,
        "lease_ttl": some(0.3, 10),
        "wait_timeout": some(0.1, 30),
    }
    options: dict[str, Any] = {
        **PATIENT,
        "background_workers": some(1, 4),
        "max_connections": some(2, 64),
        "compress_from": some(1, 4096),
    }
    if replicas and rng.random() < 0.7:
        options["wait_replicas"] = rng.randint(1, replicas)
    return {
        "seed": seed,
        "processes": processes,
        "threads": some(2, 4),
        "loops": some(1, 2),
        "tasks": some(2, 6),
        "keys": some(2, 4, 8),
        "changes": some(0.05, 0.2),
        "through": some(0.1, 0.5),
        "slowest_load": some(0.01, 0.03),
        "features": features,
        "function_options": function_options,
        "options": options,
    }
