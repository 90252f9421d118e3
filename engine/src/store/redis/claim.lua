-- Claim (law 1): first what is free again, lowest position first, then new messages from the input.
--
-- KEYS  1 in  2 meta  3 flight  4 free  5 delayed  6 owners  7 alive  8 lock  9 numbers  10 keys  11 keyed  12 strikes
-- ARGV  1 time and hints  2 owner  3 max  4 lease_us  5 window  6 limit of an entry's bytes  7 limit of all bytes
--       8 below which position new messages are handed out
-- Returns { now, first position, attempt, { entry, entry, ... }, ... }: runs of neighbours with the same attempt, ascending,
-- but the entries of each run NEWEST FIRST, as the list has them. An entry is a string, or where it is larger than its
-- limit the number of its bytes. An attempt is a number, or a string of it and of its strikes.
--
-- Under memory pressure (OOM) only what is free again is handed out, which what stands behind it waits for; and if there
-- is nothing, this answers OOM: new messages are more work.

local owner, max, lease_us, window = ARGV[2], tonumber(ARGV[3]), math.max(1, tonumber(ARGV[4])), tonumber(ARGV[5])
local entry_limit, total_limit = tonumber(ARGV[6]), tonumber(ARGV[7])

-- Every key is read before the first write: one of a wrong type then stops the script before it changes anything.
local length = redis.call('LLEN', KEYS[1])
local meta = redis.call('HMGET', KEYS[2], 'head', 'next', 'looked', 'told', 'ring', 'full', 'shape', 'in_place', 'flow',
  'rate')
local head, upcoming, ring = tonumber(meta[1] or '1'), tonumber(meta[2] or '1'), tonumber(meta[5] or '0')
local order, in_place = in_place_order(meta[7]), tonumber(meta[8] or '0')
local by_key = order and string.sub(order, 1, 3) == 'key'
if by_key then
  redis.call('ZCARD', KEYS[10])
  redis.call('HLEN', KEYS[11])
end
redis.call('STRLEN', KEYS[3])
redis.call('ZCARD', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('GET', KEYS[8])
local number = redis.call('HGET', KEYS[9], owner)
local has_strikes = redis.call('HLEN', KEYS[12]) > 0

local damage = is_damaged(KEYS[3], ring, head, upcoming)
if damage then
  return damage
end

local deadline = whole(now + lease_us)
local refused = redis.pcall('ZADD', KEYS[6], deadline, owner)
local is_short = type(refused) == 'table' and string.find(refused.err, 'OOM', 1, true)
if is_short then
  -- A first write that only takes away is allowed, and after it the rest of the script.
  redis.call('ZREM', KEYS[6], owner)
elseif type(refused) == 'table' then
  redis.call('ZADD', KEYS[6], deadline, owner)
end
tell_time(meta[4], KEYS[2], KEYS[6], KEYS[5], KEYS[3], KEYS[8])
-- Where the clock was set back, so was the deadline of just now.
if is_short or now < tonumber(meta[4] or '0') then
  redis.call('ZADD', KEYS[6], deadline, owner)
end
local due = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', whole(now))
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
  for i, of_gone in ipairs(hmget(KEYS[9], expired)) do
    if of_gone then
      gone[tonumber(of_gone)] = true
    end
  end
  call_in_pieces('ZREM', KEYS[6], expired)
  call_in_pieces('HDEL', KEYS[7], expired)
  call_in_pieces('HDEL', KEYS[9], expired)
  free_leases(KEYS[3], KEYS[4], KEYS[12], ring, head, upcoming, gone, true)
  has_strikes = redis.call('HLEN', KEYS[12]) > 0
end
if #due > 0 then
  local free = {}
  for i, position in ipairs(due) do
    local _, _, attempt = read_slot(read_ring(KEYS[3], ring, tonumber(position), 1), 1)
    write_ring(KEYS[3], ring, tonumber(position), slot('F', 0, attempt, 0))
    free[2 * i - 1], free[2 * i] = position, position
  end
  call_in_pieces('ZREM', KEYS[5], due)
  call_in_pieces('ZADD', KEYS[4], free)
end
-- Leases name their owner by a number, which is never given again.
if not number then
  number = redis.call('HINCRBY', KEYS[2], 'numbered', 1)
  redis.call('HSET', KEYS[9], owner, whole(number))
end
number = tonumber(number)

local claims, taken = { whole(now) }, 0

-- What this owner holds of what is suspect, and so what else it may have: core's `partition/strikes.rs`. Mostly nothing is.
local FEW, FEW_FROM, ALONE_FROM = 16, 2, 3
local few, is_alone, is_barred, held = 0, false, false, nil
if has_strikes then
  local all = redis.call('HGETALL', KEYS[12])
  for i = 1, #all, 2 do
    local _, crashes = read_strikes(all[i + 1])
    local position = crashes >= FEW_FROM and tonumber(all[i]) or 0
    if position >= head and position < upcoming then
      local state, holder = read_slot(read_ring(KEYS[3], ring, position, 1), 1)
      if state == 'L' and holder == number then
        few = few + (crashes < ALONE_FROM and 1 or 0)
        is_alone = is_alone or crashes >= ALONE_FROM
      end
    end
  end
end

local function holds_any()
  if not held then
    held = 0
    local slots = head < upcoming and read_ring(KEYS[3], ring, head, upcoming - head) or ''
    for nth = 1, upcoming - head do
      local state, holder = read_slot(slots, nth)
      held = held + (state == 'L' and holder == number and 1 or 0)
    end
  end
  return held > 0
end

-- Whether one more that was blamed so often may be handed out, after `before` others in this step.
local function may_take(crashes, before)
  if is_alone then
    return false
  elseif crashes >= ALONE_FROM then
    is_alone = before == 0 and not holds_any()
    return is_alone
  elseif crashes >= FEW_FROM then
    few = few + 1
    return few <= FEW
  end
  return true
end

local bytes, seen_bytes, seen = 0, 0, 0

-- How many entries to read at once: about what the limit leaves room for, so that little is read in vain.
local function stride()
  if seen == 0 then
    return 8
  end
  return math.max(1, math.min(1000, math.ceil((total_limit - bytes) / (seen_bytes / seen + 1))))
end

-- Hands out up to `count` positions from `first` on, each as its attempt of `attempts`, or as the first one. Answers how
-- many.
local function hand_out(first, count, attempts)
  local done = 0
  while done < count and bytes < total_limit do
    local wanted = math.min(count - done, stride())
    local read = entries(KEYS[1], head, first + done, wanted)
    local got, used = #read, 0
    while used < got and bytes < total_limit do
      local size = #read[got - used]
      seen_bytes = seen_bytes + size
      if size > entry_limit then
        read[got - used] = size
      else
        bytes = bytes + size
      end
      used = used + 1
    end
    seen = seen + used
    if used < got then
      local oldest = {}
      for i = 1, used do
        oldest[i] = read[got - used + i]
      end
      read = oldest
    end
    local n = #claims
    if not attempts and used > 0 then
      claims[n + 1], claims[n + 2], claims[n + 3] = first + done, 1, read
    elseif attempts then
      for i = 1, used do
        claims[n + 1], claims[n + 2], claims[n + 3] = first + done + i - 1, attempts[done + i], { read[used - i + 1] }
        n = n + 3
      end
    end
    done = done + used
    if got < wanted or used < got then
      break
    end
  end
  taken = taken + done
  return done
end

-- Makes the ring large enough for `needed` slots.
local function grow(needed)
  if needed <= ring then
    return
  end
  local larger = math.max(ring, 1024)
  while larger < needed do
    larger = larger * 2
  end
  -- One write: it is done as a whole or fails as a whole.
  local slots = upcoming > head and read_ring(KEYS[3], ring, head, upcoming - head) or ''
  local at = head % larger * SLOT
  local before = string.sub(slots, larger * SLOT - at + 1)
  slots = string.sub(slots, 1, larger * SLOT - at)
  local between, after = string.rep('\0', at - #before), string.rep('\0', larger * SLOT - at - #slots)
  redis.call('SET', KEYS[3], before .. between .. slots .. after)
  redis.call('HSET', KEYS[2], 'ring', whole(larger))
  ring = larger
end

-- Hands out one entry by itself. Whether there is room for more.
local function take_one(position, entry)
  local size, n = #entry, #claims
  seen, seen_bytes, taken = seen + 1, seen_bytes + size, taken + 1
  if size > entry_limit then
    entry = size
  else
    bytes = bytes + size
  end
  claims[n + 1], claims[n + 2], claims[n + 3] = position, 1, { entry }
  return bytes < total_limit
end

-- How many may be handed out for the first time, and how many are: core's `partition/control.rs`.
local is_running = not meta[9] or meta[9] == 'running'
local rate, allowed, fresh, credit, at = tonumber(meta[10] or '0'), math.huge, 0, 0, 0
if rate > 0 and meta[9] ~= 'paused' then
  -- Read after a clock that was set back has set it back too.
  credit, at = string.match(redis.call('HGET', KEYS[2], 'bucket') or '0 0', '^(%d+) (%d+)$')
  credit, at = tonumber(credit), tonumber(at)
  local most = rate + 200000000
  credit = math.min(most, credit + math.min(math.max(now - at, 0), math.floor(most / 1000) + 1) * 1000)
  at = math.max(at, now)
  allowed = math.floor(credit / rate)
end

local complete = true
if max > 0 and total_limit > 0 then
  local free = meta[9] == 'paused' and {} or redis.call('ZRANGE', KEYS[4], 0, whole(max - 1))
  local first = 1
  while first <= #free and complete do
    -- A run of neighbours is read together.
    local last, position = first, tonumber(free[first])
    while last < #free and tonumber(free[last + 1]) == position + last - first + 1 do
      last = last + 1
    end
    local count = last - first + 1
    local slots, attempts, leases = read_ring(KEYS[3], ring, position, count), {}, {}
    local struck = has_strikes and strikes_of(KEYS[12], position, count) or {}
    local firsts, counted = {}, fresh
    for i = 1, rate > 0 and count or 0 do
      -- What was passed over up to now has had no attempt.
      local _, _, attempt = read_slot(slots, i)
      if attempt == 0 and counted >= allowed then
        is_barred, count = true, i - 1
        break
      end
      firsts[i] = attempt == 0 and 1 or 0
      counted = counted + firsts[i]
    end
    for i = 1, has_strikes and count or 0 do
      local _, crashes = read_strikes(struck[i] or nil)
      if not may_take(crashes, taken + i - 1) then
        is_barred, count = true, i - 1
        break
      end
    end
    for i = 1, count do
      local _, _, attempt = read_slot(slots, i)
      attempt = math.min(attempt + 1, 4294967295)
      leases[i] = slot('L', number, attempt, now)
      attempts[i] = struck[i] and whole(attempt) .. ' ' .. struck[i] or attempt
    end
    local done = hand_out(position, count, attempts)
    if done > 0 then
      write_ring(KEYS[3], ring, position, table.concat(leases, '', 1, done))
    end
    for i = 1, rate > 0 and done or 0 do
      fresh = fresh + firsts[i]
    end
    complete = done == count and not is_barred
    first = last + 1
  end
  local again = {}
  for i = 1, taken do
    again[i] = free[i]
  end
  call_in_pieces('ZREM', KEYS[4], again)
  local room, waiting = window - (upcoming - head - in_place), length - (upcoming - head)
  if order then
    room = math.min(room, window * REACH - (upcoming - head))
  end
  allowed = is_running and allowed - fresh or 0
  local within = math.min(room, tonumber(ARGV[8]) - upcoming)
  local new = math.min(max - taken, within, waiting, allowed)
  -- Whoever moves the head then says so.
  if room < math.min(max - taken, waiting) and not meta[6] then
    redis.call('HSET', KEYS[2], 'full', '1')
  end
  if complete and new > 0 and not is_short and not is_alone then
    local before = taken
    if by_key then
      local function read(position, count)
        return entries(KEYS[1], head, position, math.min(count, stride()))
      end
      if bytes < total_limit then
        local slots = claim_by_key(KEYS[10], KEYS[11], upcoming, math.min(within, waiting),
          math.min(max - taken, allowed),
          string.find(order, 'serial', 1, true), slot('L', number, 1, now), read, take_one)
        grow(upcoming + #slots - head)
        write_ring(KEYS[3], ring, upcoming, table.concat(slots))
        redis.call('HSET', KEYS[2], 'next', whole(upcoming + #slots))
      end
    else
      local done = hand_out(upcoming, new)
      if done > 0 then
        grow(upcoming + done - head)
        write_ring(KEYS[3], ring, upcoming, string.rep(slot('L', number, 1, now), done))
        redis.call('HSET', KEYS[2], 'next', whole(upcoming + done))
      end
    end
    fresh = fresh + taken - before
  end
  if rate > 0 and fresh > 0 then
    redis.call('HSET', KEYS[2], 'bucket', whole(credit - fresh * rate) .. ' ' .. whole(at))
  end
end
if is_short and taken == 0 and is_running and allowed > 0 then
  return redis.error_reply('OOM no memory for new messages')
end
return claims
