-- Claim (law 1): first what is free again, lowest position first, then new messages from the input.
--
-- KEYS  1 in  2 meta  3 lease  4 free  5 delayed  6 owners  7 alive
-- ARGV  1 time or ''  2 owner  3 max  4 lease_us  5 window  6 limit of an entry's bytes  7 limit of all bytes
-- Returns { now, position, attempt, entry, position, attempt, entry, ... }, positions ascending. The entry is a
-- string, or where it is larger than its limit the number of its bytes.
--
-- Under memory pressure (OOM) this is refused at its first write, ZADD: a claim takes on more work.

local owner, max, lease_us, window = ARGV[2], tonumber(ARGV[3]), math.max(1, tonumber(ARGV[4])), tonumber(ARGV[5])
local entry_limit, total_limit = tonumber(ARGV[6]), tonumber(ARGV[7])

-- Every key is read before the first write: one of a wrong type then stops the script before it changes anything.
local length = redis.call('LLEN', KEYS[1])
local meta = redis.call('HMGET', KEYS[2], 'head', 'next', 'looked')
local head, upcoming = tonumber(meta[1] or '1'), tonumber(meta[2] or '1')
redis.call('HLEN', KEYS[3])
redis.call('ZCARD', KEYS[4])
local due = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', whole(now))

redis.call('ZADD', KEYS[6], whole(now + lease_us), owner)
local expired = redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', whole(now))
-- Who is gone is noticed before its time is up (law 7). Looking costs a little, so not every claim does.
if now - tonumber(meta[3] or '0') >= 20000 or now < tonumber(meta[3] or '0') then
  local alive = redis.call('HGETALL', KEYS[7])
  if #alive > 0 then
    redis.call('HSET', KEYS[2], 'looked', whole(now))
    local channels = {}
    for i = 2, #alive, 2 do
      channels[#channels + 1] = alive[i]
    end
    local none = silent(channels)
    for i = 1, #alive, 2 do
      if none[alive[i + 1]] and alive[i] ~= owner then
        expired[#expired + 1] = alive[i]
      end
    end
  end
end
if #expired > 0 then
  local gone = {}
  for _, name in ipairs(expired) do
    gone[name] = true
  end
  call_in_pieces('ZREM', KEYS[6], expired)
  call_in_pieces('HDEL', KEYS[7], expired)
  free_leases(KEYS[3], KEYS[4], gone)
end
if #due > 0 then
  local leases, free = {}, {}
  for i, lease in ipairs(hmget(KEYS[3], due)) do
    local n = #leases
    leases[n + 1], leases[n + 2] = due[i], 'F ' .. string.match(lease, '^D (%d+) ')
    free[n + 1], free[n + 2] = due[i], due[i]
  end
  call_in_pieces('ZREM', KEYS[5], due)
  call_in_pieces('HSET', KEYS[3], leases)
  call_in_pieces('ZADD', KEYS[4], free)
end

local claims, leases, taken = { whole(now) }, {}, 0
-- A hash of short values is one packed list up to 512 fields, in which every access is a search from its beginning: with
-- some hundred leases that cost more than all the rest. One value of more than 64 bytes makes it a table.
local mine, padding = 'L ' .. owner .. ' ', string.rep(' ', 64)
local bytes, seen_bytes, seen = 0, 0, 0

-- How many entries to read at once: about what the limit leaves room for, so that little is read in vain.
local function stride()
  if seen == 0 then
    return 8
  end
  return math.max(1, math.min(256, math.ceil((total_limit - bytes) / (seen_bytes / seen + 1))))
end

-- Hands out up to `count` positions from `first` on; attempt_of(i) is the attempt of the i-th. Answers how many.
local function hand_out(first, count, attempt_of)
  local done = 0
  while done < count and bytes < total_limit do
    local wanted = math.min(count - done, stride())
    local read = entries(KEYS[1], head, first + done, wanted)
    for i = #read, 1, -1 do
      if bytes >= total_limit then
        return done
      end
      local entry, position, attempt = read[i], first + done, attempt_of(done + 1)
      local size = #entry
      seen, seen_bytes = seen + 1, seen_bytes + size
      if size > entry_limit then
        entry = size
      else
        bytes = bytes + size
      end
      local n = #claims
      claims[n + 1], claims[n + 2], claims[n + 3] = position, attempt, entry
      n = #leases
      leases[n + 1] = whole(position)
      leases[n + 2] = string.format('%s%.0f %.0f%s', mine, attempt, now, padding)
      done, taken = done + 1, taken + 1
    end
    if #read < wanted then
      break
    end
  end
  return done
end

local complete = true
if max > 0 and total_limit > 0 then
  local free = redis.call('ZRANGE', KEYS[4], 0, whole(max - 1))
  if #free > 0 then
    local held = hmget(KEYS[3], free)
    local first = 1
    while first <= #free and complete do
      -- A run of neighbours is read together.
      local last, position = first, tonumber(free[first])
      while last < #free and tonumber(free[last + 1]) == position + last - first + 1 do
        last = last + 1
      end
      local offset = first - 1
      local done = hand_out(position, last - first + 1, function(i)
        return math.min(tonumber(string.match(held[offset + i], '^F (%d+)')) + 1, 4294967295)
      end)
      complete = done == last - first + 1
      first = last + 1
    end
    local again = {}
    for i = 1, taken do
      again[i] = free[i]
    end
    call_in_pieces('ZREM', KEYS[4], again)
  end
  local new = math.min(max - taken, window - (upcoming - head), length - (upcoming - head))
  if complete and new > 0 then
    local done = hand_out(upcoming, new, function() return 1 end)
    if done > 0 then
      redis.call('HSET', KEYS[2], 'next', whole(upcoming + done))
    end
  end
end
call_in_pieces('HSET', KEYS[3], leases)
return claims
