-- own lists the attempts that are open under a worker's lease, so that it can tell which of them it has settled: a fail-over of Redis
-- may have lost that.
--
-- ARGV: 1 worker, 2 ms since which an attempt must have begun, 3 keys to look at in this step, 4 cursor ("0": from the start).
-- Answer: {cursor ("0": done), attempt, key with units (of those set apart, too), unit, ...}.
local now = now_ms()
local page = redis.call('SSCAN', P .. 'keys', ARGV[4], 'COUNT', ARGV[3])
local answer = {page[1]}
for _, key in ipairs(page[2]) do
  local units = redis.call('HGETALL', P .. 'u:' .. key)
  for i = 1, #units, 2 do
    local u = unit_of(units[i + 1])
    for _, o in ipairs(u[WORKER] == ARGV[1] and u.open or {}) do
      if tonumber(o.begun) + tonumber(ARGV[2]) <= now then
        for _, v in ipairs({o.attempt, key, units[i]}) do answer[#answer + 1] = v end
      end
    end
  end
end
return answer
