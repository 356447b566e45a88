-- release ends a hold, or has it tried at once, for whoever has seen that its reason is gone, or wants to see. What the provider
-- asked to be silent for stays silent, and so does what is paused.
--
-- ARGV: 1 key ("*": everything), 2 "go" (it is over) or "try" (one attempt is to tell). Answer: what let_go said ("": nothing has ended).
local now, s = now_ms(), silence_of(ARGV[1])
if s.hold == 0 or s.reason == 'throttled' then return '' end
if ARGV[2] == 'go' then
  return let_go(ARGV[1], now)
elseif s.hold > now then
  redis.call('HSET', P .. 'k:' .. ARGV[1], 'until', int(now))
  redis.call('ZREM', P .. 'looks', ARGV[1])
  go_on(ARGV[1], now)
end
return ''
