-- audit notes that somebody changed something.
--
-- ARGV: 1 entry.
audit(ARGV[1])
return 1
