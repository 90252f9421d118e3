-- The yardstick's claim.
--
-- KEYS  1 in  2 flight
-- ARGV  1 how many at most
-- Returns the entries, oldest first; nothing if there are none.

local entries = redis.call('RPOP', KEYS[1], ARGV[1])
if entries then
  redis.call('LPUSH', KEYS[2], unpack(entries))
end
return entries
