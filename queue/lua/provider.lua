-- provider makes settings the active ones, if they are not yet.
--
-- ARGV: 1 fingerprint of the settings, 2 version if they are new, then fields and values. Answer: the active version.
local p = redis.call('HMGET', P .. 'provider', 'fingerprint', 'version')
if p[1] == ARGV[1] then return p[2] end
redis.call('UNLINK', P .. 'provider')
redis.call('HSET', P .. 'provider', 'fingerprint', ARGV[1], 'version', ARGV[2], unpack(ARGV, 3))
wake()
return ARGV[2]
