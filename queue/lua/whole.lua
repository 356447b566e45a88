-- In front of accept.lua and commit.lua.
--
-- whole says whether all pieces of what was staged are here. They are written one by one, and a fail-over may have lost some.
local function whole(id, chunks)
  local pieces = {}
  for i = 1, tonumber(chunks) or 0 do pieces[i] = P .. 'c:' .. id .. ':' .. int(i - 1) end
  return #pieces == 0 or redis.call('EXISTS', unpack(pieces)) == #pieces
end
