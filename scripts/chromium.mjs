/**
 * Finds Chromium for the tests of what runs in browsers; on Debian and its kin, as root, installs it. Elsewhere it says
 * in one line what to do. `CHROME_PATH` names another one. Idempotent; `node scripts/chromium.mjs` exits 0 with a
 * browser and 1 without.
 */
import { accessSync, constants, existsSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { apt, hasApt } from './apt.mjs';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'];
const APPLICATIONS = [
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
];

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The path of Chromium, or null. */
export function findChromium() {
  const named = process.env.CHROME_PATH;
  if (named) return isExecutable(named) ? named : null;
  const folders = (process.env.PATH ?? '').split(delimiter).filter(Boolean);
  const places = [...NAMES.flatMap(name => folders.map(folder => join(folder, name))), ...APPLICATIONS];
  return places.find(isExecutable) ?? null;
}

/** The manifest of SwiftShader, the Vulkan driver that Chromium brings along, for `VK_DRIVER_FILES`; or null. */
export function findSwiftShader() {
  const browser = findChromium();
  const folders = [browser && dirname(realpathSync(browser)), '/usr/lib/chromium'].filter(Boolean);
  return (
    folders.map(folder => join(folder, 'vk_swiftshader_icd.json')).find(file => existsSync(file)) ?? null
  );
}

/** Returns `{ path }`; where no browser could be had, `path` is null and `reason` tells, in one line, what to do. */
export function ensureChromium() {
  const present = findChromium();
  if (present) return { path: present };
  const advice = 'install Chromium (package chromium) or set CHROME_PATH';
  if (process.env.CHROME_PATH)
    return {
      path: null,
      reason: `no browser: CHROME_PATH names ${process.env.CHROME_PATH}, which cannot be run`,
    };
  if (!hasApt())
    return { path: null, reason: `no browser: ${advice}; this script does it on Debian as root` };
  try {
    apt('update');
    apt('install', '--no-install-recommends', 'chromium');
  } catch (error) {
    return { path: null, reason: `no browser, and apt failed: ${error.message.split('\n')[0]}` };
  }
  const path = findChromium();
  return path ? { path } : { path: null, reason: `no browser: ${advice}` };
}

if (process.argv[1] === import.meta.filename) {
  const { path, reason } = ensureChromium();
  console.error(path ? `Chromium: ${path}` : reason);
  process.exitCode = path ? 0 : 1;
}
