/** The example page: loads a checkpoint of the command line in Chromium, and draws on 'webgpu' what Node predicts. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { findChromium } from '../scripts/chromium.mjs';
import {
  dense,
  fullHead,
  hypernet,
  init,
  key,
  meta,
  relu,
  serial,
  setEncoder,
  tensor,
} from '../src/index.js';
import { loadSafetensors } from '../src/node.js';
import { bundleFile, Visit } from './browser-support.js';

const root = join(import.meta.dirname, '..');
const folder = mkdtempSync(join(tmpdir(), 'weightloom-example-'));
const checkpoint = join(folder, 'checkpoint.safetensors');
const CLICKS = [-4, -2.5, -1, 0.5, 2, 4].map(x => ({ x, y: 3 * Math.sin(x - 1) }));

/** The curve of Node's cpu backend through points, at 201 places. */
async function predict(points: readonly { x: number; y: number }[]): Promise<number[]> {
  await init({ backend: 'cpu' });
  const net = hypernet({
    target: serial(dense(40), relu, dense(40), relu, dense(1, { gain: 1 })),
    inShape: [1],
    condition: setEncoder([64, 64, 64]),
    trunk: serial(dense(64), relu, dense(64)),
    head: fullHead({ base: true }),
  });
  const phi = meta.unpackParams(net.init(key(1)), await loadSafetensors(checkpoint), checkpoint);
  const column = (values: number[]) => tensor(values, [1, values.length, 1]);
  const support = { x: column(points.map(({ x }) => x)), y: column(points.map(({ y }) => y)) };
  const at = Array.from({ length: 201 }, (_, i) => (i - 100) / 20);
  return [...(await net.target.apply(net.generate(phi, net.encode(phi, support)), column(at)).data())];
}

describe.skipIf(!findChromium() && !process.env.CI)('the example page', () => {
  let visit: Visit;
  beforeAll(async () => {
    const train = ['dist/src/cli/main.js', 'train', 'sinusoid', '--steps', '150', '--out', folder, '--json'];
    execFileSync(process.execPath, train, { cwd: root, stdio: ['ignore', 'ignore', 'ignore'] });
    visit = await Visit.to(
      {
        '/': { type: 'text/html', body: readFileSync(join(root, 'examples/browser/index.html')) },
        '/main.js': {
          type: 'text/javascript',
          body: await bundleFile('examples/browser/main.ts'),
        },
        '/checkpoint.safetensors': { type: 'application/octet-stream', body: readFileSync(checkpoint) },
      },
      '/?backend=webgpu',
    );
  }, 120_000);
  afterAll(async () => {
    await visit?.end();
    rmSync(folder, { recursive: true });
  });

  test('draws the network of the points clicked, as Node predicts it', async () => {
    const { page } = visit;
    const status = page.locator('output');
    await status.filter({ hasText: 'ready on webgpu' }).waitFor();
    const { x, y, width, height } = (await page.locator('svg').boundingBox())!;
    for (const point of CLICKS)
      await page.mouse.click(x + ((point.x + 5) / 10) * width, y + ((5 - point.y) / 10) * height);
    await status.filter({ hasText: `${CLICKS.length} points, 1761 weights` }).waitFor();
    const coordinates = async (selector: string, names: string[]) =>
      page
        .locator(selector)
        .evaluateAll(
          (all, names) => all.map(one => names.map(name => Number(one.getAttribute(name)))),
          names,
        );
    // Clicks fall on whole pixels; the page's own points are what it predicts from.
    const points = (await coordinates('ellipse', ['cx', 'cy'])).map(([cx, cy]) => ({ x: cx, y: -cy }));
    expect(points.every((point, i) => Math.hypot(point.x - CLICKS[i].x, point.y - CLICKS[i].y) < 0.05)).toBe(
      true,
    );
    const drawn = (await page.locator('polyline').getAttribute('points'))!.split(' ');
    const expected = await predict(points);
    expect(drawn).toHaveLength(expected.length);
    const off = drawn.map((pair, i) => Math.abs(-Number(pair.split(',')[1]) - expected[i]));
    expect(Math.max(...off)).toBeLessThan(1e-4);
    expect(Math.max(...expected) - Math.min(...expected)).toBeGreaterThan(0.5);
    expect(visit.complaints).toEqual([]);
  }, 60_000);
});
