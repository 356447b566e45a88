-- oldest finds, for each kind, the longest accepted message that may go now, by the heads of at most so many lanes: ids sort
-- by the time they were made, and a lane's messages were accepted in the order they stand in it. What somebody requeued does not
-- count: it has not waited since it was accepted.
--
-- ARGV: 1 lanes to look at for each kind. Answer: id or '' for alerts, reports, subscriptions.
local answer = {}
for i, kind in ipairs({'a', 'r', 's'}) do
  local left, found = tonumber(ARGV[1]), ''
  for _, sender in ipairs(redis.call('LRANGE', P .. 's:' .. kind, 0, left - 1)) do
    for _, batch in ipairs(redis.call('LRANGE', P .. 'r:' .. kind .. ':' .. sender, 0, left - 1)) do
      local lane = lane_key(kind, sender, batch)
      for _, which in ipairs(batch == '+' and {} or {':d', ':n'}) do
        local head = redis.call('LINDEX', lane .. which, 0)
        if head and (found == '' or head < found) then found = string.match(head, '^[^:]*') end
      end
      left = left - 1
      if left <= 0 then break end
    end
    if left <= 0 then break end
  end
  answer[i] = found
end
return answer
