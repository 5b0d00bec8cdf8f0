"""The explorer: every schedule of the real flows of `memover.engine.flows` over a small world.

`scenarios` says who meets whom and what goes wrong; `world` answers the flows' operations and lists every next moment;
`threads` runs the flows themselves; `search` goes through the schedules; `mutants` are the protocol with one rule
broken each, which the explorer must catch.
"""
