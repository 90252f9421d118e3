-- Send, numbered: appends those of a producer's messages that are not there yet, or none if there were a gap. (Without
-- numbers it is a plain LPUSH.)
--
-- KEYS  1 in  2 producers  3 heard  4 wake:in
-- ARGV  1 time or ''  2 producer  3 the number of the first message  4 mark  5 how long a producer is remembered that is
--       not heard of, in microseconds  6 how many are forgotten at most, then the entries
-- Returns { 'accepted', the producer's last number, its mark } or { 'missing', the lowest number that is }.

local known = redis.call('HGET', KEYS[2], ARGV[2])
redis.call('ZCARD', KEYS[3])
redis.call('LLEN', KEYS[1])
local last, mark = string.match(known or '0 0', '^(%d+) (%d+)$')
if not last then
  return redis.error_reply('CONGA ' .. KEYS[2] .. ' has something else for `' .. ARGV[2] .. '` than Conga wrote: take it out')
end
local first, upcoming, count = math.max(tonumber(ARGV[3]), 1), tonumber(last) + 1, #ARGV - 6
if known then
  redis.call('ZADD', KEYS[3], whole(now), ARGV[2])
end
if count > 0 and first > upcoming then
  return { 'missing', whole(upcoming) }
end
local there = upcoming - first
if count == 0 or there >= count then
  return { 'accepted', last, mark }
end
for from = 7 + there, #ARGV, 1000 do
  redis.call('LPUSH', KEYS[1], unpack(ARGV, from, math.min(from + 999, #ARGV)))
end
if not known then
  local old = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', whole(now - tonumber(ARGV[5])), 'LIMIT', 0, ARGV[6])
  if #old > 0 then
    redis.call('HDEL', KEYS[2], unpack(old))
    redis.call('ZREM', KEYS[3], unpack(old))
  end
  redis.call('ZADD', KEYS[3], whole(now), ARGV[2])
end
last = whole(first + count - 1)
redis.call('HSET', KEYS[2], ARGV[2], last .. ' ' .. ARGV[4])
redis.call('PUBLISH', KEYS[4], '')
return { 'accepted', last, ARGV[4] }
