-- requeue takes messages out of the failed store and queues them as if they had never been tried: delivered recipients stay
-- delivered, all others are pending, attempts count from now on, and no outcome of a former attempt can end them any more. An
-- expiry that has passed no longer counts. They stand behind what is due in their lane already.
--
-- ARGV: 1 new generation, then for each message: id, when it failed (as whoever selected it saw it: one that has failed again
-- since is not meant). Answer: {queued, of cancelled batches (left where they are), of a newer format (left too), ids of those queued}.
local now, generation = now_ms(), ARGV[1]
local answer, woken, cancelled, queued = {0, 0, 0}, {}, {}, {}

local function is_cancelled(batch)
  if batch == '' then return false end
  if cancelled[batch] == nil then cancelled[batch] = redis.call('HEXISTS', P .. 'b:' .. batch, 'cancelled') == 1 end
  return cancelled[batch]
end

for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  local r, newer = load(id)
  local h = r and r.head
  if newer then
    answer[3] = answer[3] + 1
  elseif h and h[STATE] ~= FAILED and h[GENERATION] == generation then
    queued[#queued + 1] = id -- by an earlier run of this very call, whose answer was lost
  elseif not h or h[STATE] ~= FAILED or h[WHEN] ~= ARGV[i + 1] then
    -- Somebody else has requeued or deleted it meanwhile.
  elseif is_cancelled(h[BATCH]) then
    answer[2] = answer[2] + 1
  else
    unfail(id, r)
    h[STATE], h[GENERATION], h[WHEN], h[REQUEUED] = QUEUED, generation, int(now), int(now)
    h[ATTEMPTS], h[FIRST], h[ATTEMPT], h[BEGUN] = '', '', '', ''
    h[MARKS] = string.gsub(h[MARKS], 'x', 'p')
    store(id, r)
    expiry.watch(id, r)
    local sender, lane = place(r)
    push(h[KIND], sender, lane, 'd', entry_of(id, r))
    woken[sender] = woken[sender] or {}
    woken[sender][h[KIND]] = true
    queued[#queued + 1] = id
  end
end
for sender, kinds in pairs(woken) do
  for kind in pairs(kinds) do flag_for(sender, kind, now) end
end
flush(now, math.huge)
answer[1], answer[4] = #queued, queued
return answer
