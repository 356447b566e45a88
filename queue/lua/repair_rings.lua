-- repair_rings puts senders into the ring of their kind who have lanes in theirs, and takes out who has none.
--
-- ARGV: kind:sender of each. Answer: how many were put in, or taken out.
local now, mended = now_ms(), 0
for _, ring in ipairs(ARGV) do
  local kind, sender = string.match(ring, '^(.):(.*)$')
  if redis.call('EXISTS', P .. 'r:' .. ring) == 0 then
    mended = mended + redis.call('LREM', P .. 's:' .. kind, 0, sender)
  elseif not redis.call('LPOS', P .. 's:' .. kind, sender) and not out_of_rings(sender) then
    -- As if he had been set aside and his time were over: so he is again if he is held, and else is not.
    redis.call('SADD', P .. 'aside', sender)
    keep_aside(active(), sender, now)
    mended = mended + 1
  end
end
return mended
