-- repair_records tells of records, lists those that failed in the failed store and those that expire in "expires", and drops those that
-- ended long ago and are forgotten by the list of what is over.
--
-- ARGV: 1 ms: what ended before is to be gone, then ids. Answer: {records dropped, listed, of a newer format, then of each that is open
-- or failed: id, state of its batch ("": it has none, "none": it is gone), head}.
local answer, states, expires = {0, 0, 0}, {['']= ''}, {}
local over_by = {[DELIVERED] = true, [CANCELLED] = true, [EXPIRED] = true}
for i = 2, #ARGV do
  local id = ARGV[i]
  local r, newer = load(id)
  if newer then
    answer[3] = answer[3] + 1
  elseif r and over_by[r.head[STATE]] then
    if (tonumber(r.head[WHEN]) or 0) < tonumber(ARGV[1]) then
      redis.call('UNLINK', P .. 'm:' .. id)
      answer[1] = answer[1] + 1
    end
  elseif r then
    if r.head[STATE] == FAILED and not redis.call('ZSCORE', P .. 'failed', id) then
      redis.call('ZADD', P .. 'failed', int(tonumber(r.head[WHEN]) or now_ms()), id)
      answer[2] = answer[2] + 1
    end
    local batch = r.head[BATCH]
    if not states[batch] then
      local b = redis.call('HMGET', P .. 'b:' .. batch, 'state', 'expires')
      states[batch], expires[batch] = b[1] or 'none', b[2]
    end
    local at = r.head[STATE] == QUEUED and (batch == '' or r.head[GENERATION] ~= '') and expiry.of(r, expires[batch])
    if at then answer[2] = answer[2] + redis.call('ZADD', P .. 'expires', 'NX', int(at), 'm:' .. id) end
    for _, v in ipairs({id, states[batch], string.match(r.raw, '^[^\n]*')}) do answer[#answer + 1] = v end
  end
end
return answer
