-- next settles what a turn's last attempt came to, then begins the turn's next attempt, or ends the turn and says why.
--
-- ARGV: 1 limit key, 2 unit, 3 turn, 4 run (one call of the turn's handler), 5 worker, 6 version of the worker's provider
-- settings, 7 id for the new attempt ("" ends the turn), 8 ms until its deadline, 9 and 10 weights of reports and of
-- subscriptions, 11 records.delivered_max; and if there is something to settle: 12 message, 13 attempt, 14 verdict,
-- 15 marks, 16 class, 17 line, 18 counted ("1"), 19 delay, 20 generation, 21 ms to hold the key ("0": not), 22 reason.
--
-- Answer: {settled ("", "settled", "late", "known"), what, ...}, where what is
--   "attempt": message, record, now, owner of the content, chunks, bytes, content (if it is a message's own and small)
--   "again":   nothing found yet, only stale entries; call again
--   "idle", "held", "version", "shrunk", "ended": the turn is over and its unit is free
--   "stale":   the unit is no longer this turn's
-- and the last element the number of stale entries that were dropped.
local key, unit, turn, run, worker, attempt = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[7]
local max = tonumber(ARGV[11])
local now = now_ms()

local settled = ''
if ARGV[12] then
  settled = settle({message = ARGV[12], attempt = ARGV[13], verdict = ARGV[14], marks = ARGV[15], class = ARGV[16],
    line = ARGV[17], counted = ARGV[18] == '1', delay = tonumber(ARGV[19]), generation = ARGV[20]}, now, max)
  if settled == 'settled' then
    local hold = tonumber(ARGV[21])
    if hold > 0 then
      redis.call('HSET', P .. 'k:' .. key, 'until', int(now + hold), 'reason', ARGV[22])
      redis.call('HINCRBY', P .. 'k:' .. key, 'refused', 1)
    elseif ARGV[14] == 'delivered' then
      -- What was under way when the key was held must not let it go early.
      local till = redis.call('HGET', P .. 'k:' .. key, 'until')
      if till and tonumber(till) <= now then redis.call('HDEL', P .. 'k:' .. key, 'until', 'reason', 'refused') end
    end
  end
end

local held = redis.call('HGET', P .. 'u:' .. key, unit)
local u = held and split(held, '\t') or {}
if u[TURN] ~= turn or (u[RUN] ~= '' and u[RUN] ~= run) then return {settled, 'stale', 0} end

local function give(id, r)
  local owner, chunks, bytes = id, r.head[CHUNKS], r.head[BYTES]
  if r.head[BATCH] ~= '' then
    owner = r.head[BATCH]
    local b = redis.call('HMGET', P .. 'b:' .. owner, 'chunks', 'bytes')
    chunks, bytes = b[1] or '', b[2] or ''
  end
  local content = owner == id and chunks == '1' and redis.call('GET', P .. 'c:' .. id .. ':0') or ''
  return {settled, 'attempt', id, table.concat(r.head, '\t') .. '\n' .. r.payload .. '\n' .. r.history, int(now), owner,
    chunks, bytes, content}
end

if attempt ~= '' and u[UATTEMPT] == attempt then
  -- This very call has been made before, and its answer was lost.
  local r = load(u[MESSAGE])
  if r and r.head[ATTEMPT] == attempt then
    local answer = give(u[MESSAGE], r)
    answer[#answer + 1] = 0
    return answer
  end
end

local provider = active()
local over
if attempt == '' then
  over = 'ended'
elseif not provider or provider.version ~= ARGV[6] then
  over = 'version'
elseif tonumber(unit) >= provider.concurrency then
  over = 'shrunk'
elseif tonumber(redis.call('HGET', P .. 'k:' .. key, 'until') or 0) > now then
  over = 'held'
end
if over then
  free(key, unit)
  wake()
  return {settled, over, 0}
end

-- take pops the next entry of a kind: senders in turn, their batches in turn, what is due again before what is new.
local function take(kind, senders)
  local sender
  if senders then
    for _, s in ipairs(senders) do
      if redis.call('EXISTS', P .. 'r:' .. kind .. ':' .. s) == 1 then sender = s break end
    end
  else
    sender = redis.call('LMOVE', P .. 's:' .. kind, P .. 's:' .. kind, 'LEFT', 'RIGHT')
  end
  if not sender then return nil end
  local ring = P .. 'r:' .. kind .. ':' .. sender
  local batch = redis.call('LMOVE', ring, ring, 'LEFT', 'RIGHT')
  local entry
  if batch then
    local lane = lane_key(kind, sender, batch)
    entry = redis.call('LPOP', lane .. ':d') or redis.call('LPOP', lane .. ':n')
    if redis.call('EXISTS', lane .. ':d', lane .. ':n') > 0 then return entry, batch end
    redis.call('RPOP', ring)
  end
  if redis.call('EXISTS', ring) == 0 then redis.call('LREM', P .. 's:' .. kind, -1, sender) end
  return entry or '', batch or '-'
end

-- Whose work this key's limits bind: everyone's (nil), or one mailbox and, if it is the provider's own, mail without sender.
local senders
if provider.mode ~= 'account' then
  senders = {key}
  if provider.sender == key then senders[2] = '-' end
end

local function waiting(kind)
  if not senders then return redis.call('EXISTS', P .. 's:' .. kind) == 1 end
  for _, s in ipairs(senders) do
    if redis.call('EXISTS', P .. 'r:' .. kind .. ':' .. s) == 1 then return true end
  end
  return false
end

local function choose()
  local entry, batch = take('a', senders)
  if entry then return entry, batch end
  local first, second = 'r', 's'
  if waiting('r') and waiting('s') then
    local reports, subscriptions = tonumber(ARGV[9]), tonumber(ARGV[10])
    if redis.call('HINCRBY', P .. 'k:' .. key, 'served', 1) % (reports + subscriptions) >= reports then first, second = 's', 'r' end
  end
  entry, batch = take(first, senders)
  if entry then return entry, batch end
  return take(second, senders)
end

local stale = 0
for _ = 1, 50 do
  local entry, lane = choose()
  if not entry then
    free(key, unit)
    return {settled, 'idle', stale}
  end
  local parts = split(entry, ':')
  local id, generation = parts[1], parts[2] or ''
  local r, newer = load(id)
  if newer then
    await('m:' .. entry, now + NEWER)
  elseif not r or r.head[STATE] ~= QUEUED or r.head[GENERATION] ~= generation then
    stale = stale + 1
  else
    local expires, cancelled = r.head[EXPIRES], false
    if lane ~= '-' then
      local b = redis.call('HMGET', P .. 'b:' .. lane, 'expires', 'cancelled')
      if b[1] then expires = b[1] end
      cancelled = b[2]
    end
    if cancelled then
      finish(id, r, CANCELLED, now, max)
    elseif (tonumber(expires) or math.huge) <= now then
      finish(id, r, EXPIRED, now, max)
    else
      begin(id, r, attempt, now)
      redis.call('HSET', P .. 'u:' .. key, unit,
        table.concat({turn, run, worker, int(now), attempt, id, int(now + tonumber(ARGV[8]))}, '\t'))
      local answer = give(id, r)
      answer[#answer + 1] = stale
      return answer
    end
  end
end
redis.call('HSET', P .. 'u:' .. key, unit, table.concat({turn, run, worker, int(now), '', '', ''}, '\t'))
return {settled, 'again', stale}
