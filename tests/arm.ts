/** Running 64-bit ARM programs on another machine. */
import { spawnSync } from 'node:child_process';

const cxx = 'aarch64-linux-gnu-g++';
const runner = ['qemu-aarch64'];
const answers = (command: string) => spawnSync(command, ['--version']).status === 0;

/**
 * A cross compiler for 64-bit ARM and the command its programs run under (Debian's g++-aarch64-linux-gnu and qemu-user),
 * or null where one is missing: such tests are then left out, in CI they fail. Null on ARM itself, which needs neither.
 */
export const onArm =
  process.arch !== 'arm64' && (process.env.CI || [cxx, ...runner].every(answers)) ? { cxx, runner } : null;
