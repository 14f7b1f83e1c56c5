// What Grafana's own code makes of the dashboards: units, the version of the schema, and the columns of tables.
//
//   node values.cjs DASHBOARD.json ...   prints JSON

globalThis.navigator = { languages: ["en-US"] };
const fs = require("node:fs");
const path = require("node:path");
const data = require("@grafana/data");
const { lastValueFrom } = require("rxjs");
globalThis.window = {}; // after the imports, some of which would take it for a browser

// The package does not export its defaults of dashboards to programs, so they are read from its file.
const schemaFolder = path.dirname(require.resolve("@grafana/schema/package.json"));
const model = require(path.join(schemaFolder, "dist/cjs/raw/dashboard/x/types.gen.cjs"));

const units = new Set(data.getValueFormats().flatMap((group) => group.submenu.map((each) => each.value)));

function shown(unit, value) {
  const field = { type: data.FieldType.number, config: { unit } };
  return data.formattedValueToString(data.getDisplayProcessor({ field, theme: data.createTheme() })(value));
}

const ALERT_LABELS = ["__name__", "alertname", "alertstate", "exporter", "gen_ai_request_model", "instance", "job",
  "severity", "tracemind_retry_reason"];

/** The columns of a table, given an answer of two series for each of its queries. */
async function columns(panel) {
  const many = panel.targets.length > 1;
  const grouped = /by \(([^)]*)\)/.exec(panel.targets[0].expr);
  const used = grouped ? grouped[1].split(", ") : ALERT_LABELS;
  const frames = panel.targets.map((target, place) =>
    data.toDataFrame({
      refId: target.refId,
      fields: [
        { name: "Time", type: data.FieldType.time, values: [1, 1] },
        ...used.map((name) => ({ name, type: data.FieldType.string, values: [`${name}-1`, `${name}-2`] })),
        { name: many ? `Value #${target.refId}` : "Value", type: data.FieldType.number, values: [place + 1, place + 2] },
      ],
    }),
  );
  const context = { interpolate: (value) => value };
  const made = await lastValueFrom(data.transformDataFrame(panel.transformations, frames, context));
  return made[0].fields.map((field) => [data.getFieldDisplayName(field, made[0]), field.values.length]);
}

async function main() {
  const transformers = new Map(Object.values(data.standardTransformers).map((each) => [each.id, each]));
  data.standardTransformersRegistry.setInit(() =>
    [...transformers.values()].map((each) => ({ id: each.id, name: each.name, transformation: async () => each })),
  );
  const tables = {};
  const unknownUnits = [];
  for (const file of process.argv.slice(2)) {
    const dashboard = JSON.parse(fs.readFileSync(file, "utf-8"));
    for (const panel of dashboard.panels.filter((each) => each.type !== "row")) {
      const overrides = panel.fieldConfig.overrides.flatMap((each) => each.properties);
      const all = [panel.fieldConfig.defaults.unit, ...overrides.filter((each) => each.id === "unit").map((each) => each.value)];
      unknownUnits.push(...all.filter((unit) => !units.has(unit)));
      if (panel.type === "table") tables[panel.title] = await columns(panel);
    }
  }
  const money = Object.fromEntries([1e-6, 0.0000125, 0.02, 1234.5].map((usd) => [usd, shown("currencyUSD", usd)]));
  console.log(JSON.stringify({ unknownUnits, tables, money, schemaVersion: model.defaultDashboard.schemaVersion }));
}

main();
