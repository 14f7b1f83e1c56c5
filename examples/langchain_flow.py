"""A LangChain program whose model calls are traced and priced. LangChain itself needs no callback and no change.

It needs `pip install langchain-openai`, but no key: without `OPENAI_API_KEY` a local server answers.
"""

from __future__ import annotations

from local_model import stand_in

import tracemind_otel as tm

try:
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_openai import ChatOpenAI
except ImportError as error:
    raise SystemExit(f"{error.name} is not installed: pip install langchain-openai") from error

FILE = "langchain_flow.otlp.jsonl"

stand_in("openai")
tm.configure(service_name="digest", file=FILE)

model = ChatOpenAI(model="gpt-4o-mini")
summarize = ChatPromptTemplate.from_template("Summarize in one line: {article}") | model | StrOutputParser()
title = ChatPromptTemplate.from_template("A title for: {summaries}") | model | StrOutputParser()


@tm.step
def summaries_of(articles: list[str]) -> list[str]:
    return summarize.batch([{"article": article} for article in articles])


@tm.step
def title_of(summaries: list[str]) -> str:
    return title.invoke({"summaries": " ".join(summaries)})


@tm.flow
def digest(articles: list[str]) -> str:
    return title_of(summaries_of(articles))


def main() -> int:
    with tm.flow("morning") as run:
        print(digest(["A lamp was sold at the market.", "It rained all day long.", "The train was on time again."]))
    print(f"{run.llm_calls} calls, {run.retries} retries, ${run.cost_usd:.6f}")
    for name, sums in run.by_step.items():
        print(f"  {name}: {sums.llm_calls} calls, {sums.tokens} tokens")
    print(f"See the trace: python -m tracemind_otel view {FILE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
