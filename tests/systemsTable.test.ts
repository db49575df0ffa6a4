/** docs/systems.md: every system of the source articles is shown by something that exists. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ROWS } from '../src/cli/rows.js';

const root = join(import.meta.dirname, '..');
const read = (file: string) => readFileSync(join(root, file), 'utf8');
const lines = read('docs/systems.md')
  .split('\n')
  .filter(line => /^\| S\d+ /.test(line))
  .map(line => line.split(' | '));

test('lists S1 to S62 once each, in order', () => {
  expect(lines.map(([id]) => id)).toEqual(Array.from({ length: 62 }, (_, i) => `| S${i + 1}`));
});

test.each(lines)('%s, %s: %s', (id, _what, shown) => {
  const references = shown.replace(/ \|$/, '').split('; `').length;
  const tests = [...shown.matchAll(/`(tests\/\w+\.test\.ts)` "([^"]+)"/g)];
  const rows = [...shown.matchAll(/`reproduce ([\w-]+)`/g)];
  for (const [, file, name] of tests) expect(read(file)).toMatch(nameBeginning(name));
  for (const [, row] of rows) expect(Object.keys(ROWS)).toContain(row);
  if (id === '| S55') expect(shown).toContain('out of scope');
  else expect(tests.length + rows.length).toBe(references);
});

/** The title of a test that begins so. */
function nameBeginning(name: string): RegExp {
  const literal = name.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`\\(\\s*['"]${literal}`);
}
