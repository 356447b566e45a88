-- pause lets nothing of a limit key, of a sender who was set aside, or nothing at all, begin until a time; or lets it go again, from
-- a hold too, of which stays since when it was (see holds.lua): not of a sender who is held by himself, whose mail nobody watches.
--
-- ARGV: 1 key ("*": everything), 2 until when in ms (0: let go), 3 reason, 4 by whom, 5 entry for the audit if anything changes ("": none).
-- Answer: 1 if anything changed.
local key, k, now = ARGV[1], P .. 'k:' .. ARGV[1], now_ms()
local changed = 1
if ARGV[2] == '0' then
  changed = redis.call('HDEL', k, 'pause', 'pause_reason', 'pause_by', 'pause_since', 'until', 'refused', 'outcome', 'probe')
  if changed > 1 then changed = 1 end
  if by_itself(active(), key) then redis.call('HDEL', k, 'reason', 'since', 'version') end
  if bring_back(key) then redis.call('SREM', P .. 'aside', key) end
else
  redis.call('HSET', k, 'pause', ARGV[2], 'pause_reason', ARGV[3], 'pause_by', ARGV[4], 'pause_since', int(now))
  redis.call('ZADD', P .. 'mailboxes', int(now), key)
  if redis.call('SISMEMBER', P .. 'aside', key) == 1 then keep_aside(active(), key, now) end
end
redis.call('ZREM', P .. 'looks', key)
flag(key)
if changed == 1 then audit(ARGV[5]) end
return changed
