/**
 * Makes sure that a Vulkan driver is present on which Dawn (the npm package `webgpu`) finds an adapter.
 * Does nothing where one can be had already. On Debian and its kin, as root, it installs Mesa's software driver
 * (lavapipe), from the backports suite where the release's own Mesa is too old for Dawn. Elsewhere it prints one
 * line that says what to do. Idempotent; `node scripts/vulkan.mjs` exits 0 with an adapter and 1 without.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { apt, hasApt, osRelease } from './apt.mjs';

/** The first Mesa whose lavapipe offers everything Dawn asks of a Vulkan device. */
const OLDEST_MESA = 24;
const ICD_FOLDERS = ['/usr/share/vulkan/icd.d', '/etc/vulkan/icd.d'];

const PROBE = `
  import { create } from 'webgpu';
  globalThis.gpu = create([]);
  const adapter = await globalThis.gpu.requestAdapter();
  if (adapter) console.log(adapter.info.description || adapter.info.vendor || 'unnamed adapter');
`;

/** The name of the adapter Dawn finds under `env`, or null. Asked in a child: a process loads Vulkan only once. */
function probe(env) {
  try {
    const out = execFileSync(process.execPath, ['--input-type=module', '-e', PROBE], {
      cwd: join(import.meta.dirname, '..'),
      env: { ...process.env, ...env },
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 60_000,
    });
    return out.trim() || null;
  } catch {
    return null;
  }
}

/** `VK_DRIVER_FILES` for lavapipe alone, so that a broken driver of absent hardware cannot get in its way. */
function lavapipeEnv() {
  for (const folder of ICD_FOLDERS) {
    if (!existsSync(folder)) continue;
    const file = readdirSync(folder).find(name => /^lvp_icd.*\.json$/.test(name));
    if (file) return { VK_DRIVER_FILES: join(folder, file) };
  }
  return null;
}

/** The machine's own apt entry for `suite`, with the suite replaced by `wanted`, or null. */
function deriveSource(suite, wanted) {
  const folder = '/etc/apt/sources.list.d';
  const files = ['/etc/apt/sources.list'];
  if (existsSync(folder)) files.push(...readdirSync(folder).map(name => join(folder, name)));
  for (const file of files.filter(existsSync)) {
    const text = readFileSync(file, 'utf8');
    if (file.endsWith('.sources')) {
      for (const stanza of text.split(/\n\s*\n/)) {
        const suites = /^Suites:(.*)$/m.exec(stanza)?.[1].trim().split(/\s+/) ?? [];
        if (suites.includes(suite)) {
          return {
            kind: 'sources',
            text: stanza.replace(/^Suites:.*$/m, `Suites: ${wanted}`).replace(/^#.*\n/gm, ''),
          };
        }
      }
    } else if (file.endsWith('.list')) {
      for (const line of text.split('\n')) {
        const entry = /^(deb\s+(?:\[[^\]]*\]\s+)?\S+\s+)(\S+)(\s.*)$/.exec(line);
        if (entry?.[2] === suite) return { kind: 'list', text: entry[1] + wanted + entry[3] };
      }
    }
  }
  return null;
}

/** Major version of the Mesa apt would install, by default or from `suite`; 0 where apt knows none or no such suite. */
function mesaVersion(suite) {
  const args = ['-q', ...(suite ? ['-t', suite] : []), 'policy', 'mesa-vulkan-drivers'];
  try {
    const policy = execFileSync('apt-cache', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return Number(/Candidate: (?:\d+:)?(\d+)\./.exec(policy)?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** Installs lavapipe with apt. Throws with one line on what is in the way. */
function installMesa(codename) {
  const packages = ['mesa-vulkan-drivers', 'libvulkan1'];
  apt('update');
  if (mesaVersion() >= OLDEST_MESA) {
    apt('install', '--no-install-recommends', ...packages);
    return;
  }
  const suite = `${codename}-backports`;
  if (mesaVersion(suite) < OLDEST_MESA) {
    const source = deriveSource(codename, suite);
    if (!source) throw new Error(`no apt source for ${codename} to derive ${suite} from`);
    writeFileSync(`/etc/apt/sources.list.d/${suite}.${source.kind}`, source.text.trimEnd() + '\n');
    apt('update');
  }
  apt('install', '--no-install-recommends', '-t', suite, ...packages);
}

/**
 * Returns `{ adapter, env }`: the adapter's name and the variables a process needs to see it. `adapter` is null where
 * none could be had; `reason` then says, in one line, what a person can do.
 */
export function ensureVulkan() {
  const present = probe({});
  if (present) return { adapter: present, env: {} };
  const already = lavapipeEnv();
  if (already) {
    const adapter = probe(already);
    if (adapter) return { adapter, env: already };
  }
  const advice = `install a Vulkan driver (Mesa ${OLDEST_MESA} or newer: mesa-vulkan-drivers and libvulkan1)`;
  if (!hasApt()) {
    return {
      adapter: null,
      env: {},
      reason: `no WebGPU adapter: ${advice}; this script does it on Debian as root`,
    };
  }
  try {
    installMesa(osRelease().VERSION_CODENAME);
  } catch (error) {
    return {
      adapter: null,
      env: {},
      reason: `no WebGPU adapter, and apt failed: ${error.message.split('\n')[0]}`,
    };
  }
  const env = lavapipeEnv() ?? {};
  const adapter = probe(env);
  return adapter
    ? { adapter, env }
    : { adapter: null, env, reason: `Dawn sees no adapter on this driver: ${advice}` };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { adapter, env, reason } = ensureVulkan();
  const settings = Object.entries(env).map(([key, value]) => ` ${key}=${value}`);
  console.error(adapter ? `WebGPU adapter: ${adapter}${settings.join('')}` : reason);
  process.exitCode = adapter ? 0 : 1;
}
