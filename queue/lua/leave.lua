-- leave takes a lane that has no entries any more out of its ring, and a sender without lanes out of his. It stands in front of
-- cancel_batch.lua and prune.lua.
local function leave(kind, sender, batch)
  local lane = lane_key(kind, sender, batch)
  if redis.call('EXISTS', lane .. ':d', lane .. ':n') > 0 then return end
  local ring = P .. 'r:' .. kind .. ':' .. sender
  redis.call('LREM', ring, 1, batch)
  if redis.call('EXISTS', ring) == 0 then redis.call('LREM', P .. 's:' .. kind, 1, sender) end
end
