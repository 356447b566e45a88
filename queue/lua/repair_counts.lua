-- repair_counts sets totals that are wrong. What was counted can differ from the total by what changed since the count began, which
-- "moves" and "moved_bytes" tell; if it differs by more, the total is wrong.
--
-- ARGV: 1 "counts" or "backlog", 2 and 3 moves and moved_bytes when the count began, then field and what was counted of each. Answer:
-- {set, by how much moves and moved_bytes grew by that}.
local key, answer, now = P .. ARGV[1], {0, 0, 0}, redis.call('HMGET', P .. 'counts', 'moves', 'moved_bytes')
local changed, bytes = (tonumber(now[1]) or 0) - tonumber(ARGV[2]), (tonumber(now[2]) or 0) - tonumber(ARGV[3])
if changed < 0 or bytes < 0 then return answer end -- they were lost meanwhile
for i = 4, #ARGV, 2 do
  local field, counted = ARGV[i], tonumber(ARGV[i + 1])
  local of_bytes = field == 'content_bytes'
  local off = math.abs((tonumber(redis.call('HGET', key, field)) or 0) - counted)
  if off > (of_bytes and bytes or changed) then
    if counted == 0 then redis.call('HDEL', key, field) else redis.call('HSET', key, field, int(counted)) end
    answer[1] = answer[1] + 1
    local moved = of_bytes and 3 or 2
    answer[moved] = answer[moved] + off
  end
end
-- Whoever else counts has to know.
if answer[2] > 0 then redis.call('HINCRBY', P .. 'counts', 'moves', int(answer[2])) end
if answer[3] > 0 then redis.call('HINCRBY', P .. 'counts', 'moved_bytes', int(answer[3])) end
return answer
