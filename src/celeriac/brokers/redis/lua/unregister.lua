-- Forget an owner that holds nothing.  The store's keys are described in lease.lua.
-- KEYS: owners, lease hash, then the consumers of each queue that it served.  ARGV: owner.
-- Returns 1, or 0 when it still holds leases.
local held = redis.call('HLEN', KEYS[2])
if held > 1 or (held == 1 and redis.call('HEXISTS', KEYS[2], 'n') == 0) then return 0 end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[1], ARGV[1])
for k = 3, #KEYS do redis.call('ZREM', KEYS[k], ARGV[1]) end
return 1
