-- abandon has an attempt count as past its deadline, as its worker knows nothing of it any more: the sweep ends it as unknown. That its
-- record is not marked a second time tells nothing: what it came to has been lost, and the mark can have been lost with that.
--
-- ARGV: 1 attempt, 2 key with units, 3 unit. Answer: 1 if it was open.
local u = unit_of(redis.call('HGET', P .. 'u:' .. ARGV[2], ARGV[3]))
for _, o in ipairs(open_of(u.lines)) do
  if o.attempt == ARGV[1] then
    local r = load(o.message)
    if r and r.head[STATE] == SENDING and r.head[ATTEMPT] == o.attempt and r.head[WHEN] == NOT_YET then
      r.head[WHEN] = int(now_ms())
      store(o.message, r)
    end
    local from, to = string.find(u.lines, o.line, 1, true)
    u.lines = string.sub(u.lines, 1, from - 1) .. open_line(o.attempt, o.message, o.begun, '0', o.taken, o.all, o.cost) .. string.sub(u.lines, to + 1)
    redis.call('HSET', P .. 'u:' .. ARGV[2], ARGV[3], unit_text(u))
    return 1
  end
end
return 0
