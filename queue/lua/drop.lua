-- drop takes back a bounded part of something staged that will not be committed. Call again until it answers 0.
--
-- ARGV: 1 id, 2 "overdue" to drop it only if its deadline has passed, else "". Answer: 1 if there is more to do.
local id = ARGV[1]
local key = P .. 'b:' .. id
local b = redis.call('HMGET', key, 'state', 'kind', 'sender', 'chunks', 'bytes', 'refs', 'own')
if b[1] ~= 'staged' and b[1] ~= 'dropped' then
  if not b[1] then redis.call('ZREM', P .. 'staged', id) end
  return 0
end
if b[1] == 'staged' then
  local deadline = tonumber(redis.call('ZSCORE', P .. 'staged', id) or 0)
  if ARGV[2] == 'overdue' and deadline > now_ms() then return 0 end
  redis.call('HSET', key, 'state', 'dropped')
  -- Whoever dies before the end leaves it to the sweep.
  redis.call('ZADD', P .. 'staged', 0, id)
end
if b[2] then
  local lane = lane_key(b[2], b[3], id) .. ':n'
  local items = redis.call('LPOP', lane, 500)
  if items and #items > 0 then
    for _, item in ipairs(items) do
      local r = b[7] and load(item)
      if r then unrefer(r.head[REFS]) end
      redis.call('UNLINK', P .. 'm:' .. item)
    end
    flush(0, math.huge)
    return 1
  end
end
for i = 0, tonumber(b[4]) - 1 do redis.call('UNLINK', P .. 'c:' .. id .. ':' .. i) end
tally('content_bytes', -tonumber(b[5]))
unrefer(b[6])
flush(0, math.huge)
redis.call('UNLINK', key)
redis.call('ZREM', P .. 'staged', id)
return 0
