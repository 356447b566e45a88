-- The books of limits: what throttle.Window does, for every worker at once. It stands between the prelude, of which it
-- uses P and int, and the scripts that begin and settle attempts. All depends on the arguments alone: now is the caller's,
-- in ms. Nothing here may be done twice for one attempt; whoever calls sees to it.
--
-- A scope is a limit key, or "*" for the whole provider. Its books are
--   P.."w:"..scope                 a hash: "open" -> attempts under way, ms until which some window still counts;
--                                  name -> open, sum of all buckets, stamp of the newest bucket, its count
--   P.."w:"..scope..":"..name      a list of the other buckets, oldest first: stamp, count, stamp, count ...
-- The newest bucket is the one that changes, so it stands where one command reads and another writes all there is to
-- know of a scope, however many buckets there are. Buckets that are out of the window go when room is needed, and so may
-- be counted in sum until then. The books of a scope expire by themselves, but not while an attempt is under way.
local BOOKS = {'messages', 'requests', 'recipients', 'upload_bytes'}
-- Buckets of a window at most, and the parts it is cut into: see cells in limit.go.
local BUCKETS, CELLS = 256, 254
-- Milliseconds that books are kept beyond their use, for a clock that runs back.
local GRACE = 60000

-- limits_of reads what throttle.Encode wrote, once for each text in a run of a script: a list of {name, max, window, cell}.
local limits_read = {}
local function limits_of(spec)
  local limits = limits_read[spec]
  if not limits then
    limits = {}
    for name, max, window in string.gmatch(spec, '([%a_]+) (%d+) (%d+)') do
      window = tonumber(window)
      limits[#limits + 1] = {name = name, max = tonumber(max), window = window, cell = math.ceil(window / CELLS)}
    end
    limits_read[spec] = limits
  end
  return limits
end

-- cost_of reads what throttle.Cost.Encode, or books_take, wrote: a table by name. What is "-" is nil.
local function cost_of(text)
  local cost, i = {}, 0
  for n in string.gmatch(text, '[^ ]+') do
    i = i + 1
    cost[BOOKS[i]] = tonumber(n)
  end
  return cost
end

-- books_of gives the books of a scope, read once in a run of a script: {under_way, ends, messages = book, ...}.
local books_read = {}
local function books_of(scope)
  local books = books_read[scope]
  if books then return books end
  local fields = redis.call('HMGET', P .. 'w:' .. scope, 'open', unpack(BOOKS))
  local under_way, ends = string.match(fields[1] or '', '^(%d+) (%d+)$')
  books = {under_way = tonumber(under_way) or 0, ends = tonumber(ends) or 0}
  for i, name in ipairs(BOOKS) do
    local open, sum, last, count = string.match(fields[i + 1] or '', '^(%d+) (%d+) (%d+) (%d+)$')
    if open then
      books[name] = {key = P .. 'w:' .. scope .. ':' .. name,
        open = tonumber(open), sum = tonumber(sum), last = tonumber(last), count = tonumber(count)}
    end
  end
  books_read[scope] = books
  return books
end

-- each_bucket visits the buckets of a book, oldest first, until visit answers true.
local function each_bucket(book, visit)
  local from, size = 0, 8
  repeat
    local part = redis.call('LRANGE', book.key, from, from + size - 1)
    for i = 1, #part, 2 do
      if visit(tonumber(part[i]), tonumber(part[i + 1])) then return end
    end
    from, size = from + #part, size * 2
  until #part == 0 or #part * 2 < size
  if book.count > 0 then visit(book.last, book.count) end
end

-- book_of gives the book of one name. Without one there should be no list either; if there is, it counts.
local function book_of(scope, name)
  local books = books_of(scope)
  local book = books[name]
  if not book then
    book = {key = P .. 'w:' .. scope .. ':' .. name, open = 0, sum = 0, last = 0, count = 0}
    each_bucket(book, function(_, count) book.sum = book.sum + count end)
    books[name] = book
  end
  return book
end

-- books_write stores the books of some names, and what is under way if the number changed.
local function books_write(scope, names, counted)
  local books, fields = books_of(scope), {}
  if counted then fields = {'open', int(books.under_way) .. ' ' .. int(books.ends)} end
  for name in pairs(names) do
    local b = books[name]
    fields[#fields + 1] = name
    fields[#fields + 1] = int(b.open) .. ' ' .. int(b.sum) .. ' ' .. int(b.last) .. ' ' .. int(b.count)
  end
  if #fields > 0 then redis.call('HSET', P .. 'w:' .. scope, unpack(fields)) end
end

-- drop forgets the buckets that are out of a window: see Limit.leaves. It answers whether there were any.
local function drop(book, limit, now)
  local n, sum = 0, 0
  each_bucket(book, function(last, count)
    if last + limit.window >= now then return true end
    n, sum = n + 1, sum + count
  end)
  if n == 0 then return false end
  if book.count > 0 and book.last + limit.window < now then
    n, book.last, book.count = n - 1, 0, 0
  end
  if n > 0 then redis.call('LPOP', book.key, n * 2) end
  book.sum = math.max(book.sum - sum, 0)
  return true
end

-- wait is Window.Wait for n that do not exceed the limit as such: nil if they fit, -1, or ms.
local function wait(scope, limit, n, now)
  if n <= 0 then return nil end
  local book = book_of(scope, limit.name)
  local over = book.open + book.sum + n - limit.max
  if over <= 0 then return nil end
  if drop(book, limit, now) then
    books_write(scope, {[limit.name] = true})
    over = book.open + book.sum + n - limit.max
    if over <= 0 then return nil end
  end
  if book.open + n > limit.max then return -1 end
  local ends, left = nil, 0
  each_bucket(book, function(last, count)
    left = left + count
    if left < over then return false end
    ends = last + limit.window + 1
    return true
  end)
  if ends then return ends end
  -- The list is gone, or was shortened by somebody: what is left fits.
  book.sum = left
  books_write(scope, {[limit.name] = true})
  return nil
end

-- books_room answers whether a message of a cost (a table by name) fits now: nil if it does; the time from which on it will
-- if nothing else happens, in ms, or -1 if that depends on attempts under way; or "never", if the message alone exceeds
-- a limit. Then the name of the limit, of which there may be several: the one that binds longest.
local function books_room(scope, limits, cost, now)
  for _, limit in ipairs(limits) do
    if (cost[limit.name] or 0) > limit.max then return 'never', limit.name end
  end
  local ends, name
  for _, limit in ipairs(limits) do
    local e = wait(scope, limit, cost[limit.name] or 0, now)
    if e and (not ends or (ends ~= -1 and (e == -1 or e > ends))) then ends, name = e, limit.name end
  end
  return ends, name
end

-- books_take opens the cost of an attempt, without a look whether there is room. It answers what was taken, as cost_of
-- reads it, with "-" for what is not limited; '' if nothing is.
local function books_take(scope, limits, cost)
  if #limits == 0 then return '' end
  local books, taken, names = books_of(scope), {}, {}
  for i = 1, #BOOKS do taken[i] = '-' end
  for _, limit in ipairs(limits) do
    local n, book = math.max(cost[limit.name] or 0, 0), book_of(scope, limit.name)
    book.open = book.open + n
    names[limit.name] = true
    for i, name in ipairs(BOOKS) do
      if name == limit.name then taken[i] = int(n) end
    end
  end
  books.under_way = books.under_way + 1
  books_write(scope, names, true)
  if books.under_way == 1 then redis.call('PERSIST', P .. 'w:' .. scope) end
  return table.concat(taken, ' ')
end

-- stamp puts what was used into the bucket of now.
local function stamp(book, limit, used, now)
  book.sum = book.sum + used
  if book.count > 0 then
    now = math.max(now, book.last)
    if math.floor(now / limit.cell) == math.floor(book.last / limit.cell) then
      book.last, book.count = now, book.count + used
      return
    end
    local length = redis.call('RPUSH', book.key, int(book.last), int(book.count))
    redis.call('PEXPIRE', book.key, int(limit.window + GRACE))
    if length >= BUCKETS * 2 then
      book.last, book.count = 0, 0
      if not drop(book, limit, now) then
        -- The grid was finer when the window was shorter: the two oldest leave together.
        local first = redis.call('LPOP', book.key, 2)
        local second = redis.call('LRANGE', book.key, 1, 1)
        redis.call('LSET', book.key, 1, int(first[2] + second[1]))
      end
    end
  end
  book.last, book.count = now, used
end

-- books_stamp ends an attempt: what books_take answered is no longer open, and what was used (a table by name) counts from
-- now on. taken is '' if nothing was taken. The limits may have changed since: one that is new counts, one that is gone
-- gives back.
local function books_stamp(scope, limits, taken, used, now)
  if taken == '' and #limits == 0 then return end
  local books, names, window = books_of(scope), {}, nil
  for name, n in pairs(cost_of(taken)) do
    local book = book_of(scope, name)
    book.open = math.max(book.open - n, 0)
    names[name] = true
  end
  for _, limit in ipairs(limits) do
    local n = used[limit.name] or 0
    if n > 0 then
      stamp(book_of(scope, limit.name), limit, n, now)
      names[limit.name] = true
      window = math.max(window or 0, limit.window)
    end
  end
  if taken == '' and not window then return end
  if taken ~= '' then books.under_way = math.max(books.under_way - 1, 0) end
  if window then books.ends = math.max(books.ends, now + window + 1) end
  books_write(scope, names, true)
  if books.under_way == 0 then
    redis.call('PEXPIRE', P .. 'w:' .. scope, int(math.max(books.ends - now, 0) + GRACE))
  end
end
