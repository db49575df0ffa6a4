import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DataError } from '../core/errors.js';

function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) && folder !== dirname(folder)) folder = dirname(folder);
  return folder;
}

/**
 * The folder of one data set: `<root>/<name>`. The root is the option if one is given, else the environment
 * variable WEIGHTLOOM_DATA, else `../shared/data` beside this package.
 *
 * @throws DataError naming the folder that was looked for and where its root came from.
 */
export function dataFolder(name: string, option?: string): string {
  const [root, origin] = option
    ? [resolve(option), 'the data option']
    : process.env.WEIGHTLOOM_DATA
      ? [resolve(process.env.WEIGHTLOOM_DATA), 'WEIGHTLOOM_DATA']
      : [resolve(packageRoot(), '../shared/data'), 'the default; give --data or set WEIGHTLOOM_DATA'];
  const folder = join(root, name);
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory())
    throw new DataError(`no folder ${folder} (the data root is ${origin})`);
  return folder;
}

/**
 * The bytes of a data file.
 *
 * @throws DataError naming the path and why it cannot be read.
 */
export function readDataFile(folder: string, file: string): Uint8Array {
  const path = join(folder, file);
  try {
    return readFileSync(path);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new DataError(`cannot read the data file ${path}: ${reason}`, { cause: error });
  }
}
