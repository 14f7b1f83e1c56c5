"""A shared state in a Redis or Valkey server; every order is one Lua script, which the server runs atomically."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import redis
from redis.exceptions import NoScriptError

from .state_port import Account, Answer, Order, Settle, StateAwayError, Sums

_PREFIX = "tracemind:budget"
"""What every key begins with."""
_KEPT_S = 86_400
"""How long a window is kept after its end, for calls that began in it."""

_REMEMBERED_S = 600
"""How long the number of an order is remembered, which is sent again if the server was away when it answered."""

_SCRIPT = """
-- KEYS[1]: the account
-- ARGV: 1 number, 2 owner, 3 seconds of the lease, 4 seconds of the window, 5 window or '', 6 seconds it is kept,
-- 7 seconds a number is remembered, 8 'reserve' or 'settle', 9 '1' where a call begins, or the number of the
-- reservation that must have been granted, 10-12 limits or '', 13-15 amounts wanted or held, 16-18 amounts used
local KINDS = {'usd', 'tokens', 'calls'}
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local owner, lease, seconds, window = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local function numbered(name) return KEYS[1] .. ':order:' .. name end
local granted = ARGV[8] == 'settle' and ARGV[9] ~= '' and redis.call('GET', numbered(ARGV[9]))
if granted then window = granted end
if window == '' then
  window = seconds == 0 and '0' or string.format('%.0f', math.floor(now / seconds))
end
local sums, owners = KEYS[1] .. ':' .. window .. ':sums', KEYS[1] .. ':' .. window .. ':owners'
local function held_by(name) return KEYS[1] .. ':' .. window .. ':held:' .. name end
local function amount(key, field) return tonumber(redis.call('HGET', key, field) or '0') end
local function add(key, field, more)
  if more ~= 0 then redis.call('HINCRBY', key, field, string.format('%.0f', more)) end
end
local function remember(value) redis.call('SET', numbered(ARGV[1]), value, 'EX', ARGV[7]) end

-- What owners hold whose leases have expired is spent.
for _, name in ipairs(redis.call('ZRANGEBYSCORE', owners, '-inf', '(' .. string.format('%.6f', now))) do
  for _, kind in ipairs(KINDS) do
    local held = amount(held_by(name), kind)
    add(sums, 'held_' .. kind, -held)
    add(sums, kind, held)
  end
  redis.call('DEL', held_by(name))
  redis.call('ZREM', owners, name)
end

local mine, denied = held_by(owner), -1
local function settle()
  local is_left = false
  for i, kind in ipairs(KINDS) do
    local has, held = amount(mine, kind), tonumber(ARGV[12 + i])
    local freed = math.min(has, held)
    add(mine, kind, -freed)
    add(sums, 'held_' .. kind, -freed)
    -- Where the lease had expired, the rest of what was held is spent already, unless the server lost its data.
    add(sums, kind, tonumber(ARGV[15 + i]) - math.min(held - freed, amount(sums, kind)))
    is_left = is_left or has > freed
  end
  if not is_left then
    redis.call('DEL', mine)
    redis.call('ZREM', owners, owner)
  end
  remember('settled')
end

if ARGV[8] == 'reserve' then
  for i, kind in ipairs(KINDS) do
    local limit, wanted = tonumber(ARGV[9 + i]), tonumber(ARGV[12 + i])
    if limit and denied < 0 then
      local taken = amount(sums, kind) + amount(sums, 'held_' .. kind)
      local is_full = taken >= limit and (ARGV[9] == '1' or i ~= 3)
      if is_full or taken + wanted > limit then denied = i - 1 end
    end
  end
  if denied < 0 then
    for i, kind in ipairs(KINDS) do
      add(mine, kind, tonumber(ARGV[12 + i]))
      add(sums, 'held_' .. kind, tonumber(ARGV[12 + i]))
    end
    redis.call('ZADD', owners, string.format('%.6f', now + lease), owner)
    remember(window)
  end
elseif redis.call('EXISTS', numbered(ARGV[1])) == 0 and (ARGV[9] == '' or granted) then
  settle()
end

if seconds > 0 then
  local expires = string.format('%.0f', (tonumber(window) + 1) * seconds + tonumber(ARGV[6]))
  for _, key in ipairs({sums, owners, mine}) do redis.call('EXPIREAT', key, expires) end
end
local answer = {window, denied}
for i, kind in ipairs(KINDS) do
  answer[2 + i] = string.format('%.0f', amount(sums, kind))
  answer[5 + i] = string.format('%.0f', amount(sums, 'held_' .. kind))
end
-- Rounded up, so that a caller that waits this long is not too early.
answer[9] = seconds == 0 and -1 or math.ceil(math.max((tonumber(window) + 1) * seconds - now, 0) * 1000)
return answer
"""


_REASONS = {
    "ConnectionError": "ConnectionError: no server can be reached there",
    "TimeoutError": "TimeoutError: the server did not answer in time",
    "AuthenticationError": "AuthenticationError: the server rejects the user or the password of the URL",
    "AuthenticationWrongNumberOfArgsError": "AuthenticationError: the server knows no users; pass a password alone",
    "NoPermissionError": "NoPermissionError: the user's ACL must allow the keys tracemind:budget:* and the commands",
    "OutOfMemoryError": "OutOfMemoryError: the server's maxmemory is reached; raise it",
    "ReadOnlyError": "ReadOnlyError: the server is a read-only replica; use the URL of its primary",
    "MovedError": "MovedError: the server is a node of a cluster; use a server outside of a cluster",
    "ClusterDownError": "ClusterDownError: the server is a node of a cluster that is down",
    "MasterDownError": "MasterDownError: the server is a replica that has lost its primary; use the URL of its primary",
    "BusyLoadingError": "BusyLoadingError: the server loads its data",
}
"""What is wrong, and what to do, for the errors of the client."""

_CODES = {
    "BUSY": "BUSY: the server runs another client's script; end it by SCRIPT KILL",
    "MISCONF": "MISCONF: the server cannot save its data; make room on its disk",
    "NOREPLICAS": "NOREPLICAS: the server has fewer replicas than min-replicas-to-write asks for",
}
"""The same for codes of a server that the client has no error for."""


def knows_options_of(url: str) -> bool:
    """Whether every parameter of a URL is one of the client's, with a value that it takes."""
    try:
        _client(url, 1.0).connection_pool.make_connection()
    except (TypeError, ValueError, redis.RedisError):
        return False
    return True


def _client(url: str, timeout_s: float) -> Any:
    scheme, rest = url.split("://", 1)
    return cast("Any", redis.Redis).from_url(
        f"{scheme.replace('valkey', 'redis')}://{rest}",
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=None,
        client_name="tracemind-otel",
    )


class RedisState:
    """Sums in Redis 6 or later, or in Valkey.

    Args:
        url: `redis://` or `valkey://`, or `rediss://` or `valkeys://` with TLS; it may have a user and a password.
        timeout_s: seconds after which a server that does not answer counts as away.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        try:
            self._redis = _client(url, timeout_s)
            self._script = str(self._redis.script_load(_SCRIPT))
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
        holding = list(self._holding)
        try:
            seconds, micros = self._redis.time()
            with self._redis.pipeline(transaction=False) as pipeline:
                for key, window in holding:
                    expires = {owner: seconds + micros / 1e6 + lease_s}
                    pipeline.zadd(f"{key}:{window}:owners", expires, xx=True, ch=True)
                is_held = pipeline.execute()
        except redis.RedisError as error:
            raise _away(error) from None
        self._holding = {place for place, held in zip(holding, is_held, strict=True) if held}

    def accounts(self) -> int:
        """How many accounts have sums."""
        try:
            found = self._redis.scan_iter(match=f"{_PREFIX}:{{*}}:*:sums", count=1_000)
            return len({bytes(key).partition(b"}")[0] for key in found})
        except redis.RedisError as error:
            raise _away(error) from None

    def before_fork(self) -> None:
        """Nothing: the child never uses the connections that it inherits."""

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _applied(self, owner: str, orders: Sequence[Order], lease_s: float) -> list[Answer]:
        try:
            rows = self._sent(owner, orders, lease_s)
        except NoScriptError:  # the server was started anew
            self._redis.script_load(_SCRIPT)
            rows = self._sent(owner, orders, lease_s)
        answers = [_answer(row) for row in rows]
        for order, answer in zip(orders, answers, strict=True):
            self._holding.add((_key(order.account), answer.window))
        return answers

    def _sent(self, owner: str, orders: Sequence[Order], lease_s: float) -> list[list[bytes | int]]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for order in orders:
                pipeline.evalsha(self._script, 1, _key(order.account), *_arguments(owner, order, lease_s))
            return cast("list[list[bytes | int]]", pipeline.execute())


def _key(account: Account) -> str:
    """The part in braces keeps an account's keys on one node of a cluster."""
    names = f"{len(account.name)}:{account.name}:{account.key}:{account.window_s}"
    return f"{_PREFIX}:{{{hashlib.sha256(names.encode()).hexdigest()[:32]}}}"


def _arguments(owner: str, order: Order, lease_s: float) -> list[str | int | float]:
    """In the order of `ARGV`."""
    window: str | int = ""
    what: list[str | int | float]
    if isinstance(order, Settle):
        window = "" if order.window is None else order.window
        what = ["settle", order.if_granted or "", "", "", "", *order.held, *order.used]
    else:
        limits = ["" if limit is None else limit for limit in order.limits]
        what = ["reserve", int(order.is_call), *limits, *order.wanted, 0, 0, 0]
    return [order.number, owner, lease_s, order.account.window_s, window, _KEPT_S, _REMEMBERED_S, *what]


def _answer(row: list[bytes | int]) -> Answer:
    window, denied, *sums, ends_in_ms = (int(value) for value in row)
    ends_in_s = None if ends_in_ms < 0 else ends_in_ms / 1000
    return Answer(window, None if denied < 0 else denied, Sums(*sums[:3]), Sums(*sums[3:]), ends_in_s)


def _away(error: Exception) -> StateAwayError:
    """A reason in our words: the error's own message may repeat the URL, and with it a password."""
    name, said = type(error).__name__, str(error)
    by_code = (reason for code, reason in _CODES.items() if f"{code} " in said)
    return StateAwayError(_REASONS.get(name) or next(by_code, name))
