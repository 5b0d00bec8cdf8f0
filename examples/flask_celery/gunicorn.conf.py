"""gunicorn with the application imported once, before the workers are forked.

memover needs no hook for it: connections and locks of the parent are not used in a child. In the memory store each worker
has entries of its own, beginning with those of the parent; workers that are to share need `MEMOVER_URL`.
"""

preload_app = True
workers = 2
