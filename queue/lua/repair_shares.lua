-- repair_shares sets shares of content that are wrong: of a batch, with its count of failed messages, or of stored files.
--
-- ARGV: 1 records.delivered_max, 2 "batch" or "files"; then of a batch: id, shares and moves when the count began, messages that were
-- counted as open or failed, and as failed; or of each file: id, shares and shares ever taken when the count began, references
-- that were counted. Answer: how many were set.
local set, now = 0, now_ms()

-- A batch's shares only fall, so that at least as many messages were counted as have theirs now, and at most as many as had it when
-- the count began. Where it can't be told how many have, the shares stay: one too many keeps content for too long, one too few drops it.
local function batch(id, before, moves, counted, failed)
  local b = redis.call('HMGET', P .. 'b:' .. id, 'state', 'shares', 'forgotten', FAILED, 'finished')
  if b[1] ~= 'committed' or b[5] then return end
  local held = tonumber(b[2]) or 0
  local released = before - held
  if released >= 0 and held < counted - released then
    redis.call('HSET', P .. 'b:' .. id, 'shares', counted)
    set = set + 1
  elseif held > counted then
    shares[id] = held - counted
    set = set + 1
  end
  local changed = (tonumber(redis.call('HGET', P .. 'counts', 'moves')) or 0) - moves
  failed = failed + (tonumber(b[3]) or 0)
  if changed >= 0 and math.abs((tonumber(b[4]) or 0) - failed) > changed then
    redis.call('HSET', P .. 'b:' .. id, FAILED, failed)
    set = set + 1
  end
end

-- A file's shares may rise too. If as many were taken as before and as many are there, none was given back either.
local function file(id, before, taken, counted)
  local a = redis.call('HMGET', P .. 'a:' .. id, 'state', 'shares', 'taken', 'kept')
  if not a[1] or (a[2] or '') ~= before or (a[3] or '') ~= taken then return end
  redis.call('HSET', P .. 'a:' .. id, 'shares', counted)
  set = set + 1
  if tonumber(counted) > 0 then
    redis.call('ZREM', P .. 'contents', id)
  else
    redis.call('ZADD', P .. 'contents', 'NX', int(now + (tonumber(a[4]) or 0)), id)
  end
end

if ARGV[2] == 'batch' then
  batch(ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]))
else
  for i = 3, #ARGV, 4 do file(unpack(ARGV, i, i + 3)) end
end
flush(now, tonumber(ARGV[1]))
return set
