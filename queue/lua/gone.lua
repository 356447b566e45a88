-- Attempts whose outcome nobody will bring: it stands in front of sweep.lua and repair_attempts.lua.

-- MOST: a message on which so many workers have died, or whose attempt so often does not end, is not given to another. A record's history
-- has as many.
local MOST = HISTORY

-- give_up ends an attempt whose outcome nobody will bring: as unknown, or as not sent if it was to be marked again and was not. how has:
-- worker, generation, policy (by kind: "resend" or "hold"), line and class, unsent_line and unsent_class. Head[BEGUN] stays: should the
-- outcome come after all, it takes the place of this one. It answers the state of the record.
local function give_up(id, r, how, now)
  local h = r.head
  count(h)
  local unsent = h[WHEN] == NOT_YET
  h[CLASS] = unsent and how.unsent_class or how.class
  note(r, h[BEGUN] .. '\t' .. int(now - tonumber(h[BEGUN])) .. '\t' .. how.worker .. '\t' .. (unsent and how.unsent_line or how.line))
  local _, deaths = string.gsub(r.history, ';worker_gone;', '')
  local verdict = decided(h[MARKS])
  if verdict == 'delivered' then
    -- A late outcome of an earlier attempt has said so.
    finish(id, r, DELIVERED, now)
    return DELIVERED
  elseif verdict == 'failed' or not unsent and how.policy[h[KIND]] == 'hold' or deaths >= MOST then
    fail(id, r, now)
    return FAILED
  end
  again(id, r, how.generation, now, 0)
  return QUEUED
end
