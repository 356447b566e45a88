-- delete drops failed messages with all that is kept of them; the last share of a batch's content drops that too.
--
-- ARGV: 1 records.delivered_max, then for each message: id, when it failed (as whoever selected it saw it: one that has failed
-- again since is not meant). Answer: {deleted, of a newer format (left where they are), ids of those deleted}.
local answer, deleted = {0, 0}, {}
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  local r, newer = load(id)
  if newer then
    answer[2] = answer[2] + 1
  elseif not r then
    deleted[#deleted + 1] = id -- by an earlier run of this very call, whose answer was lost
  elseif r.head[STATE] == FAILED and r.head[WHEN] == ARGV[i + 1] then
    discard(id, r)
    deleted[#deleted + 1] = id
  end
end
flush(now_ms(), tonumber(ARGV[1]))
answer[1], answer[3] = #deleted, deleted
return answer
