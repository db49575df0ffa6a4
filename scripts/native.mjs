// Builds the native addon into build/Release/weightloom.node: with cmake-js, else with node-gyp. Without a compiler it
// prints one line and succeeds, for the library also runs without the addon; --strict makes that a failure.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const addon = join(root, 'build', 'Release', 'weightloom.node');
const require = createRequire(import.meta.url);

/** Runs a package's executable with this very Node; returns why it failed, or null. */
function run(name, ...args) {
  let bin;
  try {
    const manifest = require.resolve(`${name}/package.json`);
    const { bin: bins } = require(manifest);
    bin = join(dirname(manifest), typeof bins === 'string' ? bins : bins[name]);
  } catch {
    return `${name} is not installed`;
  }
  const { status, error, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], {
    cwd: root,
    // binding.gyp asks `node` for paths.
    env: { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}` },
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (status === 0 && existsSync(addon)) return null;
  if (process.env.DEBUG) process.stderr.write(`${stdout}${stderr}`);
  const lines = `${stdout}\n${stderr}`.split('\n').filter(line => /error|not found|ERR!/i.test(line));
  return `${name}: ${(error?.message ?? lines[0] ?? `exit ${status}`).trim()}`;
}

/** A folder node-gyp accepts as Node's sources: one that has Node's headers, else one made of node-api-headers. */
function nodeSources() {
  const usable = dir =>
    dir && ['node_api.h', 'common.gypi'].every(f => existsSync(join(dir, 'include/node', f)));
  const found = [process.env.npm_config_nodedir, dirname(dirname(process.execPath))].find(usable);
  if (found) return found;
  const shim = join(root, 'build', 'node');
  const include = join(shim, 'include', 'node');
  const headers = require('node-api-headers').include_dir;
  mkdirSync(include, { recursive: true });
  for (const file of readdirSync(headers)) copyFileSync(join(headers, file), join(include, file));
  writeFileSync(
    join(include, 'common.gypi'),
    "{ 'target_defaults': { 'default_configuration': 'Release', 'configurations': { 'Release': {} }, 'cflags': ['-fPIC'] } }\n",
  );
  writeFileSync(join(include, 'config.gypi'), "{ 'target_defaults': {}, 'variables': {} }\n");
  return shim;
}

const byCmake = run('cmake-js', 'compile', '--directory', root, '--out', join(root, 'build'));
const failure = byCmake && run('node-gyp', 'configure', 'build', `--nodedir=${nodeSources()}`);
if (failure) {
  process.stderr.write(
    `weightloom: no native addon, the slow reference backend will serve (${byCmake}; ${failure})\n`,
  );
  if (process.argv.includes('--strict')) process.exitCode = 1;
}
