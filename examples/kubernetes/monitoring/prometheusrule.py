"""Print the rules of collector/rules/ as PrometheusRules, for the Prometheus operator.

python examples/kubernetes/monitoring/prometheusrule.py | kubectl apply --namespace observability -f -
"""

from pathlib import Path
from textwrap import indent

RULES = Path(__file__).resolve().parents[3] / "collector" / "rules"
HEAD = """\
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tracemind-{name}
spec:
"""


def main() -> None:
    for path in sorted(RULES.glob("*.yml")):
        print(HEAD.format(name=path.stem) + indent(path.read_text(encoding="utf-8"), "  "))


if __name__ == "__main__":
    main()
