-- commit accepts a staged batch: from here on it is sent, whatever dies.
--
-- ARGV: 1 batch, 2 items it must have, 3 idempotency key ("" for none), 4 fingerprint of the request, 5 ms to keep the key,
-- 6 send_at in ms (0: now), 7 what the key is marked with, 8 who was refused, for whoever repeats the request ("": nobody),
-- 9 accept.backlog_max (0: no bound). Answer: {"accepted" or "replayed", id}; {"conflict"}; {"running"}; {"crowded"}; {"gone"} (its deadline has
-- passed, or a fail-over has lost a part of it).
local now, id = now_ms(), ARGV[1]
local b = redis.call('HMGET', P .. 'b:' .. id, 'state', 'items', 'kind', 'sender', 'chunks', 'expires')
if b[1] == 'committed' then return {'accepted', id} end
local answer = replay(ARGV[3], ARGV[4], ARGV[7])
if answer then return answer end
if b[1] ~= 'staged' or b[2] ~= ARGV[2] or not whole(id, b[5]) then return {'gone'} end
if not room_for(b[3], tonumber(b[2]), tonumber(ARGV[9])) then return {'crowded'} end
redis.call('HSET', P .. 'b:' .. id, 'state', 'committed', 'shares', b[2])
if ARGV[8] ~= '' then redis.call('HSET', P .. 'b:' .. id, 'refused', ARGV[8]) end
redis.call('ZREM', P .. 'staged', id)
if b[6] then redis.call('ZADD', P .. 'expires', b[6], 'b:' .. id) end
tally('open:' .. b[3], tonumber(b[2]))
if ARGV[3] ~= '' then redis.call('SET', P .. 'i:' .. ARGV[3], id .. '\t' .. ARGV[4], 'PX', ARGV[5]) end
if tonumber(ARGV[6]) > now then
  await('b:' .. id, tonumber(ARGV[6]))
else
  activate(b[3], b[4], id)
  wait_in(b[3], b[4], tonumber(b[2]))
  flag_for(b[4], b[3], now)
end
flush(now, math.huge)
return {'accepted', id}
