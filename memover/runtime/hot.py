"""The call that is made for one function, when this process's tier has answered for the first time.

What the source of `hot_call` comes to for `def price(sku, count=1)` on a memory store:

    def price(sku, count=default1):
        nonlocal hits
        if observers.busy or (under_way and inside() is not None): return general(function, lookup, (sku, count), {})
        try:
            item = known[type(sku)][type(count)][sku, count]
            if item.cohort.generation is tokens[name] and time.time() < item:
                value = item.value
                if value is not MISSING:
                    item.visited = True
                    hits += 1
                    return value
            else: item = None
        except (KeyError, TypeError) as error:                   # TypeError: what cannot be hashed
            if error.__traceback__.tb_next is not None and from_outside(error): raise
            item = None
        if item is not None:
            value = serve(item)                                  # a copy, or MISSING
            if value is not MISSING:
                hits += 1
                return value
        key = lookup(sku, count)
        item = find(key)
        if item is not None: keep((type(sku), type(count)), (sku, count), (sku, count), item)
        return answer(key, (sku, count), {})

`known` is held to the items by what ends them: an item that left its tier, or whose token moved, does not stand. On SQLite the items are
what makes the values of reads that need not be done again; `engine.store.Rereads` has the rest of what is asked of one.
"""

from __future__ import annotations

import time
from types import FunctionType
from typing import TYPE_CHECKING, Any

from memover.codec.faults import from_outside
from memover.model import MISSING
from memover.runtime.dependencies import INSIDE, UNDER_WAY
from memover.runtime.hit import settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.model import Key
    from memover.runtime.function import Function
    from memover.runtime.tiers import FunctionTier

__all__ = ["hot_call"]


INSIDE_A_LOAD = (
    "    {p}load = {p}nested({args}, {kwargs})",
    "    if {p}load is not None:",
    "        {p}stepwise, {p}this, {p}began = {p}load",
    "        try:",
    "            while ({p}step := {p}stepwise.advance()) is not None:",
    "                try: {p}stepwise.answer = {p}step.function(*{p}step.args, **{p}step.kwargs)",
    "                except {p}BaseException as {p}error: {p}stepwise.error = {p}error",
    "        finally: {p}stepwise.end()",
    "        return {p}settled({p}stepwise.done, {p}this, {p}began)",
)
"""The source of a call inside a load: `Stepwise` says the form."""


def hot_call(
    function: Function,
    lookup: Callable[..., Key],
    tier: FunctionTier,
    whole: Callable[..., Any],
    answer: Callable[..., Any],
    nested: Callable[..., Any] | None,
) -> Callable[..., Any] | None:
    """The call of one function with its own parameters; see the module's head. None where none can be made: what is written
    by position and what by name must mean the same to the function, and to everybody who is shown the call.

    `nested(args, kwargs)` begins a call inside a load, which is run in the frame of the call itself; None: it is awaited."""
    awaited = nested is None
    binding, policy, function_itself = function.binding, function.policy, function.function
    shown = callable(policy.ttl) or policy.cache_if is not None or function.tags.late or function.tags.early
    if shown or function.whole or type(function_itself) is not FunctionType or hasattr(function_itself, "__wrapped__"):
        return None
    wait = "await " if awaited else ""
    find, kept, counters = tier.find, tier.kept, function.counters

    def found(key: Key) -> Any:
        item = find(key)
        return item if item is not None and kept(item) else None

    made = binding.hot(
        [
            f"if {tier.pausing}:",
            *(() if awaited else INSIDE_A_LOAD),
            f"    return {wait}{{p}}whole({{p}}function, {{p}}lookup, {{args}}, {{kwargs}})",
            "try:",
            "    {p}item = {known}",
            f"    if {tier.stands}:",
            "        {p}value = {p}item.value",
            "        if {p}value is not {p}MISSING:",
            "            {p}item.visited = True",
            "            {p}hits += 1",
            "            return {p}value",
            "    else: {p}item = None",
            "except ({p}KeyError, {p}TypeError) as {p}error:",
            "    if {p}error.__traceback__.tb_next is not None and {p}from_outside({p}error): raise",
            "    {p}item = None",
            "if {p}item is not None:",
            "    {p}value = {p}serve({p}item)",
            "    if {p}value is not {p}MISSING:",
            "        {p}hits += 1",
            "        return {p}value",
            "{p}key = {p}lookup({call})",
            "{p}item = {p}find({p}key)",
            "if {p}item is not None: {keep}",
            f"return {wait}{{p}}answer({{p}}key, {{args}}, {{kwargs}})",
        ],
        awaited=awaited,
        names={
            "observers": function.observers,
            "inside": INSIDE.get,
            "under_way": UNDER_WAY,
            "whole": whole,
            "nested": nested,
            "settled": settled,
            "BaseException": BaseException,
            "function": function,
            "lookup": lookup,
            "time": time,
            "MISSING": MISSING,
            "from_outside": from_outside,
            "serve": tier.serve,
            "find": found,
            "answer": answer,
            **tier.names,
        },
    )
    if made is None:
        return None
    call, hits = made
    counters.also(hits, near=tier.near)
    return call
