-- Status: the depths of a partition and what holds it up. Changes nothing, scans nothing but the living owners.
--
-- KEYS  1 in  2 meta  3 lease  4 processed  5 out  6 record  7 dead  8 owners  9 lock
-- ARGV  1 time or ''
-- Returns { now, in, head, next, term, lease, processed, out, record, dead, the lease of the head or nothing,
-- the leader or nothing, { owner, ... } }.

local meta = redis.call('HMGET', KEYS[2], 'head', 'next', 'term')
local head = meta[1] or '1'
local leader, deadline = string.match(redis.call('GET', KEYS[9]) or '', '^([^|]*)|(%d+)|')
if leader and now >= tonumber(deadline) then
  leader = nil
end
return {
  whole(now),
  redis.call('LLEN', KEYS[1]),
  head,
  meta[2] or '1',
  meta[3] or '0',
  redis.call('HLEN', KEYS[3]),
  redis.call('XLEN', KEYS[4]),
  redis.call('LLEN', KEYS[5]),
  redis.call('HLEN', KEYS[6]),
  redis.call('XLEN', KEYS[7]),
  redis.call('HGET', KEYS[3], head),
  leader or false,
  redis.call('ZRANGEBYSCORE', KEYS[8], '(' .. whole(now), '+inf'),
}
