"""Redis and Valkey: one server, Sentinel or Cluster. The only part of memover that knows redis-py.

scripts, keyvalue_scripts   the Lua, each with its keys, arguments, answer and why it must be one step
commands, invalidations, keyvalue
                            each store method as a flow of commands, written once for threads and event loops
asking                      commands and their answers · limits: how long, how many
store                       the store: these methods, the read of a hit, and its life · direct: the steps of a plain miss
link                        exchanges with servers, for threads and for event loops
journey, cluster            from commands to nodes: scripts; which node answers for a key, and what to do when that changes
servers, visits             breakers, connections and failures of each server; what threads send to several
url, opening                what a URL says; connections made by redis-py within a time limit
failures                    which errors are the server's or the network's, and what each becomes
resp                        bytes of commands and answers
connection, pool            the connections of threads · endings: how a connection that is dropped is closed
mux, loops                  the connections of event loops, shared by their tasks · overdue: how long a server may take there
looks                       how long threads and loops look for an answer before they sleep
feed                        what a near tier asks, and what the server tells it
scan                        going through all keys in bounded steps
"""

from memover.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
