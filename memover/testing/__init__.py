"""For users' tests and deployments: assertions on what is cached, and the history checker.

`assert_cached(profile, 7)`, and `with assert_loads(1): ...`; with pytest they are fixtures (`memover.pytest_plugin`).

`check_history(url)` runs processes full of sync and async callers over sources that only count up, invalidates by
key and by namespace all the while, and looks afterwards for a call that was answered with something older than an
invalidation before it allowed. The same from a shell: `python -m memover.testing redis://localhost:6379/0`. `workload` starts
the processes, `worker` is one of them and `functions` what it calls, `history` what they record, `rules` what no history may show.
"""

from __future__ import annotations

from memover.testing.assertions import assert_cached, assert_loads
from memover.testing.functions import FEATURES
from memover.testing.history import Report, Violation
from memover.testing.rules import RULES, judge_history
from memover.testing.workload import HistoryRun, check_history, start_history

__all__ = [
    "FEATURES",
    "RULES",
    "HistoryRun",
    "Report",
    "Violation",
    "assert_cached",
    "assert_loads",
    "check_history",
    "judge_history",
    "start_history",
]
