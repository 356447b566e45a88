-- items adds messages to a staged batch: their records and, in order, their entries in the batch's lane, which stands in no
-- ring before commit.
--
-- ARGV: 1 batch, 2 lane's kind, 3 lane's sender, 4 how many items the batch had before, 5 ms until what is not committed
-- is dropped, 6 stored files that these messages refer to by themselves, all together, 7 accept.backlog_max
-- (0: no bound), then id and record of each. Answer: {"staged"},
-- {"gone"} if the deadline has passed, {"crowded"} if too many messages wait already, or {"lost", id} if a file is not stored any more.
local batch = ARGV[1]
local b = redis.call('HMGET', P .. 'b:' .. batch, 'state', 'items')
if b[1] ~= 'staged' then return {'gone'} end
local before, n = tonumber(ARGV[4]), (#ARGV - 7) / 2
if tonumber(b[2]) ~= before then return {'staged'} end
if not room_for(ARGV[2], before + n, tonumber(ARGV[7])) then return {'crowded'} end
local lost = lost_of(ARGV[6])
if lost then return {'lost', lost} end
refer(ARGV[6])
local lane = lane_key(ARGV[2], ARGV[3], batch) .. ':n'
for i = 8, #ARGV, 2 do
  redis.call('SET', P .. 'm:' .. ARGV[i], ARGV[i + 1])
  redis.call('RPUSH', lane, ARGV[i])
end
redis.call('HSET', P .. 'b:' .. batch, 'items', before + n)
if ARGV[6] ~= '' then redis.call('HSET', P .. 'b:' .. batch, 'own', 1) end
redis.call('ZADD', P .. 'staged', int(now_ms() + tonumber(ARGV[5])), batch)
return {'staged'}
