-- Records, the lanes in which they wait, and how they end: it stands in front of each script.
--
-- A record, P.."m:"..id, is one string: a head of tab-separated fields (trailing empty ones left out), a line with the
-- payload (the item as JSON, a tab, the metadata as JSON or nothing), then a line for each attempt. See record.go.
local FORMAT = '1'
-- A chunk of Lua has 200 locals, and next.lua comes near: what one function alone needs stands in a block with it.

-- Positions in a record's head.
local VERSION, STATE, KIND, BATCH, GENERATION, ATTEMPTS, FIRST, ATTEMPT, BEGUN, CLASS, MARKS, WHEN, EXPIRES, SENDER, CHUNKS, BYTES, REQUEUED, KEPT, FILES, REFS, TRACE =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21
local HEAD = 21
-- States of a record.
local QUEUED, SENDING, DELIVERED, FAILED, CANCELLED, EXPIRED = 'q', 's', 'd', 'f', 'c', 'e'
-- Lines of attempts that a record keeps at most.
local HISTORY = 10
-- Milliseconds after which a message that only a newer worker can read is offered again.
local NEWER = 60000

local load
do
  -- HEADS takes a head apart in one go; trailing fields that were left out come as '' by the padding. No pattern here can
  -- match a text in two ways: on a record that does not fit, it would try them all.
  local HEADS = '^' .. string.rep('([^\t]*)\t', HEAD)
  local PADDING = string.rep('\t', HEAD)

  -- load gives a record as {head, payload, history, raw}; nil if there is none; nil and true if it is of a format that we do not
  -- know: then it has to wait for a newer worker.
  function load(id)
    local raw = redis.call('GET', P .. 'm:' .. id)
    if not raw then return nil end
    local line, payload, history = string.match(raw, '^([^\n]*)\n([^\n]*)\n(.*)$')
    if not line then return nil, true end
    local head = {string.match(line .. PADDING, HEADS)}
    if head[VERSION] ~= FORMAT then return nil, true end
    return {head = head, payload = payload, history = history, raw = raw}
  end
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

-- A lane is what one batch (or "-", all single messages) of one sender and kind has waiting: a list ":n" of what is new
-- and one ":d" of what is due again. Entries are id or id:generation. A lane stands in the ring of its sender and kind
-- exactly while it has entries and may go; a sender stands in the ring of its kind exactly while it has a lane there and is
-- not set aside.
local function lane_key(kind, sender, batch) return P .. 'l:' .. kind .. ':' .. sender .. ':' .. batch end

-- What many messages of one run change is written once, by flush, which every script calls that moves or ends messages. moves is how
-- much has changed: whoever counts anew goes by it (repair.go).
-- Of bytes of content that is moved_bytes.
local tallies, waits, shares, unreferred, finished, moved = {}, {}, {}, {}, {}, {moves = 0, moved_bytes = 0}

-- tally adds to a total of the installation.
local function tally(field, n)
  tallies[field] = (tallies[field] or 0) + n
  local of = field == 'content_bytes' and 'moved_bytes' or 'moves'
  moved[of] = moved[of] + math.abs(n)
end

-- wait_in adds to what lanes of a sender and kind hold that stand in a ring, or would if he were not set aside: P.."backlog".
local function wait_in(kind, sender, n)
  local field = kind .. ':' .. sender
  waits[field] = (waits[field] or 0) + n
  moved.moves = moved.moves + math.abs(n)
end

-- pushed counts what was put into lanes, or into rings, in this run.
local pushed = 0

-- out_of_rings says whether a sender is held or paused by itself, as others send by the same account: P.."aside" has those
-- senders, and "due" until when such a one stands in no ring.
local function out_of_rings(sender)
  return redis.call('SISMEMBER', P .. 'aside', sender) == 1 and redis.call('ZSCORE', P .. 'due', 's:' .. sender)
end

-- activate puts a lane into its ring.
local function activate(kind, sender, batch)
  if redis.call('RPUSH', P .. 'r:' .. kind .. ':' .. sender, batch) == 1 and not out_of_rings(sender) then
    redis.call('RPUSH', P .. 's:' .. kind, sender)
  end
end

-- set_aside takes a sender out of the rings until a time.
local function set_aside(sender, at)
  redis.call('SADD', P .. 'aside', sender)
  for _, kind in ipairs({'a', 'r', 's'}) do redis.call('LREM', P .. 's:' .. kind, 0, sender) end
  pushed = pushed + 1
  await('s:' .. sender, at)
end

-- bring_back puts a sender who was set aside into the rings again; "aside" keeps him until nothing is in doubt. It answers
-- whether there is such a one.
local function bring_back(sender)
  redis.call('ZREM', P .. 'due', 's:' .. sender)
  if redis.call('SISMEMBER', P .. 'aside', sender) == 0 then return false end
  for _, kind in ipairs({'a', 'r', 's'}) do
    -- Who stands there already keeps his place.
    if redis.call('EXISTS', P .. 'r:' .. kind .. ':' .. sender) == 1 and not redis.call('LPOS', P .. 's:' .. kind, sender) then
      redis.call('RPUSH', P .. 's:' .. kind, sender)
    end
  end
  pushed = pushed + 1
  local provider = active()
  if provider then flag(key_of(provider, sender)) end
  return true
end

local function push(kind, sender, batch, which, entry, front)
  local lane = lane_key(kind, sender, batch)
  local n = redis.call(front and 'LPUSH' or 'RPUSH', lane .. ':' .. which, entry)
  pushed = pushed + 1
  wait_in(kind, sender, 1)
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

-- P.."expires" has by when it expires: "m:" and the id of each open single message with an expires_at, and of each of a batch that waits
-- again; and "b:" and the id of each batch with one until expire.lua has ended what was new of it. What is being sent is looked at
-- when it is queued again.
local expiry = {}

-- expiry.of gives when a message expires; nil if it does not. of_batch is its batch's "expires". What had expired already when somebody
-- requeued it is to go all the same.
function expiry.of(r, of_batch)
  local at = tonumber(of_batch or r.head[EXPIRES])
  if at and at > (tonumber(r.head[REQUEUED]) or 0) then return at end
end

function expiry.watch(id, r)
  local batch = r.head[BATCH]
  local at = expiry.of(r, batch ~= '' and redis.call('HGET', P .. 'b:' .. batch, 'expires'))
  if at then redis.call('ZADD', P .. 'expires', int(at), 'm:' .. id) end
end

function expiry.unwatch(id, r)
  if r.head[EXPIRES] ~= '' or r.head[BATCH] ~= '' and r.head[GENERATION] ~= '' then redis.call('ZREM', P .. 'expires', 'm:' .. id) end
end

-- told says of a message what the log needs: state, kind, id, batch, counted attempts, class of the last, and ids of the producer's trace
-- (see trace.go). trace is its batch's if that is known.
local function told(id, r, state, trace)
  local h = r.head
  if h[BATCH] == '' then
    trace = h[TRACE]
  elseif trace == nil then
    trace = redis.call('HGET', P .. 'b:' .. h[BATCH], 'trace')
  end
  return table.concat({state, h[KIND], id, h[BATCH], h[ATTEMPTS], h[CLASS], string.sub(trace or '', 1, 32)}, ',')
end

-- refs_of takes apart what a message, a batch or a recipient refers to, "<bytes> <files> <id> <id>...": bytes, files, and a list whose
-- ids begin at 3. Nothing may be ''.
local NO_IDS = {}
local function refs_of(refs)
  if not refs or refs == '' then return 0, 0, NO_IDS end
  local parts = split(refs, ' ')
  return tonumber(parts[1]), tonumber(parts[2]), parts
end

-- lost_of gives an id that is referred to and not stored (any more); nil if all are.
local function lost_of(refs)
  local _, _, ids = refs_of(refs)
  for i = 3, #ids do
    if redis.call('HGET', P .. 'a:' .. ids[i], 'state') ~= 'ready' then return ids[i] end
  end
end

-- refer takes a share for each reference: what is held is not dropped.
local function refer(refs)
  local _, _, ids = refs_of(refs)
  for i = 3, #ids do
    redis.call('HINCRBY', P .. 'a:' .. ids[i], 'shares', 1)
    redis.call('HINCRBY', P .. 'a:' .. ids[i], 'taken', 1) -- in all: for whoever counts anew
    redis.call('ZREM', P .. 'contents', ids[i])
  end
end

-- remember files what is over, oldest first.
local function remember(entry) finished[#finished + 1] = entry end

local function drop_content(owner, chunks, bytes)
  for i = 0, (tonumber(chunks) or 0) - 1 do redis.call('UNLINK', P .. 'c:' .. owner .. ':' .. i) end
  if (tonumber(bytes) or 0) > 0 then tally('content_bytes', -tonumber(bytes)) end
end

-- unrefer gives the shares back that refer took.
local function unrefer(refs)
  local _, _, ids = refs_of(refs)
  for i = 3, #ids do unreferred[ids[i]] = (unreferred[ids[i]] or 0) + 1 end
end

-- release gives back a message's share of its content, the last one of which drops it, and of the files that it refers to by itself.
local function release(id, r)
  local h = r.head
  if h[BATCH] ~= '' then
    shares[h[BATCH]] = (shares[h[BATCH]] or 0) + 1
  else
    drop_content(id, h[CHUNKS], h[BYTES])
  end
  unrefer(h[REFS])
end

-- flush writes what was gathered, and forgets the oldest of what is over beyond max.
local function flush(now, max)
  for batch, n in pairs(shares) do
    local b = P .. 'b:' .. batch
    if redis.call('HINCRBY', b, 'shares', -n) <= 0 then
      local c = redis.call('HMGET', b, 'chunks', 'bytes', 'refs', 'expires')
      drop_content(batch, c[1], c[2])
      unrefer(c[3])
      if c[4] then redis.call('ZREM', P .. 'expires', 'b:' .. batch) end
      redis.call('HSET', b, 'finished', int(now))
      remember('b:' .. batch)
    end
  end
  for id, n in pairs(unreferred) do
    local kept = redis.call('HGET', P .. 'a:' .. id, 'kept')
    if kept and redis.call('HINCRBY', P .. 'a:' .. id, 'shares', -n) <= 0 then
      redis.call('ZADD', P .. 'contents', int(now_ms() + tonumber(kept)), id)
    end
  end
  for field, n in pairs(tallies) do redis.call('HINCRBY', P .. 'counts', field, n) end
  for field, n in pairs(waits) do
    if n ~= 0 and redis.call('HINCRBY', P .. 'backlog', field, n) <= 0 then redis.call('HDEL', P .. 'backlog', field) end
  end
  for field, n in pairs(moved) do
    if n > 0 then redis.call('HINCRBY', P .. 'counts', field, int(n)) end
  end
  if #finished > 0 then
    local n = redis.call('RPUSH', P .. 'finished', unpack(finished))
    for _ = 1, math.min(n - max, #finished + 8) do
      redis.call('UNLINK', P .. redis.call('LPOP', P .. 'finished'))
    end
  end
  tallies, waits, shares, unreferred, finished, moved = {}, {}, {}, {}, {}, {moves = 0, moved_bytes = 0}
end

-- finish ends a record that is open (queued or sending): it keeps its head, its metadata and its last attempt, without when
-- that began: it ended when the record did. mark, if there is one, tells whoever ended it that it was he: it stands in the place of the generation.
local function finish(id, r, state, now, mark)
  local h = r.head
  tally('open:' .. h[KIND], -1)
  if state ~= DELIVERED and h[BATCH] ~= '' then redis.call('HINCRBY', P .. 'b:' .. h[BATCH], state, 1) end
  release(id, r)
  expiry.unwatch(id, r)
  local tab = string.find(r.payload, '\t', 1, true)
  local last = string.match(r.history, '^.*\n(.*)$') or r.history -- anchored: else it is tried at each character
  redis.call('SET', P .. 'm:' .. id, table.concat({FORMAT, state, h[KIND], h[BATCH], mark or '', h[ATTEMPTS], '', '', '', '', h[MARKS], int(now)}, '\t') ..
    '\n' .. (tab and string.sub(r.payload, tab) or '') .. '\n' .. string.match(last, '^%d*(.*)$'))
  remember('m:' .. id)
end

-- held says whether there are recipients to whom a message is not offered again by itself, as they may have it.
local function held(h) return string.find(h[MARKS], 'u', 1, true) end

-- fail moves an open record into the failed store: whole, with its share of the content. Whoever was held is pending there; what the
-- sender keeps is not about him.
local function fail(id, r, now)
  local h = r.head
  if held(h) then h[MARKS], h[CLASS], h[KEPT] = string.gsub(h[MARKS], 'u', 'p'), 'unknown', '' end
  expiry.unwatch(id, r)
  h[STATE], h[WHEN], h[GENERATION] = FAILED, int(now), ''
  store(id, r)
  redis.call('ZADD', P .. 'failed', int(now), id)
  if h[BATCH] ~= '' then redis.call('HINCRBY', P .. 'b:' .. h[BATCH], FAILED, 1) end
  tally('open:' .. h[KIND], -1)
  tally('failed:' .. h[KIND], 1)
  tally('class:' .. h[CLASS], 1)
end

-- expiry.finish ends an open record whose time is over, and answers how: of those who may have it somebody has to hear.
function expiry.finish(id, r, now)
  if held(r.head) then
    note(r, int(now) .. '\t0\t\t;t;m;;expired;;;;Its time was over before the others were offered it.')
    fail(id, r, now)
    return FAILED
  end
  finish(id, r, EXPIRED, now)
  return EXPIRED
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
  expiry.watch(id, r)
  if delay > 0 then
    await('m:' .. entry_of(id, r), now + delay)
    return
  end
  local sender, batch = place(r)
  push(h[KIND], sender, batch, 'd', entry_of(id, r), true)
  flag_for(sender, h[KIND], now)
end

-- replay answers a request whose idempotency key is known; nil if it is not. mark is what the request itself has marked the key with
-- (hold_key.lua), or "".
local function replay(key, fingerprint, mark)
  local before = key ~= '' and redis.call('GET', P .. 'i:' .. key)
  if not before or before == '\t~' .. mark then return nil end
  local parts = split(before, '\t')
  if parts[1] == '' then return {'running'} end
  if parts[2] ~= fingerprint then return {'conflict'} end
  return {'replayed', parts[1]}
end

-- reserve counts bytes of content in, unless that exceeds max.
local function reserve(bytes, max)
  if (tonumber(redis.call('HGET', P .. 'counts', 'content_bytes')) or 0) + bytes > max then return false end
  redis.call('HINCRBY', P .. 'counts', 'content_bytes', bytes)
  redis.call('HINCRBY', P .. 'counts', 'moved_bytes', bytes)
  return true
end

-- room_for says whether n more messages of a kind may wait and be sent, of max in all (0: no bound). Alerts find a tenth more room, so that
-- no other mail shuts them out.
local function room_for(kind, n, max)
  if max == 0 then return true end
  local open = n
  for _, of in ipairs(redis.call('HMGET', P .. 'counts', 'open:a', 'open:r', 'open:s')) do open = open + (tonumber(of) or 0) end
  return open <= (kind == 'a' and max * 1.1 or max)
end

-- NOT_YET in head[WHEN] of a record that is being sent says that its worker marks it a second time directly before the point of
-- no return: then head[WHEN] is when. Of other records nobody knows whether they have passed it.
local NOT_YET = '0'

-- begin marks a record as being sent by an attempt; twice says that mark.lua is to mark it once more. Head[BEGUN] stays until
-- the attempt's outcome is settled: an attempt that somebody else ended, because its worker was gone, is told by it.
local function begin(id, r, attempt, now, twice)
  local h = r.head
  local due = tonumber(h[WHEN])
  -- Giving up counts from the first attempt, without the time that it waited for a limit or a hold after it was due.
  if h[FIRST] ~= '' and due and due < now then h[FIRST] = int(tonumber(h[FIRST]) + now - due) end
  h[STATE], h[ATTEMPT], h[BEGUN], h[WHEN] = SENDING, attempt, int(now), twice and NOT_YET or ''
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

-- settle stores what an attempt came to. o has: message, attempt, verdict ("delivered", "failed", "retry", "back"), marks
-- (a letter for each recipient: d delivered, x refused for good, u held as it may have it, p pending), class, line (for the history; '' leaves no trace), counted,
-- delay (ms, of a retry), generation, began (ms and the generation then). It answers the state that the record is in then ("delivered", "failed", "queued");
-- "late" if a newer attempt has begun, or the message has ended, meanwhile (what this one delivered is recorded all the
-- same); "known" if it was settled before; and the record.
local function settle(o, now)
  local r = load(o.message)
  if not r then return 'late' end
  local h = r.head
  local open = h[STATE] == QUEUED or h[STATE] == SENDING or h[STATE] == FAILED
  if not open then return 'late', r end
  if h[ATTEMPT] ~= o.attempt and h[STATE] == QUEUED then
    local began, generation = string.match(o.began, '^(%d+) (.*)$')
    if h[GENERATION] == generation then
      -- Nobody has begun or ended it since: a fail-over has lost that this attempt began.
      h[STATE], h[ATTEMPT], h[BEGUN] = SENDING, o.attempt, began
    end
  end
  if h[ATTEMPT] ~= o.attempt then
    local known = h[MARKS] ~= '' and h[MARKS] or string.rep('p', #o.marks)
    local marks = merge(known, o.marks)
    if marks == known then return 'late', r end
    h[MARKS] = marks
    -- While the newer attempt is under way its own outcome decides.
    local verdict = h[STATE] ~= SENDING and decided(marks)
    if verdict == 'delivered' then
      if h[STATE] == FAILED then unfail(o.message, r) end
      finish(o.message, r, DELIVERED, now)
      return 'delivered', r
    elseif verdict == 'failed' and h[STATE] == QUEUED then
      fail(o.message, r, now)
      return 'failed', r
    end
    store(o.message, r)
    return 'late', r
  end
  if h[BEGUN] == '' then return 'known', r end
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
    return 'delivered', r
  elseif verdict == 'failed' then
    fail(o.message, r, now)
    return 'failed', r
  end
  again(o.message, r, o.generation, now, verdict == 'back' and 0 or o.delay)
  return 'queued', r
end
