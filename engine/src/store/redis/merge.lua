-- Merge (law 3), at the base of a merged line: appends what came out of the partitions to the output, by its sequence, and
-- advances the head. All of it or nothing.
--
-- KEYS  1 meta  2 out  3 dead  4 passed  5 wake:out
-- ARGV  1 time and hints  2 term  3 head  4 '1' if the head that is then is missing  5 how many are late  6 how many have their turn
--       7 how long the head has to be missing to be given up, in microseconds  8 how many places are known at most
--       9 how many are given up at most, then
--       for each that is late: position, reason, the output
--       for each that has its turn, from the head on: kind, and the output written up to and with `processed`
--         kind  R a result  T a tombstone  N nothing comes out
--       for each that is given up, from the head on: the output written up to and with `processing`, or ''
-- Returns { 'advanced', head, now, since when it is missing or nothing }, { 'fenced', term } or { 'moved', head }.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the script.

local meta = redis.call('HMGET', KEYS[1], 'term', 'head', 'missing', 'shape')
local term, head = meta[1] or '0', meta[2] or '1'
if ARGV[2] ~= term then
  return { 'fenced', term }
end
local partitions = string.match(meta[4] or '', '^total/(%d+)$')
if ARGV[3] ~= head or not partitions or tonumber(partitions) < 2 then
  return { 'moved', head }
end
redis.call('LLEN', KEYS[2])
redis.call('XLEN', KEYS[3])
redis.call('ZREM', KEYS[4], '')

local at, first = 10, tonumber(head)
for _ = 1, tonumber(ARGV[5]) do
  local position, reason, output = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  at = at + 3
  if tonumber(position) < first and redis.call('ZREM', KEYS[4], position) == 1 then
    redis.call('XADD', KEYS[3], '*', 'position', position, 'id', position, 'reason', reason, 'attempts', 0, 'died', whole(now),
      'entry', output)
  end
end

local next, outputs, passed = first, {}, {}
local time = rfc3339(now)
local later = ',"sequencing":"' .. time .. '","sequenced":"' .. time .. '"}'
local function pass()
  local n = #passed
  passed[n + 1], passed[n + 2] = whole(next), whole(next)
end
local pieces = tonumber(ARGV[6])
for _ = 1, pieces do
  local kind, open = ARGV[at], ARGV[at + 1]
  at = at + 2
  if kind ~= 'R' then
    pass()
  end
  if kind ~= 'N' then
    outputs[#outputs + 1] = open .. later
  end
  next = next + 1
end

local missing = pieces == 0 and meta[3] or nil
if ARGV[4] == '1' then
  missing = whole(math.min(tonumber(missing or '') or now, now))
end
local is_over = missing and math.max(0, now - tonumber(missing)) >= tonumber(ARGV[7])
if pieces == 0 and is_over then
  for nth = at, math.min(#ARGV, at + tonumber(ARGV[9]) - 1) do
    if ARGV[nth] ~= '' then
      outputs[#outputs + 1] = ARGV[nth] .. ',"processed":"' .. time .. '"' .. later
    end
    pass()
    next = next + 1
  end
end

if next > first then
  redis.call('HSET', KEYS[1], 'head', whole(next), 'next', whole(next))
end
if missing then
  redis.call('HSET', KEYS[1], 'missing', missing)
else
  redis.call('HDEL', KEYS[1], 'missing')
end
if #passed > 0 then
  call_in_pieces('ZADD', KEYS[4], passed)
  redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -(tonumber(ARGV[8]) + 1))
end
if #outputs > 0 then
  call_in_pieces('LPUSH', KEYS[2], outputs)
  hint(KEYS[5])
end
return { 'advanced', whole(next), whole(now), missing }
