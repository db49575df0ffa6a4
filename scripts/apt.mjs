/** What tests need beside npm's packages, from apt: on Debian and its kin, as root; elsewhere a person installs it. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';

/** The fields of /etc/os-release. */
export function osRelease() {
  if (!existsSync('/etc/os-release')) return {};
  const lines = readFileSync('/etc/os-release', 'utf8').split('\n');
  return Object.fromEntries(
    lines.map(line => line.split('=')).map(([key, value = '']) => [key, value.replaceAll('"', '')]),
  );
}

/** True where `apt` may be called. */
export function hasApt() {
  const os = osRelease();
  const debian = os.ID === 'debian' || (os.ID_LIKE ?? '').split(' ').includes('debian');
  return process.platform === 'linux' && debian && process.getuid?.() === 0;
}

/** Runs apt-get, waiting for another one to end. Throws if it fails. */
export function apt(...args) {
  execFileSync('apt-get', ['-qq', '-y', '-o', 'DPkg::Lock::Timeout=300', ...args], {
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    stdio: ['ignore', 'ignore', 2],
  });
}
