/**
 * Line charts as SVG, and as PNG where `@resvg/resvg-js` is installed.
 *
 * Own code, because what is needed is small and fixed (lines, points, two kinds of axis, a grid of panels) while the
 * plotting libraries that work without a DOM weigh many times more than this whole package. The colours are those of
 * Okabe and Ito (2008), which can be told apart with any colour vision.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { ShapeError } from '../core/errors.js';

/** Colours that can be told apart with any colour vision, and a grey for reference curves. */
export const palette = {
  blue: '#0072b2',
  vermilion: '#d55e00',
  green: '#009e73',
  orange: '#e69f00',
  sky: '#56b4e9',
  purple: '#b8608f',
  grey: '#9aa1ab',
  ink: '#20242b',
} as const;

/** One curve or cloud of points. `x` and `y` have the same length; a y that is not finite leaves a gap. */
export interface Series {
  readonly x: ArrayLike<number>;
  readonly y: ArrayLike<number>;
  /** Name in a legend; series with the same label share one entry. */
  readonly label?: string;
  readonly mark?: 'line' | 'dashes' | 'points';
  readonly color: string;
  /** Width of a line, or diameter of a point, in pixels. */
  readonly width?: number;
  readonly opacity?: number;
}

/** One pair of axes. Ranges follow from the data unless given; on a log axis values <= 0 leave a gap. */
export interface Panel {
  readonly title?: string;
  /** Stands right of the title, in grey. */
  readonly note?: string;
  readonly xLabel?: string;
  readonly yLabel?: string;
  readonly xRange?: readonly [number, number];
  readonly yRange?: readonly [number, number];
  readonly logY?: boolean;
  readonly series: readonly Series[];
  /** Column, row, and how many columns and rows it spans, in the figure's grid. */
  readonly cell: readonly [column: number, row: number, columns: number, rows: number];
  /** True: its series are named inside the panel, else beside the figure's title. */
  readonly legend?: boolean;
}

/** Panels in a grid of equal cells below a title. `width` and `height` are pixels at scale 1. */
export interface Figure {
  readonly title: string;
  readonly subtitle?: string;
  readonly width: number;
  readonly height: number;
  readonly columns: number;
  readonly rows: number;
  readonly panels: readonly Panel[];
}

interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}
type Scale = (value: number) => number;

const FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif";
const INK = palette.ink;
const FAINT = '#6b7280';
const GRID = '#e8ebef';
const MARGIN = { left: 26, right: 30, top: 92, bottom: 20 };
const PADDING = { left: 46, right: 8, top: 30, bottom: 42 };

/**
 * Round numbers from within [low, high], about `count` of them, 1, 2, 2.5 or 5 times a power of ten apart.
 */
export function ticks(low: number, high: number, count: number): number[] {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const distance = (factor: number) => Math.abs(Math.log((factor * power) / raw));
  const step =
    power * [1, 2, 2.5, 5, 10].reduce((best, next) => (distance(next) < distance(best) ? next : best));
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** Ticks of a log axis within [low, high], both > 0: powers of ten, and 2 and 5 times them where those are few. */
export function logTicks(low: number, high: number): number[] {
  const powers: number[] = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) powers.push(p);
  const factors = Math.log10(high / low) < 3.2 ? [1, 2, 5] : [1];
  const all = powers.flatMap(p => factors.map(factor => Number(`${factor}e${p}`)));
  return all.filter(value => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9));
}

/** The figure as one SVG document. Throws ShapeError for a series whose x and y differ in length. */
export function toSvg(figure: Figure): string {
  const { width, height } = figure;
  const cell = {
    width: (width - MARGIN.left - MARGIN.right) / figure.columns,
    height: (height - MARGIN.top - MARGIN.bottom) / figure.rows,
  };
  const parts = figure.panels.map((panel, i) => {
    const [column, row, columns, rows] = panel.cell;
    const box = {
      left: MARGIN.left + column * cell.width + PADDING.left,
      top: MARGIN.top + row * cell.height + PADDING.top,
      width: columns * cell.width - PADDING.left - PADDING.right,
      height: rows * cell.height - PADDING.top - PADDING.bottom,
    };
    return drawPanel(panel, box, `panel${i}`);
  });
  const shared = named(figure.panels.filter(panel => !panel.legend).flatMap(panel => panel.series));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="${FONT}" font-size="11.5" fill="${INK}">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    write(MARGIN.left + 10, 36, figure.title, { size: 19, weight: 600 }),
    figure.subtitle ? write(MARGIN.left + 10, 58, figure.subtitle, { size: 12.5, fill: FAINT }) : '',
    drawRow(shared, MARGIN.left + 10, 82),
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

/**
 * Writes `<path>.svg` and, where a rasteriser is installed, `<path>.png` at twice the size; missing folders are made.
 * Returns the paths of the files written.
 */
export async function writeFigure(path: string, figure: Figure): Promise<string[]> {
  const svg = toSvg(figure);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(`${path}.svg`, svg);
  const png = await toPng(svg);
  if (!png) return [`${path}.svg`];
  await writeFile(`${path}.png`, png);
  return [`${path}.svg`, `${path}.png`];
}

/** Rasterises at twice the size, or returns null where `@resvg/resvg-js` is not installed. */
async function toPng(svg: string): Promise<Uint8Array | null> {
  let Resvg: typeof import('@resvg/resvg-js').Resvg;
  try {
    ({ Resvg } = await import('@resvg/resvg-js'));
  } catch {
    return null;
  }
  // Without a font resvg leaves out all text. Inter comes with the development dependencies, so that a picture does
  // not depend on what fonts a machine has; elsewhere the system's fonts must do.
  const fontFiles = interFiles();
  const font = { fontFiles, loadSystemFonts: fontFiles.length === 0, defaultFontFamily: 'Inter' };
  return new Resvg(svg, { font, fitTo: { mode: 'zoom', value: 2 } }).render().asPng();
}

function interFiles(): string[] {
  const require = createRequire(import.meta.url);
  try {
    return ['400Regular/Inter_400Regular.ttf', '600SemiBold/Inter_600SemiBold.ttf'].map(file =>
      require.resolve(`@expo-google-fonts/inter/${file}`),
    );
  } catch {
    return [];
  }
}

function drawPanel(panel: Panel, box: Box, id: string): string {
  for (const { x, y, label } of panel.series) {
    if (x.length === y.length) continue;
    throw new ShapeError(
      `plot: series '${label ?? ''}' has ${x.length} x and ${y.length} y; expected as many of each`,
    );
  }
  const [x0, x1] = panel.xRange ?? extent(panel.series.map(series => series.x));
  const [y0, y1] =
    panel.yRange ??
    padded(
      extent(
        panel.series.map(series => series.y),
        panel.logY,
      ),
      panel.logY,
    );
  const log = (value: number) => (panel.logY ? Math.log10(value) : value);
  const right = box.left + box.width;
  const bottom = box.top + box.height;
  const sx: Scale = value => box.left + ((value - x0) / (x1 - x0)) * box.width;
  const sy: Scale = value => bottom - ((log(value) - log(y0)) / (log(y1) - log(y0))) * box.height;
  const xTicks = ticks(x0, x1, Math.min(6, box.width / 60));
  const yTicks = panel.logY ? logTicks(y0, y1) : ticks(y0, y1, Math.min(7, box.height / 45));

  const grid = [
    ...yTicks.map(value => `M${box.left} ${px(sy(value))}H${px(right)}`),
    ...xTicks.map(value => `M${px(sx(value))} ${px(box.top)}V${px(bottom)}`),
  ].join('');
  const middle = box.top + box.height / 2;
  return [
    `<path d="${grid}" stroke="${GRID}" fill="none"/>`,
    `<path d="M${px(box.left)} ${px(bottom)}H${px(right)}" stroke="${palette.grey}" fill="none"/>`,
    ...yTicks.map(value =>
      write(box.left - 7, sy(value) + 4, numeral(value), { anchor: 'end', fill: FAINT }),
    ),
    ...xTicks.map(value => write(sx(value), bottom + 17, numeral(value), { anchor: 'middle', fill: FAINT })),
    panel.title ? write(box.left, box.top - 10, panel.title, { size: 13, weight: 600 }) : '',
    panel.note ? write(right, box.top - 10, panel.note, { anchor: 'end', fill: FAINT }) : '',
    panel.xLabel
      ? write(box.left + box.width / 2, bottom + 34, panel.xLabel, { anchor: 'middle', fill: FAINT })
      : '',
    panel.yLabel
      ? `<g transform="rotate(-90 ${px(box.left - 36)} ${px(middle)})">${write(box.left - 36, middle, panel.yLabel, { anchor: 'middle', fill: FAINT })}</g>`
      : '',
    `<clipPath id="${id}"><rect x="${px(box.left - 5)}" y="${px(box.top - 5)}" width="${px(box.width + 10)}" height="${px(box.height + 10)}"/></clipPath>`,
    `<g clip-path="url(#${id})">`,
    ...panel.series.map(series => drawSeries(series, sx, sy)),
    '</g>',
    panel.legend ? drawColumn(named(panel.series), right, box.top) : '',
  ].join('\n');
}

function drawSeries(series: Series, sx: Scale, sy: Scale): string {
  const { x, y, mark = 'line', color, opacity = 1 } = series;
  const width = series.width ?? (mark === 'points' ? 7.5 : 2);
  let path = '';
  let circles = '';
  let pen = false;
  for (let i = 0; i < x.length; i++) {
    const [left, top] = [sx(x[i]), sy(y[i])];
    const drawn = Number.isFinite(left) && Number.isFinite(top);
    if (drawn && mark === 'points') circles += `<circle cx="${px(left)}" cy="${px(top)}" r="${width / 2}"/>`;
    else if (drawn) path += `${pen ? 'L' : 'M'}${px(left)} ${px(top)}`;
    pen = drawn;
  }
  if (mark === 'points') {
    return `<g fill="${color}" fill-opacity="${opacity}" stroke="#ffffff" stroke-width="1.4">${circles}</g>`;
  }
  const dashes =
    mark === 'dashes' ? ` stroke-dasharray="${3 * width} ${2.2 * width}"` : ' stroke-linecap="round"';
  return `<path d="${path}" fill="none" stroke="${color}" stroke-opacity="${opacity}" stroke-width="${width}" stroke-linejoin="round"${dashes}/>`;
}

/** The series a legend names: the first of each label. */
function named(series: readonly Series[]): Series[] {
  return [...new Map(series.toReversed().map(one => [one.label, one])).values()]
    .filter(one => one.label !== undefined)
    .toReversed();
}

/** Width of a text at size 12, near enough to set legends side by side without measuring a font. */
const reach = (label: string) => label.length * 6.4;

function drawRow(series: readonly Series[], left: number, y: number): string {
  let x = left;
  return series
    .map(one => {
      const entry = drawEntry(one, x, y);
      x += 32 + reach(one.label ?? '') + 22;
      return entry;
    })
    .join('\n');
}

function drawColumn(series: readonly Series[], right: number, top: number): string {
  const left = right - 44 - Math.max(0, ...series.map(one => reach(one.label ?? '')));
  const back = `<rect x="${px(left - 8)}" y="${px(top + 2)}" width="${px(right - left + 4)}" height="${series.length * 20 + 8}" rx="4" fill="#ffffff" fill-opacity="0.85"/>`;
  return [back, ...series.map((one, i) => drawEntry(one, left, top + 20 + i * 20))].join('\n');
}

function drawEntry(series: Series, left: number, y: number): string {
  const points = series.mark === 'points';
  const sample = { ...series, x: points ? [12] : [0, 24], y: points ? [0] : [0, 0] };
  const mark = drawSeries(
    sample,
    value => left + value,
    () => y - 4,
  );
  return mark + write(left + 32, y, series.label ?? '', { size: 12 });
}

interface TextStyle {
  readonly anchor?: 'start' | 'middle' | 'end';
  readonly size?: number;
  readonly weight?: number;
  readonly fill?: string;
}

function write(x: number, y: number, text: string, style: TextStyle): string {
  const attributes = [
    style.anchor ? ` text-anchor="${style.anchor}"` : '',
    style.size ? ` font-size="${style.size}"` : '',
    style.weight ? ` font-weight="${style.weight}"` : '',
    style.fill ? ` fill="${style.fill}"` : '',
  ];
  return `<text x="${px(x)}" y="${px(y)}"${attributes.join('')}>${quoted(text)}</text>`;
}

const quoted = (text: string) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

/** A coordinate with one decimal at most. */
const px = (value: number) => String(Math.round(value * 10) / 10);

/** A tick's label: 0.05, 4, -2 (with a true minus), 2.5k, 10M. */
function numeral(value: number): string {
  const size = Math.abs(value);
  const sign = value < 0 ? '−' : '';
  if (size >= 1e6) return `${sign}${Number((size / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${sign}${Number((size / 1e3).toPrecision(3))}k`;
  return size !== 0 && size < 1e-4
    ? `${sign}${size.toExponential()}`
    : `${sign}${Number(size.toPrecision(6))}`;
}

/** Smallest and largest finite value (> 0 if `positive`), made a proper interval where it would be empty. */
function extent(columns: readonly ArrayLike<number>[], positive = false): [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const column of columns) {
    for (let i = 0; i < column.length; i++) {
      const value = column[i];
      if (!Number.isFinite(value) || (positive && value <= 0)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (low > high) return positive ? [0.1, 1] : [0, 1];
  if (low < high) return [low, high];
  return positive ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
}

/** An interval with 6 % of air at both ends. */
function padded([low, high]: [number, number], log = false): [number, number] {
  if (log) {
    const air = (high / low) ** 0.06;
    return [low / air, high * air];
  }
  const air = 0.06 * (high - low);
  return [low - air, high + air];
}
