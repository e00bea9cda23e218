-- Reads a node's report (docs/fleet.md), and of a value that is larger than any only so much. By GET, which nodes have
-- the right to run anyway: GETRANGE would need another one.
--
-- KEYS[1]  the report
-- ARGV     how many bytes are read at most
-- Returns  them, or nothing
local report = redis.call('GET', KEYS[1])
return report and string.sub(report, 1, tonumber(ARGV[1]))
