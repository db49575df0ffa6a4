import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const compiler = process.env.CXX ?? 'g++';
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'weightloom-native-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const sources = (dir: string) =>
  readdirSync(join(root, dir))
    .filter(file => file.endsWith('.cpp') && file !== 'addon.cpp')
    .map(file => join(dir, file));

const execute = promisify(execFile);

/** Compiles native.cpp and `files` with `flags`, runs the result, and returns what it printed. */
async function run(name: string, files: readonly string[], flags: readonly string[]): Promise<string> {
  const always = ['-std=c++17', '-O1', '-g1', '-ffp-contract=off', '-fno-sanitize-recover=all', '-pthread'];
  const compile = async (file: string): Promise<string> => {
    const object = join(folder, `${name}-${file.replaceAll('/', '-')}.o`);
    await execute(compiler, [...always, ...flags, '-c', file, '-o', object], { cwd: root });
    return object;
  };
  const objects = await Promise.all(['tests/native.cpp', ...files].map(compile));
  const program = join(folder, name);
  await execute(compiler, [...always, ...flags, ...objects, '-o', program]);
  return (await execute(program)).stdout;
}

describe('native code without Node', () => {
  it('has no data race in the thread pool', { timeout: 120_000 }, async () => {
    const files = ['native/pool.cpp', 'native/arena.cpp'];
    expect(await run('pool', files, ['-DPOOL_ONLY', '-fsanitize=thread'])).toBe('ok\n');
  });

  it('stays within its memory and agrees with plain loops', { timeout: 400_000 }, async () => {
    const files = [...sources('native'), ...sources('native/isa')];
    const printed = await run('all', files, ['-fsanitize=address,undefined']);
    expect(printed).toMatch(/^instruction sets checked: [1-9]\nok\n$/);
  });
});
