"""SQLite: one file, shared by the processes of one machine. The only part of memover that knows sqlite3.

statements  the tables and every statement: the specification, as `stores.redis.scripts` is for Redis
file        the file itself: connections, begun, replaced, damaged or foreign files, forks, the budget against locks
failures    what an error of sqlite3 means
guards      the lock that processes take to begin a file, and where a file must not be
store       the protocol of `engine.store`, call by call
job         a write that a cancelled caller on an event loop leaves behind
keyvalue    its key-value side
tidy        what happens behind writes: expired rows, room, checkpoints, recency
limits, url options, and what a URL says
"""
