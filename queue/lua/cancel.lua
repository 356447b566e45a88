-- cancel ends messages that nobody is sending.
--
-- ARGV: 1 records.delivered_max, 2 mark of this call, random, then ids. Answer, for each: "ended:" and what told says of it if this call
-- ended it, "cancelled" (it had been), "too_late" (it is being sent, or has ended), "newer" (of a newer format), or "none".
local now, mark = now_ms(), ARGV[2]
local answer, batches, thinned = {}, {}, {}

local function batch_of(id)
  local b = batches[id]
  if not b then
    b = redis.call('HMGET', P .. 'b:' .. id, 'state', 'trace', 'sender')
    batches[id] = b
  end
  return b
end

-- unlist takes a message's entry away where that is cheap, and else notes in which lane it is stale: see prune.lua.
local function unlist(id, r, b)
  if redis.call('ZREM', P .. 'due', 'm:' .. entry_of(id, r)) == 1 then return end
  local h, sender, lane = r.head, nil, nil
  if b then sender, lane = b[3] or '-', h[BATCH] else sender, lane = place(r) end
  lane = h[KIND] .. ':' .. sender .. ':' .. lane
  thinned[lane] = (thinned[lane] or 0) + 1
end

for i = 3, #ARGV do
  local id = ARGV[i]
  local r, newer = load(id)
  local h = r and r.head
  local b = h and h[BATCH] ~= '' and batch_of(h[BATCH])
  if newer then
    answer[#answer + 1] = 'newer'
  elseif not r or b and b[1] ~= 'committed' then
    answer[#answer + 1] = 'none'
  elseif h[STATE] == CANCELLED and h[GENERATION] ~= mark then
    answer[#answer + 1] = 'cancelled'
  elseif h[STATE] ~= CANCELLED and h[STATE] ~= QUEUED then
    answer[#answer + 1] = 'too_late'
  else
    answer[#answer + 1] = 'ended:' .. told(id, r, CANCELLED, b and (b[2] or ''))
    -- Else it was ended by an earlier run of this very call, whose answer was lost.
    if h[STATE] == QUEUED then
      unlist(id, r, b)
      finish(id, r, CANCELLED, now, mark)
    end
  end
end
for lane, n in pairs(thinned) do redis.call('HINCRBY', P .. 'thinned', lane, n) end
flush(now, tonumber(ARGV[1]))
return answer
