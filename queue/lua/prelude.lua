-- Shared by every script: it stands in front of each of them, and before records.lua and holds.lua. Here are time, the active
-- provider, and units and looks of limit keys.
--
-- KEYS[1] is the prefix of all our keys, "{namespace}:"; it carries the hash tag, so that every key made from it lies in
-- the same slot. Time is Redis's own, in milliseconds. Every script may run twice with the same arguments: the second run
-- changes nothing and answers the same.
local P = KEYS[1]

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

-- Units of a limit key that are out: a hash P.."u:"..key, unit -> turn, run, worker, since; then a line for each attempt that
-- is under way: attempt, message, begun, deadline, what was taken from the key's limits and from the provider's, cost. One
-- at a time is handed over, the others are begun meanwhile.
local TURN, RUN, WORKER, SINCE = 1, 2, 3, 4

-- Units with attempts that began at another server than the active provider's are set apart, in P.."u:\t"..key by their turns: they are
-- none of the active provider's.
local APART = '\t'

-- unit_of takes a unit apart, but for its attempts: lines has those, as they are.
local function unit_of(value)
  local u = {lines = ''}
  if value then
    u[TURN], u[RUN], u[WORKER], u[SINCE], u.lines = string.match(value, '^([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\n]*)(.*)$')
    u.lines = u.lines or ''
  end
  return u
end

local function unit_text(u) return table.concat({u[TURN], u[RUN], u[WORKER], u[SINCE]}, '\t', 1, 4) .. u.lines end

-- open_of gives the attempts of such lines, each with its own line.
local open_of
do
  local OPEN = '^\n' .. string.rep('([^\t\n]*)\t', 6) .. '([^\t\n]*)'
  function open_of(lines)
    local open = {}
    for line in string.gmatch(lines, '\n[^\n]*') do
      local attempt, message, begun, deadline, taken, all, cost = string.match(line, OPEN)
      open[#open + 1] = {attempt = attempt, message = message, begun = begun, deadline = deadline, taken = taken, all = all, cost = cost, line = line}
    end
    return open
  end
end

local function open_line(attempt, message, begun, deadline, taken, all, cost)
  return '\n' .. table.concat({attempt, message, begun, deadline, taken, all, cost}, '\t')
end

-- active gives the active provider's version, how it keys its limits ("account" or "mailbox"), the key of the account, its
-- own sender, the concurrency of each key and of all (math.huge: not limited), and the limits of each key and of all as
-- throttle.Encode wrote them, how it uploads (Upload in provider.go), what bounds each message (MessageBounds), and
-- how many recipients one attempt offers it to (math.huge: not limited); nil if no provider is active. It is read once in a run.
local provider_read, the_provider = false, nil
local function active()
  if provider_read then return the_provider end
  provider_read = true
  local p = redis.call('HMGET', P .. 'provider', 'version', 'mode', 'key', 'sender', 'concurrency', 'limits', 'all_concurrency', 'all_limits', 'upload', 'message')
  if not p[1] then return nil end
  the_provider = {version = p[1], mode = p[2], key = p[3], sender = p[4], concurrency = tonumber(p[5]), limits = p[6] or '',
    all_concurrency = tonumber(p[7]) or math.huge, all_limits = p[8] or '', upload = p[9] or '', message = p[10] or ''}
  the_provider.most = tonumber(string.match(the_provider.message, '^[1-9]%d*') or '') or math.huge
  return the_provider
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

-- await lets a message ("m:" and its entry), a batch ("b:" and its id) or a sender ("s:" and the address) wait until a time, and
-- has the dispatchers know if it is the first to fall due.
local function await(member, at)
  redis.call('ZADD', P .. 'due', int(at), member)
  if redis.call('ZRANGE', P .. 'due', 0, 0)[1] == member then wake() end
end

-- line_up has a key wait for what binds all of them together: the provider's limits and its concurrency. Whoever has waited
-- longest goes first. P.."senior" keeps since when those have waited who were given a turn, until something of theirs begins.
local function line_up(key, at) redis.call('ZADD', P .. 'blocked', 'NX', string.format('%.3f', at), key) end

-- free takes units of a key back. Whoever waits for one, as the provider's units were all out, is looked at.
local function free(key, units)
  redis.call('HDEL', P .. 'u:' .. key, unpack(units))
  if redis.call('EXISTS', P .. 'u:' .. key) == 0 then redis.call('SREM', P .. 'keys', key) end
  for _, unit in ipairs(units) do redis.call('SREM', P .. 'units', key .. '\t' .. unit) end
  if redis.call('EXISTS', P .. 'blocked') == 1 then flag('*') end
end

-- audited says whether an entry stands in the audit: then the very call that brings it has been made before. P.."audit" is a stream
-- that keeps some 10,000 entries, each with a random id in it.
local function audited(entry)
  for _, noted in ipairs(entry ~= '' and redis.call('XREVRANGE', P .. 'audit', '+', '-', 'COUNT', 20) or {}) do
    if noted[2][2] == entry then return true end
  end
  return false
end

-- audit notes that somebody changed something, once.
local function audit(entry)
  if (entry or '') == '' or audited(entry) then return end
  redis.call('XADD', P .. 'audit', 'MAXLEN', '~', 10000, '*', 'entry', entry)
end
