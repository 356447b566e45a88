-- next settles what the last attempts of some turns came to, then begins each turn's next attempt, or ends the turn and
-- says why. It takes several turns' calls at once, one after the other as if each had come alone; a call that fails
-- harms no other.
--
-- ARGV: 1 version of the worker's provider settings, 2 ms until an attempt's deadline, 3 and 4 weights of reports and of
-- subscriptions, 5 records.delivered_max; then for each call 18 fields: 1 limit key, 2 unit, 3 turn, 4 run (one call of the
-- turn's handler), 5 worker, 6 id for the new attempt ("" ends the turn), and what there is to settle: 7 message ("" for
-- none), 8 attempt, 9 verdict, 10 marks, 11 class, 12 line, 13 counted ("1"), 14 delay, 15 generation, 16 ms to hold the
-- key ("0": not), 17 reason, 18 ms of the longest hold, if each in a row is to be twice as long as the one before.
--
-- Answer, for each call: {settled ("", "delivered", "failed", "queued", "late", "known"), what, ..., stale, ended}, where
-- what is
--   "attempt": message, record (as it was before), now, owner of the content, chunks, bytes, content (if it is a message's
--              own and small)
--   "again":   nothing found yet, only stale entries; call again
--   "idle", "held", "version", "shrunk", "ended": this hand of the turn is over, and the unit is free unless the other has
--              an attempt open
--   "stale":   the unit is no longer this turn's
--   "error":   a fault, in words
-- stale is the number of stale entries that were dropped, and ended has two letters, state and kind, for each message that
-- was found cancelled or expired.
local SHARED, FIELDS = 5, 18
local max = tonumber(ARGV[5])
local now = now_ms()
local provider = active()

-- till gives the time until which a key is held, read once.
local tills = {}
local function till(key)
  if not tills[key] then tills[key] = tonumber(redis.call('HGET', P .. 'k:' .. key, 'until') or 0) end
  return tills[key]
end

-- hold silences a key after a refusal, or notes that it is over after a success.
local function hold(key, ms, reason, longest, delivered)
  local ends = till(key)
  if ms == 0 and (ends == 0 or not delivered) then return end
  local k = P .. 'k:' .. key
  tills[key] = nil
  -- A running hold is neither cut by what was under way when it began, nor made longer by what was refused beside it,
  -- unless the provider gave a time.
  if ends <= now then
    if ms > 0 then
      local row = redis.call('HINCRBY', k, 'refused', 1)
      ms = math.max(ms, math.min(ms * 2 ^ (row - 1), longest))
      redis.call('HSET', k, 'until', int(now + ms), 'reason', reason)
    elseif ends > 0 and delivered then
      redis.call('HDEL', k, 'until', 'reason', 'refused')
    end
  elseif ms > 0 and longest == 0 and now + ms > ends then
    redis.call('HSET', k, 'until', int(now + ms), 'reason', reason)
  end
end

local function batch_of(r)
  return redis.call('HMGET', P .. 'b:' .. r.head[BATCH], 'chunks', 'bytes', 'expires', 'cancelled')
end

local function give(settled, id, r, b, stale, ended)
  local owner, chunks, bytes = id, r.head[CHUNKS], r.head[BYTES]
  if b then owner, chunks, bytes = r.head[BATCH], b[1] or '', b[2] or '' end
  local content = owner == id and chunks == '1' and redis.call('GET', P .. 'c:' .. id .. ':0') or ''
  return {settled, 'attempt', id, r.raw, int(now), owner, chunks, bytes, content, stale, ended}
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

local function waiting(kind, senders)
  if not senders then return redis.call('EXISTS', P .. 's:' .. kind) == 1 end
  for _, s in ipairs(senders) do
    if redis.call('EXISTS', P .. 'r:' .. kind .. ':' .. s) == 1 then return true end
  end
  return false
end

local function choose(key, senders)
  local entry = take('a', senders)
  if entry then return entry end
  local first, second = 'r', 's'
  if not waiting('r', senders) then
    first, second = 's', nil
  elseif waiting('s', senders) then
    local reports, subscriptions = tonumber(ARGV[3]), tonumber(ARGV[4])
    if redis.call('HINCRBY', P .. 'k:' .. key, 'served', 1) % (reports + subscriptions) >= reports then first, second = 's', 'r' end
  end
  return take(first, senders) or (second and take(second, senders))
end

local function call(at)
  local key, unit, turn, run, worker, attempt = unpack(ARGV, at + 1, at + 6)
  local settled = ''
  if ARGV[at + 7] ~= '' then
    local message, tried, verdict, marks, class, line, counted, delay, generation, ms, reason, longest = unpack(ARGV, at + 7, at + 18)
    settled = settle({message = message, attempt = tried, verdict = verdict, marks = marks, class = class, line = line,
      counted = counted == '1', delay = tonumber(delay), generation = generation}, now, max)
    if settled ~= 'late' and settled ~= 'known' then hold(key, tonumber(ms), reason, tonumber(longest), verdict == 'delivered') end
  end

  local u = unit_of(redis.call('HGET', P .. 'u:' .. key, unit))
  if u[TURN] ~= turn or (u[RUN] ~= '' and u[RUN] ~= run) then return {settled, 'stale', 0, ''} end
  for _, o in ipairs(u.open) do
    if attempt ~= '' and o.attempt == attempt then
      -- This very call has been made before, and its answer was lost.
      local r = load(o.message)
      if r and r.head[ATTEMPT] == attempt then
        return give(settled, o.message, r, r.head[BATCH] ~= '' and batch_of(r), 0, '')
      end
    end
  end
  for i = #u.open, 1, -1 do
    if u.open[i].attempt == ARGV[at + 8] then table.remove(u.open, i) end
  end
  u[RUN], u[WORKER], u[SINCE] = run, worker, int(now)

  -- over ends this hand of the turn; its unit is free when the other hand has nothing open either.
  local function over(why, stale, ended)
    if #u.open > 0 then
      keep(key, unit, u)
    else
      free(key, unit)
    end
    return {settled, why, stale, ended}
  end

  local why
  if attempt == '' then
    why = 'ended'
  elseif not provider or provider.version ~= ARGV[1] then
    why = 'version'
  elseif redis.call('HLEN', P .. 'u:' .. key) > provider.concurrency then
    why = 'shrunk'
  elseif till(key) > now then
    why = 'held'
  end
  if why then
    wake()
    return over(why, 0, '')
  end

  -- Whose work this key's limits bind: everyone's (nil), or one mailbox's and, if it is the provider's own, that of mail
  -- without a sender.
  local senders
  if provider.mode ~= 'account' then
    senders = {key}
    if provider.sender == key then senders[2] = '-' end
  end

  local stale, ended = 0, ''
  for _ = 1, 50 do
    local entry = choose(key, senders)
    if not entry then
      return over('idle', stale, ended)
    end
    local id, generation = string.match(entry, '^([^:]*):?(.*)$')
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
        u.open[#u.open + 1] = {attempt = attempt, message = id, deadline = int(now + tonumber(ARGV[2]))}
        keep(key, unit, u)
        return give(settled, id, r, b, stale, ended)
      end
    end
  end
  keep(key, unit, u)
  return {settled, 'again', stale, ended}
end

local answers = {}
for at = SHARED, #ARGV - FIELDS, FIELDS do
  local fine, answer = pcall(call, at)
  if not fine then answer = {'', 'error', tostring(type(answer) == 'table' and answer.err or answer), 0, ''} end
  answers[#answers + 1] = answer
end
return answers
