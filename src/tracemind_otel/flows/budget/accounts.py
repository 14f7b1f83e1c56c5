"""Which account of the shared state a budget has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

from ...errors import ConfigError
from ..shared.state_port import MOST, NANO, Account
from ..shared.states import current_state
from .limits import BudgetLimits
from .shares import OnStateAway, Share

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class SharedAccount:
    """The account of a shared budget, before the state is looked for."""

    account: Account
    """The account."""
    on_state_away: OnStateAway
    """Whether a call is denied or sent while the state is away."""

    def share(self, limits: BudgetLimits) -> Share:
        """The account in the state of this process.

        Raises:
            ConfigError: the process has no shared state, or a limit is too high for one.
        """
        client = current_state()
        if client is None:
            raise ConfigError(
                f"budget({self.account.name!r}, ...) is shared by its per or key, and this process has no state; "
                "call configure(state='sqlite:///limits.db') or set TRACEMIND_STATE first"
            )
        if (limits.max_cost_usd or 0.0) * NANO > MOST:
            raise ConfigError(
                f"max_cost_usd is {limits.max_cost_usd!r}; a shared budget has at most {MOST // NANO} USD"
            )
        return Share(client, self.account, limits, self.on_state_away)


def shared_account(
    name: str | None, key: str | None, per: str | None, on_state_away: OnStateAway
) -> SharedAccount | None:
    """The account of a budget with a window or a key; `None` for a budget of one process.

    Raises:
        ConfigError: an argument is wrong, or the name is missing.
    """
    if on_state_away not in get_args(OnStateAway):
        raise ConfigError(f"on_state_away is {on_state_away!r}; it must be 'deny' or 'allow'")
    if per is None and key is None:
        return None
    if not name:
        raise ConfigError("a budget with per or key is shared by its name; pass name='team-a' too")
    texts: dict[str, object] = {"name": name, "key": key}
    for field, value in texts.items():
        if value is not None and (not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME):
            raise ConfigError(f"{field} of a shared budget must be a string of 1 to {_LONGEST_NAME} characters")
    return SharedAccount(Account(name, key or "", _seconds(per)), on_state_away)


def _seconds(per: object) -> int:
    if per is None:
        return 0
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", per) if isinstance(per, str) else None
    if found is None:
        raise ConfigError(
            f"per is {per!r}; it must be a number of seconds, minutes, hours or days, as in '30s' or '1d'"
        )
    return int(found[1]) * _UNITS[found[2]]
