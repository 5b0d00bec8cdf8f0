"""SQLite: one file, shared by the processes of one machine. The only part of memover that knows sqlite3.

schema      the tables, and what the file's header says
statements  every statement: the specification, as `stores.redis.scripts` is for Redis
connections one connection, and how a statement is performed on it
opening     what may be at the path: nothing, a store, a damaged one, somebody else's file
file        the pool of connections, the file deleted or replaced meanwhile
pauses      waiting for a lock
marks       what tells processes that rows they have kept may have changed
changing    what changes rows marks them, what invalidates lasts
handles     the connections of this process to a file, at a fork
forks       the files of this process, at a fork and at exit
failures    what an error of sqlite3 means
guards      the lock that processes take to begin a file, and where a file must not be
store       the protocol of `engine.store`: threads, event loops, budgets
reading, writing, tokens, keyvalue
            its steps: what is read; leases and entries; tokens; the key-value side
direct      the two writes of a plain miss
job         a write that a cancelled caller on an event loop leaves behind
tidy        what happens behind writes: expired rows, room, checkpoints, recency
feed        what a near tier asks
survey      looking through a file in bounded steps
limits, url, moments
            options, what a URL says, the machine's clock
"""
