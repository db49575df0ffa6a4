import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createCpu } from '../src/backends/cpu.js';
import { ArgumentError } from '../src/core/errors.js';
import { leakedCode, leakedSymbols } from './isa.js';

const root = join(import.meta.dirname, '..');
const compiler = process.env.CXX ?? 'g++';
const print = (tool: string, ...args: string[]) =>
  execFileSync(tool, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 30 });
const disassemble = (file: string) => leakedCode(print('objdump', '-dC', '--no-show-raw-insn', file));
const globals = (file: string) => leakedSymbols(print('nm', '-gC', '--defined-only', file));

describe('each instruction set keeps to itself', () => {
  const objects = readdirSync(join(root, 'build'), { recursive: true, encoding: 'utf8' })
    .filter(file => /[\\/]isa[\\/]\w+(\.cpp)?\.o$/.test(file))
    .map(file => join('build', file));

  it('in the objects of the addon, which show the linker one table each', () => {
    expect(objects.length).toBeGreaterThan(1);
    expect(objects.flatMap(globals)).toEqual([]);
  });

  it('in the linked addon, whose common code runs on any CPU', { timeout: 120_000 }, () => {
    if (process.arch === 'x64') expect(disassemble('build/Release/weightloom.node')).toEqual([]);
  });

  describe('which is noticed where it is not so', () => {
    let folder: string;
    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), 'weightloom-isa-'));
    });
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    const compiled = (target: string) => {
      const source = join(folder, `${target}.cpp`);
      writeFileSync(
        source,
        `#pragma GCC target("${target}")
         inline void twice(float* x) { for (int i = 0; i < 4096; ++i) x[i] *= 2; }
         namespace wl { namespace ${target === 'avx2' ? 'avx2' : 'avx512'} {
         void (*kTable)(float*) = twice;
         void own(float* x) { for (int i = 0; i < 4096; ++i) x[i] *= 2; }
         void foreign(float* x) { __builtin_memset(x, 0, 64); asm volatile("vpxord %zmm1, %zmm1, %zmm1"); }
         }}`,
      );
      const object = join(folder, `${target}.o`);
      print(compiler, '-std=c++17', '-O3', '-Wno-psabi', '-c', source, '-o', object);
      return object;
    };

    it.runIf(process.arch === 'x64')('an inline function compiled for a newer CPU', () => {
      const wide = compiled('avx512f');
      expect(globals(wide).map(line => line.replace(/^\w+ /, ''))).toContain('W twice(float*)');
      expect(disassemble(wide)).toEqual(['twice(float*)']);
      expect(disassemble(compiled('avx2'))).toEqual(['wl::avx2::foreign(float*)', 'twice(float*)']);
    });
  });
});

describe('WEIGHTLOOM_ISA', () => {
  const ask = (isa: string) =>
    print(
      process.execPath,
      '--input-type=module',
      '-e',
      `process.env.WEIGHTLOOM_ISA = ${JSON.stringify(isa)};
       const { open } = await import(${JSON.stringify(join(root, 'dist/src/backends/init.js'))});
       console.log(await open('cpu').then(b => b.describe().isa, e => e.name + ': ' + e.message));`,
    ).trim();

  it('chooses among what this CPU runs', async () => {
    const { isas } = (await createCpu()).describe() as { isas: string[] };
    expect(isas).toContain('generic');
    for (const isa of isas) expect(ask(isa)).toBe(isa);
    expect(ask('')).toBe(isas[0]);
  });

  it('says what can run here where it cannot', () => {
    const foreign = process.arch === 'x64' ? 'neon' : 'avx2';
    for (const name of ['mmx', foreign])
      expect(ask(name)).toMatch(
        new RegExp(`^${ArgumentError.name}: WEIGHTLOOM_ISA is '${name}', this machine runs .*generic$`),
      );
  });
});
