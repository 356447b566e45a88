-- stage begins a batch, or a message whose content comes in pieces: nothing of it is visible or ever sent until commit.
--
-- ARGV: 1 id, 2 ms until what is not committed is dropped, 3 bytes of content, 4 content.max_bytes, 5 chunks, 6 stored files
-- that a batch's messages refer to, then fields and values of the batch. Answer: {"staged"}, {"full"}, or {"lost", id} (a file is not
-- stored any more).
local id, bytes = ARGV[1], tonumber(ARGV[3])
if redis.call('EXISTS', P .. 'b:' .. id) == 1 then return {'staged'} end
local lost = lost_of(ARGV[6])
if lost then return {'lost', lost} end
if not reserve(bytes, tonumber(ARGV[4])) then return {'full'} end
refer(ARGV[6])
redis.call('HSET', P .. 'b:' .. id, 'format', FORMAT, 'state', 'staged', 'items', 0, 'bytes', ARGV[3], 'chunks', ARGV[5], unpack(ARGV, 7))
if ARGV[6] ~= '' then redis.call('HSET', P .. 'b:' .. id, 'refs', ARGV[6]) end
redis.call('ZADD', P .. 'staged', int(now_ms() + tonumber(ARGV[2])), id)
return {'staged'}
