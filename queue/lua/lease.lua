-- lease renews a worker's lease, or gives it up.
--
-- ARGV: 1 worker, 2 "new", "renew" or "end". Answer: 1 if the worker has its lease, 0 if it was declared dead.
local known = redis.call('HEXISTS', P .. 'workers', ARGV[1]) == 1
if ARGV[2] == 'end' then
  redis.call('HDEL', P .. 'workers', ARGV[1])
  return 0
end
if ARGV[2] == 'renew' and not known then return 0 end
redis.call('HSET', P .. 'workers', ARGV[1], int(now_ms()))
return 1
