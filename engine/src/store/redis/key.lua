-- Order by key: what a claim has to know of it. Stands before `claim.lua`.

-- What is passed over at most by one claim, and how many windows ahead of the head a claim may be: the numbers of core's
-- `partition/in_place.rs`.
local PASS_MOST, REACH = 1000, 100

local function end_of_string(entry, at)
  while true do
    local stop = string.find(entry, '["\\]', at + 1)
    if not stop or string.byte(entry, stop) == 34 then
      return stop
    end
    at = stop + 1
  end
end

-- What a string says; as it is written, where it says nothing.
local function text_of(written)
  if not string.find(written, '\\', 1, true) then
    return written
  end
  local ok, read = pcall(cjson.decode, '["' .. written .. '"]')
  return ok and read[1] or written
end

-- The key of an entry, by the same scan as core's `message/key.rs`: that finds each key which a parser finds. A parser of
-- JSON would refuse some entries that ours takes.
local function key_of(entry)
  if not string.find(entry, '"key"', 1, true) and not string.find(entry, '\\', 1, true) then
    return nil
  end
  local at, depth = string.match(entry, '^[ \t\r\n]*{()'), 1
  while at do
    at = string.find(entry, '["{}%[%]]', at)
    local byte = at and string.byte(entry, at)
    if not at then
      return nil
    elseif byte == 34 then
      local stop = end_of_string(entry, at)
      if not stop then
        return nil
      end
      local value, quote = string.match(entry, '^[ \t\r\n]*:[ \t\r\n]*()("?)', stop + 1)
      if depth == 1 and quote == '"' and text_of(string.sub(entry, at + 1, stop - 1)) == 'key' then
        stop = end_of_string(entry, value)
        return stop and text_of(string.sub(entry, value + 1, stop - 1))
      end
      at = depth == 1 and value or stop + 1
    else
      if byte == 123 or byte == 91 then
        depth = depth + 1
      elseif depth == 1 then
        return nil
      else
        depth = depth - 1
      end
      at = at + 1
    end
  end
end

-- Claims up to `count` positions from `first` on, but hands out `most` at most: puts each behind the others of its key, and
-- with `serial` passes over what may not go yet. `read` gives some entries from a position on, newest first, and `take`
-- hands one out; it answers whether there is room for more. Answers the slots of what was claimed.
local function claim_by_key(keys_key, keyed_key, first, count, most, serial, lease, read, take)
  local slots, members, fields, busy = {}, {}, {}, {}
  local parked, passed, handed, room = slot('W', 0, 0, 0), 0, 0, true
  while #slots < count and handed < most and passed < PASS_MOST and room do
    local some = read(first + #slots, count - #slots)
    local nth = #some
    while nth > 0 and handed < most and passed < PASS_MOST and room do
      local position, entry = first + #slots, some[nth]
      nth = nth - 1
      local key, is_behind = key_of(entry), false
      if key then
        local hash = redis.sha1hex(key)
        if serial then
          is_behind = busy[hash] or
            #redis.call('ZRANGEBYLEX', keys_key, '[' .. hash, '[' .. hash .. '\255', 'LIMIT', 0, 1) > 0
          busy[hash] = true
        end
        local n = #members
        members[n + 1], members[n + 2] = '0', hash .. string.format('%016.0f', position)
        fields[n + 1], fields[n + 2] = whole(position), hash
      end
      slots[#slots + 1] = is_behind and parked or lease
      if is_behind then
        passed = passed + 1
      else
        handed = handed + 1
        room = take(position, entry)
      end
    end
    if #some == 0 then
      break
    end
  end
  call_in_pieces('ZADD', keys_key, members)
  call_in_pieces('HSET', keyed_key, fields)
  return slots
end
