-- workers lists the processes whose lease runs, also if nobody is left who sweeps.
--
-- ARGV: 1 ms of a worker's lease. Answer: for each: worker, what it sends with (lease.lua).
local now, answer = now_ms(), {}
local leases = redis.call('HGETALL', P .. 'workers')
for i = 1, #leases, 2 do
  if tonumber(leases[i + 1]) + tonumber(ARGV[1]) >= now then
    answer[#answer + 1], answer[#answer + 2] = leases[i], redis.call('HGET', P .. 'sends', leases[i]) or ''
  end
end
return answer
