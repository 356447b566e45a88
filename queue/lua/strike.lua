-- Entries of what ends while it waits: it stands in front of cancel.lua, cancel_batch.lua, expire.lua and prune.lua.

-- leave_ring takes a lane without entries out of its ring, and a sender without lanes out of his: a lane stands there exactly while it has
-- entries.
local function leave_ring(kind, sender, batch)
  local lane, ring = lane_key(kind, sender, batch), P .. 'r:' .. kind .. ':' .. sender
  if redis.call('EXISTS', lane .. ':d', lane .. ':n') > 0 then return end
  redis.call('LREM', ring, 1, batch)
  if redis.call('EXISTS', ring) == 0 then redis.call('LREM', P .. 's:' .. kind, 1, sender) end
end

-- strike takes the entry of a message that ends from where it waits. One that stands further back in its lane than NEAR, or that is one of
-- many (not near), is stale from then on: it counts as waiting until whoever meets it drops it, or prune.lua does. note_thinned notes in
-- which lanes there are such.
local NEAR, thinned = 1000, {}
local function strike(id, r, near)
  local entry = entry_of(id, r)
  if redis.call('ZREM', P .. 'due', 'm:' .. entry) == 1 then return end
  local kind, sender, batch = r.head[KIND], place(r)
  local list = lane_key(kind, sender, batch) .. (r.head[GENERATION] == '' and ':n' or ':d')
  if not near or not redis.call('LPOS', list, entry, 'MAXLEN', NEAR) then
    local lane = kind .. ':' .. sender .. ':' .. batch
    thinned[lane] = (thinned[lane] or 0) + 1
    return
  end
  redis.call('LREM', list, 1, entry)
  if not redis.call('ZSCORE', P .. 'due', 'b:' .. batch) then wait_in(kind, sender, -1) end
  leave_ring(kind, sender, batch)
end

local function note_thinned()
  for lane, n in pairs(thinned) do redis.call('HINCRBY', P .. 'thinned', lane, n) end
  thinned = {}
end

-- empty takes a bounded part of the entries out of a list of a batch's lane, and has each end what waits by one. It answers how many it took.
local PART = 200
local function empty(kind, sender, batch, which, each)
  local entries = redis.call('LPOP', lane_key(kind, sender, batch) .. which, PART)
  if not entries or #entries == 0 then return 0 end
  if not redis.call('ZSCORE', P .. 'due', 'b:' .. batch) then wait_in(kind, sender, -#entries) end
  for _, entry in ipairs(entries) do
    local id, generation = string.match(entry, '^([^:]*):?(.*)$')
    local r, newer = load(id)
    if newer then
      await('m:' .. entry, now_ms() + NEWER)
    elseif r and r.head[STATE] == QUEUED and r.head[GENERATION] == generation then
      each(id, r)
    end
  end
  leave_ring(kind, sender, batch)
  return #entries
end
