"""The dashboards for Grafana and the series that Prometheus records for them.

`python -m collector.grafana` writes `dashboards/*.json` and `../rules/dashboards.yml`.
"""
