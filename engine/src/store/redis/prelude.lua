-- What the scripts share. It stands before each of them; each has a chunk, and so these locals, of its own.
--
-- ARGV[1] of every script is the time in microseconds, or '' for this server's own clock.
-- Numbers are doubles: exact up to 2^53, but only `whole` writes them in full.

-- Redis before 7 replicates the script's text unless told otherwise, and then forbids to write after TIME.
if redis.replicate_commands then redis.replicate_commands() end

local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
else
  now = tonumber(ARGV[1])
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

-- Which of these channels nobody listens to any more, as a set: the processes that had subscribed to them are gone, or
-- have lost their connection, which to take for the same is harmless. A server that has just been started knows nobody
-- yet, and one that does not answer that question says nothing.
local function silent(channels)
  local none = {}
  local listeners = #channels > 0 and redis.pcall('PUBSUB', 'NUMSUB', unpack(channels, 1, math.min(#channels, 1000))) or {}
  if listeners.err then
    return none
  end
  local any = false
  for i = 1, #listeners, 2 do
    if tonumber(listeners[i + 1]) == 0 then
      none[listeners[i]] = true
      any = true
    end
  end
  if any then
    local info = redis.pcall('INFO', 'server')
    local uptime = type(info) == 'string' and string.match(info, 'uptime_in_seconds:(%d+)')
    if not uptime or tonumber(uptime) < 3 then
      return {}
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

-- Frees what the owners in the set `gone` hold. That is rare, so scanning the leases beats an index of them.
local function free_leases(lease_key, free_key, gone)
  local all = redis.call('HGETALL', lease_key)
  local leases, free = {}, {}
  for i = 1, #all, 2 do
    local owner, attempt = string.match(all[i + 1], '^L (%S+) (%d+) ')
    if owner and gone[owner] then
      local n = #leases
      leases[n + 1], leases[n + 2] = all[i], 'F ' .. attempt
      free[n + 1], free[n + 2] = all[i], all[i]
    end
  end
  call_in_pieces('HSET', lease_key, leases)
  call_in_pieces('ZADD', free_key, free)
end

