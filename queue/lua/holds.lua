-- Holds and pauses: it stands in front of each script.
--
-- A hold is what a refusal leads to that would meet other mail too: of a limit key, of everything ("*"), or, where an account
-- sends for all, of one sender, who is set aside. P.."k:"..key has of it: until, reason, since, refused (how many in a row),
-- version (of the provider's settings that were refused), outcome (the last refusal, as in a history, without the reply), probe. When
-- its time is over a hold is in doubt: one attempt, the probe, tells whether it is over. Field probe is that attempt, a tab, and
-- until when others wait for it. A pause has a reason too, and an author. Of a hold that somebody resumed reason, since and version
-- stay until something has gone: should it be refused again, nothing went since then.

-- silence_of gives what holds a key back, read once in a run: hold and pause are until when (0: not), refused and reason of the
-- hold, probe and overdue; left, whether there is something of a hold that was resumed or is of other settings; resumed, whether of
-- one of these settings.
local silences = {}
local function silence_of(key)
  if not silences[key] then
    local h = redis.call('HMGET', P .. 'k:' .. key, 'until', 'pause', 'refused', 'reason', 'version', 'probe')
    local s = {hold = tonumber(h[1]) or 0, pause = tonumber(h[2]) or 0, refused = tonumber(h[3]) or 0, reason = h[4]}
    local provider = active()
    -- What was refused were other settings. Only a mailbox that was too fast was so under any.
    local others = provider and h[5] ~= provider.version and (h[4] ~= 'throttled' or key == '*')
    if others then s.hold, s.refused = 0, 0 end
    s.left = s.hold == 0 and h[4]
    s.resumed = s.left and provider and h[5] == provider.version
    if h[6] and s.hold > 0 then
      local probe, overdue = string.match(h[6], '^([^\t]*)\t(.*)$')
      s.probe, s.overdue = probe, tonumber(overdue)
    end
    silences[key] = s
  end
  return silences[key]
end

-- silent_until says until when nothing of a key may begin, and whether that is its own or everything's silence.
local function silent_until(key)
  local own, all = silence_of(key), silence_of('*')
  local mine, everyones = math.max(own.hold, own.pause), math.max(all.hold, all.pause)
  if everyones > mine then return everyones, '*' end
  return mine, key
end

-- in_doubt says whether a hold has had its time and nothing has shown that it is over; probed, whether a probe is out.
local function in_doubt(key, now)
  local s = silence_of(key)
  return s.hold > 0 and s.hold <= now
end

local function probed(key, now)
  local s = silence_of(key)
  return s.probe and s.hold <= now and s.overdue > now
end

-- probe makes an attempt that begins the probe of a hold that is in doubt.
local function probe(key, attempt, overdue)
  local s = silence_of(key)
  s.probe, s.overdue = attempt, tonumber(overdue)
  redis.call('HSET', P .. 'k:' .. key, 'probe', attempt .. '\t' .. overdue)
end

-- hold silences a key after a refusal: ms, longest (each in a row is twice as long as the one before, up to that; 0: the provider
-- gave the time), reason, outcome. A running hold is not made longer by what was refused beside it, unless the provider gave a
-- time. It answers what the log needs of a hold that began or became longer, nil of none: "hold", until, since, refused, reason and key.
local function hold(key, refusal, now)
  local s, k, ms = silence_of(key), P .. 'k:' .. key, refusal.ms
  silences[key] = nil
  if s.hold > now then
    if refusal.longest > 0 or now + ms <= s.hold then return end
  else
    local refused = s.reason == refusal.reason and s.refused or 0
    ms = math.max(ms, math.min(ms * 2 ^ math.min(refused, 30), refusal.longest))
    redis.call('HSET', k, 'refused', refused + 1)
    if s.hold == 0 and not s.resumed then redis.call('HSET', k, 'since', int(now)) end
    redis.call('HDEL', k, 'probe')
    redis.call('ZADD', P .. 'mailboxes', int(now), key)
  end
  local provider = active()
  redis.call('HSET', k, 'until', int(now + ms), 'reason', refusal.reason, 'outcome', refusal.outcome, 'version', provider and provider.version or '')
  local h = redis.call('HMGET', k, 'until', 'since', 'refused')
  return table.concat({'hold', h[1], h[2] or '', h[3] or '', refusal.reason, key}, '\t')
end

-- by_itself gives a sender who can be held by himself, as others send by the same account; nil if he can't.
local function by_itself(provider, sender)
  if not provider or provider.mode ~= 'account' or sender == '-' or sender == provider.sender or sender == provider.key then return nil end
  return sender
end

-- keep_aside sets a sender aside for as long as he is held, paused or probed, else brings him back.
local function keep_aside(provider, sender, now)
  local s = silence_of(sender)
  local at = math.max(s.hold, s.pause, s.probe and s.overdue or 0)
  if by_itself(provider, sender) and at > now then return set_aside(sender, at) end
  bring_back(sender)
  if s.hold == 0 or not by_itself(provider, sender) then redis.call('SREM', P .. 'aside', sender) end
end

-- go_on has whatever waited for a scope wait no longer than it has to: its hold has changed.
local function go_on(scope, now)
  silences[scope] = nil
  if redis.call('SISMEMBER', P .. 'aside', scope) == 1 then keep_aside(active(), scope, now) else flag(scope) end
end

-- let_go ends a hold. It answers what the log needs of it: as hold does, with 0 for until.
local function let_go(scope, now)
  local k = P .. 'k:' .. scope
  local h = redis.call('HMGET', k, 'since', 'refused', 'reason')
  redis.call('HDEL', k, 'until', 'reason', 'since', 'refused', 'version', 'outcome', 'probe')
  go_on(scope, now)
  return table.concat({'hold', '0', h[1] or '', h[2] or '', h[3] or '', scope}, '\t')
end

-- unprobe gives up a probe that told nothing; another is to.
local function unprobe(scope, now)
  redis.call('HDEL', P .. 'k:' .. scope, 'probe')
  go_on(scope, now)
end

-- first_of_all gives the key, and the cost, of a message that takes more of the provider's limits than another would, and so
-- waits for more room; nil if there is none, or if it can't go for another reason. Until it has begun only alerts may go.
local function first_of_all(provider, now)
  local value = redis.call('GET', P .. 'first')
  if not value then return nil end
  local key, cost = string.match(value, '^([^\t]*)\t(.*)$')
  if silent_until(key) > now or probed(key, now) then return nil end
  local senders = senders_of(provider, key)
  for _, kind in ipairs({'a', 'r', 's'}) do
    if not senders and redis.call('EXISTS', P .. 's:' .. kind) == 1 then return {key = key, cost = cost} end
    for _, sender in ipairs(senders or {}) do
      if redis.call('EXISTS', P .. 'r:' .. kind .. ':' .. sender) == 1 then return {key = key, cost = cost} end
    end
  end
  return nil
end

