-- server gives what the server that has our keys says of itself: of a cluster, that node and no other.
--
-- ARGV: sections of INFO. Answer: its text; '' of a section that it does not tell us.
local told = ''
for _, section in ipairs(ARGV) do
  local text = redis.pcall('INFO', section)
  if type(text) == 'string' then told = told .. text .. '\r\n' end
end
return told
