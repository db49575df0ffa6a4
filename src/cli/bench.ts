/** `weightloom bench`: times the workloads that the peers are timed on, by the same rule, in the same lines. */
import { readFileSync } from 'node:fs';
import { init } from '../backends/init.js';
import type { Backend } from '../core/backend.js';
import { ArgumentError, DataError } from '../core/errors.js';
import { sync } from '../core/queue.js';
import { scope, Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { compile } from '../program/compile.js';
import { flag, integer, oneOf, parse, text } from './args.js';
import { failureLine } from './failure.js';
import { BACKENDS } from './info.js';
import { type BenchCase, SUITES, type Workloads } from './suites.js';
import { type Timing, type TimingRule, time } from './timing.js';

/** One result, in the format of the peers. */
export interface BenchLine {
  readonly peer: string;
  readonly threads: number;
  readonly w: string;
  readonly id: string;
  readonly pass: string;
  readonly ms?: number;
  readonly min_ms?: number;
  readonly n?: number;
  readonly gflops?: number;
  readonly note?: string;
  /** In place of the times, where the case could not be run. */
  readonly error?: string;
}

const letters = Object.keys(SUITES).join('');
const RING_SIZE = 1024;
const DEFAULT_WORKLOADS = '../shared/peers/workloads.json';

/** Arguments of `bench`. */
export const benchSpec = {
  name: 'bench',
  options: {
    suite: {
      expected: `letters of ${letters}`,
      read: (given: string) => (new RegExp(`^[${letters}]+$`).test(given) ? given : undefined),
      fallback: 'E',
    },
    workloads: text('a file', undefined),
    threads: integer(1, undefined),
    backend: oneOf(BACKENDS, undefined),
    json: flag(),
  },
} as const;

/** Reads a workload file. Throws DataError naming what is wrong with it. */
export function readWorkloads(path: string): Workloads {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new DataError(`workloads: ${path}: ${(error as Error).message}`);
  }
  for (const key of ['timing', ...letters.replace('O', '')])
    if (typeof parsed !== 'object' || parsed === null || !(key in parsed))
      throw new DataError(`workloads: ${path} has no '${key}'`);
  return parsed as Workloads;
}

const tensors = (x: unknown): Tensor[] => tree.leaves(x).filter(leaf => leaf instanceof Tensor);

/** Times one case, eager or compiled. `note` tells when a step that should train did not. */
export async function timeCase(
  { inputs, step, carried = 0, loss }: BenchCase,
  backend: Backend,
  rule: TimingRule,
  compiled: boolean,
): Promise<Timing & { note?: string }> {
  const args = inputs();
  const program = compiled ? compile(step, { donate: [...Array(carried).keys()] }) : null;
  const inputsHeld = new Set(tensors(args.slice(carried)).map(x => x.view.storage));
  let result: unknown[] = [];
  const call = () => {
    const before = [...args.slice(0, carried), ...result.slice(carried)];
    const next = program ? program(...args) : scope(() => step(...args));
    result = carried > 0 ? (next as unknown[]) : [next];
    args.splice(0, carried, ...result.slice(0, carried));
    // A program took over what it was given donated, and keeps its small results in a ring of its own.
    if (program) before.splice(0, carried);
    for (const x of tensors(before))
      if (!inputsHeld.has(x.view.storage) && !(program && x.size <= RING_SIZE)) x.dispose();
  };
  const settle = async () => (loss ? loss(result).item() : sync(backend));
  call();
  const first = await settle();
  try {
    const timing = await time(call, settle, rule);
    if (!loss) return timing;
    const last = await settle();
    return Number(last) < Number(first) ? timing : { ...timing, note: `LOSS DID NOT FALL ${first} ${last}` };
  } finally {
    for (const x of tensors([args, result])) x.dispose();
    program?.dispose();
  }
}

const digits = (x: number) => Number(x.toPrecision(6));

async function lineOf(
  w: string,
  bench: BenchCase,
  backend: Backend,
  rule: TimingRule,
  compiled: boolean,
): Promise<BenchLine> {
  const { threads } = backend.describe();
  const line = {
    peer: `weightloom-${backend.name}${compiled ? '-compiled' : ''}`,
    threads: typeof threads === 'number' ? threads : 1,
    w,
    id: bench.id,
    pass: bench.pass,
  };
  try {
    const { ms, min_ms, n, note } = await timeCase(bench, backend, rule, compiled);
    const gflops = bench.flops === undefined ? {} : { gflops: digits(bench.flops / ms / 1e6) };
    return { ...line, ms: digits(ms), min_ms: digits(min_ms), n, ...gflops, ...(note ? { note } : {}) };
  } catch (error) {
    if (error instanceof ArgumentError) throw error;
    return { ...line, error: failureLine(error) };
  }
}

/** Times suites and prints a line per case, eager and compiled. Exit code 1 if a case could not be run. */
export async function benchCommand(args: string[]): Promise<number> {
  const { options } = parse(benchSpec, args);
  const workloads = readWorkloads(options.workloads ?? process.env.WEIGHTLOOM_WORKLOADS ?? DEFAULT_WORKLOADS);
  const backend = await init({ backend: options.backend, threads: options.threads });
  let failed = false;
  for (const w of options.suite)
    for (const bench of SUITES[w](workloads))
      for (const compiled of bench.eagerOnly ? [false] : [false, true]) {
        const line = await lineOf(w, bench, backend, workloads.timing, compiled);
        failed ||= line.error !== undefined;
        console.log(options.json ? JSON.stringify(line) : show(line));
      }
  backend.dispose();
  return failed ? 1 : 0;
}

function show({ peer, id, pass, ms, min_ms, gflops, note, error }: BenchLine): string {
  const head = `${peer.padEnd(26)} ${id.padEnd(16)} ${pass.padEnd(6)}`;
  if (error !== undefined) return `${head} ${error}`;
  const rate = gflops === undefined ? '' : `  ${gflops.toPrecision(4)} GFLOP/s`;
  return `${head} ${ms!.toPrecision(4)} ms  (least ${min_ms!.toPrecision(4)})${rate}${note ? `  ${note}` : ''}`;
}
