-- repair_keys lists limit keys again: those with units out in "keys", their units in "units", those of which something is kept in
-- "mailboxes", and senders who are held by themselves in "aside"; and strikes out what is not so.
--
-- ARGV: 1 "out" (limit keys that have units out, or are listed so), "units" (members of "units") or "kept" (limit keys of which
-- something is kept), then the names. Answer: how much was put right.
local now, mended = now_ms(), 0
local provider = active()
local bounded = provider and provider.all_concurrency < math.huge

local function out(key)
  if redis.call('EXISTS', P .. 'u:' .. key) == 0 then
    mended = mended + redis.call('SREM', P .. 'keys', key)
    return
  end
  mended = mended + redis.call('SADD', P .. 'keys', key)
  for _, unit in ipairs(bounded and string.sub(key, 1, 1) ~= APART and redis.call('HKEYS', P .. 'u:' .. key) or {}) do
    mended = mended + redis.call('SADD', P .. 'units', key .. '\t' .. unit)
  end
end

local function unit(member)
  local key, number = string.match(member, '^(.*)\t([^\t]*)$')
  if redis.call('HEXISTS', P .. 'u:' .. key, number) == 0 then mended = mended + redis.call('SREM', P .. 'units', member) end
end

local function kept(key)
  local k = redis.call('HMGET', P .. 'k:' .. key, 'flow', 'until', 'pause', 'reason', 'version')
  if (k[1] or k[2] or k[3] or k[4]) and not redis.call('ZSCORE', P .. 'mailboxes', key) then
    local last = tonumber(k[1] and split(k[1], ' ')[6]) or 0
    redis.call('ZADD', P .. 'mailboxes', int(last > 0 and last or now), key)
    mended = mended + 1
  end
  -- Of a sender who is only paused nobody can tell whether he was a mailbox then, whom another provider was active for.
  if by_itself(provider, key) and k[4] == 'configuration' and k[5] == provider.version and silence_of(key).hold > 0 and
      redis.call('SADD', P .. 'aside', key) == 1 then
    keep_aside(provider, key, now)
    mended = mended + 1
  end
end

local each = ({out = out, units = unit, kept = kept})[ARGV[1]]
for i = 2, #ARGV do each(ARGV[i]) end
return mended
