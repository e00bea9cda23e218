-- Lists the nodes of a fleet that tell of themselves (docs/fleet.md), on this Redis's clock, in milliseconds.
--
-- KEYS[1]  the roster: {of each node: instance, name, at, tag of its report}
-- KEYS[2]  this node's report
-- ARGV     instance, name, tag, report, after how long an entry of the same name is an earlier start of this node,
--          after how long any entry is forgotten
-- Returns  of each other node: {instance, how long ago it told of itself, tag}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, name, tag, report = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local restarted, forgotten = tonumber(ARGV[5]), tonumber(ARGV[6])

local packed = redis.call('GET', KEYS[1])
local is_packed, old = pcall(cmsgpack.unpack, packed or '')
if not is_packed or type(old) ~= 'table' then old = {} end

local roster, others = {id, name, now, tag}, {}
for i = 1, #old - 3, 4 do
  -- A clock that went back must not keep an entry for ever.
  local at = math.min(old[i + 2], now)
  local age = now - at
  local is_earlier_start = old[i + 1] == name and age > restarted
  if old[i] ~= id and not is_earlier_start and age < forgotten then
    local n = #roster
    roster[n + 1], roster[n + 2], roster[n + 3], roster[n + 4] = old[i], old[i + 1], at, old[i + 3]
    others[#others + 1] = {old[i], age, old[i + 3]}
  end
end

redis.call('SET', KEYS[1], cmsgpack.pack(roster), 'PX', forgotten)
redis.call('SET', KEYS[2], report, 'PX', forgotten)
return others
