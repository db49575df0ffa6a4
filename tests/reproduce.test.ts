/** The command `reproduce`, on the rows that take seconds: what the example tasks claim. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { main } from '../src/cli/main.js';
import { ROWS } from '../src/cli/rows.js';

const root = join(import.meta.dirname, '..');
const quick = ['control', 'recommend', 'drift', 'languages', 'linear', 'two-modes'];

/** Runs the command in a folder of its own and collects what it prints. */
async function reproduce(out: string, ...args: string[]): Promise<{ code: number; printed: string }> {
  const lines: string[] = [];
  const spies = [
    vi.spyOn(console, 'log').mockImplementation(line => void lines.push(line)),
    vi.spyOn(console, 'error').mockImplementation(line => void lines.push(line)),
  ];
  try {
    return { code: await main(['reproduce', ...args, '--out', out]), printed: lines.join('\n') };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

describe('reproduce', () => {
  let out: string;
  let home: string;
  beforeAll(() => {
    out = mkdtempSync(join(tmpdir(), 'weightloom-reproduce-'));
    home = process.cwd();
    process.chdir(root);
  });
  afterAll(() => {
    process.chdir(home);
    rmSync(out, { recursive: true, force: true });
  });

  test.each(quick)('%s holds', { timeout: 180_000 }, async id => {
    const { code, printed } = await reproduce(out, id);
    expect(code, printed).toBe(0);
    expect(printed).toContain(': yes)');
  });

  test('what was trained is kept and not trained again', { timeout: 60_000 }, async () => {
    const kept = readFileSync(join(out, 'results.jsonl'), 'utf8');
    const { code, printed } = await reproduce(out, 'control');
    expect(code).toBe(0);
    expect(printed).not.toContain('train examples');
    expect(readFileSync(join(out, 'results.jsonl'), 'utf8')).toBe(kept);
    const document = readFileSync(join(out, 'results.md'), 'utf8');
    for (const id of Object.keys(ROWS)) expect(document).toContain(`## ${id}\n`);
    expect(document).toContain('`train examples/tasks/control.mjs --steps 3000 --seed 0`: 3000 steps');
    expect(document).toContain('Not run yet.');
  });

  test('rows that do not exist are refused, and those that do are listed', async () => {
    expect(await reproduce(out, 'alchemy')).toMatchObject({ code: 2 });
    const { code, printed } = await reproduce(out, '--list');
    expect(code).toBe(0);
    expect(printed.split('\n').map(line => line.split(' ')[0])).toEqual(Object.keys(ROWS));
  });
});
