-- log has every process log at a level until a time; or lets each log at its own level again.
--
-- ARGV: 1 level ("": each its own), 2 until when in ms, 3 by whom, 4 entry for the audit. Answer: 1.
if audited(ARGV[4]) then return 1 end
audit(ARGV[4])
if ARGV[1] == '' then
  redis.call('UNLINK', P .. 'log')
else
  redis.call('SET', P .. 'log', ARGV[1] .. '\t' .. ARGV[2] .. '\t' .. ARGV[3], 'PXAT', ARGV[2])
end
redis.call('PUBLISH', P .. 'log', ARGV[1])
return 1
