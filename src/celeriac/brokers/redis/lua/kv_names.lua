-- List a namespace of the key-value store, dropping the names of keys that have expired.  See kv_read.lua for the keys.
--
-- KEYS: the namespace's set of names.
-- ARGV: what the namespace's keys begin with.
local names = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', ARGV[1] .. name) == 1 then
    names[#names + 1] = name
  else
    redis.pcall('SREM', KEYS[1], name)  -- who may only look leaves it there
  end
end
return names
