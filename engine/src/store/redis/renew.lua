-- Renew: an owner says that it is alive, asks what it holds, or leaves.
--
-- KEYS  1 owners  2 flight  3 free  4 in  5 meta  6 wake:in  7 alive  8 delayed  9 lock  10 numbers  11 strikes
-- ARGV  1 time and hints  2 owner  3 lease_us, '0' to leave  4 limit of an entry's bytes  5 limit of all bytes
--       6 the channel that the owner's process listens to as long as it lives, or ''
--       7 '1' to compare what is held, then for each lease believed to be held: position, attempt
-- Returns { known 1 or 0, { lost position, ... }, { position, attempt as a claim has it, claimed, entry, ... }, { the head's position and
-- attempt } or nothing if the owner does not hold it, 1 if what stands at the head is processed or 0, 1 if the
-- owner was not known to be there by any channel and is now, or 0 }. The entry is a string, or where it is larger than its limit the
-- number of its bytes.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the
-- script: no owner loses what it holds because memory is short.

local owner, lease_us = ARGV[2], ARGV[3]
local entry_limit, total_limit = tonumber(ARGV[4]), tonumber(ARGV[5])

redis.call('STRLEN', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('LLEN', KEYS[4])
local meta = redis.call('HMGET', KEYS[5], 'head', 'told', 'next', 'ring', 'stopped')
local head, upcoming, ring = tonumber(meta[1] or '1'), tonumber(meta[3] or '1'), tonumber(meta[4] or '0')
redis.call('ZCARD', KEYS[8])
redis.call('GET', KEYS[9])
local number = tonumber(redis.call('HGET', KEYS[10], owner) or '0')
local has_strikes = redis.call('HLEN', KEYS[11]) > 0

local damage = is_damaged(KEYS[2], ring, head, upcoming)
if damage then
  return damage
end
local known = redis.call('ZREM', KEYS[1], owner)
local at_head, held_by, attempt = '', 0, 0
if head < upcoming then
  at_head, held_by, attempt = read_slot(read_ring(KEYS[2], ring, head, 1), 1)
end
local is_ready = (at_head == 'P' or meta[5]) and 1 or 0
if lease_us == '0' then
  redis.call('HDEL', KEYS[7], owner)
  redis.call('HDEL', KEYS[10], owner)
  free_leases(KEYS[2], KEYS[3], KEYS[11], ring, head, upcoming, { [number] = true }, false)
  hint(KEYS[6])
  return { known, {}, {}, {}, is_ready, 0 }
end
tell_time(meta[2], KEYS[5], KEYS[1], KEYS[8], KEYS[2], KEYS[9])
redis.call('ZADD', KEYS[1], whole(now + tonumber(lease_us)), owner)
local is_shown = 0
if ARGV[6] == '' then
  redis.call('HDEL', KEYS[7], owner)
else
  is_shown = redis.call('HSET', KEYS[7], owner, ARGV[6])
end
local blocking = {}
if at_head == 'L' and held_by == number then
  blocking = { head, attempt }
elseif has_strikes then
  -- What is free first may wait for somebody who holds nothing: then what this one holds first is in the way.
  local free = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  local _, crashes = read_strikes(free and redis.call('HGET', KEYS[11], free) or nil)
  local slots = crashes >= 3 and read_ring(KEYS[2], ring, head, upcoming - head) or ''
  for nth = 1, #slots / SLOT do
    local state, holder, as = read_slot(slots, nth)
    if state == 'L' and holder == number then
      blocking = { head + nth - 1, as }
      break
    end
  end
end
if ARGV[7] ~= '1' then
  return { known, {}, {}, blocking, is_ready, is_shown }
end

local believed = {}
for i = 8, #ARGV, 2 do
  believed[ARGV[i] .. ' ' .. ARGV[i + 1]] = true
end
local really, found, bytes = {}, {}, 0
local slots = head < upcoming and read_ring(KEYS[2], ring, head, upcoming - head) or ''
for nth = 1, upcoming - head do
  local state, holder, attempt, claimed = read_slot(slots, nth)
  if state == 'L' and holder == number then
    local position = head + nth - 1
    local held = whole(position) .. ' ' .. whole(attempt)
    really[held] = true
    local entry = not believed[held] and bytes < total_limit and entries(KEYS[4], head, position, 1)[1]
    if entry then
      if #entry > entry_limit then
        entry = #entry
      else
        bytes = bytes + #entry
      end
      local struck = has_strikes and redis.call('HGET', KEYS[11], whole(position))
      local n = #found
      attempt = struck and whole(attempt) .. ' ' .. struck or attempt
      found[n + 1], found[n + 2], found[n + 3], found[n + 4] = position, attempt, claimed, entry
    end
  end
end
local lost = {}
for i = 8, #ARGV, 2 do
  if not really[ARGV[i] .. ' ' .. ARGV[i + 1]] then
    lost[#lost + 1] = ARGV[i]
  end
end
return { known, lost, found, blocking, is_ready, is_shown }
