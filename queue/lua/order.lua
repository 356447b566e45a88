-- The order within a limit key: which message comes next, taken from its lane and, if need be, put back. It stands in front of
-- next.lua, whose ARGV 3 and 4 are the weights of reports and of subscriptions.

-- alone remembers, of a kind, the only lane that has anything waiting, and how much; false: nothing has.
local alone, alone_at = {}, pushed
local function lane_alone(kind, senders)
  if alone_at ~= pushed then alone, alone_at = {}, pushed end
  local which = senders and kind .. senders[1] or kind
  local lane = alone[which]
  if lane ~= nil then return lane end
  local list, ring = P .. 's:' .. kind, nil
  local sender = senders and senders[1] or redis.call('LINDEX', list, 0)
  if not sender then
    lane = false
  elseif senders and #senders > 1 or not senders and redis.call('LLEN', list) > 1 then
    return nil
  else
    ring = P .. 'r:' .. kind .. ':' .. sender
    local n = redis.call('LLEN', ring)
    if n > 1 then return nil end
    if n == 0 then
      lane = false
    else
      lane = {kind = kind, sender = sender, batch = redis.call('LINDEX', ring, 0), ring = ring}
      lane.name = lane_key(kind, sender, lane.batch)
      lane.due = redis.call('LLEN', lane.name .. ':d')
      lane.new = redis.call('LLEN', lane.name .. ':n')
    end
  end
  alone[which] = lane
  return lane
end

-- empty takes a lane without entries out of its ring, and a sender without lanes out of his.
local function empty(place)
  redis.call('RPOP', place.ring)
  place.gone = true
  if redis.call('EXISTS', place.ring) == 0 then
    redis.call('LREM', P .. 's:' .. place.kind, -1, place.sender)
    place.dry = true
  end
end

-- take pops the next entry of a kind: senders in turn, their batches in turn, what is due again before what is new. It
-- answers the entry ('' if a lane was empty, nil if there is none) and its place.
local function take(kind, senders)
  local lane = lane_alone(kind, senders)
  if lane == false then return nil end
  if lane then
    local which = lane.due > 0 and 'due' or 'new'
    local place = {kind = kind, sender = lane.sender, batch = lane.batch, ring = lane.ring, list = lane.name .. (which == 'due' and ':d' or ':n')}
    local entry = redis.call('LPOP', place.list)
    lane[which] = lane[which] - 1
    if entry then wait_in(kind, lane.sender, -1) end
    if not entry or lane.due + lane.new <= 0 then
      empty(place)
      alone = {}
    end
    return entry or '', place
  end
  local sender
  if senders then
    for _, s in ipairs(senders) do
      if redis.call('EXISTS', P .. 'r:' .. kind .. ':' .. s) == 1 then sender = s break end
    end
  else
    sender = redis.call('LMOVE', P .. 's:' .. kind, P .. 's:' .. kind, 'LEFT', 'RIGHT')
  end
  if not sender then return nil end
  local ring = P .. 'r:' .. kind .. ':' .. sender
  local batch = redis.call('LMOVE', ring, ring, 'LEFT', 'RIGHT')
  local place = {kind = kind, sender = sender, batch = batch, ring = ring, turned = true, senders = senders}
  local entry
  if batch then
    local lane = lane_key(kind, sender, batch)
    place.list = lane .. ':d'
    entry = redis.call('LPOP', place.list)
    if not entry then
      place.list = lane .. ':n'
      entry = redis.call('LPOP', place.list)
    end
    if entry then wait_in(kind, sender, -1) end
    if redis.call('EXISTS', lane .. ':d', lane .. ':n') > 0 then return entry, place end
    alone = {}
  end
  empty(place)
  return entry or '', place
end

-- untake puts an entry back where it was, and the rings as they were.
local function untake(entry, place, key)
  redis.call('LPUSH', place.list, entry)
  wait_in(place.kind, place.sender, 1)
  alone = {}
  if place.gone then
    redis.call('LPUSH', place.ring, place.batch)
  elseif place.turned then
    redis.call('LMOVE', place.ring, place.ring, 'RIGHT', 'LEFT')
  end
  if place.dry then
    redis.call('LPUSH', P .. 's:' .. place.kind, place.sender)
  elseif place.turned and not place.senders then
    redis.call('LMOVE', P .. 's:' .. place.kind, P .. 's:' .. place.kind, 'RIGHT', 'LEFT')
  end
  if place.served then redis.call('HINCRBY', P .. 'k:' .. key, 'served', -1) end
end

local function waiting(kind, senders)
  local lane = lane_alone(kind, senders)
  if lane ~= nil then return lane ~= false end
  if not senders then return true end
  for _, s in ipairs(senders) do
    if redis.call('EXISTS', P .. 'r:' .. kind .. ':' .. s) == 1 then return true end
  end
  return false
end

local function choose(key, senders)
  local entry, place = take('a', senders)
  if entry then return entry, place end
  local first, second, served = 'r', 's', false
  if not waiting('r', senders) then
    first, second = 's', nil
  elseif waiting('s', senders) then
    local reports, subscriptions = tonumber(ARGV[3]), tonumber(ARGV[4])
    if redis.call('HINCRBY', P .. 'k:' .. key, 'served', 1) % (reports + subscriptions) >= reports then first, second = 's', 'r' end
    served = true
  end
  entry, place = take(first, senders)
  if not entry and second then entry, place = take(second, senders) end
  if place then place.served = served end
  return entry, place
end

local function any_waiting(senders)
  return waiting('a', senders) or waiting('r', senders) or waiting('s', senders)
end
