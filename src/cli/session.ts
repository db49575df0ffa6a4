/** One training as the command line runs it: with a bar, the losses and a checkpoint in its folder, until interrupted. */
import { join } from 'node:path';
import { CheckpointError } from '../core/errors.js';
import { loadSafetensors, saveSafetensors } from '../io/files.js';
import type { Safetensors } from '../io/safetensors.js';
import type { packState } from '../meta/index.js';
import { Metrics } from './metrics.js';
import { progress } from './progress.js';

/** The checkpoint of a run in the folder `out`. */
export const checkpointIn = (out: string): string => join(out, 'checkpoint.safetensors');

/** The checkpoint to go on from, null for a run that begins. Throws CheckpointError where there is none to resume. */
export const resumed = async (resume: boolean, out: string): Promise<Safetensors | null> =>
  resume ? loadSafetensors(checkpointIn(out)) : null;

/** What the trainer reports to. */
export interface Reports<S> {
  readonly signal: AbortSignal;
  /** Writes a line of its own beside the progress. */
  readonly note: (line: string) => void;
  readonly onLosses: (first: number, losses: Float32Array) => void;
  readonly onZeroGradients: (steps: number, paths: readonly string[]) => void;
  readonly onCheckpoint: (state: S) => Promise<void>;
}

/** A training, and where it is kept. */
export interface Session<S> {
  readonly out: string;
  /** What stands before the bar. */
  readonly label: string;
  /** Steps of the whole run. */
  readonly steps: number;
  readonly from: S;
  /** True if `from` is a checkpoint's: the losses kept beside it are taken over. */
  readonly resume: boolean;
  readonly signal: AbortSignal;
  readonly train: (reports: Reports<S>) => Promise<S>;
  readonly pack: (state: S) => ReturnType<typeof packState>;
}

/** The state a session ended in, its losses, and what it took in this process. */
export interface Trained<S> {
  readonly end: S;
  readonly metrics: Metrics;
  readonly seconds: number;
  /** Processor time of all threads: what `seconds` would be of one thread on a machine that does nothing else. */
  readonly cpuSeconds: number;
  readonly stepsPerSecond: number;
}

/** Throws CheckpointError if a run is asked for fewer steps than its checkpoint has. */
export function checkStep(from: number, steps: number, origin: string): void {
  if (from > steps) throw new CheckpointError(`${origin} is at step ${from} of a run of ${steps}`);
}

/** Runs the training in a folder that exists. Rejects with the signal's reason once it aborts, a checkpoint being saved. */
export async function runSession<S extends { readonly step: number }>(
  session: Session<S>,
): Promise<Trained<S>> {
  const { out, label, steps, from, signal } = session;
  const metrics = new Metrics(join(out, 'metrics.jsonl'));
  if (session.resume) metrics.resume(from.step);
  const bar = progress({ total: steps, done: from.step, label });
  const began = performance.now();
  const used = process.cpuUsage();
  let end: S;
  try {
    end = await session.train({
      signal,
      note: bar.note,
      onLosses: (first, losses) => {
        metrics.add(first, losses);
        bar.update(first + losses.length, losses.at(-1));
      },
      onZeroGradients: (count, paths) =>
        bar.note(`no gradient in the first ${count} steps: ${paths.join(', ')} (left as they were)`),
      onCheckpoint: async state => {
        const { tensors, metadata } = await session.pack(state);
        await metrics.save();
        await saveSafetensors(checkpointIn(out), tensors, metadata);
      },
    });
  } finally {
    bar.done();
  }
  const seconds = (performance.now() - began) / 1000;
  const { user, system } = process.cpuUsage(used);
  if (signal.aborted)
    console.error(
      `interrupted after step ${end.step} of ${steps}; --resume goes on from ${checkpointIn(out)}`,
    );
  signal.throwIfAborted();
  return {
    end,
    metrics,
    seconds,
    cpuSeconds: (user + system) / 1e6,
    stepsPerSecond: (end.step - from.step) / seconds,
  };
}
