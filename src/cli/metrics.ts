import { existsSync, readFileSync } from 'node:fs';
import { CheckpointError } from '../core/errors.js';
import { writeFileAtomic } from '../io/files.js';

/**
 * The loss of every step, kept beside the checkpoint as lines of `{"step":1,"loss":4.2}`, steps counted from 1. The
 * file is replaced just before a checkpoint is: after a crash it may be ahead of it, never behind.
 */
export class Metrics {
  readonly steps: number[] = [];
  readonly losses: number[] = [];

  constructor(private readonly path: string) {}

  /** Takes over what an earlier run wrote, up to the step it is resumed from. Throws CheckpointError. */
  resume(step: number): void {
    if (!existsSync(this.path)) return;
    for (const line of readFileSync(this.path, 'utf8').split('\n')) {
      if (line === '') continue;
      const entry = parseLine(line);
      if (!entry)
        throw new CheckpointError(`${this.path} has a line that is no loss of a step: ${line.slice(0, 80)}`);
      if (entry.step > step) break;
      this.steps.push(entry.step);
      this.losses.push(entry.loss);
    }
  }

  /** `losses[i]` belongs to step `first + i + 1`. */
  add(first: number, losses: Float32Array): void {
    losses.forEach((loss, i) => {
      this.steps.push(first + i + 1);
      this.losses.push(loss);
    });
  }

  /** Replaces the file in one step. Throws CheckpointError. */
  async save(): Promise<void> {
    const lines = this.steps.map((step, i) => `{"step":${step},"loss":${this.losses[i]}}\n`);
    await writeFileAtomic(this.path, new TextEncoder().encode(lines.join('')));
  }
}

function parseLine(line: string): { step: number; loss: number } | null {
  try {
    const { step, loss } = JSON.parse(line);
    return Number.isSafeInteger(step) && typeof loss === 'number' ? { step, loss } : null;
  } catch {
    return null;
  }
}
