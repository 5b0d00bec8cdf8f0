"""The function that the web server and the workers share: same module, same key, same entries."""

import os
import time

from memover import versioned_cache


@versioned_cache(namespace="reports", version=1, ttl="1h", tags=("shop:{shop_id}",))
def report(shop_id: int) -> dict[str, int]:
    """A report that takes long to make; `made_by` is the process that made it."""
    time.sleep(0.05)
    return {"shop": shop_id, "made_by": os.getpid()}
