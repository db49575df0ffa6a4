import { open, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CheckpointError } from '../core/errors.js';
import { readSafetensors, type Safetensors, type WritableTensor, writeSafetensors } from './safetensors.js';

const because = (error: unknown): string => (error instanceof Error ? error.message : String(error));

let written = 0;

/**
 * Replaces a file in one step: readers, and a run that resumes after a crash, see the old content or the new and
 * never a part. The bytes go to a temporary file in the same folder, are flushed to the disk and renamed. A failure
 * leaves the old file as it was and no temporary file (only a killed process can leave one, `.<name>.<pid>-<n>.tmp`).
 *
 * @throws CheckpointError naming the path and the reason.
 */
export async function writeFileAtomic(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}-${written++}.tmp`);
  try {
    const file = await open(temporary, 'wx');
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw new CheckpointError(`cannot write ${path}: ${because(error)}`, { cause: error });
  }
  await syncFolder(dirname(path));
}

/** Makes a rename survive a loss of power where the system lets folders be flushed; elsewhere does nothing. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => null);
  await handle?.sync().catch(() => {});
  await handle?.close();
}

/** Writes a checkpoint with `writeFileAtomic`; see `writeSafetensors` for what it takes and throws. */
export async function saveSafetensors(
  path: string,
  tensors: Iterable<readonly [name: string, tensor: WritableTensor]>,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await writeFileAtomic(path, writeSafetensors(tensors, metadata));
}

/**
 * Reads a checkpoint.
 *
 * @throws CheckpointError naming the path and why it cannot be read or is refused.
 */
export async function loadSafetensors(path: string): Promise<Safetensors> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw new CheckpointError(`cannot read ${path}: ${because(error)}`, { cause: error });
  }
  try {
    return readSafetensors(bytes);
  } catch (error) {
    throw new CheckpointError(`${path}: ${because(error)}`, { cause: error });
  }
}
