-- repair_failed strikes out of the failed store what has not failed, or is gone.
--
-- ARGV: ids. Answer: how many were struck out.
local mended = 0
for _, id in ipairs(ARGV) do
  local r, newer = load(id)
  if not newer and (not r or r.head[STATE] ~= FAILED) then mended = mended + redis.call('ZREM', P .. 'failed', id) end
end
return mended
