-- prune drops entries of messages that have ended from lanes, in bounded steps: they would be counted as waiting until they come up. A lane is turned
-- once, so that its order stays; what is put into it meanwhile may come before the rest of it. It is done where a tenth of the
-- entries is stale at least, and while nobody repairs, who would miss what goes from the head to the tail. One lane at a time is turned,
-- whoever calls: P.."turning" has which list of it, at which entry that has been turned ("": none was kept so far), and how many
-- entries are to be looked at yet.
--
-- Answer: 1 if there is more to do, else 0.
local STEPS = 200
if redis.call('EXISTS', P .. 'repair') == 1 then return 0 end

local function parts_of(name) return string.match(name, '^(.):(.*):([^:]*)$') end

-- worth says whether a lane has so many stale entries; nil if it has no entries at all.
local function worth(name)
  local key = lane_key(parts_of(name))
  local n = redis.call('LLEN', key .. ':d') + redis.call('LLEN', key .. ':n')
  if n == 0 then return nil end
  return tonumber(redis.call('HGET', P .. 'thinned', name)) * 10 >= n
end

local lane, which, stop, left = unpack((split(redis.call('GET', P .. 'turning') or '', '\t')))
left = tonumber(left)
if lane == '' then
  for _, name in ipairs(redis.call('HRANDFIELD', P .. 'thinned', 20)) do
    local yes = worth(name)
    if yes == nil then
      redis.call('HDEL', P .. 'thinned', name)
    elseif yes and lane == '' then
      lane, which, stop = name, ':d', ''
      left = redis.call('LLEN', lane_key(parts_of(name)) .. ':d')
    end
  end
  if lane == '' then return 0 end
end

local kind, sender, batch = parts_of(lane)
local list, dropped = lane_key(kind, sender, batch) .. which, 0
for _ = 1, STEPS do
  local entry = left > 0 and redis.call('LINDEX', list, 0)
  if not entry or entry == stop then
    left = 0
    break
  end
  redis.call('LPOP', list)
  left = left - 1
  local id, generation = string.match(entry, '^([^:]*):?(.*)$')
  local r, newer = load(id)
  if newer or r and r.head[STATE] == QUEUED and r.head[GENERATION] == generation then
    redis.call('RPUSH', list, entry)
    if stop == '' then stop = entry end
  else
    dropped = dropped + 1
  end
end
if dropped > 0 then
  -- Lanes of a batch that waits for its time are not counted yet.
  if not redis.call('ZSCORE', P .. 'due', 'b:' .. batch) then wait_in(kind, sender, -dropped) end
  leave_ring(kind, sender, batch)
  flush(now_ms(), math.huge)
end
if left <= 0 and which == ':d' then
  which, stop, left = ':n', '', redis.call('LLEN', lane_key(kind, sender, batch) .. ':n')
end
if left > 0 then
  redis.call('SET', P .. 'turning', table.concat({lane, which, stop, int(left)}, '\t'))
else
  redis.call('UNLINK', P .. 'turning')
  redis.call('HDEL', P .. 'thinned', lane)
end
return 1
