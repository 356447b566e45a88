-- ahead estimates how many messages of the same limit key go before one that waits for its turn: alerts first, batches in
-- turn, kinds by weight. What it costs does not grow with the backlog.
--
-- ARGV: 1 id, 2 and 3 weights of reports and of subscriptions, 4 messages of the batch before it (its index), 5 entries to
-- look through at most. Answer: {key, messages, those of them that stand in its own lane}; {""} if it does not wait in a lane, or no provider is active.
local provider = active()
local r = load(ARGV[1])
if not provider or not r or r.head[STATE] ~= QUEUED then return {''} end
local kind = r.head[KIND]
local sender, batch = place(r)
local key = key_of(provider, sender)
local lane = lane_key(kind, sender, batch)
local entry = entry_of(ARGV[1], r)
local function position(list) return redis.call('LPOS', list, entry, 'MAXLEN', ARGV[5]) end

local due = redis.call('LLEN', lane .. ':d')
local before = due > 0 and position(lane .. ':d')
if not before then
  local new = redis.call('LLEN', lane .. ':n')
  before = position(lane .. ':n')
  if not before then
    if new <= tonumber(ARGV[5]) then return {''} end
    -- Too far back to be looked for: by its index, and what of its batch has gone.
    local items = tonumber(redis.call('HGET', P .. 'b:' .. batch, 'items') or 0)
    before = batch == '-' and new or math.max(0, tonumber(ARGV[4]) - (items - new))
  end
  before = before + due
end

if by_itself(provider, sender) and out_of_rings(sender) then key = sender end
local senders = key == sender and {sender} or senders_of(provider, key)
-- LANES is how many are looked at, of each kind; what the others have is taken to be like it.
local LANES = 500
-- share counts what goes of a kind while so many of one lane go: of each lane as many, as far as it has.
local function share(of, each)
  local all, n, looked, lanes = 0, 0, 0, 0
  for _, s in ipairs(senders or redis.call('LRANGE', P .. 's:' .. of, 0, -1)) do
    all = all + (tonumber(redis.call('HGET', P .. 'backlog', of .. ':' .. s)) or 0)
    if each < math.huge then
      lanes = lanes + redis.call('LLEN', P .. 'r:' .. of .. ':' .. s)
      for _, b in ipairs(looked < LANES and redis.call('LRANGE', P .. 'r:' .. of .. ':' .. s, 0, LANES - looked - 1) or {}) do
        local l = lane_key(of, s, b)
        if l ~= lane then n = n + math.min(each, redis.call('LLEN', l .. ':n') + redis.call('LLEN', l .. ':d')) end
        looked = looked + 1
      end
    end
  end
  if each == math.huge then return all end
  if lanes > looked then n = math.min(all, n * lanes / looked) end
  return n
end
local same = before + share(kind, before)
if kind == 'a' then return {key, int(same), int(before)} end
local weights = {r = tonumber(ARGV[2]), s = tonumber(ARGV[3])}
local other = kind == 'r' and 's' or 'r'
local others = math.min(share(other, math.huge), same * weights[other] / weights[kind])
return {key, int(math.floor(share('a', math.huge) + same + others)), int(before)}
