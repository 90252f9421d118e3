-- Send, numbered: appends those of a producer's messages that are not there yet, or none if there were a gap. Under any but
-- the latest session it does nothing, nor where too many would wait. (Without numbers it is a plain LPUSH.)
--
-- KEYS  1 in  2 producers  3 heard  4 wake:in  5 meta
-- ARGV  1 time and hints  2 producer  3 the session's number  4 its process  5 the number of the first message  6 mark  7 how
--       long a producer is remembered that is not heard of, in microseconds  8 how many are forgotten at most  9 how many
--       may wait, or '', then the entries
-- Returns { 'accepted', the producer's last number, its mark } or { 'missing', the lowest number that is } or { 'full', how
-- many wait, the producer's last number } or { 'replaced', the latest session's number, its process }.

local known = redis.call('HGET', KEYS[2], ARGV[2])
redis.call('ZCARD', KEYS[3])
local there_are, meta = redis.call('LLEN', KEYS[1]), redis.call('HMGET', KEYS[5], 'head', 'next')
local last, mark, session, process = string.match(known or '0 0 0 0', '^(%d+) (%d+) (%d+) (%d+)$')
if not last then
  return redis.error_reply('CONGA ' .. KEYS[2] .. ' has something else for `' .. ARGV[2] .. '` than Conga wrote: take it out')
end
local is_same = ARGV[3] == session and ARGV[4] == process
if known and not is_same and tonumber(ARGV[3]) <= tonumber(session) then
  return { 'replaced', session, process }
end
local first, upcoming, count = math.max(tonumber(ARGV[5]), 1), tonumber(last) + 1, #ARGV - 9
local is_missing = count > 0 and first > upcoming
local there = math.max(upcoming - first, 0)
local is_news = there < count and not is_missing
-- An entry stays in the list until it is delivered; those from the head to the next are claimed.
local waiting = there_are - (tonumber(meta[2] or '1') - tonumber(meta[1] or '1'))
local is_full = is_news and ARGV[9] ~= '' and waiting + count - there > tonumber(ARGV[9])
if is_full then
  is_news = false
end
if is_news then
  for from = 10 + there, #ARGV, 1000 do
    redis.call('LPUSH', KEYS[1], unpack(ARGV, from, math.min(from + 999, #ARGV)))
  end
  last, mark = whole(first + count - 1), ARGV[6]
end
if not known then
  local old = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', whole(now - tonumber(ARGV[7])), 'LIMIT', 0, ARGV[8])
  if #old > 0 then
    redis.call('HDEL', KEYS[2], unpack(old))
    redis.call('ZREM', KEYS[3], unpack(old))
  end
end
redis.call('ZADD', KEYS[3], whole(now), ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], last .. ' ' .. mark .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
if is_news then
  hint(KEYS[4])
end
if is_missing then
  return { 'missing', whole(upcoming) }
end
if is_full then
  return { 'full', whole(waiting), last }
end
return { 'accepted', last, mark }
