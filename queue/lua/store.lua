-- store takes in the next piece of a file that is stored for later reference. Nobody can refer to it before its last piece is here.
--
-- ARGV: 1 id, 2 pieces before this one, 3 content.max_bytes, 4 ms until what is not complete is dropped, 5 piece, 6 SHA-256 of the whole
-- ("": more pieces follow), 7 ms it is kept when nobody holds it, 8 name, 9 type. Answer: {"stored", when it is dropped unless somebody
-- refers to it}; {"full"}; {"gone"} (its deadline has passed, or a fail-over has lost a piece).
local id, before = ARGV[1], tonumber(ARGV[2])
local key = P .. 'a:' .. id
local c = redis.call('HMGET', key, 'state', 'chunks')
local have = tonumber(c[2]) or 0
if have < before then return {'gone'} end
if have == before then
  if not reserve(#ARGV[5], tonumber(ARGV[3])) then return {'full'} end
  if #ARGV[5] > 0 then redis.call('SET', P .. 'c:' .. id .. ':' .. before, ARGV[5]) end
  if before == 0 then redis.call('HSET', key, 'format', FORMAT, 'name', ARGV[8], 'type', ARGV[9], 'shares', 0, 'kept', ARGV[7]) end
  redis.call('HINCRBY', key, 'bytes', #ARGV[5])
  redis.call('HSET', key, 'chunks', before + 1, 'state', ARGV[6] == '' and 'staged' or 'ready', 'sha256', ARGV[6])
  redis.call('ZADD', P .. 'contents', int(now_ms() + tonumber(ARGV[6] == '' and ARGV[4] or ARGV[7])), id)
end
return {'stored', int(tonumber(redis.call('ZSCORE', P .. 'contents', id)) or 0)}
