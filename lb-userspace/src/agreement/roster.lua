-- Lists the nodes of a fleet that tell of themselves (docs/fleet.md), on this Redis's clock, in milliseconds.
--
-- KEYS[1]  the roster: {of each node: instance, name, at, tag of its report}
-- KEYS[2]  this node's report
-- ARGV     instance, name, tag, report, after how long an entry of the same name is an earlier start of this node,
--          after how long any entry is forgotten, how many other nodes are told at most
-- Returns  how many other nodes there are, and of those that are told: {instance, how long ago it told of itself, tag}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, name, tag, report = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local restarted, forgotten, most = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

local function is_number(text)
  return type(text) == 'string' and #text == 16 and not string.find(text, '%X')
end

local packed = redis.call('GET', KEYS[1]) or ''
-- So much is the entries of a thousand nodes: what is longer is none of weir's, and not worth the time to read it.
if #packed > 262144 then packed = '' end
local is_packed, old = pcall(cmsgpack.unpack, packed)
if not is_packed or type(old) ~= 'table' then old = {} end

local roster, others = {id, name, now, tag}, {}
for i = 1, #old - 3, 4 do
  local other, called, at, its_tag = old[i], old[i + 1], old[i + 2], old[i + 3]
  -- Anything else is as if it were not there: an error here would be one in every turn of every node.
  if is_number(other) and type(called) == 'string' and type(at) == 'number' and is_number(its_tag) then
    -- A clock that went back must not keep an entry for ever.
    at = math.min(at, now)
    local age = now - at
    local is_earlier_start = called == name and age > restarted
    if other ~= id and not is_earlier_start and age < forgotten then
      local n = #roster
      roster[n + 1], roster[n + 2], roster[n + 3], roster[n + 4] = other, called, at, its_tag
      others[#others + 1] = {other, age, its_tag}
    end
  end
end

redis.call('SET', KEYS[1], cmsgpack.pack(roster), 'PX', forgotten)
redis.call('SET', KEYS[2], report, 'PX', forgotten)

-- Those that missed no turn come before those that may be gone, and where there are too many, it is the same ones in
-- every turn.
table.sort(others, function(a, b)
  local is_late, is_other_late = a[2] > restarted, b[2] > restarted
  if is_late ~= is_other_late then return is_other_late end
  return a[1] < b[1]
end)
local count = #others
for i = count, most + 1, -1 do others[i] = nil end
return {count, others}
