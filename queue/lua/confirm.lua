-- confirm says whether what was accepted is here: a fail-over may have lost it. It writes, so that WAIT on the same connection waits for
-- this write, and so for all before it, of whomever.
--
-- ARGV: 1 message or batch, 2 its idempotency key ("" for none), by which it is known when its record has been dropped. Answer: 1 or 0.
local id, key = ARGV[1], ARGV[2]
redis.call('SET', P .. 'confirmed', int(now_ms()))
if redis.call('EXISTS', P .. 'm:' .. id) == 1 or redis.call('HGET', P .. 'b:' .. id, 'state') == 'committed' then return 1 end
local before = key ~= '' and redis.call('GET', P .. 'i:' .. key)
return before and split(before, '\t')[1] == id and 1 or 0
