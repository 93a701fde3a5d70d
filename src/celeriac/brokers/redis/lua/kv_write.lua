-- Write one key of the key-value store if it still has the version that the caller saw.  See kv_read.lua for the keys.
--
-- KEYS: entry, version counter, and for a listed namespace its set of names.
-- ARGV: expected version (0: absent), 1 to write or 0 to delete, value, time to live in ms (0: for ever), name.
-- Returns the version that it has now (1 after a deletion); 0 when nothing was written.
local entry = redis.call('GET', KEYS[1])
local version = entry and string.match(entry, '^%d+') or '0'
if version ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  if KEYS[3] then redis.call('SREM', KEYS[3], ARGV[5]) end
  return 1
end
local written = redis.call('INCR', KEYS[2])
local value = string.format('%.0f', written) .. ':' .. ARGV[3]
if ARGV[4] == '0' then
  redis.call('SET', KEYS[1], value)
else
  redis.call('SET', KEYS[1], value, 'PX', ARGV[4])
end
if KEYS[3] then redis.call('SADD', KEYS[3], ARGV[5]) end
return written
