-- next settles what a turn's last attempt came to, then begins the turn's next attempt, or ends the turn and says why.
--
-- ARGV: 1 limit key, 2 unit, 3 turn, 4 run (one call of the turn's handler), 5 worker, 6 version of the worker's provider
-- settings, 7 id for the new attempt ("" ends the turn), 8 ms until its deadline, 9 and 10 weights of reports and of
-- subscriptions, 11 records.delivered_max; and if there is something to settle: 12 message, 13 attempt, 14 verdict,
-- 15 marks, 16 class, 17 line, 18 counted ("1"), 19 delay, 20 generation, 21 ms to hold the key ("0": not), 22 reason,
-- 23 ms of the longest hold, if each in a row is to be twice as long as the one before.
--
-- Answer: {settled ("", "delivered", "failed", "queued", "late", "known"), what, ..., stale, ended}, where what is
--   "attempt": message, record (as it was before), now, owner of the content, chunks, bytes, content (if it is a message's own and small)
--   "again":   nothing found yet, only stale entries; call again
--   "idle", "held", "version", "shrunk", "ended": the turn is over and its unit is free
--   "stale":   the unit is no longer this turn's
-- stale is the number of stale entries that were dropped, and ended has two letters, state and kind, for each message that
-- was found cancelled or expired.
local key, unit, turn, run, worker, attempt = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[7]
local max = tonumber(ARGV[11])
local now = now_ms()

-- till is when the key's hold ends.
local till = tonumber(redis.call('HGET', P .. 'k:' .. key, 'until') or 0)

local settled = ''
if ARGV[12] then
  settled = settle({message = ARGV[12], attempt = ARGV[13], verdict = ARGV[14], marks = ARGV[15], class = ARGV[16],
    line = ARGV[17], counted = ARGV[18] == '1', delay = tonumber(ARGV[19]), generation = ARGV[20]}, now, max)
  if settled ~= 'late' and settled ~= 'known' then
    local k, hold = P .. 'k:' .. key, tonumber(ARGV[21])
    -- A running hold is neither cut by what was under way when it began, nor made longer by what was refused beside it.
    if till <= now then
      if hold > 0 then
        local row = redis.call('HINCRBY', k, 'refused', 1)
        hold = math.max(hold, math.min(hold * 2 ^ (row - 1), tonumber(ARGV[23])))
        till = now + hold
        redis.call('HSET', k, 'until', int(till), 'reason', ARGV[22])
      elseif till > 0 and ARGV[14] == 'delivered' then
        redis.call('HDEL', k, 'until', 'reason', 'refused')
      end
    elseif hold > 0 and tonumber(ARGV[23]) == 0 and now + hold > till then
      till = now + hold
      redis.call('HSET', k, 'until', int(till), 'reason', ARGV[22])
    end
  end
end

local held = redis.call('HGET', P .. 'u:' .. key, unit)
local u = unit_of(held)
if u[TURN] ~= turn or (u[RUN] ~= '' and u[RUN] ~= run) then return {settled, 'stale', 0, ''} end

local function batch_of(r)
  return redis.call('HMGET', P .. 'b:' .. r.head[BATCH], 'chunks', 'bytes', 'expires', 'cancelled')
end

local function give(id, r, b)
  local owner, chunks, bytes = id, r.head[CHUNKS], r.head[BYTES]
  if b then owner, chunks, bytes = r.head[BATCH], b[1] or '', b[2] or '' end
  local content = owner == id and chunks == '1' and redis.call('GET', P .. 'c:' .. id .. ':0') or ''
  return {settled, 'attempt', id, r.raw, int(now), owner, chunks, bytes, content}
end

if attempt ~= '' and u[UATTEMPT] == attempt then
  -- This very call has been made before, and its answer was lost.
  local r = load(u[MESSAGE])
  if r and r.head[ATTEMPT] == attempt then
    local answer = give(u[MESSAGE], r, r.head[BATCH] ~= '' and batch_of(r))
    answer[#answer + 1], answer[#answer + 2] = 0, ''
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
elseif till > now then
  over = 'held'
end
if over then
  free(key, unit)
  wake()
  return {settled, over, 0, ''}
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
    if redis.call('EXISTS', lane .. ':d', lane .. ':n') > 0 then return entry end
    redis.call('RPOP', ring)
  end
  if redis.call('EXISTS', ring) == 0 then redis.call('LREM', P .. 's:' .. kind, -1, sender) end
  return entry or ''
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
  local entry = take('a', senders)
  if entry then return entry end
  local first, second = 'r', 's'
  if not waiting('r') then
    first, second = 's', nil
  elseif waiting('s') then
    local reports, subscriptions = tonumber(ARGV[9]), tonumber(ARGV[10])
    if redis.call('HINCRBY', P .. 'k:' .. key, 'served', 1) % (reports + subscriptions) >= reports then first, second = 's', 'r' end
  end
  return take(first, senders) or (second and take(second, senders))
end

local stale, ended = 0, ''
for _ = 1, 50 do
  local entry = choose()
  if not entry then
    free(key, unit)
    return {settled, 'idle', stale, ended}
  end
  local parts = split(entry, ':')
  local id, generation = parts[1], parts[2] or ''
  local r, newer = load(id)
  if newer then
    await('m:' .. entry, now + NEWER)
  elseif not r or r.head[STATE] ~= QUEUED or r.head[GENERATION] ~= generation then
    stale = stale + 1
  else
    local b = r.head[BATCH] ~= '' and batch_of(r)
    if b and b[4] then
      finish(id, r, CANCELLED, now, max)
      ended = ended .. CANCELLED .. r.head[KIND]
    elseif (tonumber(b and b[3] or r.head[EXPIRES]) or math.huge) <= now then
      finish(id, r, EXPIRED, now, max)
      ended = ended .. EXPIRED .. r.head[KIND]
    else
      begin(id, r, attempt, now)
      redis.call('HSET', P .. 'u:' .. key, unit,
        table.concat({turn, run, worker, int(now), attempt, id, int(now + tonumber(ARGV[8]))}, '\t'))
      local answer = give(id, r, b)
      answer[#answer + 1], answer[#answer + 2] = stale, ended
      return answer
    end
  end
end
redis.call('HSET', P .. 'u:' .. key, unit, table.concat({turn, run, worker, int(now), '', '', ''}, '\t'))
return {settled, 'again', stale, ended}
