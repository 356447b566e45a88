-- pause lets nothing of a limit key, or nothing at all, begin until a time; or lets it go again, from a hold too.
--
-- ARGV: 1 key ("*": everything), 2 until when in ms (0: let go), 3 reason, 4 by whom. Answer: 1 if anything changed.
local key, k, now = ARGV[1], P .. 'k:' .. ARGV[1], now_ms()
local changed = 1
if ARGV[2] == '0' then
  changed = redis.call('HDEL', k, 'pause', 'pause_reason', 'pause_by', 'pause_since', 'until', 'reason', 'since', 'refused')
  if changed > 1 then changed = 1 end
else
  redis.call('HSET', k, 'pause', ARGV[2], 'pause_reason', ARGV[3], 'pause_by', ARGV[4], 'pause_since', int(now))
  redis.call('ZADD', P .. 'mailboxes', int(now), key)
end
redis.call('ZREM', P .. 'looks', key)
local provider = active()
if key ~= '*' then
  flag(key)
elseif provider then
  for _, kind in ipairs({'a', 'r', 's'}) do
    for _, sender in ipairs(redis.call('LRANGE', P .. 's:' .. kind, 0, -1)) do flag(key_of(provider, sender)) end
  end
end
return changed
