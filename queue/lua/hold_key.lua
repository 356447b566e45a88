-- hold_key marks an idempotency key as that of a request that is being worked on, prolongs the mark, or takes it away again.
--
-- ARGV: 1 key, 2 mark (random), 3 ms it lasts ("0": take it away). Answer: {"held"}; {"running"} (another request has it); {"done",
-- id, fingerprint} (the request was accepted before).
local key, mark = P .. 'i:' .. ARGV[1], '\t~' .. ARGV[2]
local before = redis.call('GET', key)
if before and before ~= mark then
  local parts = split(before, '\t')
  if parts[1] == '' then return {'running'} end
  return {'done', parts[1], parts[2]}
end
if ARGV[3] ~= '0' then
  redis.call('SET', key, mark, 'PX', ARGV[3])
elseif before then
  redis.call('UNLINK', key)
end
return {'held'}
