"""The explorer: every schedule of the real flows of `memover.engine.flows` over a small world.

`scenarios` says who meets whom and what goes wrong; `world` lists every next moment and
`desk` answers the flows' operations there, from the store on its `shelf`;
`threads` runs the flows themselves; `search` goes through the schedules; `mutants` are the protocol with one rule
broken each, which the explorer must catch.
"""
