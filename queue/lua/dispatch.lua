-- dispatch moves what has fallen due into its lanes, and gives units that are not out to new turns, for the keys that were
-- flagged: as many as there is work for and the limits have room for. What it cannot let go it has somebody look at later.
--
-- ARGV: 1 stem for the ids of new turns, 2 a key to look at besides, or "". Answer: {ms until something falls due (-1: nothing
-- known; 0: there is more to do), looks, then for each look: key, ms from now; then for each turn: turn, key, unit, queue
-- ("alert" or "mail")}.
local STEPS, KEYS_AT_ONCE = 200, 100
local now = now_ms()
local provider = active()
local answer, turns = {-1, 0}, {}

local todo, listed = {}, {}
local function list(key)
  -- A key of the former provider's.
  if provider and provider.mode == 'account' and key ~= '*' then key = provider.key end
  if not listed[key] then
    listed[key] = true
    todo[#todo + 1] = key
  end
end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', int(now), 'LIMIT', 0, STEPS)) do
  redis.call('ZREM', P .. 'due', member)
  local what, rest = string.match(member, '^(.):(.*)$')
  if what == 's' then
    keep_aside(provider, rest, now)
  elseif what == 'b' then
    local b = redis.call('HMGET', P .. 'b:' .. rest, 'kind', 'sender')
    local n = b[1] and redis.call('LLEN', lane_key(b[1], b[2], rest) .. ':n') or 0
    if n > 0 then
      activate(b[1], b[2], rest)
      wait_in(b[1], b[2], n)
      if provider then list(key_of(provider, b[2])) end
    end
  else
    local parts = split(rest, ':')
    local r, newer = load(parts[1])
    if newer then
      redis.call('ZADD', P .. 'due', int(now + NEWER), member)
    elseif r and r.head[STATE] == QUEUED and r.head[GENERATION] == (parts[2] or '') then
      local sender, batch = place(r)
      push(r.head[KIND], sender, batch, r.head[ATTEMPT] == '' and 'n' or 'd', entry_of(parts[1], r))
      if provider then list(key_of(provider, sender)) end
    end
  end
end
flush(now, math.huge)
local first = redis.call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')
if first[2] then answer[1] = math.max(0, tonumber(first[2]) - now) end
if not provider then return answer end

local limits, all_limits = limits_of(provider.limits), limits_of(provider.all_limits)

-- An earlier run of this very call, whose answer was lost, has taken its keys from the flagged ones.
local before = redis.call('GET', P .. 'handed:' .. ARGV[1])
if before then
  for _, key in ipairs(split(before, '\t')) do list(key) end
end
if ARGV[2] ~= '' then
  -- A look that is made is over; whoever arms another must not take it for one to come.
  local look = redis.call('ZSCORE', P .. 'looks', ARGV[2])
  if look and tonumber(look) <= now then redis.call('ZREM', P .. 'looks', ARGV[2]) end
  list(ARGV[2])
end
for _, key in ipairs(redis.call('SPOP', P .. 'ready', KEYS_AT_ONCE)) do list(key) end
if redis.call('EXISTS', P .. 'ready') == 1 then answer[1] = 0 end
-- Whoever has undertaken to look at these is late, or gone.
for _, key in ipairs(redis.call('ZRANGEBYSCORE', P .. 'looks', '-inf', int(now - LATE), 'LIMIT', 0, KEYS_AT_ONCE)) do
  redis.call('ZREM', P .. 'looks', key)
  list(key)
end

-- slots says how many messages, of one recipient each, a scope's limits have room for: at most most; else from when on one.
local function slots(scope, of, most)
  local function fits(n) return books_room(scope, of, {messages = n, requests = n, recipients = n}, now) end
  if not fits(most) then return most end
  local at = fits(1)
  if at then return 0, at end
  local some, too_many = 1, most
  while too_many - some > 1 do
    local n = math.floor((some + too_many) / 2)
    if fits(n) then too_many = n else some = n end
  end
  return some
end

local function look_at(key, at)
  if not at or at == -1 then return end
  local ms = arm(key, at, now)
  if ms >= 0 then
    answer[2] = answer[2] + 1
    answer[#answer + 1], answer[#answer + 2] = key, ms
  end
end

-- work counts what a key has waiting, as far as enough: alerts, and all.
local function work(key, enough)
  local senders, alerts, all = senders_of(provider, key), 0, 0
  for _, kind in ipairs({'a', 'r', 's'}) do
    for _, sender in ipairs(senders or redis.call('LRANGE', P .. 's:' .. kind, 0, enough)) do
      for _, batch in ipairs(redis.call('LRANGE', P .. 'r:' .. kind .. ':' .. sender, 0, enough)) do
        local lane = lane_key(kind, sender, batch)
        all = all + redis.call('LLEN', lane .. ':n') + redis.call('LLEN', lane .. ':d')
        if all >= enough then break end
      end
      if all >= enough then break end
    end
    if kind == 'a' then alerts = all end
    if all >= enough then break end
  end
  return alerts, math.min(all, enough)
end

-- everyone is how many more units the provider's limits allow to be out.
local everyone = provider.all_concurrency
if everyone < math.huge then everyone = everyone - redis.call('SCARD', P .. 'units') end

-- hand_out gives at most so many of a key's units to turns. It answers how many, and whether the key could use more.
local made = {}
local function hand_out(key, most)
  local units = redis.call('HGETALL', P .. 'u:' .. key)
  local out, n, unbegun = {}, #units / 2, 0
  for i = 1, #units, 2 do
    local u = unit_of(units[i + 1])
    out[units[i]] = true
    -- A turn that was given out but has not begun will take one of what waits.
    if u[RUN] == '' then
      unbegun = unbegun + 1
      if string.sub(u[TURN] or '', 1, #ARGV[1]) == ARGV[1] and not made[u[TURN]] then
        made[u[TURN]] = true
        for _, v in ipairs({u[TURN], key, units[i], 'mail'}) do turns[#turns + 1] = v end
      end
    end
  end
  -- More may be out than that, after it was lowered.
  if most < 1 or n >= provider.concurrency then return 0, false end
  local alerts, wanted = work(key, provider.concurrency)
  wanted, alerts = math.min(wanted - unbegun, provider.concurrency - n), alerts - unbegun
  if wanted <= 0 then return 0, false end
  local silent = silent_until(key) -- everything's has been looked at
  if silent > now then return look_at(key, silent) or 0, false end
  if probed(key, now) then return 0, false end
  if in_doubt(key, now) then most = math.min(most, 1 - unbegun) end
  if most < 1 then return 0, false end
  local at
  wanted, at = slots(key, limits, wanted)
  if wanted == 0 then return look_at(key, at) or 0, false end
  local given, more = 0, wanted > most
  for unit = 0, provider.concurrency - 1 do
    if given >= math.min(wanted, most) then break end
    if not out[tostring(unit)] then
      local turn = ARGV[1] .. '.' .. string.sub(redis.sha1hex(key), 1, 8) .. '.' .. unit
      made[turn] = true
      redis.call('HSET', P .. 'u:' .. key, unit, unit_text({turn, '', '', int(now), lines = ''}))
      redis.call('SADD', P .. 'keys', key)
      if provider.all_concurrency < math.huge then redis.call('SADD', P .. 'units', key .. '\t' .. unit) end
      for _, v in ipairs({turn, key, tostring(unit), alerts > 0 and 'alert' or 'mail'}) do turns[#turns + 1] = v end
      given, alerts = given + 1, alerts - 1
    end
  end
  return given, more
end

local visited = {}
local function visit(key, most)
  visited[#visited + 1] = key
  return hand_out(key, most)
end

-- everybody lists the keys that have work, as many as one run looks at. With rest, the others are looked at by the next. While one
-- attempt is to tell whether everything is silent any more, that is not left to a key that waits for room in its own limits.
local silent = silent_until('*')
local doubt = in_doubt('*', now)
local function everybody(rest)
  local others = {}
  for _, kind in ipairs({'a', 'r', 's'}) do
    for _, sender in ipairs(redis.call('LRANGE', P .. 's:' .. kind, 0, -1)) do
      local key = key_of(provider, sender)
      local look = doubt and redis.call('ZSCORE', P .. 'looks', key)
      if look and tonumber(look) > now then
        -- somebody looks at it then
      elseif #todo < KEYS_AT_ONCE then
        list(key)
      elseif not listed[key] then
        others[#others + 1] = key
      end
    end
  end
  if not rest or #others == 0 then return end
  for i = 1, #others, 1000 do redis.call('SADD', P .. 'ready', unpack(others, i, math.min(i + 999, #others))) end
  answer[1] = 0
end

local limited = everyone < math.huge or #all_limits > 0
if limited then
  -- What binds all of them is given out one unit at a time, to whoever has waited longest.
  for i, key in ipairs(todo) do
    if key ~= '*' then
      local alerts = work(key, 1)
      if alerts > 0 then redis.call('ZADD', P .. 'blocked', 1, key) else line_up(key, now + i / 1000) end
    end
  end
end
if before and limited then
  for _, key in ipairs(todo) do visit(key, 0) end
end
if silent > now then
  look_at('*', silent) -- then everybody is
elseif probed('*', now) then
  -- Whoever ends the probe sees to it that everybody is looked at.
elseif not limited then
  if listed['*'] or doubt then everybody(not doubt) end
  local most = doubt and 1 or math.huge
  for _, key in ipairs(todo) do
    if most < 1 and not before then break end
    if key ~= '*' then most = most - visit(key, most) end
  end
else
  local first = #all_limits > 0 and first_of_all(provider, now)
  local room, at = slots('*', all_limits, doubt and 1 or KEYS_AT_ONCE)
  local fits = true
  if first then
    local from = books_room('*', all_limits, cost_of(first.cost), now)
    if from then fits, at = false, tonumber(from) end
  end
  for i = 1, KEYS_AT_ONCE do
    if room < 1 or everyone < 1 then break end -- who ends a turn, or meets the limit, sees to it that somebody looks
    local key, since
    if first then
      key = redis.call('ZRANGEBYSCORE', P .. 'blocked', fits and 0 or 1, 1, 'LIMIT', 0, 1)[1]
      if key then redis.call('ZREM', P .. 'blocked', key) end
    else
      local popped = redis.call('ZPOPMIN', P .. 'blocked')
      key, since = popped[1], popped[2]
    end
    if not key then break end
    local given, more = visit(key, 1)
    if since and given > 0 then redis.call('HSETNX', P .. 'senior', key, since) end
    room, everyone = room - given, everyone - given
    if more then line_up(key, now + 0.1 + i / 1000) end
    if i == KEYS_AT_ONCE then answer[1] = 0 end
  end
  if at then look_at('*', at) end
end
if #turns > 0 then redis.call('SET', P .. 'handed:' .. ARGV[1], table.concat(visited, '\t'), 'PX', 30000) end
for _, v in ipairs(turns) do answer[#answer + 1] = v end
return answer
