-- Fence an owner off.  The store's keys are described in lease.lua.
-- KEYS: owners.  ARGV: owner.
local time = redis.call('TIME')
local deadline = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not deadline or tonumber(deadline) >= 0 then
  redis.call('ZADD', KEYS[1], -(time[1] * 1000 + math.floor(time[2] / 1000)), ARGV[1])
end
return 1
