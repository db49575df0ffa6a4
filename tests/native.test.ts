import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { onArm } from './arm.js';

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
const everything = [...sources('native'), ...sources('native/isa')];

const execute = promisify(execFile);

/** Compiles native.cpp and `files` with `flags`, runs the result (by `runner`), and returns what it printed. */
async function run(
  name: string,
  files: readonly string[],
  flags: readonly string[],
  cxx = compiler,
  runner: readonly string[] = [],
): Promise<string> {
  const always = ['-std=c++17', '-O1', '-g1', '-ffp-contract=off', '-fno-sanitize-recover=all', '-pthread'];
  const compile = async (file: string): Promise<string> => {
    const object = join(folder, `${name}-${file.replaceAll('/', '-')}.o`);
    await execute(cxx, [...always, ...flags, '-c', file, '-o', object], { cwd: root });
    return object;
  };
  const objects = await Promise.all(['tests/native.cpp', ...files].map(compile));
  const program = join(folder, name);
  await execute(cxx, [...always, ...flags, ...objects, '-o', program]);
  const [command, ...args] = [...runner, program];
  // A failed run is told by what it printed.
  return execute(command, args).then(
    done => done.stdout,
    (error: { stdout: string; stderr: string }) => `${error.stdout}${error.stderr}`,
  );
}

describe('native code without Node', () => {
  it('has no data race in the thread pool', { timeout: 120_000 }, async () => {
    const files = ['native/pool.cpp', 'native/arena.cpp'];
    expect(await run('pool', files, ['-DPOOL_ONLY', '-fsanitize=thread'])).toBe('ok\n');
  });

  it('has no data race in kernels that share the pool', { timeout: 400_000 }, async () => {
    const printed = await run('race', everything, ['-DRACES_ONLY', '-fsanitize=thread']);
    expect(printed).toMatch(/^instruction sets checked: [1-9]\nok\n$/);
  });

  it('stays within its memory and agrees with plain loops', { timeout: 400_000 }, async () => {
    const printed = await run('all', everything, ['-fsanitize=address,undefined']);
    expect(printed).toMatch(/^instruction sets checked: [1-9]\nok\n$/);
  });

  it.runIf(onArm)('agrees with plain loops on 64-bit ARM', { timeout: 400_000 }, async () => {
    const { cxx, runner } = onArm!;
    const printed = await run('arm', everything, ['-static'], cxx, runner);
    expect(printed).toBe('instruction sets checked: 2\nok\n');
  });
});
