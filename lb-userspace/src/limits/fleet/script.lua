-- Leases shares of limits to the nodes of a fleet (docs/fleet-limits.md), on this Redis's clock, in microseconds.
-- Rates are whole thousandths of cells per second. All numbers stay under 2^53, where a double is exact.
--
-- KEYS[1]   the fleet:  {serial, last call, learning until, then of each node: id, at, lease, sequence}
-- KEYS[n+1] the n-th limit:              {of each node: id, at, lease, want, grant, held}
-- ARGV      id, sequence, serial, lease, gap, learn, ttl in ms,
--           then of each limit: limit, want, held, has, whether that is a lease, lease
-- Returns   {serial, live nodes, whether learning, then of each limit: grant, or -1 - grant where it is no lease};
--           {serial} alone for a request that has been overtaken by a later one.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local id, sequence, seen = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local lease, gap, learn, ttl = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local max, min, floor = math.max, math.min, math.floor

local function read(key)
  local packed = redis.call('GET', key)
  if not packed then return {} end
  local is_packed, list = pcall(cmsgpack.unpack, packed)
  if is_packed and type(list) == 'table' then return list end
  return {}
end

local fleet = read(KEYS[1])
local serial, last, learning = fleet[1] or 0, fleet[2], fleet[3] or 0
-- A clock that went back must not bring back what was over.
if learning <= (last or 0) then learning = 0 end
-- Nothing is known, less is known than has been said, or nobody called for as long as leases take to end: the leases
-- that are out there are not all in here. Nobody gets more than it has until all have told.
if not last or seen > serial or now - last > gap then learning = now + learn end
learning = min(learning, now + learn)

local live = 1
local nodes = {max(serial, seen) + 1, now, learning}
for i = 4, #fleet, 4 do
  local at = min(fleet[i + 1], now)
  if fleet[i] == id then
    if fleet[i + 3] >= sequence then return {serial} end
  elseif at + fleet[i + 2] > now then
    local n = #nodes
    nodes[n + 1], nodes[n + 2], nodes[n + 3], nodes[n + 4] = fleet[i], at, fleet[i + 2], fleet[i + 3]
    live = live + 1
  end
end
local n = #nodes
nodes[n + 1], nodes[n + 2], nodes[n + 3], nodes[n + 4] = id, now, lease, sequence
redis.call('SET', KEYS[1], cmsgpack.pack(nodes), 'PX', ttl)

-- The max-min fair share of the last of some wants; what nobody wants is shared evenly.
local function fair(limit, wants)
  local count, sum = #wants, 0
  local least = limit / (50 * count)
  for i = 1, count do
    wants[i] = min(max(wants[i], least), limit)
    sum = sum + wants[i]
  end
  local want = wants[count]
  if sum <= limit then return want + (limit - sum) / count end
  table.sort(wants)
  local left = limit
  for i = 1, count do
    local level = left / (count - i + 1)
    if wants[i] > level then return min(want, level) end
    left = left - wants[i]
  end
  return want
end

local reply = {nodes[1], live, learning > now and 1 or 0}
for k = 2, #KEYS do
  local a = 8 + (k - 2) * 6
  local limit, want, held = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  local has, is_lease, lasts = tonumber(ARGV[a + 3]), ARGV[a + 4] == '1', tonumber(ARGV[a + 5])
  local entries, others, wants = {}, 0, {}
  local old = read(KEYS[k])
  for i = 1, #old, 6 do
    local at = min(old[i + 1], now)
    if old[i] ~= id and at + old[i + 2] > now then
      local e = #entries
      entries[e + 1], entries[e + 2], entries[e + 3] = old[i], at, old[i + 2]
      entries[e + 4], entries[e + 5], entries[e + 6] = old[i + 3], old[i + 4], old[i + 5]
      -- Until a node has told that it follows its grant, it may follow what it had before.
      others = others + max(old[i + 4], old[i + 5])
      wants[#wants + 1] = old[i + 3]
    end
  end
  wants[#wants + 1] = want
  local target, free = fair(limit, wants), max(limit - others, 0)
  -- What a node that has no lease may go on with: no more than an even part.
  local kept = is_lease and has or min(has, limit / live)
  local grant = floor(min(target, learning > now and kept or max(free, kept)))
  local is_leased = is_lease or grant <= free
  local e = #entries
  entries[e + 1], entries[e + 2], entries[e + 3] = id, now, lasts
  entries[e + 4], entries[e + 5], entries[e + 6] = want, grant, held
  redis.call('SET', KEYS[k], cmsgpack.pack(entries), 'PX', ttl)
  reply[#reply + 1] = is_leased and grant or -1 - grant
end
return reply
