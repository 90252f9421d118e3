-- Complete (law 2): the end of leases, only for the one who still has them. And where the store delivers: what then stands
-- at the head without a gap goes out in the same step.
--
-- KEYS  1 flight  2 free  3 delayed  4 record  5 processed  6 dead  7 in  8 meta  9 wake:processed  10 wake:in
--       11 owners  12 lock  13 numbers  14 out  15 wake:out  16 wake:window  17 kept  18 keys
--       19 keyed  20 strikes  21 halted
-- ARGV  1 time and hints  2 owner  3 '1' to deliver  4 '1' if no id stands there twice
--       then groups, each a kind, a position, how many positions from there on, the attempt, when it was claimed in
--       microseconds, and then, by kind
--         D  done: the ids of all, and the records of all as far as they are written; at most 1,000. Kind N the same for
--            ids that stand for the position, which nothing else can have recorded
--         M  dead, its tombstone is delivered: id, reason, the tombstone as far as it is written
--         S  dead, nothing is delivered: id, reason
--         H  dead, and the line halts at it: as M
--         R  to be claimed again: the delay in microseconds, whenever it was claimed
--       A group of M, S, H or R has one message.
-- Returns { '1' if there is more to deliver than goes into one step, for each completion '1' accepted or '0' stale as one
-- string, what has gone without which the line can not go on or '' }.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the
-- script: what was claimed can always be finished, and the window bounds how much that is.

local owner, delivers, is_distinct = ARGV[2], ARGV[3] == '1', ARGV[4] == '1'

-- Every key is read before the first write: one of a wrong type then stops the script before it changes anything.
redis.call('STRLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('XLEN', KEYS[5])
redis.call('XLEN', KEYS[6])
redis.call('LLEN', KEYS[7])
local meta = redis.call('HMGET', KEYS[8], 'head', 'next', 'ring', 'told', 'full', 'noted', 'shape', 'in_place', 'stopped')
local head, upcoming, ring = tonumber(meta[1] or '1'), tonumber(meta[2] or '1'), tonumber(meta[3] or '0')
redis.call('ZCARD', KEYS[11])
redis.call('GET', KEYS[12])
local number = tonumber(redis.call('HGET', KEYS[13], owner) or '0')
redis.call('LLEN', KEYS[14])
redis.call('LLEN', KEYS[17])
local has_strikes = redis.call('HLEN', KEYS[20]) > 0
redis.call('HLEN', KEYS[21])
local order = in_place_order(meta[7])
if order then
  redis.call('ZCARD', KEYS[18])
  redis.call('HLEN', KEYS[19])
end
local damage = is_damaged(KEYS[1], ring, head, upcoming)
if damage then
  return damage
end
redis.call('ZREM', KEYS[11], '')

-- The input is shortened at the end; until then this is the position of its oldest entry.
local oldest = head
local date = rfc3339(now)
local processed = ',"processed":"' .. date .. '"'
local sequenced = ',"sequencing":"' .. date .. '","sequenced":"' .. date .. '"}'
local MOST, MOST_BYTES = 1000, 1048576
local delivered, delivered_bytes, waiting = 0, 0, 0

-- The runs of positions from `first` on whose lease is this owner's, as this attempt and claimed at that time.
local function find_held(first, count, attempt, claimed)
  local from, to = math.max(first, head), math.min(first + count, upcoming) - 1
  if to < from then
    return {}
  end
  local mine, slots = slot('L', number, attempt, claimed), read_ring(KEYS[1], ring, from, to - from + 1)
  if slots == string.rep(mine, to - from + 1) then
    return { { from, to } }
  end
  local runs = {}
  for position = from, to do
    local at = (position - from) * SLOT + 1
    if string.sub(slots, at, at + SLOT - 1) == mine then
      local last = runs[#runs]
      if last and last[2] == position - 1 then
        last[2] = position
      else
        runs[#runs + 1] = { position, position }
      end
    end
  end
  return runs
end

-- The same, which end by this.
local function held(first, count, attempt, claimed)
  local runs = find_held(first, count, attempt, claimed)
  if has_strikes then
    for _, run in ipairs(runs) do
      local ended = {}
      for position = run[1], run[2] do
        ended[#ended + 1] = whole(position)
      end
      call_in_pieces('HDEL', KEYS[20], ended)
    end
  end
  return runs
end

-- Gives a lease back, at once or when it is due. Whether it was held; what lies below `lowest` is not, any more.
local function give_back(lowest, position, attempt, delay)
  if position < lowest or position >= upcoming then
    return false
  end
  local state, holder, as = read_slot(read_ring(KEYS[1], ring, position, 1), 1)
  if state ~= 'L' or holder ~= number or as ~= attempt then
    return false
  end
  -- Given back, the attempt does not count; and what a handler has failed at has not killed its owner.
  local struck = redis.call('HGET', KEYS[20], whole(position))
  local excused, crashes = read_strikes(struck or nil)
  if delay == 0 then
    redis.call('HSET', KEYS[20], whole(position), strikes(excused + 1, crashes))
    has_strikes = true
  elseif struck then
    redis.call('HSET', KEYS[20], whole(position), strikes(excused, 0))
  end
  if delay == 0 then
    write_ring(KEYS[1], ring, position, slot('F', 0, attempt, 0))
    redis.call('ZADD', KEYS[2], whole(position), whole(position))
  else
    tell_time(meta[4], KEYS[8], KEYS[11], KEYS[3], KEYS[1], KEYS[12])
    meta[4] = redis.call('HGET', KEYS[8], 'told')
    local due = now + delay
    write_ring(KEYS[1], ring, position, slot('D', 0, attempt, due))
    redis.call('ZADD', KEYS[3], whole(due), whole(position))
  end
  return true
end

-- Keeps a dead letter. Where in the stream it stands.
local function bury(position, id, reason, attempt)
  local entry = entries(KEYS[7], oldest, position, 1)[1] or ''
  return redis.call('XADD', KEYS[6], '*', 'position', whole(position), 'id', id, 'reason', reason, 'attempts', whole(attempt),
    'died', whole(now), 'entry', entry)
end

-- Keeps one, and halts the line at it.
local function halt(position, id, reason, attempt, open)
  local ms, seq = string.match(bury(position, id, reason, attempt), '^(%d+)-(%d+)$')
  write_ring(KEYS[1], ring, position, slot('H', tonumber(seq), attempt, tonumber(ms)))
  redis.call('HSET', KEYS[21], whole(position), open)
end

-- Notes which records have come out, up to which position, for `trim.lua`. How many were noted ever.
local noted = tonumber(meta[6] or '0')
local function note(last, ids)
  redis.call('RPUSH', KEYS[17], cmsgpack.pack({ now, last, ids }))
  noted = noted + #ids
  return noted
end

if order then
  return complete_in_place(order, meta, held, give_back, bury, halt, note)
end

-- Lets `count` positions from `first` on wait for their turn. The rest says what comes out.
local function wait(first, count, ...)
  local ms, seq = string.match(redis.call('XADD', KEYS[5], '*', 'position', whole(first), ...), '^(%d+)-(%d+)$')
  write_ring(KEYS[1], ring, first, string.rep(slot('P', tonumber(seq), 0, tonumber(ms)), count))
  waiting = waiting + count
end

-- What the record holds is what gets delivered, at the lowest position that asks for it. Answers what to wait with, if the
-- record holds a result for this id: the id, or '' where it was delivered before, and so may go meanwhile.
local function recorded(id, position)
  local text = redis.call('HGET', KEYS[4], id)
  if not text then
    return nil
  end
  local kept = string.match(text, '^{"position":(%d+),')
  if kept and tonumber(kept) < oldest then
    return ''
  end
  if kept and position < tonumber(kept) then
    local rest = string.sub(text, #'{"position":' + #kept + 1)
    redis.call('HSET', KEYS[4], id, '{"position":' .. whole(position) .. rest)
  end
  return id
end

-- Records the results of a run, whose ids stand from ARGV[id] on and their texts from ARGV[open] on. At the head they go
-- out at once.
local function done(first, last, id, open, is_new)
  local count = last - first + 1
  if not is_new then
    is_new = is_distinct
    local kept = is_new and redis.call('HMGET', KEYS[4], unpack(ARGV, id, id + count - 1))
    for i = 1, is_new and count or 0 do
      if kept[i] then
        is_new = false
        break
      end
    end
  end
  if not is_new then
    local ids = { unpack(ARGV, id, id + count - 1) }
    for i = 0, count - 1 do
      if redis.call('HSETNX', KEYS[4], ARGV[id + i], ARGV[open + i] .. processed .. '}') == 0 then
        ids[i + 1] = recorded(ARGV[id + i], first + i)
      end
    end
    return wait(first, count, 'ids', cjson.encode(ids))
  end
  local goes_out = delivers and first == head and delivered < MOST and delivered_bytes < MOST_BYTES
  local ending, texts, records, bytes = processed .. (goes_out and sequenced or '}'), {}, {}, 0
  for i = 1, count do
    local text = ARGV[open + i - 1] .. ending
    texts[i], records[2 * i - 1], records[2 * i] = text, ARGV[id + i - 1], text
    bytes = bytes + #text
  end
  call_in_pieces('HSET', KEYS[4], records)
  if not goes_out then
    return wait(first, count, 'ids', cjson.encode({ unpack(ARGV, id, id + count - 1) }))
  end
  call_in_pieces('LPUSH', KEYS[14], texts)
  note(last, { unpack(ARGV, id, id + count - 1) })
  head, delivered, delivered_bytes = last + 1, delivered + count, delivered_bytes + bytes
end

local answers, turned, again = {}, false, false
local at = 5
while at <= #ARGV do
  local kind, first, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local attempt, claimed = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  at = at + 5
  if kind == 'D' or kind == 'N' then
    local next_stale = first
    for _, run in ipairs(held(first, count, attempt, claimed)) do
      answers[#answers + 1] = string.rep('0', run[1] - next_stale) .. string.rep('1', run[2] - run[1] + 1)
      next_stale = run[2] + 1
      done(run[1], run[2], at + run[1] - first, at + count + run[1] - first, kind == 'N')
      turned = true
    end
    answers[#answers + 1] = string.rep('0', first + count - next_stale)
    at = at + 2 * count
  elseif kind == 'R' then
    local delay = tonumber(ARGV[at])
    at = at + 1
    local is_held = give_back(head, first, attempt, delay)
    answers[#answers + 1] = is_held and '1' or '0'
    again = again or is_held
  else
    local id, reason, open = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    at = at + (kind == 'S' and 2 or 3)
    if #held(first, 1, attempt, claimed) == 0 then
      answers[#answers + 1] = '0'
    else
      answers[#answers + 1] = '1'
      turned = true
      local waits_with = recorded(id, first)
      if waits_with then
        wait(first, 1, 'ids', cjson.encode({ waits_with }))
      elseif kind == 'H' then
        halt(first, id, reason, attempt, open)
      else
        bury(first, id, reason, attempt)
        if kind == 'M' then
          wait(first, 1, 'open', open, 'died', whole(now))
        else
          wait(first, 1)
        end
      end
    end
  end
end

-- What waits at the head without a gap, as much of it as goes into one step.
local outputs, records, came_out, ended, gone, is_full = {}, {}, {}, {}, '', false
while delivers and head < upcoming and gone == '' do
  local state, seq, _, ms = read_slot(read_ring(KEYS[1], ring, head, 1), 1)
  if state ~= 'P' then
    break
  end
  if delivered >= MOST or delivered_bytes >= MOST_BYTES then
    is_full = true
    break
  end
  local cursor = whole(ms) .. '-' .. whole(seq)
  local entry = redis.call('XRANGE', KEYS[5], cursor, cursor)[1]
  local fields, last = entry and entry[2], head
  if not entry then
    gone = 'position ' .. whole(head) .. ' can not be delivered: ' .. KEYS[5] .. ' has no entry ' .. cursor
  elseif tonumber(fields[2]) > head then
    gone = 'position ' .. whole(head) .. ' can not be delivered: it is not what the entry ' .. cursor .. ' of ' .. KEYS[5] ..
      ' stands for'
  elseif fields[3] == 'ids' then
    local first, ids = tonumber(fields[2]), cjson.decode(fields[4])
    last = first + #ids - 1
    if last < head then
      gone = 'position ' .. whole(head) .. ' can not be delivered: the entry ' .. cursor .. ' of ' .. KEYS[5] .. ' ends before it'
    end
    while head <= last and delivered < MOST and delivered_bytes < MOST_BYTES and gone == '' do
      local from = head - first + 1
      local to = math.min(#ids, from + 63, from + MOST - delivered - 1)
      local texts = redis.call('HMGET', KEYS[4], unpack(ids, from, to))
      for i = 1, to - from + 1 do
        local text, id = texts[i], ids[from + i - 1]
        if not text and id ~= '' then
          gone = 'the record of position ' .. whole(head) .. ' is gone: ' .. KEYS[4] .. ' has no field `' .. id .. '`'
        end
        if gone ~= '' or delivered_bytes >= MOST_BYTES then
          break
        end
        local opening = '{"position":' .. whole(head) .. ','
        if text and string.sub(text, 1, #opening) == opening then
          local output, n = string.sub(text, 1, -2) .. sequenced, #records
          outputs[#outputs + 1], records[n + 1], records[n + 2] = output, id, output
          came_out[#came_out + 1] = id
          delivered_bytes = delivered_bytes + #output
        end
        head, delivered = head + 1, delivered + 1
        waiting = waiting - 1
      end
    end
  else
    if fields[3] == 'open' then
      local output = fields[4] .. ',"processed":"' .. rfc3339(tonumber(fields[6])) .. '"' .. sequenced
      outputs[#outputs + 1] = output
      delivered_bytes = delivered_bytes + #output
    end
    head, delivered = head + 1, delivered + 1
    waiting = waiting - 1
  end
  if head > last then
    ended[#ended + 1] = cursor
  end
end
call_in_pieces('HSET', KEYS[4], records)
call_in_pieces('LPUSH', KEYS[14], outputs)
call_in_pieces('XDEL', KEYS[5], ended)
if #came_out > 0 then
  note(head - 1, came_out)
end
if waiting ~= 0 then
  redis.call('HINCRBY', KEYS[8], 'processed', whole(waiting))
end
if head > oldest then
  redis.call('LTRIM', KEYS[7], 0, whole(oldest - head - 1))
  redis.call('HSET', KEYS[8], 'head', whole(head), 'noted', whole(noted))
  hint(KEYS[15])
  if meta[5] then
    redis.call('HDEL', KEYS[8], 'full')
    hint(KEYS[16])
  end
end
if turned and not delivers then hint(KEYS[9]) end
if again then hint(KEYS[10]) end
return { is_full and '1' or '0', table.concat(answers), gone }
