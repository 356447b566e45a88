-- Shared by every script: it stands in front of each of them.
--
-- KEYS[1] is the prefix of all our keys, "{namespace}:"; it carries the hash tag, so that every key made from it lies in
-- the same slot. Time is Redis's own, in milliseconds. Every script may run twice with the same arguments: the second run
-- changes nothing and answers the same.
--
-- A record, P.."m:"..id, is one string: a head of tab-separated fields (trailing empty ones left out), a line with the
-- payload (the item as JSON, a tab, the metadata as JSON or nothing), then a line for each attempt. See record.go.
local P = KEYS[1]
local FORMAT = '1'

-- Positions in a record's head.
local VERSION, STATE, KIND, BATCH, GENERATION, ATTEMPTS, FIRST, ATTEMPT, BEGUN, CLASS, MARKS, WHEN, EXPIRES, SENDER, CHUNKS, BYTES, REQUEUED =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17
local HEAD = 17
-- States of a record.
local QUEUED, SENDING, DELIVERED, FAILED, CANCELLED, EXPIRED = 'q', 's', 'd', 'f', 'c', 'e'
-- Lines of attempts that a record keeps at most.
local HISTORY = 10
-- Milliseconds after which a message that only a newer worker can read is offered again.
local NEWER = 60000

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function int(n) return string.format('%.0f', n) end

local function split(s, separator)
  local parts, n, from = {}, 0, 1
  while true do
    local at = string.find(s, separator, from, true)
    n = n + 1
    if not at then
      parts[n] = string.sub(s, from)
      return parts, n
    end
    parts[n] = string.sub(s, from, at - 1)
    from = at + 1
  end
end

-- HEADS takes a head apart in one go; trailing fields that were left out come as '' by the padding. No pattern here can
-- match a text in two ways: on a record that does not fit, it would try them all.
local HEADS = '^' .. string.rep('([^\t]*)\t', HEAD)
local PADDING = string.rep('\t', HEAD)

-- load gives a record as {head, payload, history, raw}; nil if there is none; nil and true if it is of a format that we do not
-- know: then it has to wait for a newer worker.
local function load(id)
  local raw = redis.call('GET', P .. 'm:' .. id)
  if not raw then return nil end
  local line, payload, history = string.match(raw, '^([^\n]*)\n([^\n]*)\n(.*)$')
  if not line then return nil, true end
  local head = {string.match(line .. PADDING, HEADS)}
  if head[VERSION] ~= FORMAT then return nil, true end
  return {head = head, payload = payload, history = history, raw = raw}
end

local function store(id, r)
  local n = HEAD
  while n > 1 and r.head[n] == '' do n = n - 1 end
  redis.call('SET', P .. 'm:' .. id, table.concat(r.head, '\t', 1, n) .. '\n' .. r.payload .. '\n' .. r.history)
end

-- note adds a line to a record's history and keeps the last lines.
local function note(r, line)
  if r.history == '' then
    r.history = line
    return
  end
  local lines, n = split(r.history, '\n')
  if n >= HISTORY then
    r.history = table.concat(lines, '\n', n - HISTORY + 2, n) .. '\n' .. line
  else
    r.history = r.history .. '\n' .. line
  end
end

-- Units of a limit key that are out: a hash P.."u:"..key, unit -> turn, run, worker, since; then a line for each attempt that
-- is under way: attempt, message, begun, deadline, what was taken from the key's limits and from the provider's, cost. One
-- at a time is handed over, the others are begun meanwhile.
local TURN, RUN, WORKER, SINCE = 1, 2, 3, 4
local OPEN = '\n' .. string.rep('([^\t\n]*)\t', 6) .. '([^\t\n]*)'

local function unit_of(value)
  local u = {open = {}}
  if not value then return u end
  local lines
  u[TURN], u[RUN], u[WORKER], u[SINCE], lines = string.match(value, '^([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\n]*)(.*)$')
  if lines and lines ~= '' then
    for attempt, message, begun, deadline, taken, all, cost in string.gmatch(lines, OPEN) do
      u.open[#u.open + 1] = {attempt = attempt, message = message, begun = begun, deadline = deadline, taken = taken, all = all, cost = cost}
    end
  end
  return u
end

local function unit_text(u)
  local value = u[TURN] .. '\t' .. u[RUN] .. '\t' .. u[WORKER] .. '\t' .. u[SINCE]
  for _, o in ipairs(u.open) do
    value = value .. '\n' .. table.concat({o.attempt, o.message, o.begun, o.deadline, o.taken, o.all, o.cost}, '\t')
  end
  return value
end

-- active gives the active provider's version, how it keys its limits ("account" or "mailbox"), the key of the account, its
-- own sender, the concurrency of each key and of all (math.huge: not limited), and the limits of each key and of all as
-- throttle.Encode wrote them; nil if no provider is active.
local function active()
  local p = redis.call('HMGET', P .. 'provider', 'version', 'mode', 'key', 'sender', 'concurrency', 'limits', 'all_concurrency', 'all_limits')
  if not p[1] then return nil end
  return {version = p[1], mode = p[2], key = p[3], sender = p[4], concurrency = tonumber(p[5]), limits = p[6] or '',
    all_concurrency = tonumber(p[7]) or math.huge, all_limits = p[8] or ''}
end

-- key_of says whose limits bind a sender ("-": none given).
local function key_of(provider, sender)
  if provider.mode == 'account' then return provider.key end
  if sender == '-' then return provider.sender end
  return sender
end

-- senders_of says whose mail a key's limits bind: everyone's (nil), or one mailbox's and, if it is the provider's own, that
-- of mail without a sender.
local function senders_of(provider, key)
  if provider.mode == 'account' then return nil end
  if provider.sender == key then return {key, '-'} end
  return {key}
end

-- wake tells one dispatcher that there is something to do. The list holds at most one entry.
local function wake()
  if redis.call('LLEN', P .. 'wake') == 0 then redis.call('RPUSH', P .. 'wake', '1') end
end

-- flag has a dispatcher look at a limit key.
local function flag(key)
  redis.call('SADD', P .. 'ready', key)
  wake()
end

-- LATE is how many ms somebody may be late who has undertaken to look at a key, before others do.
local LATE = 1000

-- flag_for has a dispatcher look at a sender's limit key, as mail of a kind has come, if it has a unit that is not out, and
-- nobody is about to look as soon as its limits or its hold let something go. What waits may be a message that takes much; an
-- alert overtakes it, and may have room now.
local function flag_for(sender, kind, now)
  local provider = active()
  if not provider then return end
  local key = key_of(provider, sender)
  if redis.call('HLEN', P .. 'u:' .. key) >= provider.concurrency then return end
  local look = kind ~= 'a' and redis.call('ZSCORE', P .. 'looks', key)
  if look and tonumber(look) > now - LATE then return end
  flag(key)
end

-- arm has the calling process look at a key at a time. It answers in how many ms, or -1 if somebody else will by then.
local function arm(key, at, now)
  local look = redis.call('ZSCORE', P .. 'looks', key)
  if look and tonumber(look) > now - LATE and tonumber(look) <= at then return -1 end
  redis.call('ZADD', P .. 'looks', int(at), key)
  return math.max(0, at - now)
end

-- held says until when a key is held or paused, or everything is: 0 if not. It is read once in a run.
local holds = {}
local function held(key)
  if not holds[key] then
    local h = redis.call('HMGET', P .. 'k:' .. key, 'until', 'pause')
    holds[key] = {hold = tonumber(h[1]) or 0, pause = tonumber(h[2]) or 0}
  end
  return holds[key]
end

local function held_until(key)
  local own, all = held(key), held('*')
  return math.max(own.hold, own.pause, all.hold, all.pause)
end

-- await lets a message ("m:" and its entry) or a batch ("b:" and its id) wait until a time, and has the dispatchers know
-- if it is the first to fall due.
local function await(member, at)
  redis.call('ZADD', P .. 'due', int(at), member)
  if redis.call('ZRANGE', P .. 'due', 0, 0)[1] == member then wake() end
end

-- A lane is what one batch (or "-", all single messages) of one sender and kind has waiting: a list ":n" of what is new
-- and one ":d" of what is due again. Entries are id or id:generation. A lane stands in the ring of its sender and kind
-- exactly while it has entries and may go; a sender stands in the ring of its kind exactly while it has a lane there.
local function lane_key(kind, sender, batch) return P .. 'l:' .. kind .. ':' .. sender .. ':' .. batch end

-- pushed counts what was put into lanes in this run.
local pushed = 0

local function activate(kind, sender, batch)
  if redis.call('RPUSH', P .. 'r:' .. kind .. ':' .. sender, batch) == 1 then
    redis.call('RPUSH', P .. 's:' .. kind, sender)
  end
end

local function push(kind, sender, batch, which, entry, front)
  local lane = lane_key(kind, sender, batch)
  local n = redis.call(front and 'LPUSH' or 'RPUSH', lane .. ':' .. which, entry)
  pushed = pushed + 1
  if n == 1 and redis.call('EXISTS', lane .. (which == 'n' and ':d' or ':n')) == 0 then
    activate(kind, sender, batch)
  end
end

local function entry_of(id, r)
  if r.head[GENERATION] == '' then return id end
  return id .. ':' .. r.head[GENERATION]
end

-- place gives the sender and lane of a record. Single messages out of the failed store have a lane of their own, "+": however
-- many an administrator requeues, new ones take turns with them.
local function place(r)
  local batch = r.head[BATCH]
  if batch == '' then return r.head[SENDER], r.head[REQUEUED] == '' and '-' or '+' end
  return redis.call('HGET', P .. 'b:' .. batch, 'sender') or '-', batch
end

-- What many messages of one run change is written once, by flush, which every script calls that ends messages.
local tallies, shares, finished = {}, {}, {}

-- tally adds to a total of the installation.
local function tally(field, n) tallies[field] = (tallies[field] or 0) + n end

-- remember files what is over, oldest first.
local function remember(entry) finished[#finished + 1] = entry end

local function drop_content(owner, chunks, bytes)
  for i = 0, (tonumber(chunks) or 0) - 1 do redis.call('UNLINK', P .. 'c:' .. owner .. ':' .. i) end
  if (tonumber(bytes) or 0) > 0 then tally('content_bytes', -tonumber(bytes)) end
end

-- release gives back a message's share of its content; the last one drops it.
local function release(id, r)
  local h = r.head
  if h[BATCH] ~= '' then
    shares[h[BATCH]] = (shares[h[BATCH]] or 0) + 1
  else
    drop_content(id, h[CHUNKS], h[BYTES])
  end
end

-- flush writes what was gathered, and forgets the oldest of what is over beyond max.
local function flush(now, max)
  for batch, n in pairs(shares) do
    local b = P .. 'b:' .. batch
    if redis.call('HINCRBY', b, 'shares', -n) <= 0 then
      local c = redis.call('HMGET', b, 'chunks', 'bytes')
      drop_content(batch, c[1], c[2])
      redis.call('HSET', b, 'finished', int(now))
      remember('b:' .. batch)
    end
  end
  for field, n in pairs(tallies) do redis.call('HINCRBY', P .. 'counts', field, n) end
  if #finished > 0 then
    local n = redis.call('RPUSH', P .. 'finished', unpack(finished))
    for _ = 1, math.min(n - max, #finished + 8) do
      redis.call('UNLINK', P .. redis.call('LPOP', P .. 'finished'))
    end
  end
  shares, tallies, finished = {}, {}, {}
end

-- finish ends a record that is open (queued or sending): it keeps its head, its metadata and its last attempt, without when
-- that began: it ended when the record did.
local function finish(id, r, state, now)
  local h = r.head
  tally('open:' .. h[KIND], -1)
  if state ~= DELIVERED and h[BATCH] ~= '' then redis.call('HINCRBY', P .. 'b:' .. h[BATCH], state, 1) end
  release(id, r)
  local tab = string.find(r.payload, '\t', 1, true)
  local last = string.match(r.history, '^.*\n(.*)$') or r.history -- anchored: else it is tried at each character
  redis.call('SET', P .. 'm:' .. id, table.concat({FORMAT, state, h[KIND], h[BATCH], '', h[ATTEMPTS], '', '', '', '', h[MARKS], int(now)}, '\t') ..
    '\n' .. (tab and string.sub(r.payload, tab) or '') .. '\n' .. string.match(last, '^%d*(.*)$'))
  remember('m:' .. id)
end

-- fail moves an open record into the failed store: whole, with its share of the content.
local function fail(id, r, now)
  local h = r.head
  h[STATE], h[WHEN], h[GENERATION] = FAILED, int(now), ''
  store(id, r)
  redis.call('ZADD', P .. 'failed', int(now), id)
  if h[BATCH] ~= '' then redis.call('HINCRBY', P .. 'b:' .. h[BATCH], FAILED, 1) end
  tally('open:' .. h[KIND], -1)
  tally('failed:' .. h[KIND], 1)
  tally('class:' .. h[CLASS], 1)
end

-- unfail takes a record out of the failed store again; it is open then.
local function unfail(id, r)
  local h = r.head
  redis.call('ZREM', P .. 'failed', id)
  if h[BATCH] ~= '' then redis.call('HINCRBY', P .. 'b:' .. h[BATCH], FAILED, -1) end
  tally('open:' .. h[KIND], 1)
  tally('failed:' .. h[KIND], -1)
  tally('class:' .. h[CLASS], -1)
end

-- discard drops a failed record, with its share of the content.
local function discard(id, r)
  local h = r.head
  if h[BATCH] ~= '' then redis.call('HINCRBY', P .. 'b:' .. h[BATCH], 'forgotten', 1) end
  release(id, r)
  tally('failed:' .. h[KIND], -1)
  tally('class:' .. h[CLASS], -1)
  redis.call('UNLINK', P .. 'm:' .. id)
  redis.call('ZREM', P .. 'failed', id)
end

-- again queues a record under a new generation: due at once at the head of what is due in its lane (delay 0), or later.
local function again(id, r, generation, now, delay)
  local h = r.head
  h[STATE], h[GENERATION], h[WHEN] = QUEUED, generation, int(now + delay)
  store(id, r)
  if delay > 0 then
    await('m:' .. entry_of(id, r), now + delay)
    return
  end
  local sender, batch = place(r)
  push(h[KIND], sender, batch, 'd', entry_of(id, r), true)
  flag_for(sender, h[KIND], now)
end

-- replay answers a request whose idempotency key is known; nil if it is not.
local function replay(key, fingerprint)
  local before = key ~= '' and redis.call('GET', P .. 'i:' .. key)
  if not before then return nil end
  local parts = split(before, '\t')
  if parts[2] ~= fingerprint then return {'conflict'} end
  return {'replayed', parts[1]}
end

-- reserve counts bytes of content in, unless that exceeds max.
local function reserve(bytes, max)
  if (tonumber(redis.call('HGET', P .. 'counts', 'content_bytes')) or 0) + bytes > max then return false end
  redis.call('HINCRBY', P .. 'counts', 'content_bytes', bytes)
  return true
end

-- begin marks a record as being sent by an attempt. Head[BEGUN] stays until the attempt's outcome is settled: an attempt
-- that somebody else ended, because its worker was gone, is told by it.
local function begin(id, r, attempt, now)
  local h = r.head
  local due = tonumber(h[WHEN])
  -- Giving up counts from the first attempt, without the time that it waited for a limit or a hold after it was due.
  if h[FIRST] ~= '' and due and due < now then h[FIRST] = int(tonumber(h[FIRST]) + now - due) end
  h[STATE], h[ATTEMPT], h[BEGUN], h[WHEN] = SENDING, attempt, int(now), ''
  store(id, r)
end

-- count adds a counted attempt.
local function count(h)
  h[ATTEMPTS] = int((tonumber(h[ATTEMPTS]) or 0) + 1)
  if h[FIRST] == '' then h[FIRST] = h[BEGUN] end
end

-- decided says what becomes of a message by its marks alone: "delivered" if everybody has it, "failed" if nobody is pending
-- and somebody refused, nil if somebody is pending.
local function decided(marks)
  if marks == '' or string.find(marks, 'p', 1, true) then return nil end
  return string.find(marks, '[^d]') and 'failed' or 'delivered'
end

-- merge keeps what is known to be delivered: a recipient marked delivered in either is delivered.
local function merge(marks, known)
  if known == '' or marks == known then return marks end
  if marks == '' then return known end
  local out = {}
  for i = 1, #marks do
    local m = string.sub(marks, i, i)
    out[i] = string.sub(known, i, i) == 'd' and 'd' or m
  end
  return table.concat(out)
end

-- line_up has a key wait for what binds all of them together: the provider's limits and its concurrency. Whoever has waited
-- longest goes first. P.."senior" keeps since when those have waited who were given a turn, until something of theirs begins.
local function line_up(key, at) redis.call('ZADD', P .. 'blocked', 'NX', string.format('%.3f', at), key) end

-- first_of_all gives the key, and the cost, of a message that takes more of the provider's limits than another would, and so
-- waits for more room; nil if there is none, or if it can't go for another reason. Until it has begun only alerts may go.
local function first_of_all(provider, now)
  local value = redis.call('GET', P .. 'first')
  if not value then return nil end
  local key, cost = string.match(value, '^([^\t]*)\t(.*)$')
  if held_until(key) > now then return nil end
  local senders = senders_of(provider, key)
  for _, kind in ipairs({'a', 'r', 's'}) do
    if not senders and redis.call('EXISTS', P .. 's:' .. kind) == 1 then return {key = key, cost = cost} end
    for _, sender in ipairs(senders or {}) do
      if redis.call('EXISTS', P .. 'r:' .. kind .. ':' .. sender) == 1 then return {key = key, cost = cost} end
    end
  end
  return nil
end

-- free takes units of a key back. Whoever waits for one, as the provider's units were all out, is looked at.
local function free(key, units)
  redis.call('HDEL', P .. 'u:' .. key, unpack(units))
  if redis.call('EXISTS', P .. 'u:' .. key) == 0 then redis.call('SREM', P .. 'keys', key) end
  for _, unit in ipairs(units) do redis.call('SREM', P .. 'units', key .. '\t' .. unit) end
  if redis.call('EXISTS', P .. 'blocked') == 1 then flag('*') end
end

-- settle stores what an attempt came to. o has: message, attempt, verdict ("delivered", "failed", "retry", "back"), marks
-- (a letter for each recipient: d delivered, x refused for good, p pending), class, line (for the history; '' leaves no trace), counted,
-- delay (ms, of a retry), generation. It answers the state that the record is in then ("delivered", "failed", "queued");
-- "late" if a newer attempt has begun, or the message has ended, meanwhile (what this one delivered is recorded all the
-- same); "known" if it was settled before.
local function settle(o, now)
  local r = load(o.message)
  if not r then return 'late' end
  local h = r.head
  local open = h[STATE] == QUEUED or h[STATE] == SENDING or h[STATE] == FAILED
  if not open then return 'late' end
  if h[ATTEMPT] ~= o.attempt then
    local known = h[MARKS] ~= '' and h[MARKS] or string.rep('p', #o.marks)
    local marks = merge(known, o.marks)
    if marks == known then return 'late' end
    h[MARKS] = marks
    -- While the newer attempt is under way its own outcome decides.
    local verdict = h[STATE] ~= SENDING and decided(marks)
    if verdict == 'delivered' then
      if h[STATE] == FAILED then unfail(o.message, r) end
      finish(o.message, r, DELIVERED, now)
      return 'delivered'
    elseif verdict == 'failed' and h[STATE] == QUEUED then
      fail(o.message, r, now)
      return 'failed'
    end
    store(o.message, r)
    return 'late'
  end
  if h[BEGUN] == '' then return 'known' end
  local lost = h[STATE] ~= SENDING
  if h[STATE] == FAILED then unfail(o.message, r) end
  if o.counted and not lost then count(h) end
  if o.line ~= '' then
    note(r, h[BEGUN] .. '\t' .. int(now - tonumber(h[BEGUN])) .. '\t' .. o.line)
    h[CLASS] = o.class
  end
  h[MARKS], h[BEGUN] = merge(o.marks, h[MARKS]), ''
  local verdict = decided(h[MARKS]) or o.verdict
  if verdict == 'delivered' then
    finish(o.message, r, DELIVERED, now)
    return 'delivered'
  elseif verdict == 'failed' then
    fail(o.message, r, now)
    return 'failed'
  end
  again(o.message, r, o.generation, now, verdict == 'back' and 0 or o.delay)
  return 'queued'
end
