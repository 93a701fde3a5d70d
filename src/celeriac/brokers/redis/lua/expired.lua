-- Owners to rescue: those whose time ran out, and those condemned a while ago that still stand here (whoever condemned
-- them has not finished).  The store's keys are described in lease.lua.
-- KEYS: owners.  ARGV: limit, how long ago in ms a condemned owner's rescue counts as cut short.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owners = redis.call('ZRANGEBYSCORE', KEYS[1], 0, now, 'LIMIT', 0, ARGV[1])
local stale = redis.call('ZRANGEBYSCORE', KEYS[1], -(now - ARGV[2]), '(0', 'LIMIT', 0, ARGV[1])
for _, owner in ipairs(stale) do owners[#owners + 1] = owner end
return owners
