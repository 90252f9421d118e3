-- Control: what is asked of all processors at once. Each claim reads it in its own step.
--
-- KEYS  1 meta  2 flight  3 owners  4 delayed  5 lock  6 wake:in
-- ARGV  1 time and hints  2 'flow' or 'settle' or 'rate'  3 the flow's name, or the interval between two messages in
--       nanoseconds, or nothing
-- Returns { flow, since when, the interval or nothing }.
--
-- The first write only takes away, so that a line can be paused under memory pressure (OOM) too.

local meta = redis.call('HMGET', KEYS[1], 'told', 'head', 'next', 'flow', 'flow_since', 'rate')
redis.call('STRLEN', KEYS[2])
redis.call('ZCARD', KEYS[4])
redis.call('GET', KEYS[5])
redis.call('ZREM', KEYS[3], '')
tell_time(meta[1], KEYS[1], KEYS[3], KEYS[4], KEYS[2], KEYS[5])

local flow, since, rate = meta[4] or 'running', meta[5] or '0', meta[6]
local wanted = flow
if ARGV[2] == 'flow' then
  wanted = ARGV[3]
elseif ARGV[2] == 'settle' and flow == 'draining' and (meta[2] or '1') == (meta[3] or '1') then
  wanted = 'paused'
end
if wanted ~= flow then
  flow, since = wanted, whole(now)
  redis.call('HSET', KEYS[1], 'flow', flow, 'flow_since', since)
end
if ARGV[2] == 'rate' and ARGV[3] ~= (rate or '') then
  if ARGV[3] == '' then
    rate = false
    redis.call('HDEL', KEYS[1], 'rate', 'bucket')
  else
    rate = ARGV[3]
    redis.call('HSET', KEYS[1], 'rate', rate, 'bucket', rate .. ' ' .. whole(now))
  end
end
hint(KEYS[6])
return { flow, since, rate }
