-- Measure one queue.  The store's keys are described in lease.lua.
-- KEYS: schedule, consumers, count of parked messages, then the queue's lists.
-- Returns: ready, scheduled, consumers, parked, and the next message to be leased (or false).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ready, first = 0, false
for i = 4, #KEYS do
  local length = redis.call('LLEN', KEYS[i])
  ready = ready + length
  if length > 0 and not first then first = redis.call('LINDEX', KEYS[i], -1) end
end
local parked = tonumber(redis.call('GET', KEYS[3]) or 0)
return {ready, redis.call('ZCARD', KEYS[1]), redis.call('ZCOUNT', KEYS[2], now, '+inf'), parked, first}
