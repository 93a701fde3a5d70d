-- List lanes that have messages.  The store's keys are described in lease.lua.
-- KEYS: hashes of lanes.  ARGV: how many of each; where there are more, they are chosen at random.
-- Returns for each queue: names and counts in turn.
local reply = {}
for i, lanes in ipairs(KEYS) do reply[i] = redis.call('HRANDFIELD', lanes, ARGV[1], 'WITHVALUES') end
return reply
