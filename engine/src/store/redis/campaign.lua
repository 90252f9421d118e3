-- Campaign (law 6): take, renew or give up the leadership.
--
-- KEYS  1 lock  2 meta  3 wake:lock  4 owners  5 delayed  6 flight
-- ARGV  1 time or ''  2 owner  3 lock_us, '0' to give it up  4 expiry of the lock's key in milliseconds, '' for none
--       5 the channel that the owner's process listens to as long as it lives, or ''
-- Returns { 'leader', term } or { 'standby', the leader or nothing }.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the
-- script: no leader falls because memory is short.

local owner, lock_us, expiry_ms = ARGV[2], ARGV[3], ARGV[4]
local meta = redis.call('HMGET', KEYS[2], 'term', 'told')
local term = meta[1] or '0'
redis.call('ZCARD', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('STRLEN', KEYS[6])
redis.call('GET', KEYS[1])
local told = notice_set_back(meta[2], KEYS[2], KEYS[4], KEYS[5], KEYS[6], KEYS[1])
local holder, deadline, channel = string.match(redis.call('GET', KEYS[1]) or '', '^([^|]*)|(%d+)|(.*)$')
if holder and now >= tonumber(deadline) then
  holder = nil
end
if holder and holder ~= owner and channel ~= '' and silent({ channel })[channel] then
  holder = nil
end
if holder and holder ~= owner then
  return { 'standby', holder }
end
redis.call('DEL', KEYS[1])
if lock_us == '0' then
  redis.call('PUBLISH', KEYS[3], '')
  return { 'standby', false }
end
tell_time(told, KEYS[2], KEYS[4], KEYS[5], KEYS[6], KEYS[1])
if not holder then
  term = whole(redis.call('HINCRBY', KEYS[2], 'term', 1))
end
local value = owner .. '|' .. whole(now + tonumber(lock_us)) .. '|' .. ARGV[5]
if expiry_ms == '' then
  redis.call('SET', KEYS[1], value)
else
  redis.call('SET', KEYS[1], value, 'PX', expiry_ms)
end
return { 'leader', term }
