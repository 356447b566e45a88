-- repair_lanes counts what waits in lanes that may go, puts those into their rings that stand in none, and lists cancelled batches whose
-- lanes are not emptied yet.
--
-- ARGV: for each list of a lane: its name (kind:sender:batch:n or :d), "1" if its ring is to be searched. Answer: {lanes put into their
-- rings, batches listed, then for each list: entries that "backlog" counts}.
local now = now_ms()
local answer = {0, 0}

local function stands(ring, batch) return redis.call('LPOS', P .. 'r:' .. ring, batch) end

-- mend puts a lane where it should be, which is not counted in "backlog": that is counted anew afterwards. It answers whether it may go.
local function mend(kind, sender, batch, send_at)
  answer[1] = answer[1] + 1
  if send_at > now then
    await('b:' .. batch, send_at)
    return false
  end
  -- Its ring may be what was lost, and the sender stand in his.
  if redis.call('RPUSH', P .. 'r:' .. kind .. ':' .. sender, batch) == 1 and not out_of_rings(sender) and
      not redis.call('LPOS', P .. 's:' .. kind, sender) then
    redis.call('RPUSH', P .. 's:' .. kind, sender)
  end
  flag_for(sender, kind, now)
  return true
end

for i = 1, #ARGV, 2 do
  local kind, sender, batch, which = string.match(ARGV[i], '^(.):(.*):([^:]*):(.)$')
  local n, counted = redis.call('LLEN', P .. 'l:' .. ARGV[i]), 0
  if n > 0 then
    local single, ring = batch == '-' or batch == '+', kind .. ':' .. sender
    local b = single and {'committed'} or redis.call('HMGET', P .. 'b:' .. batch, 'state', 'send_at', 'cancelled')
    if b[1] == 'committed' and b[3] and which == 'n' then
      -- What is due again comes back after the cancelling is finished, and ends when its turn comes.
      answer[2] = answer[2] + redis.call('SADD', P .. 'cancelling', batch)
    end
    if not b[1] then
      -- Of a batch that was forgotten: stale entries, which go when their turn comes.
      if stands(ring, batch) then counted = n end
    elseif b[1] == 'committed' and (single or not redis.call('ZSCORE', P .. 'due', 'b:' .. batch)) then
      counted = n
      if ARGV[i + 1] == '1' and not stands(ring, batch) and not mend(kind, sender, batch, tonumber(b[2]) or 0) then counted = 0 end
    end
  end
  answer[#answer + 1] = counted
end
return answer
