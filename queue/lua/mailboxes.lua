-- mailboxes tells of limit keys what waits, what is out, and why nothing goes.
--
-- ARGV: 1 a key, or "" for all that have work or had some lately. Answer: {now, mode, key of the account, concurrency, limits,
-- all_concurrency ("": none), all_limits, hold of everything (10 fields), then for each key: key, alerts, reports, subscriptions
-- that may go in their order, units out, hold (10 fields: until ("": not held; in the past: in doubt), reason, since, refused, pause,
-- pause_reason, pause_by, pause_since, outcome, flow)}; {now} if no provider is active. Senders of an account who are held or paused
-- by themselves come as keys too.
local now = now_ms()
local provider = active()
if not provider then return {int(now)} end
local function hold_of(key)
  local h = redis.call('HMGET', P .. 'k:' .. key, 'until', 'reason', 'since', 'refused', 'pause', 'pause_reason', 'pause_by', 'pause_since', 'outcome', 'flow')
  if silence_of(key).hold == 0 then h[1] = '' end
  for i = 1, 10 do h[i] = h[i] or '' end
  return h
end

local keys, known = {}, {}
local function add(key)
  if key ~= '*' and not known[key] and (provider.mode ~= 'account' or key == provider.key or redis.call('SISMEMBER', P .. 'aside', key) == 1) then
    known[key] = true
    keys[#keys + 1] = key
  end
end
if ARGV[1] ~= '' then
  add(ARGV[1])
else
  if provider.mode == 'account' then add(provider.key) end
  for _, key in ipairs(redis.call('ZRANGE', P .. 'mailboxes', 0, -1)) do add(key) end
  for _, kind in ipairs({'a', 'r', 's'}) do
    for _, sender in ipairs(redis.call('LRANGE', P .. 's:' .. kind, 0, -1)) do add(key_of(provider, sender)) end
  end
end

local answer = {int(now), provider.mode, provider.key, int(provider.concurrency), provider.limits,
  provider.all_concurrency < math.huge and int(provider.all_concurrency) or '', provider.all_limits}
for _, v in ipairs(hold_of('*')) do answer[#answer + 1] = v end
for _, key in ipairs(keys) do
  answer[#answer + 1] = key
  local senders = by_itself(provider, key) and {key} or senders_of(provider, key)
  for _, kind in ipairs({'a', 'r', 's'}) do
    local n = 0
    for _, sender in ipairs(senders or redis.call('LRANGE', P .. 's:' .. kind, 0, -1)) do
      n = n + (tonumber(redis.call('HGET', P .. 'backlog', kind .. ':' .. sender)) or 0)
    end
    answer[#answer + 1] = int(n)
  end
  answer[#answer + 1] = int(redis.call('HLEN', P .. 'u:' .. key))
  for _, v in ipairs(hold_of(key)) do answer[#answer + 1] = v end
end
return answer
