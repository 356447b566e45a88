-- repair_entries looks whether messages wait without an entry, and puts the entry in. One that is put in twice does no harm: when the
-- first is taken, the record changes, and the second is stale.
--
-- ARGV: 1 "look" or "put", then id and generation of each message. Answer: for "look" its lane, where it should stand, or "" if it
-- does not wait any more or stands in "due"; for "put" the number of entries that were put in.
local now = now_ms()
local lanes, put, tails = {}, 0, {}

-- LAST is how far back a lane is searched for what an earlier run of this very call has put in; a call has fewer messages.
local LAST = 500
local function has(list, entry)
  if not tails[list] then
    tails[list] = {}
    for _, e in ipairs(redis.call('LRANGE', list, -LAST, -1)) do tails[list][e] = true end
  end
  return tails[list][entry]
end

for i = 2, #ARGV, 2 do
  local id, generation, lane = ARGV[i], ARGV[i + 1], ''
  local r = load(id)
  -- A message whose batch is gone has no content any more, and nobody knows whose it was.
  if r and r.head[STATE] == QUEUED and r.head[GENERATION] == generation and
      (r.head[BATCH] == '' or redis.call('HEXISTS', P .. 'b:' .. r.head[BATCH], 'state') == 1) then
    local entry = entry_of(id, r)
    if not redis.call('ZSCORE', P .. 'due', 'm:' .. entry) then
      local sender, batch = place(r)
      lane = r.head[KIND] .. ':' .. sender .. ':' .. batch
      local list = P .. 'l:' .. lane .. (generation == '' and ':n' or ':d')
      if ARGV[1] == 'put' and not has(list, entry) then
        -- What the lane holds is counted in "backlog", and was when it was lost: that is counted anew later.
        local at = tonumber(r.head[WHEN]) or 0
        if at > now then await('m:' .. entry, at) else redis.call('RPUSH', list, entry) end
        if redis.call('HEXISTS', P .. 'b:' .. batch, 'lapsed') == 1 then expiry.watch(id, r) end -- expire.lua has been at the lane
        tails[list][entry] = true
        put = put + 1
      end
    end
  end
  lanes[#lanes + 1] = lane
end
return ARGV[1] == 'put' and put or lanes
