-- claim lets one process do what all would do otherwise, for a time.
--
-- ARGV: 1 what, 2 worker, 3 ms. Answer: 1 if it is this worker's to do.
local key = P .. ARGV[1]
if redis.call('GET', key) == ARGV[2] then return 1 end
return redis.call('SET', key, ARGV[2], 'NX', 'PX', ARGV[3]) and 1 or 0
