-- Write results, or count parts of chords, without settling.  Goes after results.lua.
-- ARGV: operations R and C as settle.lua describes them.
-- Returns the places (among the operations) of parts that completed their chord.
local ready = {}
local at, place = 1, 0
while at <= #ARGV do
  place = place + 1
  if ARGV[at] == 'R' then
    write_result(at + 1)
    at = at + 5
  else
    if count_part(at + 1) then ready[#ready + 1] = place end
    at = at + 10
  end
end
return ready
