"""Redis and Valkey: one server, Sentinel or Cluster. The only part of memover that knows redis-py.

scripts   the Lua, each with its keys, arguments, answer and why it must be one step
commands  each store method as a generator of command batches: written once for threads and coroutines
connect   what a URL says, and connections of our own kind: short timeouts, no retries, bytes only
breaker   holds calls back while the server does not answer
cluster   which node answers for a key, and what to do when that changes
sync, aio the same store for threads and for coroutines: pools, and the exchange of bytes
"""
