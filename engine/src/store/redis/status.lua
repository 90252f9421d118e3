-- Status: the depths of a partition and what holds it up. Changes nothing, scans nothing but the living owners.
--
-- KEYS  1 in  2 meta  3 flight  4 numbers  5 out  6 record  7 dead  8 owners  9 lock  10 producers  11 kept  12 halted
-- ARGV  1 time and hints
-- Returns { now, in, head, next, term, processed, out, record, dead, the state of the head and its three numbers or
-- nothing, who has it, the leader or nothing, { owner, ... }, producers,
-- the active consumer or nothing, the latest one's term, since when, how much stays or nothing, since when the oldest
-- record is there or nothing, the oldest dead letter, as RFC 3339 the oldest output, how many are delivered beyond the head,
-- the flow, since when, the interval of the rate or nothing, since when the head of a merged line is missing or nothing,
-- at how many the line is halted, { the id, reason and time of the dead letter at the head at which it is } or nothing }.

local meta = redis.call('HMGET', KEYS[2], 'head', 'next', 'term', 'ring', 'processed', 'consumer_term', 'consumer_since',
  'consumer', 'keep', 'in_place', 'flow', 'flow_since', 'rate', 'missing')
local head, upcoming = tonumber(meta[1] or '1'), tonumber(meta[2] or '1')
local at_head, holder = {}, ''
local damage = is_damaged(KEYS[3], tonumber(meta[4] or '0'), head, upcoming)
if damage then
  return damage
end
if head < upcoming then
  local state, first, second, third = read_slot(read_ring(KEYS[3], tonumber(meta[4]), head, 1), 1)
  at_head = { state, whole(first), whole(second), whole(third) }
  local numbers = redis.call('HGETALL', KEYS[4])
  for i = 1, #numbers, 2 do
    if state == 'L' and tonumber(numbers[i + 1]) == first then
      holder = numbers[i]
    end
  end
end
local halted_at = {}
if at_head[1] == 'H' then
  local place = at_head[4] .. '-' .. at_head[2]
  local letter = redis.call('XRANGE', KEYS[7], place, place)[1]
  halted_at = letter and { letter[2][4], letter[2][6], letter[2][10] } or {}
end
local leader, deadline = string.match(redis.call('GET', KEYS[9]) or '', '^([^|]*)|(%d+)|')
if leader and now >= tonumber(deadline) then
  leader = nil
end
local until_when, consumer = string.match(meta[8] or '', '^(%d+)|[^|]*|(.*)$')
if until_when and now >= tonumber(until_when) then
  consumer = nil
end
local note = redis.call('LINDEX', KEYS[11], 0)
local letter = redis.call('XRANGE', KEYS[7], '-', '+', 'COUNT', 1)[1]
local output = redis.call('LINDEX', KEYS[5], -1)
return {
  whole(now),
  redis.call('LLEN', KEYS[1]),
  whole(head),
  whole(upcoming),
  meta[3] or '0',
  meta[5] or '0',
  redis.call('LLEN', KEYS[5]),
  redis.call('HLEN', KEYS[6]),
  redis.call('XLEN', KEYS[7]),
  at_head,
  holder,
  leader or false,
  redis.call('ZRANGEBYSCORE', KEYS[8], '(' .. whole(now), '+inf'),
  redis.call('HLEN', KEYS[10]),
  consumer or false,
  meta[6] or '0',
  meta[7] or '0',
  meta[9] or false,
  note and whole(cmsgpack.unpack(note)[1]) or false,
  letter and letter[2][10] or false,
  output and string.sub(output, -29, -3) or false,
  meta[10] or '0',
  meta[11] or 'running',
  meta[12] or '0',
  meta[13],
  meta[14],
  redis.call('HLEN', KEYS[12]),
  halted_at,
}
