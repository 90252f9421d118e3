-- Dead: carries out what a person has decided about dead letters that are delivered past, or at which the line is halted.
--
-- KEYS  1 in  2 meta  3 dead  4 wake:in  5 flight  6 free  7 strikes  8 halted  9 processed  10 keyed  11 wake:processed
-- ARGV  1 time and hints  2 'retry' or 'skip' or 'mark' or 'purge', then for each of them its position and the stream's id of its
--       entry in `dead`, '' where none was found
-- Returns { 'done' or 'missing' or 'early' or 'passed', ... }, in their order. What is skipped or marked waits for its turn from
-- then on; `complete.lua` delivers it.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the
-- script: what is retried takes no more room than it did before.

local meta = redis.call('HMGET', KEYS[2], 'head', 'next', 'ring', 'shape', 'stopped')
local head, upcoming, ring = tonumber(meta[1] or '1'), tonumber(meta[2] or '1'), tonumber(meta[3] or '0')
redis.call('LLEN', KEYS[1])
redis.call('XLEN', KEYS[3])
redis.call('ZCARD', KEYS[6])
redis.call('HLEN', KEYS[7])
redis.call('HLEN', KEYS[8])
redis.call('XLEN', KEYS[9])
redis.call('HLEN', KEYS[10])
local damage = is_damaged(KEYS[5], ring, head, upcoming)
if damage then
  return damage
end

local stopped, is_news, goes_on = meta[5], false, false

-- The attempt by which a message died, if the line is halted at it.
local function halted_at(position)
  if position < head or position >= upcoming then
    return nil
  end
  local state, _, attempt = read_slot(read_ring(KEYS[5], ring, position, 1), 1)
  return state == 'H' and attempt or nil
end

-- Has the line go on past a message, with its tombstone or with nothing in its place.
local function pass(position, letter)
  local field = whole(position)
  local open = ARGV[2] == 'mark' and redis.call('HGET', KEYS[8], field)
  redis.call('HDEL', KEYS[8], field)
  local cursor
  if open then
    cursor = redis.call('XADD', KEYS[9], '*', 'position', field, 'open', open, 'died', letter[10])
  else
    cursor = redis.call('XADD', KEYS[9], '*', 'position', field)
  end
  local ms, seq = string.match(cursor, '^(%d+)-(%d+)$')
  write_ring(KEYS[5], ring, position, slot('P', tonumber(seq), 0, tonumber(ms)))
  redis.call('HINCRBY', KEYS[2], 'processed', 1)
  if in_place_order(meta[4]) then
    local of = redis.call('HGET', KEYS[10], field) or '@' .. field
    stopped = stopped and stopped .. ' ' .. of or of
    redis.call('HSET', KEYS[2], 'stopped', stopped)
  end
  goes_on = true
end

local function judge(position, place)
  -- Somebody else may have been faster since it was found.
  local entry = place ~= '' and redis.call('XRANGE', KEYS[3], place, place)[1]
  local letter = entry and entry[2]
  if not letter or tonumber(letter[2]) ~= position then
    return 'missing'
  end
  local attempt = halted_at(position)
  if ARGV[2] == 'skip' or ARGV[2] == 'mark' then
    if not attempt then
      return 'passed'
    end
    pass(position, letter)
  elseif ARGV[2] == 'retry' and attempt then
    local field = whole(position)
    redis.call('XDEL', KEYS[3], place)
    redis.call('HDEL', KEYS[8], field)
    write_ring(KEYS[5], ring, position, slot('F', 0, attempt, 0))
    redis.call('ZADD', KEYS[6], field, field)
    redis.call('HSET', KEYS[7], field, strikes(attempt, 0))
    is_news = true
  elseif position >= head then
    return 'early'
  else
    redis.call('XDEL', KEYS[3], place)
    if ARGV[2] == 'retry' then
      redis.call('LPUSH', KEYS[1], letter[12])
      is_news = true
    end
  end
  return 'done'
end

local answers = {}
for i = 3, #ARGV, 2 do
  answers[#answers + 1] = judge(tonumber(ARGV[i]), ARGV[i + 1])
end
if is_news then
  hint(KEYS[4])
end
if goes_on then
  hint(KEYS[11])
end
return answers
