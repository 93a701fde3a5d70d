-- Make owners known, or keep them alive.  The store's keys are described in lease.lua.
-- KEYS: owners, then the consumers of each queue that they serve.
-- ARGV: time to live in ms, "1" to make them known and "0" to keep alive, owners.
-- Returns the owners that are unknown or condemned.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lost = {}
for i = 3, #ARGV do
  local deadline = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if (deadline and tonumber(deadline) < 0) or (not deadline and ARGV[2] == '0') then
    lost[#lost + 1] = ARGV[i]
  else
    redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i])
    for k = 2, #KEYS do redis.call('ZADD', KEYS[k], now + ARGV[1], ARGV[i]) end
  end
end
for k = 2, #KEYS do redis.call('ZREMRANGEBYSCORE', KEYS[k], '-inf', now) end
return lost
