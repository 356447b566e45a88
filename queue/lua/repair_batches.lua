-- repair_batches tells of batches, lists those that are staged and those that expire, and drops those that were over long ago and are
-- forgotten by the list of what is over.
--
-- ARGV: 1 ms: what was over before is to be gone, 2 ms until what is staged is dropped, then ids. Answer: {dropped, listed, of a newer
-- format, then for each that is staged, or has mail that is open or failed: id, state, shares, failed, forgotten, bytes, files that it
-- refers to}.
local answer = {0, 0, 0}
for i = 3, #ARGV do
  local id = ARGV[i]
  local b = redis.call('HMGET', P .. 'b:' .. id, 'state', 'shares', FAILED, 'forgotten', 'bytes', 'refs', 'finished', 'format', 'expires', 'cancelled', 'lapsed')
  if not b[1] then
    -- It is gone, or never was one.
  elseif b[8] ~= FORMAT then
    answer[3] = answer[3] + 1
  elseif b[7] then
    if tonumber(b[7]) < tonumber(ARGV[1]) then
      redis.call('UNLINK', P .. 'b:' .. id)
      answer[1] = answer[1] + 1
    end
  else
    if b[1] ~= 'committed' then
      answer[2] = answer[2] + redis.call('ZADD', P .. 'staged', 'NX', int(now_ms() + tonumber(ARGV[2])), id)
    elseif b[9] and not b[10] and not b[11] then
      answer[2] = answer[2] + redis.call('ZADD', P .. 'expires', 'NX', b[9], 'b:' .. id)
    end
    for _, v in ipairs({id, b[1], b[2] or '', b[3] or '', b[4] or '', b[5] or '', b[6] or ''}) do answer[#answer + 1] = v end
  end
end
return answer
