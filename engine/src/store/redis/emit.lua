-- Emit (law 3): appends to the output and advances the head. All of it, or, where the outputs are large, the first
-- ones: so that no step holds up the server for long. Or nothing.
--
-- KEYS  1 meta  2 processed  3 record  4 out  5 in  6 wake:out  7 wake:window  8 kept
-- ARGV  1 time and hints  2 term  3 head  4 '1' if the entries are dense from the head on  5 the lowest of their cursors
--       6 the highest, then five for each entry: cursor, sequencing as RFC 3339, kind, a, b
--         kind  R what the record holds: a id
--               T a tombstone: a the tombstone as far as it is written, b when it died in microseconds
--               N nothing
-- Returns { 'advanced', head }, { 'fenced', term } or { 'moved', head }.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the
-- script: what is processed can always be delivered.

local meta = redis.call('HMGET', KEYS[1], 'term', 'head', 'full', 'noted', 'shape')
local term, head = meta[1] or '0', meta[2] or '1'
if ARGV[2] ~= term then
  return { 'fenced', term }
end
if ARGV[3] ~= head or ARGV[4] ~= '1' or in_place_order(meta[5]) then
  return { 'moved', head }
end
local count = (#ARGV - 6) / 5
if count == 0 then
  return { 'advanced', head }
end
local first = tonumber(head)

-- What is emitted stands close together in the stream, so that one range mostly has it all. An entry stands for a run of
-- positions; what of it was delivered before stands below the head.
local waiting = {}
local function take_in(entries)
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    local run = { first = tonumber(fields[2]), count = 1, ids = {}, open = '', died = '' }
    if fields[3] == 'ids' then
      run.ids = cjson.decode(fields[4])
      run.count = #run.ids
    elseif fields[3] == 'open' then
      run.open, run.died = fields[4], fields[6]
    end
    waiting[entry[1]] = run
  end
end
take_in(redis.call('XRANGE', KEYS[2], ARGV[5], ARGV[6], 'COUNT', 2 * count + 16))

local positions, ended, ids = {}, {}, {}
for i = 1, count do
  local at = 5 * i + 2
  local cursor, _, kind, a, b = unpack(ARGV, at, at + 4)
  if not waiting[cursor] then
    take_in(redis.call('XRANGE', KEYS[2], cursor, cursor))
  end
  local run, position = waiting[cursor], first + i - 1
  local nth = run and position - run.first + 1
  if not run or nth < 1 or nth > run.count then
    return { 'moved', head }
  end
  local is_same = kind == 'N' and (run.ids[nth] or '') == '' and run.open == ''
  if kind == 'R' then
    is_same = run.ids[nth] == a
    ids[#ids + 1] = a
  elseif kind == 'T' then
    is_same = run.open == a and run.died == b
  end
  if not is_same then
    return { 'moved', head }
  end
  positions[i] = whole(position)
  ended[i] = nth == run.count and cursor
end

local texts, held = {}, 0
for first_id = 1, #ids, 64 do
  if held >= 8388608 then
    break
  end
  for _, text in ipairs(redis.call('HMGET', KEYS[3], unpack(ids, first_id, math.min(first_id + 63, #ids)))) do
    texts[#texts + 1] = text
    held = held + (text and #text or 0)
  end
end
local outputs, records, came_out, used = {}, {}, {}, 0
local sequenced = '","sequenced":"' .. rfc3339(now) .. '"}'
for i = 1, count do
  local at = 5 * i + 2
  local _, sequencing, kind, a, b = unpack(ARGV, at, at + 4)
  local later = ',"sequencing":"' .. sequencing .. sequenced
  if kind == 'R' then
    if used == #texts then
      count = i - 1
      break
    end
    used = used + 1
    local text = texts[used]
    if not text then
      return redis.error_reply('CONGA the record of position ' .. positions[i] .. ' is gone: ' .. KEYS[3] ..
        ' has no field `' .. a .. '`. Put it back, or the line can not go on')
    end
    local opening = '{"position":' .. positions[i] .. ','
    if string.sub(text, 1, #opening) == opening then
      local output = string.sub(text, 1, -2) .. later
      outputs[#outputs + 1] = output
      local n = #records
      records[n + 1], records[n + 2] = a, output
      came_out[#came_out + 1] = a
    end
  elseif kind == 'T' then
    outputs[#outputs + 1] = a .. ',"processed":"' .. rfc3339(tonumber(b)) .. '"' .. later
  end
end
-- One of a wrong type stops the script here, before it changes anything.
redis.call('LLEN', KEYS[4])
redis.call('LLEN', KEYS[5])
redis.call('LLEN', KEYS[8])

local cursors = {}
for i = 1, count do
  if ended[i] then
    cursors[#cursors + 1] = ended[i]
  end
end
redis.call('XDEL', KEYS[2], '0-0')
call_in_pieces('XDEL', KEYS[2], cursors)
redis.call('LTRIM', KEYS[5], 0, whole(-count - 1))
head = whole(first + count)
redis.call('HSET', KEYS[1], 'head', head, 'noted', whole(tonumber(meta[4] or '0') + #came_out))
call_in_pieces('HSET', KEYS[3], records)
call_in_pieces('LPUSH', KEYS[4], outputs)
if #came_out > 0 then
  -- As `complete.lua` does.
  redis.call('RPUSH', KEYS[8], cmsgpack.pack({ now, first + count - 1, came_out }))
end
redis.call('HINCRBY', KEYS[1], 'processed', -count)
hint(KEYS[6])
if meta[3] then
  redis.call('HDEL', KEYS[1], 'full')
  hint(KEYS[7])
end
return { 'advanced', head }
