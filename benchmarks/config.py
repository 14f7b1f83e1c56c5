"""What a configuration and its request cost, in CPU time."""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.overhead import MODEL, PROMPT
from tracemind_otel import LLMCallConfig


def cpu_us(times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        LLMCallConfig("openai", MODEL, prompt=PROMPT, temperature=0.2, top_p=0.9).request()
    return (time.process_time() - started) / times * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="slices (default 20)")
    options = parser.parse_args()
    gc.collect()
    gc.freeze()
    print(json.dumps({"us": round(statistics.median(cpu_us(5000) for _ in range(options.rounds)), 2)}, indent=2))


if __name__ == "__main__":
    main()
