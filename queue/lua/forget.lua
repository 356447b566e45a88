-- forget drops, in a bounded step, records that have been kept long enough: what ended well, then what failed.
--
-- ARGV: 1 ms to keep what was delivered, cancelled or expired, 2 ms to keep what failed, 3 records.delivered_max.
-- Answer: {1 if there is more to do, failed messages that were dropped}.
local STEPS = 200
local now, answer = now_ms(), {0, 0}

local function over(entry)
  if string.sub(entry, 1, 2) == 'b:' then
    return tonumber(redis.call('HGET', P .. entry, 'finished') or 0)
  end
  local r, newer = load(string.sub(entry, 3))
  if newer then return now end
  return r and tonumber(r.head[WHEN]) or 0
end

for i = 1, STEPS do
  local entry = redis.call('LINDEX', P .. 'finished', 0)
  if not entry or over(entry) + tonumber(ARGV[1]) > now then break end
  redis.call('LPOP', P .. 'finished')
  redis.call('UNLINK', P .. entry)
  if i == STEPS then answer[1] = 1 end
end

local old = redis.call('ZRANGEBYSCORE', P .. 'failed', '-inf', int(now - tonumber(ARGV[2])), 'LIMIT', 0, STEPS)
for _, id in ipairs(old) do
  local r, newer = load(id)
  if r and r.head[STATE] == FAILED then
    discard(id, r)
    answer[2] = answer[2] + 1
  end
  if not newer then redis.call('ZREM', P .. 'failed', id) end
end
flush(now, tonumber(ARGV[3]))
-- What is kept of a key that has sent nothing for as long, and is neither held nor paused.
for _, key in ipairs(redis.call('ZRANGEBYSCORE', P .. 'mailboxes', '-inf', int(now - tonumber(ARGV[2])), 'LIMIT', 0, STEPS)) do
  if silent_until(key) <= now and not out_of_rings(key) then
    redis.call('UNLINK', P .. 'k:' .. key)
    redis.call('ZREM', P .. 'mailboxes', key)
    redis.call('SREM', P .. 'aside', key)
  end
end
if #old == STEPS and answer[2] > 0 then answer[1] = 1 end
return answer
