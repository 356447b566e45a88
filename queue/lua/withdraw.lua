-- withdraw takes a unit back from a turn that never began because its task is gone.
--
-- ARGV: 1 turn, 2 key, 3 unit. Answer: 1 if it was taken back.
local held = redis.call('HGET', P .. 'u:' .. ARGV[2], ARGV[3])
local u = unit_of(held)
if u[TURN] ~= ARGV[1] or u[RUN] ~= '' then return 0 end
free(ARGV[2], {ARGV[3]})
flag(ARGV[2])
return 1
