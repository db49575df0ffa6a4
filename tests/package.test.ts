import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const folder = mkdtempSync(join(tmpdir(), 'weightloom-package-'));

/** Runs a command in a folder that is no checkout, without what npm and vitest put into the environment. */
function run(command: string, args: string[], more: Record<string, string> = {}, cwd = folder): string {
  const own = Object.fromEntries(
    Object.entries(process.env).filter(([key]) => !/^(npm_|NODE_OPTIONS|NODE_ENV|VITEST|INIT_CWD)/.test(key)),
  );
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd,
    env: { ...own, ...more },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}:\n${stdout}${stderr}`);
  return stdout;
}

/** All file paths in a package.json `exports` value. */
const targets = (exports: unknown): string[] =>
  typeof exports === 'string' ? [exports] : Object.values(exports as object).flatMap(targets);

describe('the lock file', () => {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { resolved?: string; optionalDependencies?: Record<string, string> }>;
  };

  // npm drops other platforms' packages from a lock file it rewrites beside an installed tree; `npm ci` then fails.
  it('has the packages of every platform', () => {
    const wanted = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies).map(name => ({ name, nested: `${path}/node_modules/${name}` })),
    );
    expect(wanted.length).toBeGreaterThan(0);
    const missing = wanted.filter(
      ({ name, nested }) => !packages[nested] && !packages[`node_modules/${name}`],
    );
    expect(missing.map(({ name }) => name)).toEqual([]);
  });

  it('names no registry', () => {
    expect(Object.entries(packages).filter(([, entry]) => entry.resolved !== undefined)).toEqual([]);
  });
});

describe('the packed tarball', () => {
  let packed: { filename: string; size: number; files: { path: string }[] };
  let paths: string[];

  beforeAll(() => {
    const json = run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {}, root);
    [packed] = JSON.parse(json);
    paths = packed.files.map(file => file.path);
    writeFileSync(join(folder, 'package.json'), '{ "name": "empty", "private": true, "type": "module" }');
    const options = ['--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund', '--prefer-offline'];
    run('npm', ['install', ...options, join(folder, packed.filename)]);
  }, 180_000);
  afterAll(() => rmSync(folder, { recursive: true }));

  it('holds what package.json points at', () => {
    const wanted = [...targets(manifest.exports), ...Object.values<string>(manifest.bin)];
    expect(wanted.map(path => path.replace(/^\.\//, '')).filter(path => !paths.includes(path))).toEqual([]);
    expect(paths).toEqual(expect.arrayContaining(['LICENSE', 'README.md', 'CHANGELOG.md']));
  });

  it('holds outputs only, and no file that makes npm compile at installation', () => {
    const allowed =
      /^(dist\/src\/.*\.(js|d\.ts)|dist\/tests\/cases(\/\w+)?\.(js|d\.ts)|prebuilds\/.*\.node|[A-Z]+(\.md)?|package\.json)$/;
    expect(paths.filter(path => !allowed.test(path))).toEqual([]);
    const scripts = ['preinstall', 'install', 'postinstall'].filter(name => name in manifest.scripts);
    expect(scripts).toEqual([]);
    expect(packed.size).toBeLessThan(5e6);
  });

  it('needs no package beside its dependencies', () => {
    const tree = JSON.parse(run('npm', ['ls', '--json', '--depth=1'])).dependencies.weightloom.dependencies;
    // An optional peer that is absent is listed as an empty object.
    const installed = Object.entries<{ version?: string }>(tree).filter(([, { version }]) => version);
    expect(installed.map(([name]) => name).filter(name => !(name in manifest.dependencies))).toEqual([]);
    expect(existsSync(join(folder, 'node_modules/webgpu'))).toBe(false);
  });

  it('can be imported and required, and exports the same names both ways', () => {
    const names = (load: string) =>
      JSON.parse(
        run('node', ['-e', `${load}.then(m => console.log(JSON.stringify(Object.keys(m).sort())))`]),
      );
    const imported = names(`import('weightloom')`);
    expect(imported).toEqual(expect.arrayContaining(['grad', 'init', 'matmul']));
    expect(
      names(
        `Promise.resolve(process.getBuiltinModule('module').createRequire(process.cwd() + '/x')('weightloom'))`,
      ),
    ).toEqual(imported);
  });

  it('has types that need no other package', () => {
    const code = `import { grad, init, type Tensor, tensor, sum, mul } from 'weightloom';
      await init({ backend: 'ref' });
      const slope: Tensor = grad((x: Tensor) => sum(mul(x, x)))(tensor([1, 2]));
      // @ts-expect-error a tensor is no number
      const wrong: number = slope;
      console.log(wrong);`;
    writeFileSync(join(folder, 'consumer.mts'), code);
    const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022'];
    const lib = ['--lib', 'es2023,esnext.disposable,dom'];
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    expect(run('node', [tsc, ...options, ...lib, 'consumer.mts'])).toBe('');
  });

  it('has a command that tells what works here', () => {
    const info = JSON.parse(run('npx', ['--no-install', 'weightloom', 'info', '--json']));
    expect(info.version).toBe(manifest.version);
    expect(info.backends.ref.ok).toBe(true);
  });

  it("trains: the README's example takes twenty steps, without addon and optional packages", () => {
    const [, code] = /```js\n(import[^`]*)```/.exec(readFileSync(join(root, 'README.md'), 'utf8'))!;
    expect(code).toContain('i < 20');
    writeFileSync(join(folder, 'example.mjs'), code);
    const loss = Number(run('node', ['example.mjs'], { WEIGHTLOOM_NATIVE: 'off' }));
    // Predicting zero scores 4.25 on average; one batch of 32 tasks strays from that by about 0.8.
    expect(loss).toBeGreaterThan(0);
    expect(loss).toBeLessThan(7);
  });
});
