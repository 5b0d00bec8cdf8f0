"""What runs in a process: flows, the user's functions, and what is remembered of both.

A call, from the shortest way to the longest:
    bare, hot       a hit: one read, one judgement; the call made for one function, before a tier in this process
    tiers, near     what of this process is asked before the store; its near cache · direct: a plain miss
    again           the value of an entry that a store answers again with the same object
    hit             what follows when those do not serve · loading: the user's function · results: what it returned
    entries         results to entries and back · guard: entries of another shape · upgrades: entries of older versions
    batch           many calls together · bulk: their loader · progress: the bar over them
    operations      `peek`, `set`, `refresh` · invalidations: those of functions and caches · keyvalue: the key-value API

Flows, for threads and for asyncio:
    run             performs the steps of a flow · stepwise: a flow that its owner runs · waiting: for another's load

What is kept:
    state           for a cache · function: for a function on it · names: its names in the store
    flights         loads that several callers share · tasks: those of event loops · renewal: the leases that are held
    dependencies    what a load uses · last_answers: for an outage · recent: a dict of limited size
    footprint       the memory that a value takes
    background      what runs behind the callers · heart: the heartbeat of a near tier · nonce: names of leases and bumps

What is seen:
    counters, events, observers, report, audit
"""
