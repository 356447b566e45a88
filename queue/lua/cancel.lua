-- cancel ends messages that nobody is sending.
--
-- ARGV: 1 records.delivered_max, 2 mark of this call, random, 3 entry for the audit if this call ends any ("": none), then ids. Answer, for each: "ended:" and what told says of it if this call
-- ended it, "cancelled" (it had been), "too_late" (it is being sent, or has ended), "newer" (of a newer format), or "none".
local now, mark = now_ms(), ARGV[2]
local answer, batches = {}, {}

local function batch_of(id)
  local b = batches[id]
  if not b then
    b = redis.call('HMGET', P .. 'b:' .. id, 'state', 'trace')
    batches[id] = b
  end
  return b
end

for i = 4, #ARGV do
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
      strike(id, r, #ARGV == 4)
      audit(ARGV[3])
      finish(id, r, CANCELLED, now, mark)
    end
  end
end
note_thinned()
flush(now, tonumber(ARGV[1]))
return answer
