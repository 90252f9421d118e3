-- Receive, its first half: takes off the output what was written down. The reading is a plain LRANGE.
--
-- KEYS  1 out
-- ARGV  1 time or ''  2 the highest position that was written down  3 how the output there begins, '' if not known
-- Returns how many outputs were taken off: none, if another output stands there, or none any more. A server that took over
-- and does not know of the last outputs may have other messages at the same positions, which nobody has seen.
--
-- Other consumers pop from the same end, so where the acknowledged ones end is looked for, in ever longer steps and
-- then by halves: about twenty looks for a batch of a thousand, however many outputs lie behind it.

local written = tonumber(ARGV[2])
local length = redis.call('LLEN', KEYS[1])
local strange = false

local function is_written(nth)
  local output = redis.call('LINDEX', KEYS[1], whole(-nth))
  local position = string.match(output, '^{"position":(%d+),')
  strange = strange or not position
  return position and tonumber(position) <= written
end

local low, high = 0, 1
while high <= length and is_written(high) do
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
if low > 0 and string.sub(redis.call('LINDEX', KEYS[1], whole(-low)), 1, #ARGV[3]) ~= ARGV[3] then
  return 0
end
if low > 0 then
  redis.call('LTRIM', KEYS[1], 0, whole(-low - 1))
end
return low
