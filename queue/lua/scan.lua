-- scan finds keys of ours by how they begin, in a bounded step. On a cluster it runs where all our keys are; what else lies there is
-- passed over.
--
-- ARGV: 1 beginning, 2 cursor ("0": from the start), 3 keys to find, about. Answer: {cursor ("0": done), then the rest of each name}. A
-- key that is there all the time is found; when the table shrinks, a key may be found twice.
local cursor, names, from = ARGV[2], {}, #P + #ARGV[1] + 1
for _ = 1, 20 do
  local page = redis.call('SCAN', cursor, 'MATCH', P .. ARGV[1] .. '*', 'COUNT', ARGV[3])
  cursor = page[1]
  for _, key in ipairs(page[2]) do names[#names + 1] = string.sub(key, from) end
  if cursor == '0' or #names >= tonumber(ARGV[3]) then break end
end
table.insert(names, 1, cursor)
return names
