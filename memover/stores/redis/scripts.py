"""The Lua of memover. Each script is one atomic step on keys of one slot (one server: on any keys).

Scripts are sent by EVALSHA, and whole by EVAL the first time and whenever the server says NOSCRIPT (restart,
failover, SCRIPT FLUSH). Keys are read with MGET, which answers nil where GET would raise on another type:
whatever a stranger left under our key is treated as absent and overwritten. Doubles count exactly to 2^53;
tokens at or above 2^52 are nobody's (`engine.tokens.GARBAGE`), and the last below is not built upon.
"""

from __future__ import annotations

from hashlib import sha1
from typing import NamedTuple

__all__ = [
    "ACQUIRE", "BUMP", "DROP", "KEEP", "LEASE", "MOVE", "REGISTER", "RELEASE", "RENEW", "SETTLE", "STORE", "TOKEN",
    "Script",
]  # fmt: skip


class Script(NamedTuple):
    """Lua text with the name the server knows it by."""

    text: bytes
    sha: bytes


def _script(*parts: str) -> Script:
    text = "".join(parts).encode()
    return Script(text, sha1(text, usedforsecurity=False).hexdigest().encode())


# keep(key, ms): a token that is there stays for ms at least, less 5 s ('-1': for ever; '0' or nil: its limit is left as it
# is). 5 s, because a write is replicated, and pushed to every near cache, and a hot tag would be written with every entry.
# No limit is ever shortened, and a token without one keeps none. It goes after a script's SET: a full server refuses only
# the first write of a script, and PEXPIRE is never refused.
_KEEP = """
local function keep(key, ms)
  ms = tonumber(ms or '0')
  if ms == 0 then return end
  local left = redis.call('PTTL', key)
  if left < 0 then return end
  if ms > left + 5000 then
    redis.call('PEXPIRE', key, ms)
  elseif ms < 0 then
    redis.call('SET', key, redis.call('MGET', key)[1])
  end
end
"""

# token(key, nonce, floor, force, ms): the current token, or a new one when there is none, when it is behind the floor
# (the store lost a bump), or when forced. A token that carries our nonce is our own step, repeated: it stays.
# It is written once more, so that a WAIT behind it on this connection has something to wait for.
# A new one lives for ms ('0' or nil: for ever); one that stays keeps its limit.
# The clock is the server's; max() keeps the order when it steps back. DEL where SET is refused for want of memory:
# a token that is missing invalidates as well as a new one (P4).
_TOKEN = """
local function token(key, nonce, floor, force, ms)
  local current = redis.call('MGET', key)[1]
  local n = 0
  if current then
    local digits, tail = string.match(current, '^(%d+)%-(%x+)$')
    n = tonumber(digits or '0')
    if not tail or #tail ~= 16 or #digits > 16 or n >= 4503599627370495 then
      n = 0
    elseif tail == nonce then
      if force then redis.pcall('SET', key, current, 'KEEPTTL') end
      return current
    elseif not force and n >= floor then
      return current
    end
  end
  local t = redis.call('TIME')
  local now = t[1] * 1000000 + t[2]
  n = math.max(n, floor) + 1
  if now > n then n = now end
  local new = string.format('%.0f', n) .. '-' .. nonce
  local done
  if ms and ms ~= '0' then done = redis.pcall('SET', key, new, 'PX', ms) else done = redis.pcall('SET', key, new) end
  if type(done) == 'table' and done.err then
    if not force or string.sub(done.err, 1, 3) ~= 'OOM' then return done end
    redis.call('DEL', key)
  end
  return new
end
"""

# lease(key, mine, ms, mode, under): 1 when it is ours now. mode: '0' take it unless it is held under these tokens,
# '1' take it from anybody, '2' take it only when it is free. A slot of another type, a mark of failure, or a lease that
# never ends (no script of ours takes one) is free.
_LEASE = """
local function lease(key, mine, ms, mode, under)
  local current = redis.call('MGET', key)[1]
  if current and mode ~= '1' then
    local token, taken = string.match(current, '^L ([^ ]+) (.*)$')
    if token and token ~= mine and (mode == '2' or taken == under) and redis.call('PTTL', key) >= 0 then
      return 0, current
    end
  end
  local done = redis.pcall('SET', key, 'L ' .. mine .. ' ' .. under, 'PX', ms)
  if type(done) == 'table' and done.err then return done, current end
  return 1, current
end
"""

# mine(key, token): whether the lease is held by this token.
_MINE = """
local function mine(key, token)
  local current = redis.call('MGET', key)[1]
  return current and string.sub(current, 1, #token + 3) == 'L ' .. token .. ' '
end
"""

# move(first, last, nonce, at): new tokens where there are some, each to live for the ms in ARGV from `at` on.
_MOVE = """
local function move(first, last, nonce, at)
  for i = first, last do
    if redis.call('EXISTS', KEYS[i]) == 1 then token(KEYS[i], nonce, 0, true, ARGV[at + i - first]) end
  end
end
"""

BUMP = _script(
    _TOKEN,
    _MOVE,
    """
local count = tonumber(ARGV[2])
local moved = {}
local floor = 0
for i = 1, count do
  local t = token(KEYS[i], ARGV[1], math.max(tonumber(ARGV[i + 2]), floor), true, ARGV[count + i + 2])
  if type(t) == 'table' then return t end
  if i == 1 then floor = tonumber(string.match(t, '^%d+')) - 1 end
  moved[i] = t
end
move(count + 1, #KEYS, ARGV[1], 2 * count + 3)
return moved
""",
)
"""KEYS token..., then tokens that move only if they exist · ARGV nonce, how many of the former, floor... of those, ms to
live... of all (0: for ever) · answer: the new tokens. None of them is numbered below the first (the tag clock, where there is one). Repeated with the same nonce it
answers the same."""

DROP = _script(
    _TOKEN,
    _MOVE,
    """
redis.call('DEL', KEYS[1], KEYS[2])
move(3, #KEYS, ARGV[1], 2)
return 1
""",
)
"""KEYS entry, lease, then tokens that move only if they exist · ARGV nonce, ms to live... of those · answer: 1. What used the call's result
carries one of those tokens, so it goes in the same step."""

MOVE = _script(
    _TOKEN,
    _MOVE,
    """
move(1, #KEYS, ARGV[1], 2)
return 1
""",
)
"""KEYS tokens that move only if they exist · ARGV nonce, ms to live... · answer: 1. For Cluster, where they are on other nodes."""

TOKEN = _script(
    _TOKEN,
    _KEEP,
    """
local t = token(KEYS[1], ARGV[1], tonumber(ARGV[2]), false, ARGV[3])
if type(t) ~= 'table' then keep(KEYS[1], ARGV[3]) end
return t
""",
)
"""KEYS token · ARGV nonce, floor, ms to keep it (0: its limit is left as it is) · answer: the token, put back first when it
is missing or behind the floor."""

KEEP = _script(
    _KEEP,
    """
for i = 1, #KEYS do keep(KEYS[i], ARGV[1]) end
return 1
""",
)
"""KEYS token... · ARGV ms to keep them (-1: for ever) · answer: 1. For Cluster, where they are on other nodes than what needs
them."""

ACQUIRE = _script(
    _TOKEN,
    _KEEP,
    _LEASE,
    """
local required, ensured = tonumber(ARGV[4]), tonumber(ARGV[5])
local stamp = {}
local answer = {}
for i = 1, #KEYS - 2 do
  local t
  if i <= ensured then
    t = token(KEYS[i + 2], ARGV[1], tonumber(ARGV[i + 5]), false, ARGV[i + 5 + ensured])
    if type(t) == 'table' then return t end
    if i <= required then stamp[i] = t end
  else
    t = redis.call('MGET', KEYS[i + 2])[1]
  end
  answer[i + 3] = t
end
local ours, held = lease(KEYS[1], ARGV[1], ARGV[2], ARGV[3], table.concat(stamp, ','))
if type(ours) == 'table' then return ours end
if ours == 1 then
  for i = 1, ensured do keep(KEYS[i + 2], ARGV[i + 5 + ensured]) end
end
answer[1], answer[2], answer[3] = ours, held, redis.call('MGET', KEYS[2])[1]
return answer
""",
)
"""KEYS lease, entry, token... · ARGV lease token (also the nonce), lease ms, mode, how many tokens the lease is taken
under, how many are put back when missing or behind, floor... of those, ms to keep... of those (0: as they are) · answer:
{1 ours or 0, lease before, entry, token or nil...}. One step, so that tokens, lease and entry are of one moment."""

LEASE = _script(
    _LEASE,
    """
local ours, held = lease(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
if type(ours) == 'table' then return ours end
return {ours, held, redis.call('MGET', KEYS[2])[1]}
""",
)
"""KEYS lease, entry · ARGV lease token, lease ms, mode, tokens it is taken under · answer: {1 ours or 0, lease before,
entry}. For Cluster, where the tokens live in other slots."""

STORE = _script(
    _MINE,
    _KEEP,
    """
if not mine(KEYS[1], ARGV[1]) then return 0 end
if ARGV[3] == '0' then redis.call('SET', KEYS[2], ARGV[2]) else redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) end
for i = 3, #KEYS do keep(KEYS[i], ARGV[4]) end
redis.call('DEL', KEYS[1])
return 1
""",
)
"""KEYS lease, entry, tokens that the entry needs... · ARGV lease token, entry's bytes, ms to live (0: for ever), ms to keep
the tokens · answer: 1 stored, 0 refused."""

RELEASE = _script(
    _MINE,
    """
if not mine(KEYS[1], ARGV[1]) then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], 'F ' .. ARGV[1], 'PX', ARGV[2]) end
return 1
""",
)
"""KEYS lease · ARGV lease token, ms for which a mark of failure stays (0: none) · answer: 1 released, 0 not ours."""

RENEW = _script(
    _MINE,
    _KEEP,
    """
if not mine(KEYS[1], ARGV[1]) then return 0 end
for i = 2, #KEYS do keep(KEYS[i], ARGV[3]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""",
)
"""KEYS lease, tokens that the load needs... · ARGV lease token, lease ms, ms to keep the tokens · answer: 1 prolonged, 0 not
ours."""

REGISTER = _script(
    """
local held = redis.call('MGET', KEYS[1])[1]
if held and string.find(',' .. held .. ',', ',' .. ARGV[1] .. ',', 1, true) then return 0 end
if held and #held < 4096 then held = held .. ',' .. ARGV[1] else held = ARGV[1] .. ',?' .. ARGV[2] end
redis.call('SET', KEYS[1], held)
return 1
""",
)
"""KEYS registry of shards (`keys.shards`) · ARGV how many shards, nonce · answer: 1 registered, 0 was there already. A new
registry is marked with the nonce: it may have taken the place of one that was lost."""

SETTLE = _script(
    """
if redis.call('MGET', KEYS[1])[1] ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
""",
)
"""KEYS registry of shards · ARGV what was read, what it is to be · answer: 1 replaced, 0 has changed meanwhile."""
