"""Writes a dashboard as Grafana's JSON, in the schema of the Grafana that docker-compose.yml pins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from .model import Column, Dashboard, Panel, Query, Row, Variable

Json = dict[str, Any]

SCHEMA_VERSION = 42
"""Of Grafana 13.2; tests/tools compares it with Grafana's own package."""
TAG = "tracemind"
"""The tag by which the dashboards link to each other."""
PROMETHEUS: Json = {"type": "prometheus", "uid": "${datasource}"}
JAEGER = "http://127.0.0.1:16686"
"""Jaeger's page of docker-compose.yml, as a browser on the same machine sees it."""
MAX_COLUMNS = 24
TYPES = {"stat": "stat", "series": "timeseries", "bars": "bargauge", "table": "table"}


def dashboard_json(dashboard: Dashboard) -> Json:
    """The dashboard as Grafana imports it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables(dashboard))},
        "annotations": {"list": [_alerts(dashboard)]},
        "links": [_links()],
        "panels": list(_placed(dashboard.rows)),
    }


def _variables(dashboard: Dashboard) -> Iterator[Json]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}
    yield from map(_variable, dashboard.variables)
    if dashboard.has_jaeger:
        current = {"text": JAEGER, "value": JAEGER}
        yield {"name": "jaeger", "label": "Jaeger's page", "type": "textbox", "query": JAEGER, "current": current}


def _variable(variable: Variable) -> Json:
    query = f"label_values({variable.metric}{variable.within}, {variable.label})"
    return {
        "name": variable.name,
        "label": variable.title,
        "type": "query",
        "datasource": PROMETHEUS,
        "query": {"qryType": 1, "query": query, "refId": "Values"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _alerts(dashboard: Dashboard) -> Json:
    """Marks the time in which an alert fires."""
    jobs = any(variable.name == "job" for variable in dashboard.variables)
    matchers = '{alertstate="firing", job=~"$job"}' if jobs else '{alertstate="firing", alertname=~"Collector.*"}'
    return {
        "name": "Alerts",
        "datasource": PROMETHEUS,
        "enable": True,
        "iconColor": "red",
        "target": {"expr": f"ALERTS{matchers}", "refId": "Alerts", "interval": "60s"},
        "titleFormat": "{{alertname}}",
        "textFormat": "{{job}} {{gen_ai_request_model}} {{tracemind_retry_reason}} {{exporter}}",
        "tagKeys": "severity",
    }


def _links() -> Json:
    return {
        "title": "Other dashboards",
        "type": "dashboards",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
    }


def _placed(rows: Sequence[Row]) -> Iterator[Json]:
    """The headings and panels, each with its place and number."""
    number, y = 1, 0
    for row in rows:
        grid = {"x": 0, "y": y, "w": MAX_COLUMNS, "h": 1}
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": grid, "panels": []}
        number, y, x, line_height = number + 1, y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > MAX_COLUMNS:
                x, y, line_height = 0, y + line_height, 0
            yield {"id": number, "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height}, **_panel(panel)}
            number, x, line_height = number + 1, x + panel.width, max(line_height, panel.height)
        y += line_height


def _panel(panel: Panel) -> Json:
    made: Json = {
        "type": TYPES[panel.kind],
        "title": panel.title,
        "description": panel.description,
        "datasource": PROMETHEUS,
        "targets": [_target(panel, query, name) for query, name in zip(panel.queries, ascii_uppercase, strict=False)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": OPTIONS[panel.kind],
    }
    if panel.kind == "series":
        made["interval"] = "1m"
    if panel.kind == "table":
        made |= _table(panel)
    return made


def _target(panel: Panel, query: Query, name: str) -> Json:
    is_instant = panel.kind != "series"
    made: Json = {
        "refId": name,
        "datasource": PROMETHEUS,
        "editorMode": "code",
        "expr": query.expression,
        "instant": is_instant,
        "range": not is_instant,
    }
    if panel.kind == "table":
        return made | {"format": "table"}
    return made | {"legendFormat": query.legend or "__auto", "exemplar": query.has_exemplars}


def _defaults(panel: Panel) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    if panel.warn_from is not None:
        steps.append({"color": "red", "value": panel.warn_from})
    made: Json = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "series":
        made["color"] = {"mode": "palette-classic"}
        lines = "off" if panel.warn_from is None else "line"
        made["custom"] = {"fillOpacity": 10, "showPoints": "auto", "thresholdsStyle": {"mode": lines}}
        made["min"] = 0
    else:
        made["color"] = {"mode": "thresholds"}
    if panel.maximum is not None:
        made["max"] = panel.maximum
    return made


_REDUCED: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}

OPTIONS: Mapping[str, Json] = {
    "stat": {
        "reduceOptions": _REDUCED,
        "orientation": "auto",
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    },
    "series": {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "bars": {
        "reduceOptions": _REDUCED,
        "orientation": "horizontal",
        "displayMode": "gradient",
        "valueMode": "color",
        "namePlacement": "auto",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizWidth": 8,
        "minVizHeight": 16,
        "maxVizHeight": 300,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
    },
    "table": {"showHeader": True, "frameIndex": 0, "cellHeight": "sm"},
}


def _table(panel: Panel) -> Json:
    """Joins the answers by their labels, and names, orders and links the columns."""
    fields = {query.legend: f"Value #{name}" for query, name in zip(panel.queries, ascii_uppercase, strict=False)}
    if len(panel.queries) == 1:
        fields = {panel.queries[0].legend: "Value"}
    shown = {fields.get(source, source): column for source, column in panel.columns.items()}
    hidden = ["Time", "__name__", "instance", "alertstate", *(set(fields.values()) - shown.keys())]
    organize = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {name: place for place, name in enumerate(shown)},
        "renameByName": {name: column.title for name, column in shown.items()},
    }
    return {
        "transformations": [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}],
        "fieldConfig": {
            "defaults": {"unit": "none", "custom": {"align": "auto", "filterable": True}},
            "overrides": [_override(column) for column in shown.values()],
        },
    }


def _override(column: Column) -> Json:
    properties: list[Json] = [{"id": "unit", "value": column.unit}]
    if column.links:
        links = [{"title": link.title, "url": link.url, "targetBlank": True} for link in column.links]
        properties.append({"id": "links", "value": links})
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}
