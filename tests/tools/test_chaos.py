"""Nothing is lost and nothing is counted twice while the provider, the Collector and the application fail.

The short form of `make chaos`: the real Collector is killed twice, stopped, and made to answer 503 and 429; with a
spool on disk the application is killed half-way and started again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from benchmarks.chaos.__main__ import SHORT_S, run

pytestmark = [pytest.mark.tools, pytest.mark.slow]


@pytest.mark.parametrize("spool", ["memory", "disk"])
def test_the_accounts_agree_after_chaos(tmp_path: Path, spool: Literal["memory", "disk"]) -> None:
    """Each span that ended is in the store once, and spans, counter and ledger have the same cost."""
    accounts = run(folder=tmp_path, seconds=SHORT_S, rate=60.0, seed=7, spool=spool, say=print)

    assert accounts.delivered
    assert accounts.calls > 800
    assert (accounts.spans_lost, accounts.spans_twice, accounts.orphans) == (0, 0, 0)
    assert accounts.spans_usd == pytest.approx(accounts.ledger_usd, abs=1e-9)
    assert accounts.counter_usd == pytest.approx(accounts.ledger_usd, abs=1e-9)
