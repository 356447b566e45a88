-- abandon has an attempt count as past its deadline, as its worker knows nothing of it any more: the sweep ends it as unknown.
--
-- ARGV: 1 attempt, 2 key with units, 3 unit. Answer: 1 if it was open.
local u = unit_of(redis.call('HGET', P .. 'u:' .. ARGV[2], ARGV[3]))
for _, o in ipairs(u.open) do
  if o.attempt == ARGV[1] then
    o.deadline = '0'
    redis.call('HSET', P .. 'u:' .. ARGV[2], ARGV[3], unit_text(u))
    return 1
  end
end
return 0
