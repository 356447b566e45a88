-- repair_attempts ends attempts that are past their deadline and stand open in no unit any more, as the sweep ends those of dead workers.
--
-- ARGV: 1 ms that an attempt may take, 2 generation for what is queued again, 3, 4, 5 what to do with an unknown outcome of alerts,
-- reports, subscriptions, 6 line for the history, 7 class for the record, 8 and 9 the same of an attempt that had not reached its point
-- of no return, 10 records.delivered_max, then message and attempt of each. Answer: of each
-- that was ended what told in records.lua says.
local now, ended, open = now_ms(), {}, {}
local how = {generation = ARGV[2], policy = {a = ARGV[3], r = ARGV[4], s = ARGV[5]}, worker = '', line = ARGV[6], class = ARGV[7],
  unsent_line = ARGV[8], unsent_class = ARGV[9]}
for _, key in ipairs(redis.call('SMEMBERS', P .. 'keys')) do
  for _, value in ipairs(redis.call('HVALS', P .. 'u:' .. key)) do
    for _, o in ipairs(open_of(unit_of(value).lines)) do open[o.attempt] = true end
  end
end
for i = 11, #ARGV, 2 do
  local id, attempt = ARGV[i], ARGV[i + 1]
  local r = load(id)
  if r and r.head[STATE] == SENDING and r.head[ATTEMPT] == attempt and not open[attempt] and
      (tonumber(r.head[BEGUN]) or 0) + tonumber(ARGV[1]) < now then
    ended[#ended + 1] = told(id, r, give_up(id, r, how, now))
  end
end
flush(now, tonumber(ARGV[10]))
return ended
