-- Move a dead letter back to the tail of its queue, once.  The store's keys are described in lease.lua.
-- KEYS: dead letters.  ARGV: id, queue list and message (both empty: as they were kept).
-- Returns 1, or 0 when the dead letter is not there any more.
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return 0 end
local key, message = ARGV[2], ARGV[3]
if key == '' then
  local fields = found[1][2]
  for i = 1, #fields, 2 do
    if fields[i] == 'key' then key = fields[i + 1] end
    if fields[i] == 'raw' then message = fields[i + 1] end
  end
end
redis.call('LPUSH', key, message)
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
