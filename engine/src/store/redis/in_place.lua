-- Complete where not all messages keep their order: what is done goes out wherever it stands, the rules as core's
-- `partition/in_place.rs` has them. Stands before `complete.lua`, whose keys and arguments these are, and which hands it what both
-- do alike.
--
-- Two more states of a slot: W 0, 0, 0 is held back by an earlier one of its key, X 0, 0, 0 is delivered beyond the head.
-- A member of `keys` is the hash of a key and a position that is claimed and not delivered; `keyed` has the hash by the
-- position. One step delivers up to so many of what waited: the keys for which there is more are in `stopped`, and so is what a
-- person has the line go on past, its key, or without one `@` and its position.

local function complete_in_place(order, meta, held, give_back, bury, halt, note)
  local head, upcoming, ring = tonumber(meta[1] or '1'), tonumber(meta[2] or '1'), tonumber(meta[3] or '0')
  local by_key = string.sub(order, 1, 3) == 'key'
  local oldest, undelivered = head, upcoming - head - tonumber(meta[8] or '0')
  local date = rfc3339(now)
  local processed = ',"processed":"' .. date .. '"'
  local sequenced = ',"sequencing":"' .. date .. '","sequenced":"' .. date .. '"}'
  local MOST, MOST_BYTES = 1000, 1048576
  local outputs, came_out, highest = {}, {}, 0
  local delivered, bytes, waiting, again, gone = 0, 0, 0, false, ''
  local stopped, is_stopped = {}, {}

  -- What comes out of a position: a text, and whose record that is, or nothing.
  local function out(position, text, id)
    delivered = delivered + 1
    if text then
      outputs[#outputs + 1] = text
      bytes = bytes + #text
    end
    if id then
      came_out[#came_out + 1] = id
      highest = math.max(highest, position)
    end
  end

  local DELIVERED = slot('X', 0, 0, 0)

  local function mark(position, count)
    write_ring(KEYS[1], ring, position, string.rep(DELIVERED, count))
  end

  -- Lets it wait for its turn. Answers its slot, which is the caller's to write.
  local function wait(position, ...)
    local cursor = redis.call('XADD', KEYS[5], '*', 'position', whole(position), ...)
    local ms, seq = string.match(cursor, '^(%d+)-(%d+)$')
    waiting = waiting + 1
    return slot('P', tonumber(seq), 0, tonumber(ms))
  end

  -- The queues, by their hashes: what stands in each as far as it was read, and at which of it the queue begins by now. What
  -- leaves them is taken off at the end of the step, all at once.
  local queues, left, left_fields = {}, {}, {}

  local function first_of(hash)
    local queue = queues[hash]
    if not queue then
      -- The first, and what comes next when that is gone.
      queue = { at = 1, count = 0, most = 2, is_all = false }
      queues[hash] = queue
    end
    if queue.at > queue.count and not queue.is_all then
      local more = redis.call('ZRANGEBYLEX', KEYS[18], '[' .. hash, '[' .. hash .. '\255', 'LIMIT', queue.count, queue.most)
      for i = 1, #more do
        queue[queue.count + i] = tonumber(string.sub(more[i], 41))
      end
      queue.count, queue.is_all, queue.most = queue.count + #more, #more < queue.most, 100
    end
    return queue[queue.at]
  end

  -- The first of a queue leaves it.
  local function leave(position, hash)
    local n = #left + 1
    left[n], left_fields[n] = hash .. string.format('%016.0f', position), whole(position)
    queues[hash].at = queues[hash].at + 1
  end

  -- Delivers what waited. False, if something is gone without which that can not be.
  local function deliver_waiting(position, cursor)
    local entry = redis.call('XRANGE', KEYS[5], cursor, cursor)[1]
    local fields = entry and entry[2]
    if not entry then
      gone = 'position ' .. whole(position) .. ' can not be delivered: ' .. KEYS[5] .. ' has no entry ' .. cursor
      return false
    end
    local id = fields[3] == 'ids' and cjson.decode(fields[4])[1] or ''
    local text = id ~= '' and redis.call('HGET', KEYS[4], id)
    if id ~= '' and not text then
      gone = 'the record of position ' .. whole(position) .. ' is gone: ' .. KEYS[4] .. ' has no field `' .. id .. '`'
      return false
    end
    local opening = '{"position":' .. whole(position) .. ','
    if text and string.sub(text, 1, #opening) == opening then
      text = string.sub(text, 1, -2) .. sequenced
      redis.call('HSET', KEYS[4], id, text)
      out(position, text, id)
    elseif fields[3] == 'open' then
      out(position, fields[4] .. ',"processed":"' .. rfc3339(tonumber(fields[6])) .. '"' .. sequenced)
    else
      out(position)
    end
    redis.call('XDEL', KEYS[5], cursor)
    waiting = waiting - 1
    return true
  end

  -- Delivers what is done at the beginning of a queue, and lets go of what comes next, if it was held back. What stands up to
  -- `last` is at work still: its turn comes later in this step.
  local function deliver_queue(hash, last)
    while true do
      local first = first_of(hash)
      if not first or first <= last then
        return
      end
      local state, seq, _, ms = read_slot(read_ring(KEYS[1], ring, first, 1), 1)
      if state == 'W' then
        write_ring(KEYS[1], ring, first, slot('F', 0, 0, 0))
        redis.call('ZADD', KEYS[2], whole(first), whole(first))
        again = true
      end
      if state ~= 'P' then
        return
      end
      if delivered >= MOST or bytes >= MOST_BYTES or gone ~= '' or
        not deliver_waiting(first, whole(ms) .. '-' .. whole(seq)) then
        if not is_stopped[hash] then
          stopped[#stopped + 1], is_stopped[hash] = hash, true
        end
        return
      end
      mark(first, 1)
      leave(first, hash)
    end
  end

  -- It was delivered in its turn. Answers its slot.
  local function passed(position, hash, last)
    if hash then
      leave(position, hash)
      deliver_queue(hash, last)
    end
    return DELIVERED
  end

  -- Its id has a record. That goes out where it was recorded, unless that is still to come, behind this in the same queue.
  local function duplicate(id, position, hash, is_turn)
    local text = redis.call('HGET', KEYS[4], id)
    local kept = string.match(text, '^{"position":(%d+),')
    local takes = hash and kept and position < tonumber(kept) and string.sub(text, -43, -30) ~= ',"sequenced":"' and
      redis.call('HGET', KEYS[19], kept) == hash
    if takes then
      text = '{"position":' .. whole(position) .. string.sub(text, #'{"position":' + #kept + 1)
      if is_turn then
        text = string.sub(text, 1, -2) .. sequenced
      end
      redis.call('HSET', KEYS[4], id, text)
    end
    if not is_turn then
      return wait(position, 'ids', cjson.encode({ takes and id or '' }))
    end
    out(position, takes and text or nil, takes and id or nil)
  end

  local function is_turn_of(position, hash)
    return not hash or first_of(hash) == position
  end

  local function hashes_of(first, count)
    if not by_key then
      return {}
    end
    local positions = {}
    for i = 1, count do
      positions[i] = whole(first + i - 1)
    end
    return hmget(KEYS[19], positions)
  end

  local function has_any(values, count)
    for i = 1, count do
      if values[i] then
        return true
      end
    end
    return false
  end

  -- Records the results of a run, whose ids stand from ARGV[id] on and their texts from ARGV[open] on.
  local function done(first, last, id, open, is_new)
    local count = last - first + 1
    local hashes = hashes_of(first, count)
    is_new = is_new or
      (ARGV[4] == '1' and not has_any(redis.call('HMGET', KEYS[4], unpack(ARGV, id, id + count - 1)), count))
    if is_new and not has_any(hashes, count) then
      local records, ending, n, m = {}, processed .. sequenced, #outputs, #came_out
      for i = 1, count do
        local name, text = ARGV[id + i - 1], ARGV[open + i - 1] .. ending
        records[2 * i - 1], records[2 * i] = name, text
        outputs[n + i], came_out[m + i] = text, name
        bytes = bytes + #text
      end
      delivered, highest = delivered + count, math.max(highest, last)
      call_in_pieces('HSET', KEYS[4], records)
      if first == head then
        -- Nobody looks at those slots any more.
        head = last + 1
        return
      end
      return mark(first, count)
    end
    local slots, records = {}, {}
    for i = 1, count do
      local position, hash, name = first + i - 1, hashes[i], ARGV[id + i - 1]
      local is_turn = is_turn_of(position, hash)
      local text, waits = ARGV[open + i - 1] .. processed .. (is_turn and sequenced or '}'), nil
      if not is_new and redis.call('HSETNX', KEYS[4], name, text) == 0 then
        waits = duplicate(name, position, hash, is_turn)
      else
        if is_new then
          local n = #records
          records[n + 1], records[n + 2] = name, text
        end
        if is_turn then
          out(position, text, name)
        else
          waits = wait(position, 'ids', cjson.encode({ name }))
        end
      end
      slots[i] = waits or passed(position, hash, last)
    end
    call_in_pieces('HSET', KEYS[4], records)
    write_ring(KEYS[1], ring, first, table.concat(slots))
  end

  local function died(position, attempt, kind, id, reason, open)
    local hash = hashes_of(position, 1)[1]
    local is_turn, waits = is_turn_of(position, hash), nil
    if redis.call('HEXISTS', KEYS[4], id) == 1 then
      waits = duplicate(id, position, hash, is_turn)
    elseif kind == 'H' then
      return halt(position, id, reason, attempt, open)
    else
      bury(position, id, reason, attempt)
      if is_turn then
        out(position, kind == 'M' and open .. processed .. sequenced or nil)
      elseif kind == 'M' then
        waits = wait(position, 'open', open, 'died', whole(now))
      else
        waits = wait(position)
      end
    end
    write_ring(KEYS[1], ring, position, waits or passed(position, hash, position))
  end

  for hash in string.gmatch(meta[9] or '', '[^ ]+') do
    local position = tonumber(string.match(hash, '^@(%d+)$'))
    if not position then
      deliver_queue(hash, 0)
    elseif position >= head and position < upcoming then
      local state, seq, _, ms = read_slot(read_ring(KEYS[1], ring, position, 1), 1)
      if state == 'P' and deliver_waiting(position, whole(ms) .. '-' .. whole(seq)) then
        mark(position, 1)
      elseif state == 'P' then
        stopped[#stopped + 1] = hash
      end
    end
  end
  local answers, at = {}, 5
  while at <= #ARGV do
    local kind, first, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local attempt, claimed = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    at = at + 5
    if kind == 'D' or kind == 'N' then
      local next_stale = first
      for _, run in ipairs(held(first, count, attempt, claimed)) do
        -- What was passed by this step is no longer held.
        run[1] = math.max(run[1], math.min(head, run[2] + 1))
        answers[#answers + 1] = string.rep('0', run[1] - next_stale) .. string.rep('1', run[2] - run[1] + 1)
        next_stale = run[2] + 1
        if run[1] <= run[2] then
          done(run[1], run[2], at + run[1] - first, at + count + run[1] - first, kind == 'N')
        end
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
      local is_held = first >= head and #held(first, 1, attempt, claimed) > 0
      answers[#answers + 1] = is_held and '1' or '0'
      if is_held then
        died(first, attempt, kind, id, reason, open)
      end
    end
  end

  call_in_pieces('ZREM', KEYS[18], left)
  call_in_pieces('HDEL', KEYS[19], left_fields)
  call_in_pieces('LPUSH', KEYS[14], outputs)
  local noted = #came_out > 0 and note(highest, came_out) or tonumber(meta[6] or '0')
  if waiting ~= 0 then
    redis.call('HINCRBY', KEYS[8], 'processed', whole(waiting))
  end
  if #stopped > 0 then
    redis.call('HSET', KEYS[8], 'stopped', table.concat(stopped, ' '))
  elseif meta[9] then
    redis.call('HDEL', KEYS[8], 'stopped')
  end
  if delivered > 0 then
    local step = 16
    while head < upcoming do
      local count, nth = math.min(upcoming - head, step), 0
      local slots = read_ring(KEYS[1], ring, head, count)
      if slots == string.rep(DELIVERED, count) then
        nth = count
      end
      while nth < count and string.byte(slots, nth * SLOT + 1) == 88 do
        nth = nth + 1
      end
      head, step = head + nth, 1000
      if nth < count then
        break
      end
    end
    if head > oldest then
      redis.call('LTRIM', KEYS[7], 0, whole(oldest - head - 1))
    end
    redis.call('HSET', KEYS[8], 'head', whole(head), 'noted', whole(noted), 'in_place',
      whole(upcoming - head - undelivered + delivered))
    hint(KEYS[15])
    if meta[5] then
      redis.call('HDEL', KEYS[8], 'full')
      hint(KEYS[16])
    end
  end
  if again then hint(KEYS[10]) end
  return { gone == '' and #stopped > 0 and '1' or '0', table.concat(answers), gone }
end
