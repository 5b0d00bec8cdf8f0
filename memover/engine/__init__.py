"""The rules, as flows: generators that say what is done in which order, and wait for nothing themselves.

steps       what a flow waits for · store: what a store must be able to do · function: what a decorated function must
call        one call on its way: its key, its tokens, and the store's verbs in its terms
answers     what the steps of a call come to: readings, grants, outcomes, sealed results
tokens      generations as this process knows them · lease: the text in a lease's slot
judge       whether an entry is fresh: the one place
reading     what a reading comes to · marks: the tokens that a result is stored with
load        the order of a call: read, lease, load, store. The rules behind the promises are at its head
follow      waiting for another's load · alone: a call without the store · replace: refreshed and known values
many        a batch · invalidate: every invalidation there is · keyvalue: the key-value API

The same flows serve `def` and `async def` functions (`runtime.run`), and the explorer in the tests, which runs them in every
order. What they must keep is in docs/design/protocol.md.
"""
