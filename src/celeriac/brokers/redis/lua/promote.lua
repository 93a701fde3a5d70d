-- Move due messages from schedules to the tails of their queues.  The store's keys are described in lease.lua.
-- KEYS: schedules.  ARGV: limit.
-- Returns how many were moved, and in how many ms the next one is due (-1: the schedules are empty).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit = tonumber(ARGV[1])
local moved, next_due = 0, -1
for _, schedule in ipairs(KEYS) do
  local due = redis.call('ZRANGEBYSCORE', schedule, '-inf', now, 'LIMIT', 0, limit - moved)
  for _, member in ipairs(due) do
    local length, from = string.match(member, '^%d+:(%d+):()')
    local key_end = from + tonumber(length) - 1
    redis.call('LPUSH', string.sub(member, from, key_end), string.sub(member, key_end + 1))
  end
  if #due > 0 then redis.call('ZREMRANGEBYRANK', schedule, 0, #due - 1) end
  moved = moved + #due
  local first = redis.call('ZRANGE', schedule, 0, 0, 'WITHSCORES')
  if first[2] then
    local wait = math.max(0, tonumber(first[2]) - now)
    if next_due < 0 or wait < next_due then next_due = wait end
  end
end
return {moved, next_due}
