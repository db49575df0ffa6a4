/** The examples show what they claim. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const LIMIT = 300_000;

function run(name: string) {
  const file = join(root, 'examples', `${name}.mjs`);
  expect(readFileSync(file, 'utf8').split('\n').length).toBeLessThanOrEqual(60);
  const { status, stdout, stderr } = spawnSync(process.execPath, [file], {
    encoding: 'utf8',
    timeout: LIMIT,
  });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  return JSON.parse(stdout);
}

describe('examples', () => {
  it(
    'give 10,000 users a network each in less memory than the weights of all would take',
    () => {
      const { users, mute, after, peakBytes, weightBytes } = run('users');
      expect(users).toBe(10_000);
      expect(after).toBeLessThan(mute / 4);
      expect(peakBytes).toBeLessThanOrEqual(80e6);
      expect(weightBytes).toBeGreaterThan(2 * peakBytes);
    },
    LIMIT,
  );

  it(
    'train adapters for a batch whose rows all use different ones',
    () => {
      const { rows, adapters, without, after } = run('lora');
      expect([rows, adapters]).toEqual([256, 62]);
      expect(after).toBeLessThan(without / 50);
    },
    LIMIT,
  );

  it(
    'generate the network of a sinusoid from ten points, without inner steps',
    () => {
      const { zero, after } = run('hypernetwork');
      expect(after).toBeLessThan(zero / 3);
    },
    LIMIT,
  );

  it(
    'find a start from which one step helps, by MAML',
    () => {
      const { zero, one, five, random } = run('maml');
      expect(one).toBeLessThan(0.75 * zero);
      expect(five).toBeLessThan(one);
      expect(one).toBeLessThan(random / 2);
    },
    LIMIT,
  );

  it(
    'draw networks from noise, one for each mode where they are kept apart',
    () => {
      const { plain, spread } = run('noise');
      expect(plain.variance).toBeLessThan(1e-3);
      expect(spread.variance).toBeGreaterThan(0.1);
      expect(spread.error).toBeLessThan(plain.error / 10);
    },
    LIMIT,
  );

  it(
    'tell what is wrong: a cut, the order of derivative, dead parameters, input that is not used',
    () => {
      const { whole, copied, orders, dead, effectiveRank, use } = run('diagnose');
      expect(new Set(whole)).toEqual(new Set([null]));
      for (const cut of copied) expect(cut).toContain('stopGradient');
      expect(orders).toEqual([2, 2, 2, 2]);
      expect(dead).toContain('condition.layers.0.w');
      expect(dead).not.toContain('head.base');
      expect(effectiveRank).toBeGreaterThan(1);
      expect(use.others).toBeGreaterThan(1.2 * use.own);
    },
    LIMIT,
  );

  it(
    "export one task's network, which answers as the generated one",
    () => {
      const { weights, bytes, difference } = run('export');
      expect(weights).toBe(3 * 40 + 40 + 40 + 1);
      expect(bytes).toBeGreaterThan(4 * weights);
      expect(difference).toBeLessThan(1e-5);
    },
    LIMIT,
  );
});
