/**
 * Builds what is missing or older than its sources: the native addon, the shader module, dist/. `npm ci` runs it as
 * `prepare`, `npm test` and vitest before the tests. Without a C++ compiler the addon is left out, with one line.
 * Needs no network. Processes that build at the same time take turns. `--pack` (npm's prepack) empties dist/ first, so
 * that the tarball holds no output of a deleted source, and lays this machine's addon beside it as a prebuilt binary.
 */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** The folder of package.json. */
export const root = join(import.meta.dirname, '..');

/** What is built, from what, by which command. A folder stands for all files below it. */
const STEPS = {
  addon: {
    output: 'build/Release/weightloom.node',
    sources: ['native', 'CMakeLists.txt', 'scripts/native.mjs'],
    command: ['scripts/native.mjs', '--strict'],
  },
  shaders: {
    output: 'src/backends/webgpu/shaders.gen.ts',
    sources: ['shaders', 'scripts/shaders.mjs'],
    command: ['scripts/shaders.mjs'],
  },
  dist: {
    output: 'dist/.tsbuildinfo',
    sources: [
      'src',
      'tests/cases.ts',
      'tests/cases',
      'tsconfig.json',
      'tsconfig.build.json',
      'package-lock.json',
    ],
    command: ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'],
  },
};

const NEVER = new Date(0);

/** Latest modification below `path`, in milliseconds; 0 where there is nothing. */
function modified(path) {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) return 0;
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map(name => modified(join(path, name))));
}

/** True if a step's output is missing or older than any of its sources. */
function stale({ output, sources }) {
  const built = modified(join(root, output));
  return built === 0 || sources.some(source => modified(join(root, source)) > built);
}

/** Runs `body` while this process alone holds build/.lock. A lock whose owner is gone is taken over. */
function locked(body) {
  const path = join(root, 'build/.lock');
  mkdirSync(join(root, 'build'), { recursive: true });
  for (;;) {
    try {
      const file = openSync(path, 'wx');
      writeSync(file, String(process.pid));
      closeSync(file);
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      if (!ownerLives(path)) rmSync(path, { force: true });
      else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
    }
  }
  try {
    return body();
  } finally {
    rmSync(path, { force: true });
  }
}

/** False only for a lock that names a process which does not exist; a lock being written counts as held. */
function ownerLives(path) {
  try {
    const pid = Number(readFileSync(path, 'utf8'));
    if (pid > 0) process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'ENOENT' || error.code === 'EPERM';
  }
}

/**
 * Brings every output up to date and returns the names of the steps that failed; their messages are on stderr.
 * A fresh output costs only a look at file times. Outputs are dated to the start of their build, because a build may
 * change nothing and a source may change during it, and to the year dot if it failed, so that the next one tries again.
 */
export function build() {
  return locked(() => {
    const failed = [];
    for (const [name, step] of Object.entries(STEPS)) {
      if (!stale(step)) continue;
      const output = join(root, step.output);
      const begun = new Date();
      const { status } = spawnSync(process.execPath, step.command, { cwd: root, stdio: ['ignore', 2, 2] });
      if (status !== 0) failed.push(name);
      if (existsSync(output)) utimesSync(output, begun, status === 0 ? begun : NEVER);
    }
    return failed;
  });
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  if (existsSync(join(root, 'node_modules/typescript'))) {
    const pack = process.argv.includes('--pack');
    if (pack) rmSync(join(root, 'dist'), { recursive: true, force: true });
    const failed = build();
    if (failed.length > 0) console.error(`build: ${failed.join(', ')} failed`);
    // The library runs without the addon, so a machine that cannot build it is not an error.
    if (failed.some(name => name !== 'addon')) process.exitCode = 1;
    if (pack && !failed.includes('addon')) {
      const place = join(root, 'prebuilds', `${process.platform}-${process.arch}`);
      mkdirSync(place, { recursive: true });
      copyFileSync(join(root, STEPS.addon.output), join(place, 'weightloom.node'));
    }
  } else {
    console.error('build: nothing built, the development dependencies are not installed');
  }
}
