"""Which account of the shared state a budget has."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import get_args

from ...errors import ConfigError
from ..shared.state_port import MOST, NANO, Account
from ..shared.states import current_state
from .limits import BudgetLimits
from .shares import OnStateAway, Share

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST = 256


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a budget is shared, before its name and the state are known."""

    key: str | None
    """The user, team or API key that the sum is for; `None` for one sum for all."""
    window_s: int
    """Seconds of a window; 0 for one window without an end."""
    on_state_away: OnStateAway
    """Whether a call is denied or sent while the state is away."""

    @classmethod
    def of(cls, *, key: str | None, per: str | None, on_state_away: OnStateAway) -> Sharing:
        """From user input.

        Raises:
            ConfigError: an argument is wrong.
        """
        _check_policy(on_state_away)
        return cls(None if key is None else checked_string("key", key), _seconds(per), on_state_away)

    def by_key(self, key: object) -> Sharing:
        """The same for a key.

        Raises:
            ConfigError: it is not a string, or it is too long or empty.
        """
        return replace(self, key=checked_string("key", key))

    def share(self, name: str, limits: BudgetLimits) -> Share:
        """The account of a budget of this name, in the state of this process.

        Raises:
            ConfigError: the process has no shared state, or the name or a limit does not fit one.
        """
        account = Account(checked_string("name", name), self.key or "", self.window_s)
        client = current_state()
        if client is None:
            raise ConfigError(
                f"budget {name!r} is shared by its per or key, and this process has no state; "
                "call configure(state='sqlite:///limits.db') first, or configure() where TRACEMIND_STATE is set"
            )
        if (limits.max_cost_usd or 0.0) * NANO > MOST:
            raise ConfigError(
                f"max_cost_usd is {limits.max_cost_usd!r}; a shared budget has at most {MOST // NANO} USD"
            )
        return Share(client, account, limits, self.on_state_away)


def sharing(
    *, key: str | None, per: str | None, on_state_away: OnStateAway, has_key_later: bool = False
) -> Sharing | None:
    """How a budget with a window or a key is shared; `None` for a budget of one process.

    Args:
        key: the key.
        per: the window.
        on_state_away: the policy.
        has_key_later: whether each run computes its key.

    Raises:
        ConfigError: an argument is wrong, or a policy has nothing to decide.
    """
    if per is not None or key is not None or has_key_later:
        return Sharing.of(key=key, per=per, on_state_away=on_state_away)
    _check_policy(on_state_away)
    if on_state_away != "deny":
        raise ConfigError(f"on_state_away={on_state_away!r} is for a shared budget; pass per='1d' or key=... too")
    return None


def _check_policy(on_state_away: object) -> None:
    if on_state_away not in get_args(OnStateAway):
        raise ConfigError(f"on_state_away is {on_state_away!r}; it must be 'deny' or 'allow'")


def checked_string(field: str, value: object) -> str:
    """The name or the key of an account.

    Raises:
        ConfigError: it is not a string, is too long or empty, or cannot be stored.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
        found = f"a string of {len(value)} characters" if isinstance(value, str) else type(value).__name__
        raise ConfigError(f"{field} of a shared budget is {found}; it must be a string of 1 to {_LONGEST} characters")
    try:
        value.encode()
    except UnicodeEncodeError:  # json.loads() makes such strings
        raise ConfigError(
            f"{field} of a shared budget has half of a surrogate pair, which no state can store; "
            f"remove it, as {field}.encode(errors='replace').decode() does"
        ) from None
    return value


def _seconds(per: object) -> int:
    if per is None:
        return 0
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", per) if isinstance(per, str) else None
    if found is None:
        raise ConfigError(
            f"per is {per!r}; it must be a number of seconds, minutes, hours or days, as in '30s' or '1d'"
        )
    return int(found[1]) * _UNITS[found[2]]
