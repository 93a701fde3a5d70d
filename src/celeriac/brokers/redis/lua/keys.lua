-- Functions on held keys of the key-value store (kv_read.lua has the keys), put before the scripts that use them.
-- An entry is "<version>:<value>", the value of a held key "<holder>\n<data>".
local function key_value(key)
  local entry = redis.call('GET', key)
  return entry and string.sub(entry, string.find(entry, ':', 1, true) + 1)
end

local function put_key(key, versions, value, ttl)
  local entry = string.format('%.0f', redis.call('INCR', versions)) .. ':' .. value
  if tonumber(ttl) > 0 then
    redis.call('SET', key, entry, 'PX', ttl)
  else
    redis.call('SET', key, entry)
  end
end

-- Returns false when the key is the holder's now, else the value of the key that somebody holds.
local function claim_key(key, versions, holder, data, ttl, replace)
  local value = key_value(key)
  if not value then
    put_key(key, versions, holder .. '\n' .. data, ttl)
    return false
  end
  if replace == '1' then
    value = string.match(value, '^[^\n]*') .. '\n' .. data
    put_key(key, versions, value, ttl)
  end
  return value
end

-- Arguments from place i on: key, holder, "1" to write or "0" to delete, value, time to live in ms (0: for ever).
local function apply_key(i, versions)
  local key, holder = ARGV[i], ARGV[i + 1] .. '\n'
  local value = key_value(key)
  if not value or string.sub(value, 1, #holder) ~= holder then return end
  if ARGV[i + 2] == '1' then
    put_key(key, versions, ARGV[i + 3], ARGV[i + 4])
  else
    redis.call('DEL', key)
  end
end
