-- sweep ends what dead workers and attempts past their deadline have left open, in a bounded step.
--
-- ARGV: 1 ms of a worker's lease, 2 generation for what is queued again, 3 ms after which a turn that nobody has begun is
-- doubtful, 4, 5, 6 what to do with an unknown outcome of alerts, reports, subscriptions ("resend" or "hold"),
-- 7 line for the history, 8 class for the record, 9 and 10 the same of an attempt that had not reached its point of no return,
-- 11 keys to look at in this step, 12 cursor ("0": from the start), 13 records.delivered_max.
-- Answer: {cursor ("0": done), messages whose attempts were ended (told in records.lua), turns ended, doubtful turn, key, unit, turn,
-- key, unit, ...}.
local now = now_ms()
local how = {generation = ARGV[2], policy = {a = ARGV[4], r = ARGV[5], s = ARGV[6]}, line = ARGV[7], class = ARGV[8],
  unsent_line = ARGV[9], unsent_class = ARGV[10]}

local alive = {}
local workers = redis.call('HGETALL', P .. 'workers')
for i = 1, #workers, 2 do
  if tonumber(workers[i + 1]) + tonumber(ARGV[1]) >= now then alive[workers[i]] = true end
end

local provider = active()
local limits, all_limits = limits_of(provider and provider.limits or ''), limits_of(provider and provider.all_limits or '')
local page = redis.call('SSCAN', P .. 'keys', ARGV[12], 'COUNT', ARGV[11])
local answer = {page[1], {}, 0}
for _, whole in ipairs(page[2]) do
  local units = redis.call('HGETALL', P .. 'u:' .. whole)
  local key = string.gsub(whole, '^' .. APART, '')
  for i = 1, #units, 2 do
    local unit, u = units[i], unit_of(units[i + 1])
    local begun = u[RUN] ~= ''
    local dead, open, left = begun and not alive[u[WORKER]], open_of(u.lines), {}
    for _, o in ipairs(open) do
      local r, newer
      if dead or tonumber(o.deadline) < now then r, newer = load(o.message) end
      local lost = not newer and (dead or tonumber(o.deadline) < now)
      if not lost then
        -- A record that only a newer worker can read keeps its unit until one sweeps.
        left[#left + 1] = o.line
      else
        -- The provider may have counted it at any time until now.
        books_stamp(key, limits, o.taken, cost_of(o.cost), now)
        books_stamp('*', all_limits, o.all, cost_of(o.cost), now)
      end
      for _, scope in ipairs(lost and {key, '*', r and by_itself(provider, (place(r)))} or {}) do
        if silence_of(scope).probe == o.attempt then unprobe(scope, now) end
      end
      if lost and r and r.head[STATE] == SENDING and r.head[ATTEMPT] == o.attempt then
        how.worker = u[WORKER]
        table.insert(answer[2], told(o.message, r, give_up(o.message, r, how, now)))
      end
    end
    if (dead or #open > 0) and #left == 0 then
      free(whole, {unit})
      flag(key)
      answer[3] = answer[3] + 1
    elseif #left < #open then
      u.lines = table.concat(left)
      redis.call('HSET', P .. 'u:' .. whole, unit, unit_text(u))
    elseif not begun and tonumber(u[SINCE]) + tonumber(ARGV[3]) < now then
      for _, v in ipairs({u[TURN], key, unit}) do answer[#answer + 1] = v end
    end
  end
end
if page[1] == '0' then
  for i = 1, #workers, 2 do
    if not alive[workers[i]] then redis.call('HDEL', P .. 'workers', workers[i]) end
  end
  for _, worker in ipairs(redis.call('HKEYS', P .. 'sends')) do
    if not alive[worker] then redis.call('HDEL', P .. 'sends', worker) end
  end
  for _, sender in ipairs(redis.call('SMEMBERS', P .. 'aside')) do
    if not redis.call('ZSCORE', P .. 'due', 's:' .. sender) then keep_aside(provider, sender, now) end
  end
  -- Whatever a dispatcher missed that died, it is looked at now.
  if provider then
    for _, kind in ipairs({'a', 'r', 's'}) do
      for _, sender in ipairs(redis.call('LRANGE', P .. 's:' .. kind, 0, 999)) do
        redis.call('SADD', P .. 'ready', key_of(provider, sender))
      end
    end
  end
end
flush(now, tonumber(ARGV[13]))
wake()
return answer
