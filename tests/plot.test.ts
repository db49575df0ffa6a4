import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decode } from 'fast-png';
import { expect, it } from 'vitest';
import { regressionFigure } from '../src/cli/picture.js';
import { type Figure, logTicks, palette, type Series, ticks, toSvg, writeFigure } from '../src/cli/plot.js';
import { ShapeError } from '../src/core/errors.js';

const figure = (series: Series[], panel: object = {}): Figure => ({
  title: 'title',
  width: 400,
  height: 300,
  columns: 1,
  rows: 1,
  panels: [{ cell: [0, 0, 1, 1], series, ...panel }],
});
const texts = (svg: string) => [...svg.matchAll(/<text[^>]*>([^<]*)</g)].map(match => match[1]);

it('ticks are round, inside the range and evenly apart', () => {
  expect(ticks(0, 10, 5)).toEqual([0, 2, 4, 6, 8, 10]);
  expect(ticks(-0.33, 0.31, 6)).toEqual([-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3]);
  expect(ticks(0, 1, 4)).toEqual([0, 0.25, 0.5, 0.75, 1]);
  expect(ticks(1e6, 4e6, 3)).toEqual([1e6, 2e6, 3e6, 4e6]);
  expect(ticks(3, 3, 4)).toEqual([3]);
});

it('log ticks thin out as the range grows', () => {
  expect(logTicks(0.1, 2)).toEqual([0.1, 0.2, 0.5, 1, 2]);
  expect(logTicks(1e-4, 10)).toEqual([1e-4, 1e-3, 1e-2, 0.1, 1, 10]);
});

it('a curve goes from corner to corner of its ranges, linear and log', () => {
  const series: Series = { x: [0, 1], y: [1, 100], color: palette.green };
  const corners = (logY: boolean) => {
    const middle = { ...series, x: [0, 0.5, 1], y: [1, logY ? 10 : 50.5, 100] };
    const svg = toSvg(figure([middle], { yRange: [1, 100], logY }));
    const path = new RegExp(
      `d="M([\\d.]+) ([\\d.]+)L([\\d.]+) ([\\d.]+)L([\\d.]+) ([\\d.]+)"[^>]*${palette.green}`,
    ).exec(svg);
    return path!.slice(1).map(Number);
  };
  const linear = corners(false);
  expect(linear[0]).toBeLessThan(linear[4]);
  expect(linear[1]).toBeGreaterThan(linear[5]);
  expect(linear[2]).toBeCloseTo((linear[0] + linear[4]) / 2, 0);
  expect(linear[3]).toBeCloseTo((linear[1] + linear[5]) / 2, 0);
  expect(corners(true)).toEqual(linear);
});

it('values that cannot be drawn leave a gap and do not stretch the axis', () => {
  const svg = toSvg(
    figure([{ x: [0, 1, 2, 3, 4], y: [1, Number.NaN, 2, 0, 3], color: palette.blue }], { logY: true }),
  );
  const path = new RegExp(`d="([^"]*)"[^>]*${palette.blue}`).exec(svg)![1];
  expect(path.match(/M/g)).toHaveLength(3);
  expect(svg).not.toMatch(/NaN|Infinity/);
});

it('a constant and an empty series still have axes', () => {
  const svg = toSvg(figure([{ x: [1], y: [5], color: palette.blue, mark: 'points' }]));
  expect(svg).toMatch(/<circle/);
  expect(svg + toSvg(figure([{ x: [], y: [], color: palette.blue }], { logY: true }))).not.toMatch(
    /NaN|Infinity/,
  );
});

it('a legend names each label once, and text is escaped', () => {
  const one = (label: string): Series => ({ x: [0, 1], y: [0, 1], label, color: palette.blue });
  const svg = toSvg(figure([one('a < b & c'), one('a < b & c'), one('"d"')]));
  expect(texts(svg).filter(text => text === 'a &lt; b &amp; c')).toHaveLength(1);
  expect(texts(svg)).toContain('&quot;d&quot;');
});

it('refuses a series whose x and y differ in length', () => {
  expect(() => toSvg(figure([{ x: [1, 2], y: [1], label: 'loss', color: palette.blue }]))).toThrow(
    new ShapeError("plot: series 'loss' has 2 x and 1 y; expected as many of each"),
  );
});

it('writes the picture of a regression run as SVG and PNG, labels included', async () => {
  const x = Array.from({ length: 41 }, (_, i) => -5 + i / 4);
  const curve = { x, y: x.map(Math.sin) };
  const task = { support: { x: [0], y: [0] }, truth: curve, generated: curve, mse: 0.0123 };
  const steps = Array.from({ length: 100 }, (_, i) => i + 1);
  const run = {
    title: 'Sinusoids',
    tasks: Array.from({ length: 6 }, () => task),
    loss: { x: steps, y: steps.map(step => 1 / step) },
    evaluation: { x: [0, 100], y: [1, 0.01] },
  };
  const folder = await mkdtemp(join(tmpdir(), 'weightloom-plot-'));
  try {
    const [svgPath, pngPath] = await writeFigure(join(folder, 'new', 'picture'), regressionFigure(run));
    const svg = await readFile(svgPath, 'utf8');
    expect(texts(svg).filter(text => text === 'MSE 0.012')).toHaveLength(6);
    expect(texts(svg)).toEqual(
      expect.arrayContaining(['true function', 'generated network', 'support points']),
    );
    expect(svg.match(new RegExp(`fill="${palette.vermilion}"`, 'g'))).toHaveLength(6 + 1 + 2);
    const png = decode(await readFile(pngPath));
    expect([png.width, png.height]).toEqual([2640, 1240]);
    // The title's band holds ink only if a font was found.
    const band = png.data.subarray(0, 80 * png.width * png.channels);
    expect(band.some((value, i) => i % png.channels !== 3 && value < 80)).toBe(true);
  } finally {
    await rm(folder, { recursive: true });
  }
});
