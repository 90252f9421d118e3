-- Shape: what the line is, told once. The rule is core's `Shape::settle`.
--
-- KEYS  1 meta  2 in
-- ARGV  1 time and hints  2 what is wanted, or ''  3 in how many partitions that is
-- Returns the shape, or '' where nobody has said.

local meta = redis.call('HMGET', KEYS[1], 'shape', 'next')
local has_entries = redis.call('LLEN', KEYS[2]) > 0
if meta[1] then
  return meta[1]
end
local shape = ARGV[2]
local has_claimed = tonumber(meta[2] or '1') > 1
if has_claimed or (shape ~= '' and has_entries and tonumber(ARGV[3]) > 1) then
  shape = 'total'
end
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[1], 'shape', shape)
end
return shape
