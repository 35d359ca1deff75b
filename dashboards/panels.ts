// The kinds of panels, with what every one of them must say: a title, a description, a unit, and why it may be empty.
import {
  BigValueColorMode,
  BigValueGraphMode,
  BigValueTextMode,
  GraphDrawStyle,
  LegendDisplayMode,
  LegendPlacement,
  ReduceDataOptionsBuilder,
  SortOrder,
  StackingConfigBuilder,
  StackingMode,
  TooltipDisplayMode,
  VisibilityMode,
  VizLegendOptionsBuilder,
  VizTooltipOptionsBuilder,
} from '@grafana/grafana-foundation-sdk/common'
import {
  type Panel,
  PanelBuilder,
  ThresholdsConfigBuilder,
  ThresholdsMode,
} from '@grafana/grafana-foundation-sdk/dashboard'
import { PanelBuilder as StatBuilder } from '@grafana/grafana-foundation-sdk/stat'
import { PanelBuilder as TableBuilder } from '@grafana/grafana-foundation-sdk/table'
import { PanelBuilder as TimeseriesBuilder } from '@grafana/grafana-foundation-sdk/timeseries'
import type { Link } from './links.ts'
import { built, type Query } from './sources.ts'

/** What the grid is cut into. */
export const gridColumns = 24

type Described = {
  /** Stays with the panel for ever: links and alerts name it. */
  readonly id: number
  readonly title: string
  readonly description: string
  /** Shown when the query finds nothing: what that means, or where to look. */
  readonly noValue: string
  readonly queries: readonly Query[]
  readonly width?: number
  readonly height?: number
}

export type PanelPlan = { readonly width: number; readonly height: number; build(): Panel }

/** Green below the first number, orange from it, red from the second; or the other way round where more is better. */
export type Thresholds = { readonly warn: number; readonly bad: number; readonly isMoreBetter?: boolean }

function thresholdsOf(thresholds: Thresholds | undefined): ThresholdsConfigBuilder {
  const builder = new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute)
  if (thresholds === undefined) return builder.steps([{ value: null, color: 'green' }])
  const { warn, bad, isMoreBetter = false } = thresholds
  return builder.steps(
    isMoreBetter
      ? [
          { value: null, color: 'red' },
          { value: bad, color: 'orange' },
          { value: warn, color: 'green' },
        ]
      : [
          { value: null, color: 'green' },
          { value: warn, color: 'orange' },
          { value: bad, color: 'red' },
        ],
  )
}

export function chart(
  options: Described & {
    readonly unit: string
    /** Where the ranked rows behind the chart are. */
    readonly rows: Link
    readonly kind?: 'lines' | 'bars'
    readonly max?: number
    readonly thresholds?: Thresholds
    /** The shortest bucket, for what is measured once a minute. */
    readonly interval?: string
  },
): PanelPlan {
  const { width = 12, height = 8, kind = 'lines' } = options
  return {
    width,
    height,
    build: () => {
      const builder = new TimeseriesBuilder()
        .id(options.id)
        .title(options.title)
        .description(options.description)
        .noValue(options.noValue)
        .unit(options.unit)
        .min(0)
        .targets(options.queries.map(built))
        .thresholds(thresholdsOf(options.thresholds))
        .drawStyle(kind === 'bars' ? GraphDrawStyle.Bars : GraphDrawStyle.Line)
        .fillOpacity(kind === 'bars' ? 80 : 8)
        .showPoints(VisibilityMode.Auto)
        // A gap is a gap: no line is drawn over minutes in which nothing was asked.
        .spanNulls(false)
        .legend(
          new VizLegendOptionsBuilder()
            .showLegend(true)
            .displayMode(LegendDisplayMode.List)
            .placement(LegendPlacement.Bottom),
        )
        .tooltip(new VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Multi).sort(SortOrder.Descending))
      if (kind === 'bars') builder.stacking(new StackingConfigBuilder().mode(StackingMode.Normal).group('A'))
      if (options.max !== undefined) builder.max(options.max)
      if (options.interval !== undefined) builder.interval(options.interval)
      // Of every field; the SDK's own way writes a dozen fields of dashboard links beside them.
      return builder.overrideByRegexp('/.*/', [{ id: 'links', value: [options.rows] }]).build()
    },
  }
}

export function stat(
  options: Described & {
    readonly unit: string
    readonly thresholds?: Thresholds
    readonly rows?: Link
    readonly decimals?: number
  },
): PanelPlan {
  const { width = 4, height = 4 } = options
  return {
    width,
    height,
    build: () => {
      const builder = new StatBuilder()
        .id(options.id)
        .title(options.title)
        .description(options.description)
        .noValue(options.noValue)
        .unit(options.unit)
        .targets(options.queries.map(built))
        .thresholds(thresholdsOf(options.thresholds))
        .graphMode(BigValueGraphMode.None)
        .colorMode(BigValueColorMode.Value)
        .textMode(BigValueTextMode.Auto)
        .reduceOptions(new ReduceDataOptionsBuilder().calcs(['lastNotNull']).values(false))
      if (options.decimals !== undefined) builder.decimals(options.decimals)
      if (options.rows !== undefined) builder.overrideByRegexp('/.*/', [{ id: 'links', value: [options.rows] }])
      return builder.build()
    },
  }
}

export type Column = {
  readonly unit?: string
  readonly link?: Link
  readonly thresholds?: Thresholds
  readonly width?: number
  readonly decimals?: number
}

export function table(options: Described & { readonly columns: Readonly<Record<string, Column>> }): PanelPlan {
  const { width = gridColumns, height = 9 } = options
  return {
    width,
    height,
    build: () => {
      const builder = new TableBuilder()
        .id(options.id)
        .title(options.title)
        .description(options.description)
        .noValue(options.noValue)
        // Counts, exactly; what is not a count says so below.
        .unit('locale')
        .targets(options.queries.map(built))
        .thresholds(thresholdsOf(undefined))
        .filterable(true)
      for (const [name, column] of Object.entries(options.columns)) builder.overrideByName(name, propertiesOf(column))
      return builder.build()
    },
  }
}

function propertiesOf({ unit, link, thresholds, width, decimals }: Column): { id: string; value: unknown }[] {
  const properties: { id: string; value: unknown }[] = []
  if (unit !== undefined) properties.push({ id: 'unit', value: unit })
  if (decimals !== undefined) properties.push({ id: 'decimals', value: decimals })
  if (width !== undefined) properties.push({ id: 'custom.width', value: width })
  if (link !== undefined) properties.push({ id: 'links', value: [link] })
  if (thresholds !== undefined)
    properties.push(
      { id: 'thresholds', value: thresholdsOf(thresholds).build() },
      { id: 'custom.cellOptions', value: { type: 'color-text' } },
    )
  return properties
}

/** Spans as a waterfall. The SDK has no such panel. */
export function waterfall(options: Described): PanelPlan {
  const { width = gridColumns, height = 16 } = options
  return {
    width,
    height,
    build: () =>
      new PanelBuilder()
        .type('traces')
        .id(options.id)
        .title(options.title)
        .description(options.description)
        .noValue(options.noValue)
        .targets(options.queries.map(built))
        .build(),
  }
}
