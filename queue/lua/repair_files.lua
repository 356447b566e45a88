-- repair_files tells of stored files, and lists those in "contents" that nobody holds, and no others.
--
-- ARGV: 1 ms until what is not complete is dropped, then ids. Answer: {put right, then for each: id, shares, shares that were ever
-- taken, bytes}.
local answer = {0}
for i = 2, #ARGV do
  local id = ARGV[i]
  local a = redis.call('HMGET', P .. 'a:' .. id, 'state', 'shares', 'taken', 'bytes', 'kept')
  if a[1] then
    if (tonumber(a[2]) or 0) > 0 then
      answer[1] = answer[1] + redis.call('ZREM', P .. 'contents', id)
    else
      local lasts = a[1] == 'ready' and tonumber(a[5]) or tonumber(ARGV[1])
      answer[1] = answer[1] + redis.call('ZADD', P .. 'contents', 'NX', int(now_ms() + lasts), id)
    end
    for _, v in ipairs({id, a[2] or '', a[3] or '', a[4] or ''}) do answer[#answer + 1] = v end
  end
end
return answer
