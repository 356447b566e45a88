-- older counts the attempts under way that began before the active settings became so.
--
-- Answer: how many. One that began in the same millisecond counts.
local since = tonumber(redis.call('HGET', P .. 'provider', 'since') or '0')
local n = 0
for _, key in ipairs(redis.call('SMEMBERS', P .. 'keys')) do
  for _, value in ipairs(redis.call('HVALS', P .. 'u:' .. key)) do
    for _, o in ipairs(open_of(unit_of(value).lines)) do
      if tonumber(o.begun) <= since then n = n + 1 end
    end
  end
end
return n
