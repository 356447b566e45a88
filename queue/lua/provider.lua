-- provider makes settings the active ones, if they are not yet, and sets the limits, which are not part of them: to change a
-- limit ends no attempt.
--
-- ARGV: 1 fingerprint of the settings, 2 version if they are new, 3 fields that belong to the settings, counted with their
-- values, then those; then fields and values of the limits ("" for none). Answer: the active version.
local settings = tonumber(ARGV[3])
local p = redis.call('HMGET', P .. 'provider', 'fingerprint', 'version')
local version = p[1] == ARGV[1] and p[2]
if not version then
  version = ARGV[2]
  redis.call('UNLINK', P .. 'provider')
  redis.call('HSET', P .. 'provider', 'fingerprint', ARGV[1], 'version', version, unpack(ARGV, 4, 3 + settings))
end
redis.call('HSET', P .. 'provider', unpack(ARGV, 4 + settings))
-- Whoever was to be looked at later, as the former limits had it, is looked at now.
redis.call('UNLINK', P .. 'looks', P .. 'blocked', P .. 'first', P .. 'senior')
local provider = active()
-- Who was held by himself under other settings no longer is.
for _, sender in ipairs(redis.call('SMEMBERS', P .. 'aside')) do keep_aside(provider, sender, now_ms()) end
-- Units are counted over all keys only while they are bounded.
redis.call('UNLINK', P .. 'units')
if provider.all_concurrency < math.huge then
  for _, key in ipairs(redis.call('SMEMBERS', P .. 'keys')) do
    for _, unit in ipairs(redis.call('HKEYS', P .. 'u:' .. key)) do redis.call('SADD', P .. 'units', key .. '\t' .. unit) end
  end
end
for _, kind in ipairs({'a', 'r', 's'}) do
  for _, sender in ipairs(redis.call('LRANGE', P .. 's:' .. kind, 0, -1)) do
    redis.call('SADD', P .. 'ready', key_of(provider, sender))
  end
end
wake()
return version
