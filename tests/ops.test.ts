import { describe, expect, it } from 'vitest';
import { createRef } from '../src/backends/ref.js';
import { againstDifferences, checkOp, passed, within } from '../src/cli/check.js';
import { cases } from './cases.js';

const names = Object.keys(cases);

describe('derivatives in float64 against finite differences', () => {
  it.each(names)('%s', async name => {
    for (const [index, row] of cases[name].entries())
      for (const [kind, measured] of Object.entries(await againstDifferences(name, index, row)))
        expect(within(measured), `${name} row ${index}: ${kind} is off by ${measured.error}`).toBe(true);
  });
});

describe('ref in float32 against float64', () => {
  const ref = createRef();
  it.each(names)('%s', async name => {
    const report = await checkOp(name, ref);
    expect(passed(report), JSON.stringify(report)).toBe(true);
  });
});
