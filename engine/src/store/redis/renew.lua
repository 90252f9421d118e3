-- Renew: an owner says that it is alive, asks what it holds, or leaves.
--
-- KEYS  1 owners  2 lease  3 free  4 in  5 meta  6 wake:in  7 alive
-- ARGV  1 time or ''  2 owner  3 lease_us, '0' to leave  4 limit of an entry's bytes  5 limit of all bytes
--       6 the channel that the owner's process listens to as long as it lives, or ''
--       7 '1' to compare what is held, then for each lease believed to be held: position, attempt
-- Returns { known 1 or 0, { lost position, ... }, { position, attempt, claimed, entry, ... } }. The entry is a string,
-- or where it is larger than its limit the number of its bytes.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the
-- script: no owner loses what it holds because memory is short.

local owner, lease_us = ARGV[2], ARGV[3]
local entry_limit, total_limit = tonumber(ARGV[4]), tonumber(ARGV[5])

redis.call('HLEN', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('LLEN', KEYS[4])
local head = tonumber(redis.call('HGET', KEYS[5], 'head') or '1')

local known = redis.call('ZREM', KEYS[1], owner)
if lease_us == '0' then
  redis.call('HDEL', KEYS[7], owner)
  free_leases(KEYS[2], KEYS[3], { [owner] = true })
  redis.call('PUBLISH', KEYS[6], '')
  return { known, {}, {} }
end
redis.call('ZADD', KEYS[1], whole(now + tonumber(lease_us)), owner)
if ARGV[6] == '' then
  redis.call('HDEL', KEYS[7], owner)
else
  redis.call('HSET', KEYS[7], owner, ARGV[6])
end
if ARGV[7] ~= '1' then
  return { known, {}, {} }
end

local believed = {}
for i = 8, #ARGV, 2 do
  believed[ARGV[i] .. ' ' .. ARGV[i + 1]] = true
end
local all = redis.call('HGETALL', KEYS[2])
local really, unknown = {}, {}
for i = 1, #all, 2 do
  local name, attempt, claimed = string.match(all[i + 1], '^L (%S+) (%d+) (%d+) ')
  if name == owner then
    local held = all[i] .. ' ' .. attempt
    really[held] = true
    if not believed[held] then
      unknown[#unknown + 1] = { tonumber(all[i]), tonumber(attempt), claimed }
    end
  end
end
table.sort(unknown, function(a, b) return a[1] < b[1] end)

local found, bytes = {}, 0
for _, lease in ipairs(unknown) do
  if bytes >= total_limit then
    break
  end
  local entry = entries(KEYS[4], head, lease[1], 1)[1]
  if entry then
    if #entry > entry_limit then
      entry = #entry
    else
      bytes = bytes + #entry
    end
    local n = #found
    found[n + 1], found[n + 2], found[n + 3], found[n + 4] = lease[1], lease[2], lease[3], entry
  end
end
local lost = {}
for i = 8, #ARGV, 2 do
  if not really[ARGV[i] .. ' ' .. ARGV[i + 1]] then
    lost[#lost + 1] = ARGV[i]
  end
end
return { known, lost, found }
