-- dispatch moves what has fallen due into its lanes, gives units that are not out to new turns, as many as there is work
-- for, and says when to look again.
--
-- ARGV: 1 stem for the ids of new turns. Answer: {ms until something falls due or a hold ends (-1: nothing known),
-- turn, key, unit, queue ("alert" or "mail"), turn, key, ...}.
local STEPS = 200
local now = now_ms()

for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', int(now), 'LIMIT', 0, STEPS)) do
  redis.call('ZREM', P .. 'due', member)
  local parts = split(member, ':')
  local id = parts[2]
  if parts[1] == 'b' then
    local b = redis.call('HMGET', P .. 'b:' .. id, 'kind', 'sender')
    if b[1] and redis.call('EXISTS', lane_key(b[1], b[2], id) .. ':n') == 1 then activate(b[1], b[2], id) end
  else
    local r, newer = load(id)
    if newer then
      redis.call('ZADD', P .. 'due', int(now + NEWER), member)
    elseif r and r.head[STATE] == QUEUED and r.head[GENERATION] == (parts[3] or '') then
      local sender, batch = place(r)
      push(r.head[KIND], sender, batch, r.head[ATTEMPT] == '' and 'n' or 'd', entry_of(id, r))
    end
  end
end

local answer = {-1}
local function look_at(at)
  local wait = math.max(0, at - now)
  if answer[1] < 0 or wait < answer[1] then answer[1] = wait end
end
local first = redis.call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')
if first[2] then look_at(tonumber(first[2])) end

local provider = active()
if not provider then return answer end

-- work counts the entries of a sender's lanes, as far as enough.
local function work(kind, sender, enough)
  local n = 0
  for _, batch in ipairs(redis.call('LRANGE', P .. 'r:' .. kind .. ':' .. sender, 0, enough)) do
    local lane = lane_key(kind, sender, batch)
    n = n + redis.call('LLEN', lane .. ':n') + redis.call('LLEN', lane .. ':d')
    if n >= enough then break end
  end
  return n
end

local keys, order = {}, {}
for _, kind in ipairs({'a', 'r', 's'}) do
  for _, sender in ipairs(redis.call('LRANGE', P .. 's:' .. kind, 0, -1)) do
    local key = key_of(provider, sender)
    local k = keys[key]
    if not k then
      k = {alerts = 0, all = 0}
      keys[key], order[#order + 1] = k, key
    end
    if k.all < provider.concurrency then
      local n = work(kind, sender, provider.concurrency)
      k.all = k.all + n
      if kind == 'a' then k.alerts = k.alerts + n end
    end
  end
end

for _, key in ipairs(order) do
  local k = keys[key]
  local held = tonumber(redis.call('HGET', P .. 'k:' .. key, 'until') or 0)
  if held > now then
    look_at(held)
  else
    local out, n = {}, 0
    local units = redis.call('HGETALL', P .. 'u:' .. key)
    for i = 1, #units, 2 do
      local u = unit_of(units[i + 1])
      out[units[i]], n = true, n + 1
      -- A turn that was given out but has not begun will take one of what waits.
      if u[RUN] == '' then k.all, k.alerts = k.all - 1, k.alerts - 1 end
      if u[RUN] == '' and string.sub(u[TURN], 1, #ARGV[1]) == ARGV[1] then
        for _, v in ipairs({u[TURN], key, units[i], 'mail'}) do answer[#answer + 1] = v end
      end
    end
    for unit = 0, provider.concurrency - 1 do
      -- More may be out than that, after it was lowered.
      if k.all <= 0 or n >= provider.concurrency then break end
      if not out[tostring(unit)] then
        local turn = ARGV[1] .. '.' .. string.sub(redis.sha1hex(key), 1, 8) .. '.' .. unit
        keep(key, unit, {turn, '', '', int(now), open = {}})
        redis.call('SADD', P .. 'keys', key)
        for _, v in ipairs({turn, key, tostring(unit), k.alerts > 0 and 'alert' or 'mail'}) do answer[#answer + 1] = v end
        n, k.all, k.alerts = n + 1, k.all - 1, k.alerts - 1
      end
    end
  end
end
return answer
