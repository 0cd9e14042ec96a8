"""The Lua script that writes feature rows: compares event times and sets, atomically."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

SCRIPT: Final = b"""
local function instant(text)
  local seconds, nanos, at = 0, 0, 1
  while at <= #text do
    local tag, value, scale, taken = string.byte(text, at), 0, 1, 0
    at = at + 1
    repeat
      local byte = string.byte(text, at)
      if not byte then return nil end
      at, taken = at + 1, taken + 1
      if taken <= 7 then value, scale = value + byte % 128 * scale, scale * 128 end
    until byte < 128
    if taken == 10 then value = value - 562949953421312 end
    if tag == 8 then seconds = value elseif tag == 16 then nanos = value else return nil end
  end
  return seconds, nanos
end
local ttl, fields, time_field = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local at, written = 4 + fields, 0
for k = 1, #KEYS do
  local key, time = KEYS[k], ARGV[at]
  local stored = redis.call('HGET', key, time_field)
  local newer = not stored
  if stored and stored ~= time then
    local seconds, nanos = instant(time)
    local old_seconds, old_nanos = instant(stored)
    newer = not old_seconds or seconds > old_seconds or (seconds == old_seconds and nanos > old_nanos)
  end
  if newer then
    local row = {'HSET', key, time_field, time}
    for f = 1, fields do
      row[3 + 2 * f] = ARGV[3 + f]
      row[4 + 2 * f] = ARGV[at + f]
    end
    redis.call(unpack(row))
    if ttl > 0 then redis.call('EXPIRE', key, ttl) end
    written = written + 1
  end
  at = at + fields + 1
end
return written
"""
"""Keys: the rows' hashes. Arguments: seconds to live (0: no expiry), number of feature fields, name of the time field,
names of the feature fields; then for each row its time (``google.protobuf.Timestamp``) and its values. Writes the rows
that are newer than what is stored and returns how many those were.

Times are compared as numbers: the low 49 bits of a varint fit a Lua number, and ten bytes mean a negative one. A
stored time that cannot be read counts as older.
"""

SHA: Final = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()


def view_arguments(ttl_s: int, time_field: bytes, fields: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the arguments of `SCRIPT` that precede those of the rows; ``ttl_s`` 0 is no expiry."""
    return (b"%d" % ttl_s, b"%d" % len(fields), time_field, *fields)


MOST_FIELDS: Final = 3000
"""Lua hands a command at most some 8,000 arguments."""
