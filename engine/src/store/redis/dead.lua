-- Dead: carries out what a person has decided about dead letters that are delivered past.
--
-- KEYS  1 in  2 meta  3 dead  4 wake:in
-- ARGV  1 time or ''  2 'retry' or 'purge', then for each of them its position and the stream's id of its entry in `dead`,
--       '' where none was found
-- Returns { 'done' or 'missing' or 'early', ... }, in their order.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the
-- script: what is retried takes no more room than it did before.

local head = tonumber(redis.call('HGET', KEYS[2], 'head') or '1')
redis.call('LLEN', KEYS[1])
redis.call('XLEN', KEYS[3])

local answers, is_news = {}, false
for i = 3, #ARGV, 2 do
  local position, place, answer = ARGV[i], ARGV[i + 1], 'missing'
  -- Somebody else may have been faster since it was found.
  local letter = place ~= '' and redis.call('XRANGE', KEYS[3], place, place)[1]
  if letter and letter[2][2] == position then
    answer = 'early'
    if tonumber(position) < head then
      answer = 'done'
      redis.call('XDEL', KEYS[3], place)
      if ARGV[2] == 'retry' then
        redis.call('LPUSH', KEYS[1], letter[2][12])
        is_news = true
      end
    end
  end
  answers[#answers + 1] = answer
end
if is_news then
  redis.call('PUBLISH', KEYS[4], '')
end
return answers
