-- provider makes settings the active ones, or leaves none active, and sets the limits, which are not part of them: to change a
-- limit ends no attempt. What was kept of the former settings is gone in the same step.
--
-- P.."provider" has of the active settings: id (random), number (one more than that of the former), version (both; absent if no
-- provider is active), source ("file" or "api"), by, since, kind, fingerprint and salt (of a file's), sealed and shown (see
-- Provider in provider.go), and what scripts go by (active in prelude.lua). P.."declared" is there while a process runs whose
-- configuration file has settings: then nothing else may set any.
--
-- ARGV: 1 "declare" (settings of a file), "activate", "clear" (none) or "reseal" (nothing but the seal changes), 2 id of the
-- settings, 3 for "declare" their fingerprint ("": none is to be active), else the version that has to be active ("": none), 4 ms that a declaration
-- lasts, 5 a hold that the settings begin with, as they were tried and refused ("": none): ms, longest, reason and outcome, by tabs,
-- 6 entry for the audit, 7 the sealed text that has to be there already ("": whichever is), 8 fields that belong to the settings,
-- counted with their values, then those; then fields and values of the limits ("" for none).
-- Every process is told by a message on the channel P.."provider". Answer: {"done", version}, and what hold said if it began one; {"changed"} (something else is active than was expected) or {"declared"}.
local what, id, expected = ARGV[1], ARGV[2], ARGV[3]
local settings = tonumber(ARGV[8])
local now = now_ms()
local p = redis.call('HMGET', P .. 'provider', 'id', 'number', 'version', 'fingerprint', 'place', 'sealed')
local version = p[3] or ''
local same = false
if what == 'declare' then
  redis.call('SET', P .. 'declared', '1', 'PX', ARGV[4])
  same = p[4] == expected
elseif audited(ARGV[6]) then
  return {'done', version} -- this very call has been made before
elseif redis.call('EXISTS', P .. 'declared') == 1 then
  return {'declared'}
elseif version ~= expected or ARGV[7] ~= '' and p[6] ~= ARGV[7] then
  return {'changed'}
else
  same = p[1] == id
end

if not same then
  local none = what == 'clear' or what == 'declare' and expected == ''
  local number = int((tonumber(p[2]) or 0) + 1)
  version = not none and number .. '-' .. id or ''
  redis.call('UNLINK', P .. 'provider')
  redis.call('HSET', P .. 'provider', 'id', id, 'number', number, 'since', int(now))
  if version ~= '' then redis.call('HSET', P .. 'provider', 'version', version) end
end
redis.call('HSET', P .. 'provider', unpack(ARGV, 9, 8 + settings))
if #ARGV > 8 + settings then redis.call('HSET', P .. 'provider', unpack(ARGV, 9 + settings)) end
if what ~= 'declare' or not same then audit(ARGV[6]) end
if not same then redis.call('PUBLISH', P .. 'provider', version) end
if what == 'reseal' then return {'done', version} end

-- What is under way elsewhere takes nothing from the concurrency of the new settings.
local here = redis.call('HGET', P .. 'provider', 'place') or ''
local there = p[5] or ''
if here == '' then
  redis.call('HSET', P .. 'provider', 'place', there)
elseif there ~= '' and there ~= here then
  for _, key in ipairs(redis.call('SMEMBERS', P .. 'keys')) do
    local units = redis.call('HGETALL', P .. 'u:' .. key)
    for i = 1, string.sub(key, 1, 1) ~= APART and #units or 0, 2 do
      local u = unit_of(units[i + 1])
      if u.lines ~= '' then
        redis.call('HDEL', P .. 'u:' .. key, units[i])
        redis.call('HSET', P .. 'u:' .. APART .. key, u[TURN], units[i + 1])
        redis.call('SADD', P .. 'keys', APART .. key)
      end
    end
    if redis.call('EXISTS', P .. 'u:' .. key) == 0 then redis.call('SREM', P .. 'keys', key) end
  end
end

-- Whoever was to be looked at later, as the former limits had it, is looked at now.
redis.call('UNLINK', P .. 'looks', P .. 'blocked', P .. 'first', P .. 'senior')
local provider = active()
-- Who was held by himself under other settings no longer is.
for _, sender in ipairs(redis.call('SMEMBERS', P .. 'aside')) do keep_aside(provider, sender, now) end
-- Units are counted over all keys only while they are bounded.
redis.call('UNLINK', P .. 'units')
if not provider then return {'done', ''} end
local held
if ARGV[5] ~= '' then
  local ms, longest, reason, outcome = string.match(ARGV[5], '^([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$')
  -- Where it would be held if attempts had met this.
  held = hold(provider.mode == 'account' and provider.key or '*', {ms = tonumber(ms), longest = tonumber(longest), reason = reason, outcome = outcome}, now)
end
if provider.all_concurrency < math.huge then
  for _, key in ipairs(redis.call('SMEMBERS', P .. 'keys')) do
    for _, unit in ipairs(string.sub(key, 1, 1) ~= APART and redis.call('HKEYS', P .. 'u:' .. key) or {}) do
      redis.call('SADD', P .. 'units', key .. '\t' .. unit)
    end
  end
end
for _, kind in ipairs({'a', 'r', 's'}) do
  for _, sender in ipairs(redis.call('LRANGE', P .. 's:' .. kind, 0, -1)) do
    redis.call('SADD', P .. 'ready', key_of(provider, sender))
  end
end
wake()
return {'done', version, held}
