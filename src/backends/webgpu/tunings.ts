/** Where tilings that tuning found are kept: one file per adapter in the user's cache folder. Not for browsers. */
import { readStored, storedFile, writeStored } from '../stored.js';
import type { Device } from './device.js';
import type { Tiling } from './tiling.js';

/** Raised when keys or tilings change their meaning; files of other formats are left alone. */
const FORMAT = 2;
const SIZES = ['rows', 'columns', 'threadsM', 'threadsN', 'tileK', 'parts'] as const;

/** The file of an adapter's tilings; null where nothing is kept. */
export const tuningFile = ({ info, name, software }: Device): string | null =>
  storedFile(['webgpu', info.vendor, info.architecture, name, software ? 'software' : 'gpu'].join(' '));

/** True if the device can run a tiling: whole sizes, and no more threads and shared memory than it has. */
export function fits(tiling: Tiling, { limits, subgroup }: Device): boolean {
  const { body, rows, columns, threadsM, threadsN, tileK } = tiling;
  const whole = SIZES.every(size => {
    const value = tiling[size];
    return value === undefined || (Number.isInteger(value) && value > 0 && value <= 1024);
  });
  if (!whole || !(rows * columns <= 128)) return false;
  if (!(threadsM * threadsN <= limits.maxComputeInvocationsPerWorkgroup)) return false;
  if (body === 'matmulLanes') return subgroup > 1 && threadsM === 1 && threadsN === subgroup;
  if (body !== 'matmulTiled') return body === 'matmulDirect';
  const floats = (tileK ?? Infinity) * (threadsM * rows + 1 + threadsN * columns);
  return 4 * floats <= limits.maxComputeWorkgroupStorageSize;
}

/** The tilings kept for a device; none where there is no file. Throws DataError if the file is damaged. */
export const readTunings = (device: Device): Map<string, Tiling> =>
  readStored(tuningFile(device), FORMAT, ({ tiles }) => {
    const entries = Object.entries(tiles as Record<string, Tiling>);
    const bad = entries.find(([, tiling]) => !fits(tiling, device));
    if (bad) throw new Error(`the tiling of ${bad[0]} does not fit '${device.name}'`);
    return new Map(entries);
  }) ?? new Map();

/** Keeps tilings for a device. Returns the file, or null where nothing is kept. */
export const writeTunings = (device: Device, tiles: ReadonlyMap<string, Tiling>): string | null =>
  writeStored(tuningFile(device), FORMAT, { adapter: device.name, tiles: Object.fromEntries(tiles) });
