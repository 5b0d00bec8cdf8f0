"""The explorer: every schedule of the real flows and the real store commands over a small world.

`scenarios` says who meets whom and what goes wrong; `world` lists every next moment and `desk` answers the flows' steps there,
`server` what is sent to it; `function` is the world's cached function; `histories` runs the flows themselves; `search` goes
through the schedules; `mutants` are the protocol with one rule broken each, which the explorer must catch.
"""
