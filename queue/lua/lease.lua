-- lease renews a worker's lease, or gives it up.
--
-- ARGV: 1 worker, 2 "new", "renew" or "end", 3 what it sends with: version, host, and why it can't load the active settings ("" if
-- it can), by tabs. Answer: {1 if the worker has its lease, 0 if it was declared dead; the version of the active settings, "" for
-- none}.
local known = redis.call('HEXISTS', P .. 'workers', ARGV[1]) == 1
if ARGV[2] == 'end' then
  redis.call('HDEL', P .. 'workers', ARGV[1])
  redis.call('HDEL', P .. 'sends', ARGV[1])
  return {0, ''}
end
local version = redis.call('HGET', P .. 'provider', 'version') or ''
if ARGV[2] == 'renew' and not known then return {0, version} end
redis.call('HSET', P .. 'workers', ARGV[1], int(now_ms()))
redis.call('HSET', P .. 'sends', ARGV[1], ARGV[3])
return {1, version}
