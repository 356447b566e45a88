-- stage begins a batch, or a message whose content comes in pieces: nothing of it is visible or ever sent until commit.
--
-- ARGV: 1 id, 2 ms until what is not committed is dropped, 3 bytes of content, 4 content.max_bytes, 5 chunks, then fields and
-- values of the batch. Answer: "staged" or "full".
local id, bytes = ARGV[1], tonumber(ARGV[3])
if redis.call('EXISTS', P .. 'b:' .. id) == 1 then return 'staged' end
if not reserve(bytes, tonumber(ARGV[4])) then return 'full' end
redis.call('HSET', P .. 'b:' .. id, 'format', FORMAT, 'state', 'staged', 'items', 0, 'bytes', ARGV[3], 'chunks', ARGV[5], unpack(ARGV, 6))
redis.call('ZADD', P .. 'staged', int(now_ms() + tonumber(ARGV[2])), id)
return 'staged'
