-- expire ends, in a bounded step, what waits and has expired, whatever it waits for. Call again until it answers 0.
--
-- ARGV: 1 records.delivered_max. Answer: {1 if there is more to do, what told says of each message that was ended, batch, messages of it
-- that were ended beside, letter of their kind, batch, ...}.
local MEMBERS = 100
local now = now_ms()
local answer = {0, {}}

local function message(id)
  local r, newer = load(id)
  if newer then return now + NEWER end
  if not r or r.head[STATE] ~= QUEUED then return nil end
  local batch = r.head[BATCH]
  local b = batch ~= '' and redis.call('HMGET', P .. 'b:' .. batch, 'expires', 'cancelled', 'trace')
  local at = expiry.of(r, b and b[1])
  if not at or at > now then return at end
  local state = CANCELLED
  strike(id, r, true)
  if b and b[2] then finish(id, r, CANCELLED, now) else state = expiry.finish(id, r, now) end
  table.insert(answer[2], told(id, r, state, b and b[3]))
end

local function batch(id)
  local b = redis.call('HMGET', P .. 'b:' .. id, 'state', 'kind', 'sender', 'expires', 'cancelled')
  if b[1] ~= 'committed' or b[5] or not b[4] then return nil end -- who cancels it ends what waits
  if tonumber(b[4]) > now then return tonumber(b[4]) end
  local ended, others = 0, {}
  local taken = empty(b[2], b[3], id, ':n', function(message, r)
    if (expiry.of(r, b[4]) or math.huge) > now then
      others[#others + 1] = entry_of(message, r)
      return
    end
    finish(message, r, EXPIRED, now)
    ended = ended + 1
  end)
  for _, entry in ipairs(others) do push(b[2], b[3], id, 'd', entry) end
  if ended > 0 then
    for _, v in ipairs({id, ended, b[2]}) do answer[#answer + 1] = v end
  end
  if taken == PART then
    answer[1] = 1
    return now
  end
  -- What is sent now, or waits again, stands in "expires" by itself.
  redis.call('ZREM', P .. 'due', 'b:' .. id)
  redis.call('HSET', P .. 'b:' .. id, 'lapsed', 1)
end

local members = redis.call('ZRANGEBYSCORE', P .. 'expires', '-inf', int(now), 'LIMIT', 0, MEMBERS)
for _, member in ipairs(members) do
  local what, id = string.match(member, '^(.):(.*)$')
  local at
  if what == 'b' then at = batch(id) else at = message(id) end
  if at then redis.call('ZADD', P .. 'expires', int(at), member) else redis.call('ZREM', P .. 'expires', member) end
  if answer[1] == 1 then break end -- a part of a batch is enough for one step
end
if #members == MEMBERS then answer[1] = 1 end
note_thinned()
flush(now, tonumber(ARGV[1]))
return answer
