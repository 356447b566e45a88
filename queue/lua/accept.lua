-- accept takes in one message: with its content, or (staged) with content that was written before. It is all or nothing.
--
-- ARGV: 1 id, 2 record, 3 kind, 4 sender, 5 bytes of content, 6 content.max_bytes, 7 idempotency key ("" for none),
-- 8 fingerprint of the request, 9 ms to keep the idempotency key, 10 send_at in ms (0: now), 11 content, or "" if staged,
-- 12 stored files that it refers to (as in its record), 13 accept.backlog_max (0: no bound), 14 expires_at in ms (0: none).
-- Answer: {"accepted" or "replayed", id}; {"conflict"} (another request had this key); {"running"} (another one has it now); {"full"}; {"crowded"} (too many messages wait); {"gone"} (the staged
-- content's deadline has passed, or a fail-over has lost a piece of it); {"lost", id} (a file is not stored any more).
local now = now_ms()
local id, kind, sender, bytes = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5])
if redis.call('EXISTS', P .. 'm:' .. id) == 1 then return {'accepted', id} end
local answer = replay(ARGV[7], ARGV[8], '')
if answer then return answer end
if not room_for(kind, 1, tonumber(ARGV[13])) then return {'crowded'} end
local lost = lost_of(ARGV[12])
if lost then return {'lost', lost} end
if ARGV[11] == '' then
  local b = redis.call('HMGET', P .. 'b:' .. id, 'state', 'chunks')
  if b[1] ~= 'staged' or not whole(id, b[2]) then return {'gone'} end
  redis.call('UNLINK', P .. 'b:' .. id)
  redis.call('ZREM', P .. 'staged', id)
  -- The bytes are the record's now: who counts anew may meet them twice, or not at all.
  tally('content_bytes', bytes)
  tally('content_bytes', -bytes)
else
  if not reserve(bytes, tonumber(ARGV[6])) then return {'full'} end
  redis.call('SET', P .. 'c:' .. id .. ':0', ARGV[11])
end
refer(ARGV[12])
redis.call('SET', P .. 'm:' .. id, ARGV[2])
if ARGV[14] ~= '0' then redis.call('ZADD', P .. 'expires', ARGV[14], 'm:' .. id) end
tally('open:' .. kind, 1)
if ARGV[7] ~= '' then redis.call('SET', P .. 'i:' .. ARGV[7], id .. '\t' .. ARGV[8], 'PX', ARGV[9]) end
if tonumber(ARGV[10]) > now then
  await('m:' .. id, tonumber(ARGV[10]))
else
  push(kind, sender, '-', 'n', id)
  flag_for(sender, kind, now)
end
flush(now, math.huge)
return {'accepted', id}
