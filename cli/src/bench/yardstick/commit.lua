-- The yardstick's commit: the oldest messages in flight, in their order.
--
-- KEYS  1 fence  2 record  3 out  4 flight
-- ARGV  1 the fence's value, then for each message its id and its result
-- Returns 1, or 0 if the fence is another's.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[2], unpack(ARGV, 2))
local results = {}
for i = 3, #ARGV, 2 do
  results[#results + 1] = ARGV[i]
end
redis.call('LPUSH', KEYS[3], unpack(results))
redis.call('LTRIM', KEYS[4], 0, -#results - 1)
return 1
