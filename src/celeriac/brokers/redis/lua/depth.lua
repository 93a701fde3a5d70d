-- Measure one queue.  The store's keys are described in lease.lua.
-- KEYS: schedule, consumers, then the queue's lists.
-- Returns: ready, scheduled, consumers, and the next message to be leased (or false).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ready, first = 0, false
for i = 3, #KEYS do
  local length = redis.call('LLEN', KEYS[i])
  ready = ready + length
  if length > 0 and not first then first = redis.call('LINDEX', KEYS[i], -1) end
end
return {ready, redis.call('ZCARD', KEYS[1]), redis.call('ZCOUNT', KEYS[2], now, '+inf'), first}
