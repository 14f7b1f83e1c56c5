// Dashboards as Grafana's own packages type them, without its catch-all fields: the compiler rejects a misspelt field.

import type * as model from "./node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen";
import type * as bars from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as lines from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
import type { PromOptions, PromVariableQuery } from "./prometheus/types";
import type { Prometheus } from "./prometheus/dataquery";

/** The same type for values from JSON, where a member of an enumeration is its string. */
type Plain<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends Array<infer Each>
      ? Plain<Each>[]
      : T extends object
        ? { [Key in keyof T]: Plain<T[Key]> }
        : T;

interface DataLink {
  title: string;
  url: string;
  targetBlank?: boolean;
}

type Override = {
  matcher: { id: "byName"; options: string };
  properties: ({ id: "unit"; value: string } | { id: "links"; value: DataLink[] })[];
};

type Transformation =
  | { id: "merge"; options: Record<string, never> }
  | {
      id: "organize";
      options: {
        excludeByName: Record<string, boolean>;
        indexByName: Record<string, number>;
        renameByName: Record<string, string>;
      };
    };

interface Field<Custom> extends Omit<model.FieldConfig, "custom" | "links"> {
  custom?: Custom;
  links?: DataLink[];
}

interface Shown<Type extends string, Options, Custom>
  extends Omit<model.Panel, "type" | "options" | "targets" | "fieldConfig" | "transformations"> {
  type: Type;
  options: Options;
  targets: Prometheus[];
  fieldConfig: { defaults: Field<Custom>; overrides: Override[] };
  transformations?: Transformation[];
}

type Panel =
  | Shown<"stat", Partial<stat.Options>, never>
  | Shown<"bargauge", Partial<bars.Options>, never>
  | Shown<"timeseries", Partial<lines.Options>, lines.FieldConfig>
  | Shown<"table", Partial<table.Options>, Partial<table.FieldConfig>>;

interface Annotation extends Omit<model.AnnotationQuery, "target"> {
  target: { expr: string; refId: string; interval?: string };
  titleFormat?: string;
  textFormat?: string;
  tagKeys?: string;
}

interface Variable extends Omit<model.VariableModel, "query"> {
  query: string | PromVariableQuery;
}

interface Dashboard extends Omit<model.Dashboard, "panels" | "annotations" | "templating"> {
  panels: (Panel | model.RowPanel)[];
  annotations: { list: Annotation[] };
  templating: { list: Variable[] };
}

export type PlainDashboard = Plain<Dashboard>;
export type PlainOptions = Plain<PromOptions>;
