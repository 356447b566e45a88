-- cancel_batch sets a batch's flag, from which moment none of its messages begins an attempt, and ends a bounded part of
-- what waits. Call again until it answers 0; the sweep goes on with what nobody finished.
--
-- ARGV: 1 id, 2 records.delivered_max, 3 entry for the audit if this call sets the flag (left out: none). Answer: {1 if there is more to do, 0 if not, -1 if there is no such batch; messages
-- ended; letter of their kind; 1 if this call has set the flag; what told says of those ended that were due again}.
local id, max, now = ARGV[1], tonumber(ARGV[2]), now_ms()
local b = redis.call('HMGET', P .. 'b:' .. id, 'state', 'kind', 'sender', 'cancelled', 'trace')
if b[1] ~= 'committed' then
  redis.call('SREM', P .. 'cancelling', id)
  return {-1, 0, '', 0, {}}
end
if not b[4] then
  audit(ARGV[3])
  redis.call('HSET', P .. 'b:' .. id, 'cancelled', int(now))
  redis.call('SADD', P .. 'cancelling', id)
end
local again, ended = {}, 0
for _, which in ipairs({':d', ':n'}) do
  local taken = empty(b[2], b[3], id, which, function(message, r)
    finish(message, r, CANCELLED, now)
    ended = ended + 1
    if which == ':d' then again[#again + 1] = told(message, r, CANCELLED, b[5]) end
  end)
  if taken > 0 then
    flush(now, max)
    return {1, ended, b[2], b[4] and 0 or 1, again}
  end
end
redis.call('SREM', P .. 'cancelling', id)
redis.call('ZREM', P .. 'due', 'b:' .. id)
return {0, 0, b[2], b[4] and 0 or 1, again}
