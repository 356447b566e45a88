-- keep notes in a record what the sender keeps of the message at the provider, such as a draft, for this attempt and those that
-- follow.
--
-- ARGV: 1 message, 2 attempt, 3 what is kept ("": nothing any more). Answer: 1, or 0 if the message is no longer this attempt's.
local r = load(ARGV[1])
if not r or r.head[STATE] ~= SENDING or r.head[ATTEMPT] ~= ARGV[2] then return 0 end
if r.head[KEPT] ~= ARGV[3] then
  r.head[KEPT] = ARGV[3]
  store(ARGV[1], r)
end
return 1
