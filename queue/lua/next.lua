-- next settles what the last attempts of some turns came to, then begins each turn's next attempt, or ends the turn and
-- says why. It takes several turns' calls at once, one after the other as if each had come alone; a call that fails
-- harms no other.
--
-- ARGV: 1 version of the worker's provider settings, 2 ms until an attempt's deadline, 3 and 4 weights of reports and of
-- subscriptions, 5 records.delivered_max, 6 kinds whose records are marked a second time (letters); then for each call 21
-- fields: 1 limit key, 2 unit ("": whichever is not out, for a
-- turn that nobody gave out), 3 turn, 4 run (one call of the turn's handler), 5 worker, 6 id for the new attempt ("" ends
-- the turn), and what there is to settle: 7 message ("" for none), 8 attempt, 9 verdict, 10 marks, 11 class, 12 line,
-- 13 counted ("1"), 14 delay, 15 generation, 16 ms of a hold ("0": none), 17 its reason, 18 ms of the longest hold, if each in a
-- row is to be twice as long as the one before, 19 what was used of the limits ("": what was taken), 20 how far the hold reaches
-- ("b": the mailbox, "p": the provider), a tab, and the outcome that led to it, as in a history, 21 when the attempt began, a space, and
-- of which generation ("": not known).
--
-- Answer, for each call: {settled ("", "delivered", "failed", "queued", "late", "known"), what, ...}, where what is
--   "attempt": message, record (as it was before), now, owner of the content, chunks, bytes, content (if it is a message's
--              own and small), unit, "1" if other hands may begin the next meanwhile, trace context of its batch,
--              what bounds a message
--   "again":   nothing found yet, only stale entries; call again
--   "idle", "held", "limited", "version", "shrunk", "ended": this hand of the turn is over, and the unit is free unless
--              another has an attempt open. With "limited": the limit's name
--   "stale":   the unit is no longer this turn's
--   "error":   a fault, in words
-- and at its end: ms after which the process has to look at the key again (-1: not) and the key ("*": at who waits for the
-- provider's limits), number of stale entries that were dropped, and each message that was found cancelled, expired or failed
-- (told in records.lua), and each hold that began, became longer or is over (hold and let_go in holds.lua).
local SHARED, FIELDS = 6, 21
local now = now_ms()
local deadline = int(now + tonumber(ARGV[2]))
local provider = active()
local limits, all_limits = limits_of(provider and provider.limits or ''), limits_of(provider and provider.all_limits or '')
local limited = #limits > 0 or #all_limits > 0
local everyone_limited = #all_limits > 0 or (provider and provider.all_concurrency < math.huge)
local ONE = {messages = 1, requests = 1, recipients = 1, upload_bytes = 0}
-- UNSEEN is what was used by an attempt of which the provider saw nothing.
local UNSEEN = '0 0 0 0'

-- What calls have in common is read once and written once. Of each key: the units that this run's calls name, how many are
-- out, and how it flows (mean ms of a hand-over, mean recipients, mean bytes, messages since, since when, last, a second).
local keys, named = {}, {}
for at = SHARED, #ARGV - FIELDS, FIELDS do
  local key, unit = ARGV[at + 1], ARGV[at + 2]
  if unit ~= '' then
    named[key] = named[key] or {}
    table.insert(named[key], unit)
  end
end

local function key_state(key)
  local s = keys[key]
  if s then return s end
  s = {key = key, value = {}, changed = {}, out = redis.call('HLEN', P .. 'u:' .. key), settled = 0}
  if named[key] then
    for i, value in ipairs(redis.call('HMGET', P .. 'u:' .. key, unpack(named[key]))) do s.value[named[key][i]] = value end
  end
  keys[key] = s
  return s
end

local function set_unit(s, unit, value)
  if not s.value[unit] then
    s.out = s.out + 1
    redis.call('SADD', P .. 'keys', s.key)
    if provider and provider.all_concurrency < math.huge then redis.call('SADD', P .. 'units', s.key .. '\t' .. unit) end
  end
  if not value then s.out = s.out - 1 end
  s.value[unit], s.changed[unit] = value, true
end

-- claim gives the unit that a turn has which nobody gave out, or one that is not out, or nil.
local function claim(s, turn)
  if not s.all then
    s.all = true
    local units = redis.call('HGETALL', P .. 'u:' .. s.key)
    for i = 1, #units, 2 do
      if not s.changed[units[i]] then s.value[units[i]] = units[i + 1] end
    end
  end
  -- The turn may have had its unit before the concurrency was lowered.
  for unit, value in pairs(s.value) do
    if value and unit_of(value)[TURN] == turn then return unit end
  end
  for unit = 0, (provider and provider.concurrency or 0) - 1 do
    if not s.value[tostring(unit)] then return tostring(unit) end
  end
end

local function write_units(s)
  local set, freed = {}, {}
  for unit in pairs(s.changed) do
    if s.value[unit] then
      set[#set + 1], set[#set + 2] = unit, s.value[unit]
    else
      freed[#freed + 1] = unit
    end
  end
  if #set > 0 then redis.call('HSET', P .. 'u:' .. s.key, unpack(set)) end
  if #freed > 0 then free(s.key, freed) end
end

local function write_flow(s)
  if s.settled == 0 then return end
  local f = split(redis.call('HGET', P .. 'k:' .. s.key, 'flow') or '', ' ')
  for i = 1, 7 do f[i] = tonumber(f[i]) or 0 end
  local cost = s.last.cost ~= '' and cost_of(s.last.cost) or ONE
  for i, sample in ipairs({now - tonumber(s.last.begun), cost.recipients, cost.upload_bytes}) do
    f[i] = f[6] == 0 and sample or f[i] * 0.9 + sample * 0.1
  end
  if now - f[6] > 10000 then f[4], f[5] = 0, now end
  f[4], f[6] = f[4] + s.settled, now
  if now - f[5] >= 5000 then f[7], f[4], f[5] = f[4] * 1000 / (now - f[5]), 0, now end
  for i = 1, 7 do f[i] = string.format('%.3f', f[i]) end
  redis.call('HSET', P .. 'k:' .. s.key, 'flow', table.concat(f, ' '))
  redis.call('ZADD', P .. 'mailboxes', int(now), s.key)
end

-- reaches says what a refusal holds: one sender of an account, whose mail alone is refused; a mailbox; an account; or
-- everything. Nil: what was refused are not the active settings.
local function reaches(key, scope, reason, sender)
  if not provider then return key end
  local held = key
  if provider.mode == 'mailbox' then
    if scope == 'p' then held = '*' end
  elseif scope == 'b' and reason == 'configuration' and sender then
    held = sender
  end
  if provider.version ~= ARGV[1] and (reason ~= 'throttled' or held == '*') then return nil end
  return held
end

-- any_aside says whether any sender is set aside, which is read once in a run; stands_aside, whether one is.
local some_aside
local function any_aside()
  if some_aside == nil then some_aside = redis.call('EXISTS', P .. 'aside') == 1 end
  return some_aside
end

local function stands_aside(sender)
  return any_aside() and by_itself(provider, sender) and redis.call('SISMEMBER', P .. 'aside', sender) == 1
end

-- settle_holds notes what an attempt says about holds, in c.ended too. What is refused somewhere tells that nothing wider is held
-- any more; what the provider has not seen tells nothing.
local function settle_holds(c, attempt, refused, telling, sender)
  local key = c.s.key
  local held = refused and reaches(key, refused.scope, refused.reason, sender)
  if refused and not held then telling = false end
  if held then
    c.ended[#c.ended + 1] = hold(held, refused, now)
    if held == sender and held ~= key then
      set_aside(sender, silence_of(sender).hold)
      some_aside = true
    end
  end
  local wider = not held
  for _, scope in ipairs({sender or '', key, '*'}) do
    local s = scope ~= '' and scope ~= held and silence_of(scope)
    if s and telling and wider and (s.probe == attempt or s.left and scope ~= sender) then
      c.ended[#c.ended + 1] = let_go(scope, now)
    elseif s and s.probe == attempt then
      unprobe(scope, now)
    end
    wider = wider or scope == held
  end
end

-- room says whether a cost fits a key's limits and the provider's: nil, or from when on it will (-1: that depends on attempts
-- under way) or "never", the limit's name, and whose it is.
local function room(key, cost)
  local at, name = books_room(key, limits, cost, now)
  if at == 'never' then return at, name, key end
  local all_at, all_name = books_room('*', all_limits, cost, now)
  if all_at and (not at or all_at == 'never' or at ~= -1 and (all_at == -1 or all_at > at)) then return all_at, all_name, '*' end
  return at, name, key
end

-- wait_for sees to it that somebody looks at a key again when there is room. Who was served just now goes last; who was given
-- a turn and found no room keeps the place in the line.
local function wait_for(key, at, whose, served)
  if whose == '*' then
    local senior = not served and tonumber(redis.call('HGET', P .. 'senior', key) or 0) or 0
    -- An alert for which there was no room had its turn before all others: it is not to have it again and again.
    if senior <= 1 then senior = nil end
    if served or senior then redis.call('ZREM', P .. 'blocked', key) end
    line_up(key, senior or served and now + 0.5 or now)
  elseif everyone_limited then
    -- Its own limit binds: while that does, what binds all is not for it.
    redis.call('ZREM', P .. 'blocked', key)
  end
  if at == -1 then return -1 end
  if in_doubt('*', now) then flag('*') end -- another is to tell whether that is over
  return arm(whose, at, now)
end

local batch_of
do
  local batches = {}
  function batch_of(r)
    local id = r.head[BATCH]
    if not batches[id] then batches[id] = redis.call('HMGET', P .. 'b:' .. id, 'chunks', 'bytes', 'expires', 'cancelled', 'files', 'refs', 'trace') end
    return batches[id]
  end
end

local function content_of(id, r, b)
  if b then return r.head[BATCH], b[1] or '', b[2] or '' end
  return id, r.head[CHUNKS], r.head[BYTES]
end

local cost_of_message
do
  -- request_bytes, part_bytes and always say how the provider takes content; nil if it takes all in one request.
  local request_bytes, part_bytes, always = string.match(provider and provider.upload or '', '^(%d+) (%d+) (%d)$')

  -- cost_of_message is what an attempt takes at most; the same as costOf in acceptable.go.
  function cost_of_message(id, r, b)
    local _, pending = string.gsub(r.head[MARKS], 'p', '')
    local _, _, bytes = content_of(id, r, b)
    local own_bytes, own_files = refs_of(r.head[REFS])
    local shared_bytes, shared_files = refs_of(b and b[6])
    bytes = (tonumber(bytes) or 0) + own_bytes + shared_bytes
    local cost = {messages = 1, requests = 1, recipients = math.min(math.max(pending, 1), provider.most), upload_bytes = bytes}
    if not request_bytes then return cost end
    cost.upload_bytes = math.ceil(bytes * 4 / 3)
    if always == '1' or bytes > tonumber(request_bytes) then
      cost.requests = 2 + 2 * ((tonumber(b and b[5] or r.head[FILES]) or 0) + own_files + shared_files) + math.ceil(bytes / tonumber(part_bytes))
    end
    return cost
  end
end

local function cost_text(c) return c.messages .. ' ' .. c.requests .. ' ' .. c.recipients .. ' ' .. int(c.upload_bytes) end

-- settle_call stores what a call's last attempt came to, in the record, in the unit, in the books and in the flow.
local function settle_call(c, at, u)
  local s = c.s
  local message, tried, verdict, marks, class, line, counted, delay, generation, ms, reason, longest, used, refusal, began = unpack(ARGV, at + 7, at + 21)
  local settled, r = settle({message = message, attempt = tried, verdict = verdict, marks = marks, class = class, line = line,
    counted = counted == '1', delay = tonumber(delay), generation = generation, began = began}, now)
  local seen, refused = used ~= UNSEEN, nil
  if ms ~= '0' and settled ~= 'late' and settled ~= 'known' then
    refused = {ms = tonumber(ms), reason = reason, longest = tonumber(longest), scope = string.sub(refusal, 1, 1), outcome = string.sub(refusal, 3)}
  end
  settle_holds(c, tried, refused, seen and settled ~= 'late' and settled ~= 'known', (refused or any_aside()) and r and by_itself(provider, (place(r))))
  local from = string.find(u.lines, '\n' .. tried .. '\t', 1, true)
  if from then
    local to = (string.find(u.lines, '\n', from + 1, true) or 0) - 1
    local o = open_of(string.sub(u.lines, from, to))[1]
    u.lines = string.sub(u.lines, 1, from - 1) .. (to > 0 and string.sub(u.lines, to + 1) or '')
    if limited or o.cost ~= '' then
      -- An attempt that is older than the limits has no cost.
      local spent = used ~= '' and cost_of(used) or o.cost ~= '' and cost_of(o.cost) or ONE
      books_stamp(s.key, limits, o.taken, spent, now)
      books_stamp('*', all_limits, o.all, spent, now)
    end
    if seen and not refused then s.settled, s.last = s.settled + 1, o end
  end
  return settled
end

-- settle_apart settles an attempt of a turn that is set apart, as another provider is active now. It answers false if there is none.
local function settle_apart(c, at, turn)
  local apart = P .. 'u:' .. APART .. c.s.key
  local value = redis.call('HGET', apart, turn)
  if not value then return false end
  local u = unit_of(value)
  local settled = settle_call(c, at, u)
  if u.lines ~= '' then
    redis.call('HSET', apart, turn, unit_text(u))
  else
    free(APART .. c.s.key, {turn})
  end
  return settled
end

-- give answers with an attempt that has begun. c is a call: its key's state, unit, open attempts and what it has met.
local function give(c, id, r, b, look, whose)
  local owner, chunks, bytes = content_of(id, r, b)
  local content = owner == id and chunks == '1' and redis.call('GET', P .. 'c:' .. id .. ':0') or ''
  return {c.settled, 'attempt', id, r.raw, int(now), owner, chunks, bytes, content, c.unit, limited and '' or '1', b and b[7] or '', provider and provider.message or '', look, whose, c.stale, c.ended}
end

-- over ends this hand of a turn; the unit is free when no other hand has anything open.
local function over(c, why, look, whose, name)
  if c.mine then set_unit(c.s, c.unit, c.u.lines ~= '' and unit_text(c.u) or false) end
  local answer = {c.settled, why, look or -1, whose or '', c.stale, c.ended}
  if name then table.insert(answer, 3, name) end
  return answer
end

-- waits_aside puts an entry back whose sender is held or paused by itself: a switch of providers, or of limits, can have brought
-- him into the rings.
local function waits_aside(entry, taken, key)
  local sender = taken.sender
  if not stands_aside(sender) then return false end
  local s = silence_of(sender)
  if math.max(s.hold, s.pause) <= now and not probed(sender, now) then return false end
  untake(entry, taken, key)
  keep_aside(provider, sender, now)
  return true
end

-- begin_probes makes an attempt the probe of whatever is in doubt. It answers whether the key's other mail waits for it.
local function begin_probes(key, sender, attempt)
  if stands_aside(sender) and in_doubt(sender, now) then
    probe(sender, attempt, deadline)
    set_aside(sender, tonumber(deadline))
  end
  local alone = false
  for _, scope in ipairs({key, '*'}) do
    if in_doubt(scope, now) then
      probe(scope, attempt, deadline)
      alone = true
    end
  end
  return alone
end

-- in_hand is what a call has taken from its lane and not begun, ended or put back: should the call fail, it goes back.
local in_hand

-- offer begins the attempt of an entry that was taken, or says that its limits have no room: it answers the call. What can't
-- begin is ended, put back or dropped: nil.
local function offer(c, entry, place, attempt, senders, first)
  local key = c.s.key
  local id, generation = string.match(entry, '^([^:]*):?(.*)$')
  local r, newer = load(id)
  if newer then
    await('m:' .. entry, now + NEWER)
    return nil
  elseif not r or r.head[STATE] ~= QUEUED or r.head[GENERATION] ~= generation then
    c.stale = c.stale + 1
    return nil
  end
  local b = r.head[BATCH] ~= '' and batch_of(r)
  local cancelled = b and b[4]
  if cancelled or (expiry.of(r, b and b[3]) or math.huge) <= now then
    local over_by = CANCELLED
    if cancelled then finish(id, r, CANCELLED, now) else over_by = expiry.finish(id, r, now) end
    c.ended[#c.ended + 1] = told(id, r, over_by, b and b[7])
    return nil
  elseif waits_aside(entry, place, key) then
    in_hand = nil
    return nil
  end
  local cost, from, name, whose
  if limited then
    cost = cost_of_message(id, r, b)
    from, name, whose = room(key, cost)
  end
  if from == 'never' then
    -- An earlier attempt may have sent it.
    r.head[CLASS] = string.find(r.history, ';u;', 1, true) and 'unknown' or 'permanent'
    note(r, int(now) .. '\t0\t\t;p;m;limit_too_small;limit;;;;The message takes more of the limit "' .. name .. '" than it allows in all.')
    fail(id, r, now)
    c.ended[#c.ended + 1] = told(id, r, FAILED, b and b[7])
    return nil
  elseif from then
    untake(entry, place, key)
    in_hand = nil
    local look = wait_for(key, from, whose)
    if whose == '*' and (not first or first.key == key) then
      -- It needs more room than others would: they are not to take it from under its hands.
      redis.call('SET', P .. 'first', key .. '\t' .. cost_text(cost), 'PX', int(math.max(from - now, 0) + 5000))
      redis.call('ZADD', P .. 'blocked', 0, key)
    end
    return over(c, 'limited', look, whose, name)
  end
  begin(id, r, attempt, now, string.find(ARGV[6], r.head[KIND], 1, true))
  in_hand = nil
  local probing = begin_probes(key, place.sender, attempt)
  if first and first.key == key then redis.call('UNLINK', P .. 'first') end
  if everyone_limited then redis.call('HDEL', P .. 'senior', key) end
  local taken, all, taken_in_all = '', '', ''
  if limited then
    taken, all, taken_in_all = books_take(key, limits, cost), books_take('*', all_limits, cost), cost_text(cost)
  end
  c.u.lines = c.u.lines .. open_line(attempt, id, int(now), deadline, taken, all, taken_in_all)
  set_unit(c.s, c.unit, unit_text(c.u))
  local look = -1
  if limited and not probing and c.s.out < provider.concurrency and any_waiting(senders) then
    local more, _, who = room(key, ONE)
    whose = who or (redis.call('EXISTS', P .. 'blocked') == 1 and '*' or key)
    look = wait_for(key, more or now, whose)
  end
  return give(c, id, r, b, look, whose or '')
end

local function call(at)
  in_hand = nil
  local key, unit, turn, run, worker, attempt = unpack(ARGV, at + 1, at + 6)
  local s = key_state(key)
  local looks = unit == ''
  if looks then unit = claim(s, turn) end
  local u = unit_of(unit and s.value[unit])
  local mine = u[TURN] == turn and (u[RUN] == '' or u[RUN] == run)
  local c = {s = s, unit = unit, u = u, mine = mine, settled = '', stale = 0, ended = {}}
  if ARGV[at + 7] ~= '' then c.settled = not mine and settle_apart(c, at, turn) or settle_call(c, at, mine and u or {lines = ''}) end
  if not mine then
    if not looks then return over(c, 'stale') end
    local look = redis.call('ZSCORE', P .. 'looks', key)
    if look and tonumber(look) <= now then redis.call('ZREM', P .. 'looks', key) end
    u = {turn, run, worker, int(now), lines = ''}
    c.u = u
  end

  if mine and attempt ~= '' then
    local _, to = string.find(u.lines, '\n' .. attempt .. '\t', 1, true)
    local message = to and string.match(u.lines, '^[^\t]*', to + 1)
    local r = message and load(message)
    -- This very call has been made before, and its answer was lost.
    if r and r.head[ATTEMPT] == attempt then return give(c, message, r, r.head[BATCH] ~= '' and batch_of(r), -1, '') end
  end
  u[RUN], u[WORKER], u[SINCE] = run, worker, int(now)

  local why
  if attempt == '' then
    why = 'ended'
  elseif not provider or provider.version ~= ARGV[1] then
    why = 'version'
  elseif s.out > provider.concurrency or provider.mode == 'account' and key ~= provider.key then
    -- The turn may be a former provider's, and its worker have the active one's settings by now.
    why = 'shrunk'
  end
  if why then
    flag(key)
    return over(c, why)
  end
  if looks and not mine then
    if not unit or s.out >= provider.concurrency then return over(c, 'idle') end
    -- What binds all of them is given out in turn.
    if everyone_limited and (redis.call('EXISTS', P .. 'blocked') == 1 or redis.call('SCARD', P .. 'units') >= provider.all_concurrency) then
      line_up(key, now)
      flag('*')
      return over(c, 'idle')
    end
  end
  local silent, whose = silent_until(key)
  local probing = probed(key, now) or probed('*', now)
  if silent > now or probing then
    if everyone_limited then line_up(key, now) end
    return over(c, 'held', not probing and arm(whose, silent, now) or -1, whose)
  end
  if limited then
    if u.lines ~= '' then return over(c, 'ended') end -- what waits for its line would be taken too early
    local from, name, whose = room(key, ONE)
    if from then return over(c, 'limited', from ~= 'never' and wait_for(key, from, whose, ARGV[at + 7] ~= '') or -1, whose, name) end
  end

  local senders = senders_of(provider, key)
  local first = #all_limits > 0 and first_of_all(provider, now)
  if first and first.key ~= key and not waiting('a', senders) then
    local from, name = books_room('*', all_limits, cost_of(first.cost), now)
    return over(c, 'limited', wait_for(key, tonumber(from) or now + 10, '*'), '*', name or all_limits[1].name)
  end
  for _ = 1, 50 do
    local entry, place = choose(key, senders)
    if not entry then
      if everyone_limited then redis.call('HDEL', P .. 'senior', key) end
      return over(c, 'idle')
    end
    in_hand = entry ~= '' and {entry = entry, place = place, key = key}
    local answer = offer(c, entry, place, attempt, senders, first)
    if answer then return answer end
  end
  set_unit(s, unit, unit_text(u))
  return {c.settled, 'again', -1, '', c.stale, c.ended}
end

local answers = {}
for at = SHARED, #ARGV - FIELDS, FIELDS do
  local fine, answer = pcall(call, at)
  if not fine and in_hand then untake(in_hand.entry, in_hand.place, in_hand.key) end
  if not fine then answer = {'', 'error', tostring(type(answer) == 'table' and answer.err or answer), -1, '', 0, {}} end
  answers[#answers + 1] = answer
end
for _, s in pairs(keys) do
  write_units(s)
  write_flow(s)
end
flush(now, tonumber(ARGV[5]))
return answers
