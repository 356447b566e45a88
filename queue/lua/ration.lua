-- ration lets something be done so often in a time: by one, and by all together.
--
-- ARGV: 1 what, 2 by whom, 3 id of this time, 4 ms of the window, 5 how often by one, 6 how often by all (0: no limit). Answer: 0 if it may be
-- done now, which is counted; else ms until it may be.
local now, window = now_ms(), tonumber(ARGV[4])
local wait = 0
local scopes = {{'one:' .. ARGV[2], tonumber(ARGV[5])}}
if ARGV[6] ~= '0' then scopes[2] = {'all', tonumber(ARGV[6])} end
for _, scope in ipairs(scopes) do
  scope[1] = P .. 'ration:' .. ARGV[1] .. ':' .. scope[1]
  if redis.call('ZSCORE', scope[1], ARGV[3]) then return 0 end
  redis.call('ZREMRANGEBYSCORE', scope[1], '-inf', int(now - window))
  if redis.call('ZCARD', scope[1]) >= scope[2] then
    -- There is room when as many have left as are too many.
    local at = redis.call('ZRANGE', scope[1], -scope[2], -scope[2], 'WITHSCORES')[2]
    wait = math.max(wait, tonumber(at) + window - now)
  end
end
if wait > 0 then return math.ceil(wait) end
for _, scope in ipairs(scopes) do
  redis.call('ZADD', scope[1], int(now), ARGV[3])
  redis.call('PEXPIRE', scope[1], ARGV[4])
end
return 0
