-- forget_contents drops stored files that nobody holds when their time has passed, in a bounded step.
--
-- ARGV: 1 "" for what is overdue, or the id of one that will not be completed. Answer: {1 if there is more to do, dropped, of them not
-- complete}.
local STEPS = 20
local answer = {0, 0, 0}
local overdue = {ARGV[1]}
if ARGV[1] == '' then overdue = redis.call('ZRANGEBYSCORE', P .. 'contents', '-inf', int(now_ms()), 'LIMIT', 0, STEPS) end
for _, id in ipairs(overdue) do
  local c = redis.call('HMGET', P .. 'a:' .. id, 'state', 'shares', 'chunks', 'bytes')
  if ARGV[1] == '' or c[1] == 'staged' then
    -- Whoever holds it has taken it out of the list; should it stand there all the same, it stays.
    if (tonumber(c[2]) or 0) <= 0 then
      drop_content(id, c[3], c[4])
      redis.call('UNLINK', P .. 'a:' .. id)
      answer[2] = answer[2] + 1
      if c[1] == 'staged' then answer[3] = answer[3] + 1 end
    end
    redis.call('ZREM', P .. 'contents', id)
  end
end
flush(0, math.huge)
if #overdue == STEPS then answer[1] = 1 end
return answer
