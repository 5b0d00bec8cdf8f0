"""Real servers and processes for the tests: nothing in here imitates Redis.

Everything is started by the test that needs it, waits for conditions and not for a time, and is gone when the test
process is, however that ended.
"""

from __future__ import annotations

from .cluster import RedisCluster
from .patience import PATIENCE_SECONDS, be_patient
from .processes import INDEX, Worker, WorkerFailed, as_another_process, hear, run_python, say, start_python
from .proxy import FaultyProxy
from .recording import Command, Recording
from .redis import RedisServer, primary_with_replicas
from .sentinel import SentinelGroup
from .stub import StubServer
from .waiting import await_until, free_port, wait_until

__all__ = [
    "INDEX",
    "PATIENCE_SECONDS",
    "Command",
    "FaultyProxy",
    "Recording",
    "RedisCluster",
    "RedisServer",
    "SentinelGroup",
    "StubServer",
    "Worker",
    "WorkerFailed",
    "as_another_process",
    "await_until",
    "be_patient",
    "free_port",
    "hear",
    "primary_with_replicas",
    "run_python",
    "say",
    "start_python",
    "wait_until",
]
