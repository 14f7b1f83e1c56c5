"""A shared state in a Redis or Valkey server; every order is one Lua script, which the server runs atomically."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import redis

from .state_port import Account, Answer, Order, Settle, StateAwayError, Sums

_KEPT_S = 86_400
"""How long a window is kept after its end, for calls that began in it."""

_COMMON = """
local function number(key, field) return tonumber(redis.call('HGET', key, field) or '0') end
local function add(key, field, amount)
  if amount ~= 0 then redis.call('HINCRBY', key, field, string.format('%.0f', amount)) end
end
local KINDS = {'usd', 'tokens', 'calls'}
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
"""

_ORDER = (
    _COMMON
    + """
-- KEYS[1]: the account; ARGV: order id, owner, lease, window length, window or '', kept,
-- 'reserve' or 'settle', is_call, three limits or '', three amounts held or wanted, three amounts used
local owner, lease, seconds, window = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
if window == '' then
  window = seconds == 0 and '0' or string.format('%.0f', math.floor(now / seconds))
end
local spent, owners = KEYS[1] .. ':' .. window .. ':spent', KEYS[1] .. ':' .. window .. ':owners'
local function held_by(name) return KEYS[1] .. ':' .. window .. ':held:' .. name end

-- What owners hold whose leases have expired is spent.
for _, name in ipairs(redis.call('ZRANGEBYSCORE', owners, '-inf', '(' .. string.format('%.6f', now))) do
  for _, kind in ipairs(KINDS) do add(spent, kind, number(held_by(name), kind)) end
  redis.call('DEL', held_by(name))
  redis.call('ZREM', owners, name)
end

local function sums()
  local used, held = {}, {0, 0, 0}
  for i, kind in ipairs(KINDS) do used[i] = number(spent, kind) end
  for _, name in ipairs(redis.call('ZRANGE', owners, 0, -1)) do
    for i, kind in ipairs(KINDS) do held[i] = held[i] + number(held_by(name), kind) end
  end
  return used, held
end

local mine, denied = held_by(owner), -1
if ARGV[7] == 'reserve' then
  local used, held = sums()
  for i = 1, 3 do
    local limit, wanted = tonumber(ARGV[8 + i]), tonumber(ARGV[11 + i])
    if limit and denied < 0 then
      local taken = used[i] + held[i]
      if (taken >= limit and (ARGV[8] == '1' or i ~= 3)) or taken + wanted > limit then denied = i - 1 end
    end
  end
  if denied < 0 then
    for i, kind in ipairs(KINDS) do add(mine, kind, tonumber(ARGV[11 + i])) end
    redis.call('ZADD', owners, string.format('%.6f', now + lease), owner)
  end
elseif redis.call('GET', KEYS[1] .. ':done:' .. ARGV[1]) == false then
  local left = false
  for i, kind in ipairs(KINDS) do
    local has, held = number(mine, kind), tonumber(ARGV[11 + i])
    local freed = math.min(has, held)
    add(mine, kind, -freed)
    if has > freed then left = true end
    -- Where the lease had expired, the rest of what was held is spent already.
    add(spent, kind, tonumber(ARGV[14 + i]) - (held - freed))
  end
  if not left then
    redis.call('DEL', mine)
    redis.call('ZREM', owners, owner)
  end
  -- A settlement whose answer is lost is sent again.
  redis.call('SET', KEYS[1] .. ':done:' .. ARGV[1], '1', 'EX', ARGV[6])
end

if seconds > 0 then
  local expires = string.format('%.0f', (tonumber(window) + 1) * seconds + tonumber(ARGV[6]))
  for _, key in ipairs({spent, owners, mine}) do redis.call('EXPIREAT', key, expires) end
end
local used, held = sums()
local answer = {window, denied}
for i = 1, 3 do
  answer[2 + i], answer[5 + i] = string.format('%.0f', used[i]), string.format('%.0f', held[i])
end
return answer
"""
)

_RENEW = (
    _COMMON
    + """
-- KEYS[1]: the account; ARGV: owner, lease, window
local owners = KEYS[1] .. ':' .. ARGV[3] .. ':owners'
return redis.call('ZADD', owners, 'XX', string.format('%.6f', now + tonumber(ARGV[2])), ARGV[1])
"""
)


class RedisState:
    """Sums in Redis 6 or later, or in Valkey.

    Args:
        url: `redis://` or `valkey://`, or `rediss://` or `valkeys://` with TLS; it may have a user and a password.
        timeout_s: seconds after which a server that does not answer counts as away.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        scheme, rest = url.split("://", 1)
        url = f"{scheme.replace('valkey', 'redis')}://{rest}"
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=None,
                client_name="tracemind-otel",
            )
            self._order = self._redis.register_script(_ORDER)
            self._renew = self._redis.register_script(_RENEW)
            self._redis.ping()
        except (redis.RedisError, ValueError) as error:
            raise _away(error) from None
        self._holding: set[tuple[str, int]] = set()
        """The accounts and windows in which this process may hold something."""

    def apply(self, owner: str, orders: Sequence[Order], lease_s: float) -> list[Answer]:
        """Carry out orders in one round trip."""
        try:
            return self._applied(owner, orders, lease_s)
        except (redis.RedisError, ValueError) as error:
            raise _away(error) from None

    def renew(self, owner: str, lease_s: float) -> None:
        """Extend the lease of an owner in every account in which it may hold something."""
        try:
            for key, window in list(self._holding):
                if not self._is_held(key, window, owner):
                    self._holding.discard((key, window))
                self._renew(keys=[key], args=[owner, lease_s, window])
        except redis.RedisError as error:
            raise _away(error) from None

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _is_held(self, key: str, window: int, owner: str) -> bool:
        return self._redis.zscore(f"{key}:{window}:owners", owner) is not None

    def _applied(self, owner: str, orders: Sequence[Order], lease_s: float) -> list[Answer]:
        self._redis.script_load(_ORDER) if not self._redis.script_exists(self._order.sha)[0] else None
        with self._redis.pipeline(transaction=False) as pipeline:
            for order in orders:
                pipeline.evalsha(self._order.sha, 1, _key(order.account), *_arguments(owner, order, lease_s))
            rows = cast("list[list[bytes | int]]", pipeline.execute())
        answers = [_answer(row) for row in rows]
        for order, answer in zip(orders, answers, strict=True):
            self._holding.add((_key(order.account), answer.window))
        return answers


def _key(account: Account) -> str:
    """The part in braces keeps an account's keys on one node of a cluster."""
    names = f"{len(account.name)}:{account.name}:{account.key}:{account.window_s}"
    return f"tracemind:budget:{{{hashlib.sha256(names.encode()).hexdigest()[:32]}}}"


def _arguments(owner: str, order: Order, lease_s: float) -> list[str | int | float]:
    if isinstance(order, Settle):
        window = "" if order.window is None else order.window
        kind = ["settle", 0, "", "", "", *order.held, *order.used]
        return [order.number, owner, lease_s, order.account.window_s, window, _KEPT_S, *kind]
    limits = ["" if limit is None else limit for limit in order.limits]
    kind = ["reserve", int(order.is_call), *limits, *order.wanted, 0, 0, 0]
    return ["", owner, lease_s, order.account.window_s, "", _KEPT_S, *kind]


def _answer(row: list[bytes | int]) -> Answer:
    window, denied, *sums = (int(value) for value in row)
    return Answer(window, None if denied < 0 else denied, Sums(*sums[:3]), Sums(*sums[3:]))


def _away(error: Exception) -> StateAwayError:
    """The kind of the error alone: its message may repeat the URL."""
    return StateAwayError(type(error).__name__)
