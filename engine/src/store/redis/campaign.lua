-- Campaign (law 6): take, renew or give up the leadership, or the place of the active consumer.
--
-- KEYS  1 lock  2 meta  3 wake:lock  4 owners  5 delayed  6 flight
-- ARGV  1 time and hints  2 owner  3 lock_us, '0' to give it up  4 expiry of the lock's key in milliseconds, '' for none
--       5 the channel that the owner's process listens to as long as it lives, or ''  6 'leader' or 'consumer'
-- Returns { 'leader', term } or { 'standby', the leader or nothing }.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the
-- script: no leader falls because memory is short.

-- The leader's lock is a key of its own. The consumer's is in `meta`, where it stays as `0||owner` when it is given up: whose
-- the latest term is has to be known.

local owner, lock_us, expiry_ms, is_consumer = ARGV[2], ARGV[3], ARGV[4], ARGV[6] == 'consumer'
local term_field = is_consumer and 'consumer_term' or 'term'
local meta = redis.call('HMGET', KEYS[2], term_field, 'told')
local term = meta[1] or '0'
redis.call('ZCARD', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('STRLEN', KEYS[6])
redis.call('GET', KEYS[1])
local told = notice_set_back(meta[2], KEYS[2], KEYS[4], KEYS[5], KEYS[6], KEYS[1])
local holder, deadline, channel, latest
if is_consumer then
  deadline, channel, holder = string.match(redis.call('HGET', KEYS[2], 'consumer') or '', '^(%d+)|([^|]*)|(.*)$')
  latest = holder
else
  holder, deadline, channel = string.match(redis.call('GET', KEYS[1]) or '', '^([^|]*)|(%d+)|(.*)$')
end
if holder and now >= tonumber(deadline) then
  holder = nil
end
-- A consumer that is wrongly taken for dead, as one that has lost no more than its subscription, would have what it is
-- writing down written again by another. So it is dead only if it has not renewed its lock either, for two fifths of
-- the time that it lasts: it does so each third.
local may_be_dead = not is_consumer or deadline and tonumber(deadline) - now < tonumber(lock_us) * 3 / 5
if holder and holder ~= owner and channel ~= '' and may_be_dead and silent({ channel })[channel] then
  holder = nil
end
if holder and holder ~= owner then
  return { 'standby', holder }
end
if is_consumer then
  redis.call('HDEL', KEYS[2], 'consumer')
else
  redis.call('DEL', KEYS[1])
end
if lock_us == '0' then
  if latest then
    redis.call('HSET', KEYS[2], 'consumer', '0||' .. latest)
  end
  hint(KEYS[3])
  return { 'standby', false }
end
tell_time(told, KEYS[2], KEYS[4], KEYS[5], KEYS[6], KEYS[1])
if not holder then
  term = whole(redis.call('HINCRBY', KEYS[2], term_field, 1))
end
deadline = whole(now + tonumber(lock_us))
if is_consumer then
  redis.call('HSET', KEYS[2], 'consumer', deadline .. '|' .. ARGV[5] .. '|' .. owner)
  if not holder then
    redis.call('HSET', KEYS[2], 'consumer_since', whole(now))
  end
elseif expiry_ms == '' then
  redis.call('SET', KEYS[1], owner .. '|' .. deadline .. '|' .. ARGV[5])
else
  redis.call('SET', KEYS[1], owner .. '|' .. deadline .. '|' .. ARGV[5], 'PX', expiry_ms)
end
return { 'leader', term }
