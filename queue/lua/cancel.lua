-- cancel ends a message that nobody is sending.
--
-- ARGV: 1 id, 2 records.delivered_max. Answer: {"cancelled"} (it had been), {"too_late"} (it is being sent, or has ended), {"none"},
-- or {"ended", what told says of it} if this call ended it.
local r = load(ARGV[1])
if not r then return {'none'} end
if r.head[BATCH] ~= '' and redis.call('HGET', P .. 'b:' .. r.head[BATCH], 'state') ~= 'committed' then return {'none'} end
if r.head[STATE] == CANCELLED then return {'cancelled'} end
if r.head[STATE] ~= QUEUED then return {'too_late'} end
local now = now_ms()
finish(ARGV[1], r, CANCELLED, now)
flush(now, tonumber(ARGV[2]))
return {'ended', told(ARGV[1], r, CANCELLED)}
