import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { onArm } from './arm.js';

const run = promisify(execFile);
const compiler = process.env.CXX ?? 'g++';
/** What `native_gemm.cpp` returns where the CPU lacks the instruction set it was built for. */
const unsupported = 77;

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weightloom-gemm-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('native products, convolutions and pools, sanitized, against naive loops', () => {
  it.each(process.arch === 'x64' ? [4, 8, 16] : [4])(
    'vectors of %i lanes',
    async lanes => {
      const program = join(folder, `check${lanes}`);
      await run(compiler, [
        ...['-std=c++17', '-O1', '-ffp-contract=off', '-Wno-psabi', `-DWL_LANES=${lanes}`],
        ...['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined'],
        ...[join(import.meta.dirname, 'native_gemm.cpp'), '-o', program],
      ]);
      const { stdout, code } = await run(program).then(
        done => ({ ...done, code: 0 }),
        (error: { stdout: string; stderr: string; code: number }) => {
          if (error.code !== unsupported) throw new Error(`${error.stdout}\n${error.stderr}`);
          return error;
        },
      );
      expect(code === unsupported || / 0 failures\n$/.test(stdout)).toBe(true);
    },
    240_000,
  );

  it.runIf(onArm)('vectors of 64-bit ARM', { timeout: 240_000 }, async () => {
    const { cxx, runner } = onArm!;
    const program = join(folder, 'checkArm');
    await run(cxx, [
      ...['-std=c++17', '-O1', '-ffp-contract=off', '-DWL_LANES=4', '-DWL_NEON=1', '-static'],
      ...[join(import.meta.dirname, 'native_gemm.cpp'), '-o', program],
    ]);
    expect((await run(runner[0], [program])).stdout).toMatch(/ 0 failures\n$/);
  });
});
