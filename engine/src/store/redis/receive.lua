-- Receive, its first half: whether the caller is the latest active consumer; then takes off the output what was written
-- down. The reading is a plain LRANGE between two of these, whose reply counts only if both say so.
--
-- KEYS  1 out  2 meta
-- ARGV  1 time and hints  2 the term of the caller's reign, '0' for none  3 whose it is  4 the highest position that was written
--       down, or ''  5 how the output there begins, '' if not known  6 as how manieth it was handed out, '0' if not known
-- Returns { 'open', how many outputs were taken off } or { 'fenced', the latest term }. None are taken off if another output
-- stands there, or none any more: a server that took over and does not know of the last outputs may have other messages at
-- the same positions, which nobody has seen.
--
-- Other consumers pop from the same end, so where the acknowledged ones end is looked for, in ever longer steps and
-- then by halves: about twenty looks for a batch of a thousand, however many outputs lie behind it.

local latest = redis.call('HMGET', KEYS[2], 'consumer_term', 'consumer', 'shape')
local term, owner = latest[1] or '0', string.match(latest[2] or '', '^%d+|[^|]*|(.*)$') or ''
if ARGV[2] ~= term or ARGV[3] ~= owner then
  return { 'fenced', term }
end
if ARGV[4] == '' then
  return { 'open', 0 }
end
local written = tonumber(ARGV[4])
local length = redis.call('LLEN', KEYS[1])
local strange = false

local function is_written(nth)
  local output = redis.call('LINDEX', KEYS[1], whole(-nth))
  local position = string.match(output, '^{"position":(%d+),')
  strange = strange or not position
  return position and tonumber(position) <= written
end

local low, high = 0, 1
if in_place_order(latest[3]) then
  -- They do not ascend: it is the one at that position, and those before it. So many as core's `ACKNOWLEDGE_WITHIN`.
  local beginning = '{"position":' .. ARGV[4] .. ','
  local first, handed = 1, tonumber(ARGV[6])
  -- Mostly it stands where it stood. To look for it is to read all that was handed out once more.
  if handed > 0 and handed <= length then
    local output = redis.call('LINDEX', KEYS[1], whole(-handed))
    low = string.sub(output, 1, #beginning) == beginning and handed or 0
  end
  while low == 0 and first <= math.min(length, 10000) do
    local some = redis.call('LRANGE', KEYS[1], whole(-(first + 99)), whole(-first))
    for i = #some, 1, -1 do
      if low == 0 and string.sub(some[i], 1, #beginning) == beginning then
        low = first + #some - i
      end
    end
    first = first + 100
  end
  high = low
end
while high > low and high <= length and is_written(high) do
  low, high = high, high * 2
end
high = math.min(high, length + 1)
while high - low > 1 do
  local middle = math.floor((low + high) / 2)
  if is_written(middle) then
    low = middle
  else
    high = middle
  end
end
if strange then
  return redis.error_reply('CONGA ' .. KEYS[1] .. ' holds an element that Conga did not write: take it out')
end
if low > 0 and string.sub(redis.call('LINDEX', KEYS[1], whole(-low)), 1, #ARGV[5]) ~= ARGV[5] then
  return { 'open', 0 }
end
if low > 0 then
  redis.call('LTRIM', KEYS[1], 0, whole(-low - 1))
end
return { 'open', low }
