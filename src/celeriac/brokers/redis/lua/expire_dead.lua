-- Delete dead letters that died before a moment, from the oldest on.  The store's keys are described in lease.lua.
-- KEYS: dead letters.  ARGV: the moment (seconds since the epoch), how many at most.
-- Stops at the first that is younger: the stream is in the order of burying, which is that of dying but for the workers' clocks.
local gone = 0
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[2])) do
  local fields = entry[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'at' then
      if tonumber(fields[i + 1]) >= tonumber(ARGV[1]) then return gone end
      gone = gone + redis.call('XDEL', KEYS[1], entry[1])
    end
  end
end
return gone
