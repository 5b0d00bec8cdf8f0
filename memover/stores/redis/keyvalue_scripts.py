"""The Lua of the key-value API. Each script is one atomic step; what a header is, `codec.envelope` says.

    KEYS   entry, lease (again for further entries), and last, unless it is on another node, the generation
    ARGV   nonce, floor, generation as the caller knows it, then what the script says
    answer {what came of it, the current generation, ...}: 0 not done · 1 done · 2 another generation: ask anew ·
           3 no plain integer

With the generation at hand (an odd number of KEYS) it is read, or put back when missing or behind the floor, in the same
step. Without it (Cluster) the caller's counts, unless the entry that is there carries a greater one: generations only
grow, so the caller's is then out of date, and the script answers 2 and the number it saw, having done nothing.

A script that changes a header first checks it and then signs it anew, so that damage is never signed over. CRC-32 goes
by half bytes, some tens of microseconds for a header: a script can keep no larger table from one call to the next.
"""

from __future__ import annotations

from memover.codec.envelope import KIND_KEY_VALUE
from memover.engine.store import INTEGER, INTEGER_LIMIT
from memover.stores.redis.scripts import _TOKEN, _script

__all__ = [
    "ADD", "DONE", "INCREMENT", "MOVE", "NOT_DONE", "NO_INTEGER", "OUTDATED", "PUT", "REMOVE", "SWAP", "TAKE",
    "TOUCH",
]  # fmt: skip

NOT_DONE, DONE, OUTDATED, NO_INTEGER = 0, 1, 2, 3


def _half_byte(value: int) -> int:
    for _ in range(4):
        value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
    return value


_TABLE = "local T = {" + ",".join(f"[{half}]={_half_byte(half)}" for half in range(16)) + "}\n"

# crc(text): CRC-32 as zlib has it.
# open(raw, key): the parts of a whole, undamaged entry of that key, else nil.
# sealed(raw, parts, new): the entry with some parts replaced: generation, key, times (16 bytes), payload.
_ENVELOPE = (
    _TABLE
    + """
local bxor, band, rshift = bit.bxor, bit.band, bit.rshift
local function crc(text)
  local c = -1
  for at = 1, #text, 1024 do
    local bytes = {string.byte(text, at, math.min(at + 1023, #text))}
    for i = 1, #bytes do
      c = bxor(c, bytes[i])
      c = bxor(rshift(c, 4), T[band(c, 15)])
      c = bxor(rshift(c, 4), T[band(c, 15)])
    end
  end
  return bit.bnot(c) % 4294967296
end
local function open(raw, key)
  if not raw or #raw < 64 or string.sub(raw, 1, 4) ~= 'mvr\\1' then return nil end
  local kind, _, c, g, k, m = struct.unpack('<BBBBHH', raw, 57)
  local at = 64 + c + g + k + m
  local check, payload_check, length, _, _, fresh = struct.unpack('<I4I4I4ddd', raw, 5)
  if kind ~= """
    + str(KIND_KEY_VALUE)
    + """ or #raw ~= at + length or string.sub(raw, 65 + c + g, 64 + c + g + k) ~= key then return nil end
  if crc(string.sub(raw, 9, at)) ~= check then return nil end
  return {codec = string.sub(raw, 65, 64 + c), generation = string.sub(raw, 65 + c, 64 + c + g), key = key,
    marks = string.sub(raw, at - m + 1, at), fresh = fresh, payload_check = payload_check, at = at}
end
local function sealed(raw, parts, new)
  local payload = new.payload or string.sub(raw, parts.at + 1)
  local generation, key = new.generation or parts.generation, new.key or parts.key
  local tail = struct.pack('<I4I4', new.payload and crc(payload) or parts.payload_check, #payload)
    .. string.sub(raw, 17, 32) .. (new.times or string.sub(raw, 33, 48)) .. string.sub(raw, 49, 59)
    .. struct.pack('<BHH', #generation, #key, #parts.marks) .. parts.codec .. generation .. key .. parts.marks
  return 'mvr\\1' .. struct.pack('<I4', crc(tail)) .. tail .. payload
end
"""
)

# under(): the current generation.
# live(key, generation, now): bytes and parts of a live entry; or nil, nil and, in Cluster, a number greater than ours.
_LIVE = """
local function under()
  if #KEYS % 2 == 0 then return ARGV[3] end
  return token(KEYS[#KEYS], ARGV[1], tonumber(ARGV[2]), false)
end
local function live(key, generation, now)
  local raw = redis.call('MGET', key)[1]
  local parts = open(raw, key)
  if not parts then return nil end
  if parts.generation ~= generation then
    if #KEYS % 2 == 0 then
      local seen = tonumber(string.match(parts.generation, '^(%d+)%-') or '0')
      local ours = tonumber(string.match(generation, '^(%d+)%-') or '0')
      if seen > ours and seen < 4503599627370496 then return nil, nil, string.format('%.0f', seen) end
    end
    return nil
  end
  if now >= parts.fresh then return nil end
  return raw, parts
end
"""

# lay(entry, lease, raw, ms, generation): store under this generation, whichever it was sealed with. SET goes before DEL:
# a full server refuses the first write of a script, and lets pass what follows one that it took.
_LAY = """
local function lay(key, lease, raw, ms, generation)
  if ms == '-1' then
    redis.call('DEL', lease, key)
    return
  end
  local c, g = string.byte(raw, 59, 60)
  if string.sub(raw, 65 + c, 64 + c + g) ~= generation then
    raw = sealed(raw, open(raw, key), {generation = generation})
  end
  if ms == '0' then redis.call('SET', key, raw) else redis.call('SET', key, raw, 'PX', ms) end
  redis.call('DEL', lease)
end
"""

_HEAD = _TOKEN + _ENVELOPE + _LIVE
_BEGIN = """
local generation = under()
if type(generation) == 'table' then return generation end
"""

PUT = _script(
    _HEAD,
    _LAY,
    _BEGIN,
    """
if #KEYS % 2 == 0 then
  local _, _, beyond = live(KEYS[1], generation, 0)
  if beyond then return {2, generation, beyond} end
end
for i = 1, math.floor(#KEYS / 2) do
  lay(KEYS[2 * i - 1], KEYS[2 * i], ARGV[2 + 2 * i], ARGV[3 + 2 * i], generation)
end
return {1, generation}
""",
)
"""ARGV further: for each entry its bytes and ms to live (0 for ever, -1 remove it) · stores them all."""

ADD = _script(
    _HEAD,
    _LAY,
    _BEGIN,
    """
local raw, _, beyond = live(KEYS[1], generation, tonumber(ARGV[6]))
if beyond then return {2, generation, beyond} end
if raw then return {0, generation} end
lay(KEYS[1], KEYS[2], ARGV[4], ARGV[5], generation)
return {1, generation}
""",
)
"""ARGV further: bytes, ms, now · stores unless a live entry is there."""

INCREMENT = _script(
    _HEAD,
    _BEGIN,
    f"""
local raw, parts, beyond = live(KEYS[1], generation, tonumber(ARGV[5]))
if beyond then return {{2, generation, beyond}} end
if not raw then return {{0, generation}} end
if parts.codec ~= '{INTEGER}' then return {{3, generation}} end
local digits = string.sub(raw, parts.at + 1)
local value = string.match(digits, '^%-?%d+$') and crc(digits) == parts.payload_check and tonumber(digits)
if not value then return {{0, generation}} end
value = value + tonumber(ARGV[4])
if value >= {INTEGER_LIMIT} or value <= -{INTEGER_LIMIT} then return {{3, generation}} end
if value == 0 then value = 0 end
digits = string.format('%.0f', value)
redis.call('SET', KEYS[1], sealed(raw, parts, {{payload = digits}}), 'KEEPTTL')
return {{1, generation, digits}}
""",
)
"""ARGV further: delta, now · adds to a live plain integer, keeping its instants and its limit; answers the digits too."""

TOUCH = _script(
    _HEAD,
    _BEGIN,
    """
local raw, parts, beyond = live(KEYS[1], generation, tonumber(ARGV[6]))
if beyond then return {2, generation, beyond} end
if not raw then return {0, generation} end
if ARGV[5] == '-1' then
  redis.call('DEL', KEYS[1], KEYS[2])
else
  raw = sealed(raw, parts, {times = ARGV[4] .. ARGV[4]})
  if ARGV[5] == '0' then redis.call('SET', KEYS[1], raw) else redis.call('SET', KEYS[1], raw, 'PX', ARGV[5]) end
end
return {1, generation}
""",
)
"""ARGV further: fresh_until (8 bytes, as in the header), ms, now · gives a live entry a new end."""

MOVE = _script(
    _HEAD,
    _BEGIN,
    """
local raw, parts = live(KEYS[1], generation, tonumber(ARGV[4]))
if not raw then return {0, generation} end
local left = redis.call('PTTL', KEYS[1])
raw = sealed(raw, parts, {key = KEYS[3]})
if left > 0 then redis.call('SET', KEYS[3], raw, 'PX', left) else redis.call('SET', KEYS[3], raw) end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[4])
return {1, generation}
""",
)
"""KEYS entry, lease, new entry, its lease, generation · ARGV further: now · the entry has the other key, with its limit."""

TAKE = _script(
    _HEAD,
    _BEGIN,
    """
local raw, _, beyond = live(KEYS[1], generation, tonumber(ARGV[4]))
if beyond then return {2, generation, beyond} end
if not raw then return {0, generation} end
local left = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1], KEYS[2])
return {1, generation, raw, left}
""",
)
"""ARGV further: now · removes a live entry and answers its bytes and what was left of its limit in ms (-1: none)."""

SWAP = _script(
    """
if redis.call('MGET', KEYS[1])[1] ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
""",
)
"""KEYS entry · ARGV old bytes, new bytes · answer: 1 replaced, its limit kept; 0 it was no longer what it was."""

REMOVE = _script(
    """
local head = redis.pcall('GETRANGE', KEYS[1], 0, 63)
if type(head) == 'string' and #head == 64 then
  local c, g, k, m = struct.unpack('<BBHH', head, 59)
  local at = 64 + c + g + k + m
  local whole = redis.call('STRLEN', KEYS[1]) == at + struct.unpack('<I4', head, 13)
  head = whole and redis.call('GETRANGE', KEYS[1], 0, at - 1)
end
redis.call('DEL', KEYS[1], KEYS[2])
return type(head) == 'string' and head
""",
)
"""KEYS entry, lease · answer: the header of what was removed; nil, or anything else, when that was no whole entry."""
