"""The programs of the pages about calls of other SDKs do what the pages say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import write_files
from tests.programs import run
from tests.sdks.provider_fixture import ProviderServer, usd
from tests.sdks.provider_fixture import provider_server as provider_server

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/how-to/sdks.md"])
def test_the_first_program_prints_its_cost(page: str, provider_server: ProviderServer, tmp_path: Path) -> None:
    """With `configure()` alone the flow knows what the SDK's call cost, and how often it was repeated."""
    write_files(page, tmp_path)
    base = provider_server.case("openai", {"status": 429}, {})
    environment = {
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": f"{base}/v1",
        "TRACEMIND_HOSTS": f"127.0.0.1:{provider_server.port}=openai",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "NO_PROXY": "127.0.0.1",
    }
    ran = run("app.py", directory=tmp_path, environment=environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    cost, retries = ran.stdout.split()
    assert float(cost) == pytest.approx(usd(provider_server.ledger(base)), rel=1e-9)
    assert retries == "1"
