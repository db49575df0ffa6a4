/** What was measured on a device, kept between processes in the user's cache folder. Not for browsers. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { cpus, homedir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Backend } from '../core/backend.js';
import { DataError } from '../core/errors.js';

/** The file of that name in WEIGHTLOOM_CACHE, else in the user's cache folder; null where WEIGHTLOOM_CACHE is empty. */
export function storedFile(name: string): string | null {
  const { WEIGHTLOOM_CACHE, XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  if (WEIGHTLOOM_CACHE === '') return null;
  const folder =
    WEIGHTLOOM_CACHE ?? join(XDG_CACHE_HOME || LOCALAPPDATA || join(homedir(), '.cache'), 'weightloom');
  return join(folder, `${name.toLowerCase().replace(/[^a-z0-9.]+/g, '-')}.json`);
}

/**
 * What `read` makes of a file's JSON; null where there is no file, or one of another format. Throws DataError, with what
 * `read` threw, if it is damaged.
 */
export function readStored<T>(file: string | null, format: number, read: (json: any) => T): T | null {
  if (!file) return null;
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return null;
  }
  try {
    const json = JSON.parse(text);
    return json.format === format ? read(json) : null;
  } catch (cause) {
    throw new DataError(`${file}: ${(cause as Error).message}; delete it, or measure again`, { cause });
  }
}

/** Writes a file of `format`, which appears whole: another process may read it now. Returns the file. */
export function writeStored(file: string | null, format: number, json: object): string | null {
  if (!file) return null;
  mkdirSync(dirname(file), { recursive: true });
  const draft = `${file}.${process.pid}`;
  writeFileSync(draft, `${JSON.stringify({ format, ...json }, null, 2)}\n`);
  renameSync(draft, file);
  return file;
}

/** Raised when rates change their meaning. */
const RATES = 1;

/** The file of the rates measured on a backend's device with its threads. */
function ratesFile(backend: Backend): string | null {
  const { isa, threads, vendor, architecture, adapter } = backend.describe();
  const device = isa === undefined ? [vendor, architecture, adapter] : [cpus()[0]?.model, isa, threads];
  return storedFile(['rates', backend.name, ...device].join(' '));
}

/** The backend with the rates kept for it, or null, as `rates`. Throws DataError for a damaged file. */
export const withRates = <B extends Backend>(backend: B): B & { rates: unknown } =>
  Object.assign(backend, { rates: readStored(ratesFile(backend), RATES, ({ rates }) => rates as unknown) });

/** Keeps rates for a backend. Returns the file, or null where nothing is kept. */
export const keepRates = (backend: Backend, rates: object): string | null =>
  writeStored(ratesFile(backend), RATES, { rates });
