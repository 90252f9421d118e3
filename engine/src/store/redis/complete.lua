-- Complete (law 2): the end of leases, only for the one who still has them.
--
-- KEYS  1 lease  2 free  3 delayed  4 record  5 processed  6 dead  7 in  8 meta  9 wake:processed  10 wake:in
-- ARGV  1 time or ''  2 owner, then six for each completion: kind, position, attempt, a, b, c
--         kind  D done: a id, b the record as far as it is written
--               M dead, its tombstone is delivered: a id, b reason, c the tombstone as far as it is written
--               S dead, nothing is delivered: a id, b reason
--               R to be claimed again: a the delay in microseconds
-- Returns for each completion 1 accepted or 0 stale.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the
-- script: what was claimed can always be finished, and the window bounds how much that is.

local owner = ARGV[2]
local count = (#ARGV - 2) / 6
local positions = {}
for i = 1, count do
  positions[i] = ARGV[6 * i - 2]
end

-- Every key is read before the first write: one of a wrong type then stops the script before it changes anything.
local leases = hmget(KEYS[1], positions)
redis.call('ZCARD', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('XLEN', KEYS[5])
redis.call('XLEN', KEYS[6])
redis.call('LLEN', KEYS[7])
local head = tonumber(redis.call('HGET', KEYS[8], 'head') or '1')

local answers, accepted, ended = {}, {}, {}
for i = 1, count do
  local position = positions[i]
  local mine = 'L ' .. owner .. ' ' .. ARGV[6 * i - 1] .. ' '
  if leases[i] and not ended[position] and string.sub(leases[i], 1, #mine) == mine then
    ended[position] = true
    accepted[#accepted + 1] = position
    answers[i] = 1
  else
    answers[i] = 0
  end
end
call_in_pieces('HDEL', KEYS[1], accepted)

-- What the record holds is what gets delivered, at the lowest position that asks for it. Answers whether the record
-- holds a result for this id.
local function recorded(id, position)
  local text = redis.call('HGET', KEYS[4], id)
  if not text then
    return false
  end
  local kept = string.match(text, '^{"position":(%d+),')
  if kept and tonumber(position) < tonumber(kept) then
    local rest = string.sub(text, #'{"position":' + #kept + 1)
    redis.call('HSET', KEYS[4], id, '{"position":' .. position .. rest)
  end
  return true
end

local stamp = ',"processed":"' .. rfc3339(now) .. '"}'
local turned, again = false, false
for i = 1, count do
  if answers[i] == 1 then
    local at = 6 * i - 3
    local kind, position, attempt, a, b, c = unpack(ARGV, at, at + 5)
    if kind == 'R' then
      again = true
      if a == '0' then
        redis.call('HSET', KEYS[1], position, 'F ' .. attempt)
        redis.call('ZADD', KEYS[2], position, position)
      else
        local due = whole(now + tonumber(a))
        redis.call('HSET', KEYS[1], position, 'D ' .. attempt .. ' ' .. due)
        redis.call('ZADD', KEYS[3], due, position)
      end
    else
      turned = true
      if kind == 'D' and redis.call('HSETNX', KEYS[4], a, b .. stamp) == 1 or recorded(a, position) then
        redis.call('XADD', KEYS[5], '*', 'position', position, 'id', a)
      else
        local entry = entries(KEYS[7], head, tonumber(position), 1)[1] or ''
        redis.call('XADD', KEYS[6], '*', 'position', position, 'id', a, 'reason', b, 'attempts', attempt,
          'died', whole(now), 'entry', entry)
        if kind == 'M' then
          redis.call('XADD', KEYS[5], '*', 'position', position, 'open', c, 'died', whole(now))
        else
          redis.call('XADD', KEYS[5], '*', 'position', position)
        end
      end
    end
  end
end
if turned then redis.call('PUBLISH', KEYS[9], '') end
if again then redis.call('PUBLISH', KEYS[10], '') end
return answers
