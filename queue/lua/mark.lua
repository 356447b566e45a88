-- mark marks a record a second time, directly before its attempt passes its point of no return: of an attempt without it, it is
-- known that nothing was handed over.
--
-- ARGV: 1 message, 2 attempt. Answer: 1, or 0 if the message is no longer this attempt's.
local r = load(ARGV[1])
if not r or r.head[STATE] ~= SENDING or r.head[ATTEMPT] ~= ARGV[2] then return 0 end
if r.head[WHEN] == NOT_YET then
  r.head[WHEN] = int(now_ms())
  store(ARGV[1], r)
end
return 1
