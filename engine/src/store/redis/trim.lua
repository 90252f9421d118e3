-- Trim: lets go of what is over, the oldest first, as much of it as one short step can do. Part of a renewal.
--
-- KEYS  1 meta  2 record  3 kept  4 dead  5 out  6 halted
-- ARGV  1 time and hints  2 how much stays, as it is told to others; then, each a number or '', of records
--       3 count  4 age in microseconds, of dead letters  5 count  6 age, and of outputs  7 count  8 age
-- Returns 1 if there is more, else 0.
--
-- Each entry of `kept` is a note of records that came out in one step: when, the last position, and their ids. `meta` has
-- how many were ever noted, how many of those have gone, and `cut`: how many of the oldest note. A record that is in no
-- note, because an earlier version delivered it, stays.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the
-- script: so a full memory gets free.

-- So many of a kind in one step, in pieces; and it ends early when it has taken so long, in microseconds. Under another clock
-- than the server's nothing depends on that.
local MOST, PIECE, LONGEST = 1000, 100, 1000
-- All processors together trim so often at most, in microseconds, that the others have their turn in between.
local PAUSE = 3000

local function is_long()
  if not is_own_clock then
    return false
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2]) - now >= LONGEST
end

local meta = redis.call('HMGET', KEYS[1], 'head', 'next', 'noted', 'gone', 'cut', 'safe', 'below', 'until', 'keep', 'trimmed')
local head, upcoming = tonumber(meta[1] or '1'), tonumber(meta[2] or '1')
local noted, gone, cut = tonumber(meta[3] or '0'), tonumber(meta[4] or '0'), tonumber(meta[5] or '0')
redis.call('HLEN', KEYS[2])
redis.call('LLEN', KEYS[3])
redis.call('XLEN', KEYS[4])
redis.call('LLEN', KEYS[5])
local halted = redis.call('HLEN', KEYS[6])

local since_last = now - tonumber(meta[10] or '0')
if is_own_clock and meta[9] == ARGV[2] and since_last >= 0 and since_last < PAUSE then
  -- Somebody is at it.
  return 0
end
redis.call('HDEL', KEYS[1], '')
local news = {}
local function tell(field, value, before)
  if value ~= before then
    news[#news + 1], news[#news + 2] = field, value
  end
end
tell('keep', ARGV[2], meta[9])

-- Nobody asks for a record below `safe` any more: see core's `partition/keep.rs`.
local safe = tonumber(meta[6] or '1')
if (ARGV[3] ~= '' or ARGV[4] ~= '') and head >= tonumber(meta[8] or '1') then
  safe = head == upcoming and head or tonumber(meta[7] or '1')
  tell('safe', whole(safe), meta[6])
  tell('below', whole(head), meta[7])
  tell('until', whole(upcoming), meta[8])
end

local function is_old(since, age)
  return age and math.max(0, now - since) >= age
end

local function trim_records(most, age)
  local left = MOST
  while true do
    local packed = redis.call('LINDEX', KEYS[3], 0)
    local note = packed and cmsgpack.unpack(packed)
    if not note or note[2] >= safe then
      return false
    end
    local ids = note[3]
    local over = #ids - cut
    if not is_old(note[1], age) then
      over = most and math.min(over, noted - gone - most) or 0
    end
    while over > 0 do
      if left == 0 or is_long() then
        return true
      end
      local count = math.min(over, left, PIECE)
      redis.call('HDEL', KEYS[2], unpack(ids, cut + 1, cut + count))
      over, left, gone, cut = over - count, left - count, gone + count, cut + count
    end
    if cut < #ids then
      return false
    end
    redis.call('LPOP', KEYS[3])
    cut = 0
  end
end

-- Those at which the line is halted stay: what becomes of them a person says.
local function trim_dead_but_halted(most, age)
  local left, count, from = MOST, redis.call('XLEN', KEYS[4]), '-'
  while true do
    local letters = redis.call('XRANGE', KEYS[4], from, '+', 'COUNT', PIECE)
    for _, letter in ipairs(letters) do
      from = '(' .. letter[1]
      if redis.call('HEXISTS', KEYS[6], letter[2][2]) == 0 then
        if not (most and count > most) and not is_old(tonumber(letter[2][10]), age) then
          return false
        end
        if left == 0 or is_long() then
          return true
        end
        redis.call('XDEL', KEYS[4], letter[1])
        count, left = count - 1, left - 1
      end
    end
    if #letters < PIECE then
      return false
    end
  end
end

local function trim_dead(most, age)
  if halted > 0 and (most or age) then
    return trim_dead_but_halted(most, age)
  end
  local left, count = MOST, redis.call('XLEN', KEYS[4])
  while most and count > most do
    if left == 0 or is_long() then
      return true
    end
    local piece = math.min(count - most, left, PIECE)
    redis.call('XTRIM', KEYS[4], 'MAXLEN', whole(count - piece))
    count, left = count - piece, left - piece
  end
  while age do
    local oldest = redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', 1)[1]
    if not oldest or not is_old(tonumber(oldest[2][10]), age) then
      return false
    end
    if left == 0 or is_long() then
      return true
    end
    redis.call('XDEL', KEYS[4], oldest[1])
    left = left - 1
  end
  return false
end

local function trim_outputs(most, age)
  local left, count = MOST, redis.call('LLEN', KEYS[5])
  while most and count > most do
    if left == 0 or is_long() then
      return true
    end
    local piece = math.min(count - most, left, PIECE)
    redis.call('LTRIM', KEYS[5], 0, whole(-piece - 1))
    count, left = count - piece, left - piece
  end
  -- An output ends with the datetime of its delivery, and those sort as text.
  local until_when = age and rfc3339(math.max(0, now - age))
  while age do
    local oldest = redis.call('LINDEX', KEYS[5], -1)
    local when = oldest and string.match(string.sub(oldest, -29), '^(%d%d%d%d%-[%d%-T:%.]+Z)"}$')
    if not when or (age > 0 and when > until_when) then
      return false
    end
    if left == 0 or is_long() then
      return true
    end
    redis.call('LTRIM', KEYS[5], 0, -2)
    left = left - 1
  end
  return false
end

local function number(nth)
  return tonumber(ARGV[nth])
end
local more_records = trim_records(number(3), number(4))
local more_dead = trim_dead(number(5), number(6))
local more_outputs = trim_outputs(number(7), number(8))
tell('gone', whole(gone), meta[4] or '0')
tell('cut', whole(cut), meta[5] or '0')
if is_own_clock then
  tell('trimmed', whole(now), meta[10])
end
call_in_pieces('HSET', KEYS[1], news)
return (more_records or more_dead or more_outputs) and 1 or 0
