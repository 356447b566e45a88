-- own lists the attempts that are open under a process's lease, or under one that it had before, so that it can tell which of them it has
-- settled: a fail-over of Redis may have lost that, and may have taken so long that the lease ran out meanwhile.
--
-- ARGV: 1 ms since which an attempt must have begun, 2 keys to look at in this step, 3 cursor ("0": from the start), 4 worker, then its
-- former ones. Answer: {cursor ("0": done), attempt, key with units (of those set apart, too), unit, "1" if it is under the lease that
-- it has now or "", ...}.
local now, mine = now_ms(), {}
for i = 4, #ARGV do mine[ARGV[i]] = true end
local page = redis.call('SSCAN', P .. 'keys', ARGV[3], 'COUNT', ARGV[2])
local answer = {page[1]}
for _, key in ipairs(page[2]) do
  local units = redis.call('HGETALL', P .. 'u:' .. key)
  for i = 1, #units, 2 do
    local u = unit_of(units[i + 1])
    for _, o in ipairs(open_of(mine[u[WORKER]] and u.lines or '')) do
      if tonumber(o.begun) + tonumber(ARGV[1]) <= now then
        for _, v in ipairs({o.attempt, key, units[i], u[WORKER] == ARGV[4] and '1' or ''}) do answer[#answer + 1] = v end
      end
    end
  end
end
return answer
