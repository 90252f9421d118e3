-- What the scripts share. It stands before each of them; each has a chunk, and so these locals, of its own.
--
-- ARGV[1] of every script is `s` where hints go by sharded channels, as `hints.rs` has it, and then the time in
-- microseconds, or nothing for this server's own clock.
-- Numbers are doubles: exact up to 2^53, but only `whole` writes them in full.

-- Redis before 7 replicates the script's text unless told otherwise, and then forbids to write after TIME.
if redis.replicate_commands then redis.replicate_commands() end

local is_sharded = string.sub(ARGV[1], 1, 1) == 's'
local is_own_clock = ARGV[1] == '' or ARGV[1] == 's'
local now
if is_own_clock then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
else
  now = tonumber(string.sub(ARGV[1], is_sharded and 2 or 1))
end

local function whole(number)
  return string.format('%.0f', number)
end

-- RFC 3339 in UTC with six decimals. The date by Howard Hinnant's `civil_from_days`.
local function rfc3339(us)
  local micros = math.fmod(us, 1000000)
  local seconds = (us - micros) / 1000000
  local of_day = math.fmod(seconds, 86400)
  local days = (seconds - of_day) / 86400 + 719468
  local era = math.floor(days / 146097)
  local doe = days - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local shifted = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * shifted + 2) / 5) + 1
  local month = shifted < 10 and shifted + 3 or shifted - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month, day, math.floor(of_day / 3600),
    math.floor(of_day / 60) % 60, of_day % 60, micros)
end

-- Says on the channel that there may be something to do. Where a sharded channel is refused, as by a server that has none,
-- a plain one it is: those who listen to the one listen to the other too.
local function hint(channel)
  local said = is_sharded and redis.pcall('SPUBLISH', channel, '')
  if type(said) ~= 'number' then
    redis.call('PUBLISH', channel, '')
  end
end

-- Which of these channels nobody listens to any more, as a set: the processes that had subscribed to them are gone, or
-- have lost their connection, which to take for the same is harmless but for a consumer (`campaign.lua`). Only those count that were heard of here, which
-- their names tell (`:the server's run_id:`, and of a sharded channel `/the server's run_id/`): a server that has just been
-- started, or become the primary, knows nobody yet. One that does not answer that question says nothing.
local function silent(channels)
  local kinds, none, any = { NUMSUB = {}, SHARDNUMSUB = {} }, {}, false
  for _, channel in ipairs(channels) do
    local kind = kinds[string.find(channel, ':sharded/', 1, true) and 'SHARDNUMSUB' or 'NUMSUB']
    kind[#kind + 1] = channel
  end
  for question, asked in pairs(kinds) do
    local listeners = #asked > 0 and redis.pcall('PUBSUB', question, unpack(asked, 1, math.min(#asked, 1000))) or {}
    for i = 1, listeners.err and 0 or #listeners, 2 do
      if tonumber(listeners[i + 1]) == 0 then
        none[listeners[i]] = true
        any = true
      end
    end
  end
  if any then
    local info = redis.pcall('INFO', 'server')
    local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
    for channel in pairs(none) do
      if not run or not string.find(channel, '[:/]' .. run .. '[:/]') then
        none[channel] = nil
      end
    end
  end
  return none
end

-- Lua's stack ends at about 8,000 values, so long commands go out in pieces. 1,000 keeps pairs together.
local function call_in_pieces(command, key, values)
  for first = 1, #values, 1000 do
    redis.call(command, key, unpack(values, first, math.min(first + 999, #values)))
  end
end

local function hmget(key, fields)
  local values = {}
  for first = 1, #fields, 1000 do
    local last = math.min(first + 999, #fields)
    local piece = redis.call('HMGET', key, unpack(fields, first, last))
    for i = 1, last - first + 1 do
      values[first + i - 1] = piece[i]
    end
  end
  return values
end

-- The entries of `count` positions from `position` on, NEWEST FIRST as the list has them; fewer where it ends.
-- The entry of the head is the last of the list.
local function entries(key, head, position, count)
  local oldest = position - head + 1
  return redis.call('LRANGE', key, whole(-(oldest + count - 1)), whole(-oldest))
end

-- What is claimed and not yet delivered stands in a ring of slots, that of position p at p modulo the ring's size: so that
-- a run of neighbours, however long, is read, compared and written at once. A slot has 16 bytes:
--   L the owner's number, the attempt, when it was claimed    leased
--   F 0, the attempt, 0                                       free to be claimed again
--   D 0, the attempt, when it is due                          delayed
--   P seq, 0, ms                                              processed: the entry `ms-seq` of the stream has it
--   H seq, the attempt, ms                                    halted at: the entry `ms-seq` of the dead letters has it
-- Only those from the head to the next unclaimed position mean anything.
-- And where not all messages keep their order, as `in_place.lua` has it, W and X.
local SLOT = 16

-- What order messages keep, where not all of them do; else nothing.
local function in_place_order(shape)
  return shape and string.sub(shape, 1, 5) ~= 'total' and shape or nil
end

local function slot(state, first, second, third)
  return struct.pack('>c1I4I4I7', state, first, second, third)
end

-- The nth slot of some: its state, and its three numbers.
local function read_slot(slots, nth)
  return struct.unpack('>c1I4I4I7', slots, (nth - 1) * SLOT + 1)
end

-- The slots of `count` positions from `position` on.
local function read_ring(key, ring, position, count)
  local at = position % ring
  local last = at + count
  if last <= ring then
    return redis.call('GETRANGE', key, whole(at * SLOT), whole(last * SLOT - 1))
  end
  return redis.call('GETRANGE', key, whole(at * SLOT), whole(ring * SLOT - 1)) ..
    redis.call('GETRANGE', key, 0, whole((last - ring) * SLOT - 1))
end

local function write_ring(key, ring, position, slots)
  local at = position % ring
  local room = (ring - at) * SLOT
  redis.call('SETRANGE', key, whole(at * SLOT), string.sub(slots, 1, room))
  if #slots > room then
    redis.call('SETRANGE', key, 0, string.sub(slots, room + 1))
  end
end

-- What to answer where the ring is not as it was left; nothing, if it is. Better than to go on with leases that are not.
local function is_damaged(key, ring, head, upcoming)
  if redis.call('STRLEN', key) ~= ring * SLOT or upcoming - head > ring then
    return redis.error_reply('CONGA ' .. key .. ' is not as Conga left it: put it back from a copy, or empty the line')
  end
end

-- The strikes of `count` positions from `position` on, of those that have any.
local function strikes_of(key, position, count)
  local positions = {}
  for i = 1, count do
    positions[i] = whole(position + i - 1)
  end
  return hmget(key, positions)
end

-- How many of a message's attempts do not count, and how often it was blamed for the death of its owner: core's
-- `partition/strikes.rs`.
local function read_strikes(strikes)
  local excused, crashes = string.match(strikes or '0 0', '^(%d+) (%d+)$')
  return tonumber(excused), tonumber(crashes)
end

local function strikes(excused, crashes)
  return whole(excused) .. ' ' .. whole(crashes)
end

-- Frees what the owners with the numbers in the set `gone` hold; and where they `died`, blames of what each held those on
-- which most suspicion is. That is rare, so a look at all that is in flight beats an index of it.
local function free_leases(flight_key, free_key, strikes_key, ring, head, upcoming, gone, died)
  if head >= upcoming then
    return
  end
  local slots = read_ring(flight_key, ring, head, upcoming - head)
  local pieces, free, positions, owners, kept = {}, {}, {}, {}, 1
  for nth = 1, upcoming - head do
    local state, owner, attempt = read_slot(slots, nth)
    if state == 'L' and gone[owner] then
      local at = (nth - 1) * SLOT + 1
      local n = #pieces
      pieces[n + 1], pieces[n + 2] = string.sub(slots, kept, at - 1), slot('F', 0, attempt, 0)
      kept = at + SLOT
      n = #free
      free[n + 1], free[n + 2] = whole(head + nth - 1), whole(head + nth - 1)
      positions[#positions + 1], owners[#owners + 1] = whole(head + nth - 1), owner
    end
  end
  if #free == 0 then
    return
  end
  pieces[#pieces + 1] = string.sub(slots, kept)
  write_ring(flight_key, ring, head, table.concat(pieces))
  call_in_pieces('ZADD', free_key, free)
  local before, most, after = hmget(strikes_key, positions), {}, {}
  for i, owner in ipairs(owners) do
    local _, crashes = read_strikes(before[i])
    most[owner] = math.max(most[owner] or 0, crashes)
  end
  for i, owner in ipairs(owners) do
    local excused, crashes = read_strikes(before[i])
    local blamed = died and crashes == most[owner] and 1 or 0
    after[2 * i - 1], after[2 * i] = positions[i], strikes(excused + 1, crashes + blamed)
  end
  call_in_pieces('HSET', strikes_key, after)
end

-- Sets all deadlines back where the clock was: else each would last that much longer. `told` is the time when one was
-- last set; by less than a second a clock only wavers. The numbers are those of core's `partition/clock.rs`.
-- Returns what `told` is from then on.
local function notice_set_back(told, meta_key, owners_key, delayed_key, flight_key, lock_key)
  local back = tonumber(told or '0') - now
  if back < 1000000 then
    return told
  end
  -- A first write that only takes away is allowed even under memory pressure (OOM), and after it the rest.
  redis.call('ZREM', owners_key, '')
  local function earlier(deadline)
    return whole(math.max(0, tonumber(deadline) - back))
  end
  for _, key in ipairs({ owners_key, delayed_key }) do
    local all, moved = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES'), {}
    for i = 1, #all, 2 do
      moved[i], moved[i + 1] = earlier(all[i + 1]), all[i]
    end
    call_in_pieces('ZADD', key, moved)
  end
  local ring = tonumber(redis.call('HGET', meta_key, 'ring') or '0')
  for _, delayed in ipairs(redis.call('ZRANGE', delayed_key, 0, -1)) do
    local position = tonumber(delayed)
    local _, _, attempt, due = read_slot(read_ring(flight_key, ring, position, 1), 1)
    write_ring(flight_key, ring, position, slot('D', 0, attempt, tonumber(earlier(due))))
  end
  local owner, deadline, channel = string.match(redis.call('GET', lock_key) or '', '^([^|]*)|(%d+)|(.*)$')
  if owner then
    redis.call('SET', lock_key, owner .. '|' .. earlier(deadline) .. '|' .. channel, 'KEEPTTL')
  end
  local until_when, rest = string.match(redis.call('HGET', meta_key, 'consumer') or '', '^(%d+)(|.*)$')
  if until_when then
    redis.call('HSET', meta_key, 'consumer', earlier(until_when) .. rest)
  end
  local credit, at = string.match(redis.call('HGET', meta_key, 'bucket') or '', '^(%d+) (%d+)$')
  if credit then
    redis.call('HSET', meta_key, 'bucket', credit .. ' ' .. earlier(at))
  end
  redis.call('HSET', meta_key, 'told', whole(now))
  return whole(now)
end

-- Says what time it is, before a deadline is set.
local function tell_time(told, meta_key, ...)
  told = notice_set_back(told, meta_key, ...)
  if now >= tonumber(told or '0') + 100000 then
    redis.call('HSET', meta_key, 'told', whole(now))
  end
end
