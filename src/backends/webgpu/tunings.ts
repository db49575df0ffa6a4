/** Where tilings that tuning found are kept: one file per adapter in the user's cache folder. Not for browsers. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { DataError } from '../../core/errors.js';
import type { Device } from './device.js';
import type { Tiling } from './tiling.js';

/** Raised when keys or tilings change their meaning; files of other formats are left alone. */
const FORMAT = 1;
const SIZES = ['rows', 'columns', 'threadsM', 'threadsN', 'tileK', 'parts'] as const;

/**
 * The file of an adapter's tilings, in WEIGHTLOOM_CACHE, else in the user's cache folder. Null where WEIGHTLOOM_CACHE is
 * empty: nothing is kept then.
 */
export function tuningFile({ info, name, software }: Device): string | null {
  const { WEIGHTLOOM_CACHE, XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  if (WEIGHTLOOM_CACHE === '') return null;
  const folder =
    WEIGHTLOOM_CACHE ?? join(XDG_CACHE_HOME || LOCALAPPDATA || join(homedir(), '.cache'), 'weightloom');
  const slug = [info.vendor, info.architecture, name, software ? 'software' : 'gpu'].join(' ');
  return join(folder, `webgpu ${slug}`.toLowerCase().replace(/[^a-z0-9.]+/g, '-') + '.json');
}

/** True if the device can run a tiling: whole sizes, and no more threads and shared memory than it has. */
export function fits(tiling: Tiling, { limits }: Device): boolean {
  const { body, rows, columns, threadsM, threadsN, tileK } = tiling;
  const whole = SIZES.every(size => {
    const value = tiling[size];
    return value === undefined || (Number.isInteger(value) && value > 0 && value <= 1024);
  });
  if (!whole || !(rows * columns <= 64)) return false;
  if (!(threadsM * threadsN <= limits.maxComputeInvocationsPerWorkgroup)) return false;
  if (body !== 'matmulTiled') return body === 'matmulDirect';
  const floats = (tileK ?? Infinity) * (threadsM * rows + 1 + threadsN * columns);
  return 4 * floats <= limits.maxComputeWorkgroupStorageSize;
}

/** The tilings kept for a device; none where there is no file. Throws DataError if the file is damaged. */
export function readTunings(device: Device): Map<string, Tiling> {
  const file = tuningFile(device);
  const none = new Map<string, Tiling>();
  if (!file) return none;
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return none;
  }
  try {
    const { format, tiles } = JSON.parse(text);
    if (format !== FORMAT) return none;
    const entries = Object.entries(tiles as Record<string, Tiling>);
    const bad = entries.find(([, tiling]) => !fits(tiling, device));
    if (bad) throw new Error(`the tiling of ${bad[0]} does not fit '${device.name}'`);
    return new Map(entries);
  } catch (cause) {
    throw new DataError(`tunings: ${file}: ${(cause as Error).message}; delete it, or tune again`, { cause });
  }
}

/** Keeps tilings for a device. Returns the file, or null where nothing is kept. */
export function writeTunings(device: Device, tiles: ReadonlyMap<string, Tiling>): string | null {
  const file = tuningFile(device);
  if (!file) return null;
  mkdirSync(dirname(file), { recursive: true });
  const text = JSON.stringify(
    { format: FORMAT, adapter: device.name, tiles: Object.fromEntries(tiles) },
    null,
    2,
  );
  // Another process may read it now: it appears whole.
  const draft = `${file}.${process.pid}`;
  writeFileSync(draft, `${text}\n`);
  renameSync(draft, file);
  return file;
}
