-- Sync: a write for WAIT to wait for. WAIT covers the last write of its own connection, and what was written before on
-- any other.
--
-- KEYS  1 synced
-- ARGV  1 time and hints
-- Returns the name of the history that this server writes, or '' if it does not tell.
--
-- The first write only takes away, which Redis allows even under memory pressure (OOM), and after it the rest of the
-- script.

redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], whole(now))
local info = redis.pcall('INFO', 'replication')
return type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or ''
