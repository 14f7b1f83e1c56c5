"""How AWS's SDK is asked for models on Bedrock."""

from __future__ import annotations

import importlib
from typing import Any

from tests.sdks.cell import Cells

cell = Cells()

ASKED: dict[str, Any] = {
    "modelId": "amazon.nova-pro-v1:0",
    "messages": [{"role": "user", "content": [{"text": "How much?"}]}],
    "inferenceConfig": {"temperature": 0.5, "maxTokens": 100},
}


def _bedrock(base: str, mode: str = "standard") -> Any:
    config = importlib.import_module("botocore.config").Config(retries={"mode": mode, "max_attempts": 3}, proxies={})
    return importlib.import_module("boto3").client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=base,
        aws_access_key_id="k",
        aws_secret_access_key="k",
        config=config,
    )


def _kept(reply: dict[str, Any]) -> dict[str, Any]:
    """The reply without the headers and the number of attempts."""
    return {name: value for name, value in reply.items() if name != "ResponseMetadata"}


@cell("bedrock")
def boto3_converse(base: str) -> Any:
    return _kept(_bedrock(base).converse(**ASKED))


@cell("bedrock")
def boto3_converse_legacy(base: str) -> Any:
    return _kept(_bedrock(base, "legacy").converse(**ASKED))


@cell("bedrock", is_stream=True)
def boto3_converse_stream(base: str) -> Any:
    return list(_bedrock(base).converse_stream(**ASKED)["stream"])
