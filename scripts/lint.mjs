/**
 * Checks formatting and lint of TypeScript (Biome) and C++ (clang-format), any warning an error; `--fix` writes what
 * can be put right. Both tools are pinned by the lock file, so every machine judges alike.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { clangFormatPath } from 'clang-format-node';
import { root } from './build.mjs';

const fix = process.argv.includes('--fix');
const biome = fix ? ['check', '--write'] : [process.env.CI ? 'ci' : 'check'];
const native = readdirSync(join(root, 'native'), { recursive: true })
  .filter(name => /\.(cpp|h|inc)$/.test(name))
  .map(name => join('native', name));

const run = (command, args) => spawnSync(command, args, { cwd: root, stdio: 'inherit' }).status === 0;

// npm 12 runs no install script, and it is one that makes this binary executable.
if (process.platform !== 'win32') chmodSync(clangFormatPath, 0o755);

const passed = [
  run(process.execPath, ['node_modules/@biomejs/biome/bin/biome', ...biome, '--error-on-warnings', '.']),
  run(clangFormatPath, ['--style=file', ...(fix ? ['-i'] : ['--dry-run', '-Werror']), ...native]),
];
process.exitCode = passed.every(Boolean) ? 0 : 1;
