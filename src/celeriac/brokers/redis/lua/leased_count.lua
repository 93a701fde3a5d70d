-- Count leased messages of all owners.  The store's keys are described in lease.lua.
-- KEYS: owners.  ARGV: prefix of the lease hashes.
-- Owners are bounded by the number of worker slots.
local count = 0
for _, owner in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local key = ARGV[1] .. owner
  count = count + redis.call('HLEN', key) - redis.call('HEXISTS', key, 'n')
end
return count
