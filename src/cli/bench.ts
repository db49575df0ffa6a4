/** `weightloom bench`: times the workloads that the peers are timed on, by the same rule, in the same lines. */
import { readFileSync } from 'node:fs';
import { PRECISIONS } from '../backends/choose.js';
import { init } from '../backends/init.js';
import type { Precision } from '../backends/webgpu/device.js';
import type { Backend } from '../core/backend.js';
import { ArgumentError, DataError } from '../core/errors.js';
import { sync } from '../core/queue.js';
import { scope, Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { type CommandTime, compile } from '../program/compile.js';
import { flag, integer, oneOf, parse, text } from './args.js';
import { failureLine } from './failure.js';
import { benchGenerate, showGenerate } from './generate.js';
import { BACKENDS } from './info.js';
import { boundOf, type Machine, measureFlops, measureMachine, type Rate, timesOf } from './machine.js';
import { benchPlans, calibrateAndKeep, showPlans } from './plans.js';
import { type BenchCase, SUITES, type Workloads } from './suites.js';
import { type Timing, type TimingRule, time } from './timing.js';
import { type Tuned, tune } from './tune.js';

/** One result, in the format of the peers. */
export interface BenchLine {
  readonly peer: string;
  readonly threads: number;
  /** Where products are computed with less than 'highest'. */
  readonly precision?: Precision;
  readonly w: string;
  readonly id: string;
  readonly pass: string;
  readonly ms?: number;
  readonly min_ms?: number;
  readonly n?: number;
  readonly gflops?: number;
  /** Of the operands and the results, each counted once. */
  readonly bytes?: number;
  /** 10^9 bytes a second, in lines of the machine itself (suite L). */
  readonly GBs?: number;
  /** Milliseconds of one call on the device's own clock, where there is one: without what lies between submissions. */
  readonly kernel_ms?: number;
  /** As `peak`, of kernel_ms. */
  readonly kernel_peak?: number;
  /** Percent of the speed that the machine's own rates, measured in the same run, allow at most. */
  readonly peak?: number;
  /** The rate of multiply-adds around the case, as a fraction of the one measured at the start. */
  readonly cal?: number;
  /** What a compiled step is made of, where `--commands` asks for it. */
  readonly commands?: readonly CommandTime[];
  readonly note?: string;
  /** In place of the times, where the case could not be run. */
  readonly error?: string;
}

/** The suite of the machine's own rates. */
const MACHINE_SUITE = 'L';
/** The suite of the planner's choices. */
const PLAN_SUITE = 'I';
/** The suite of generated layers by plan. */
const GENERATE_SUITE = 'generate';
const letters = Object.keys(SUITES).join('') + MACHINE_SUITE + PLAN_SUITE;
const RING_SIZE = 1024;
const PROFILED_CALLS = 50;
/** On the device's clock: samples of a case, and how long each should last. */
const DEVICE_SAMPLES = 5;
const SAMPLE_MS = 5;
const DEFAULT_WORKLOADS = '../shared/peers/workloads.json';

function regular(given: string): RegExp | undefined {
  try {
    return new RegExp(given);
  } catch {
    return undefined;
  }
}

/** Arguments of `bench`. */
export const benchSpec = {
  name: 'bench',
  options: {
    suite: {
      expected: `letters of ${letters}, or ${GENERATE_SUITE}`,
      read: (given: string) =>
        new RegExp(`^([${letters}]+|${GENERATE_SUITE})$`).test(given) ? given : undefined,
      fallback: 'E',
    },
    case: {
      expected: 'a regular expression that some ids match',
      read: regular,
      fallback: undefined,
    },
    workloads: text('a file', undefined),
    threads: integer(1, undefined),
    backend: oneOf(BACKENDS, undefined),
    precision: oneOf(PRECISIONS, 'highest'),
    commands: flag(),
    tune: flag(),
    calibrate: flag(),
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
  for (const key of ['timing', ...'ABCDEFGH'])
    if (typeof parsed !== 'object' || parsed === null || !(key in parsed))
      throw new DataError(`workloads: ${path} has no '${key}'`);
  return parsed as Workloads;
}

const tensors = (x: unknown): Tensor[] => tree.leaves(x).filter(leaf => leaf instanceof Tensor);

const bytesOf = (views: readonly Tensor[]) => views.reduce((bytes, x) => bytes + 4 * x.size, 0);

/** What was measured of a case: its times, and the bytes of what it reads and of what it returns. */
export interface Measured extends Timing {
  readonly read: number;
  readonly written: number;
  /** The least time of each command of a compiled step, where it was asked for. */
  readonly commands?: readonly CommandTime[];
  /** Milliseconds of one call on the device's own clock; null where there is none. */
  readonly device: number | null;
  /** Tells when a step that should train did not. */
  readonly note?: string;
}

/** Times one case, eager or compiled; with `profiled`, the commands of the compiled one too. */
export async function timeCase(
  { inputs, step, carried = 0, loss }: BenchCase,
  backend: Backend,
  rule: TimingRule,
  compiled: boolean,
  profiled = false,
): Promise<Measured> {
  const args = inputs();
  const program = compiled ? compile(step, { donate: [...Array(carried).keys()] }) : null;
  const inputsHeld = new Set(tensors(args.slice(carried)).map(x => x.view.storage));
  let result: unknown[] = [];
  // A program took over what it was given donated, and keeps its small results in a ring of its own.
  const drop = (x: unknown): void => {
    if (!(x instanceof Tensor)) {
      if (typeof x === 'object' && x !== null) for (const child of Object.values(x)) drop(child);
    } else if (!inputsHeld.has(x.view.storage) && !(program && x.size <= RING_SIZE)) x.dispose();
  };
  const call = (run: typeof step = program ?? ((...xs) => scope(() => step(...xs)))) => {
    // Peers drop a result before they make the next, which then takes its memory.
    for (const old of result.splice(carried)) drop(old);
    const next = run(...args);
    result = carried > 0 ? (next as unknown[]) : [next];
    for (let k = 0; k < carried; k++) {
      if (!program) drop(args[k]);
      args[k] = result[k];
    }
  };
  const profile = (): CommandTime[] => {
    let least: CommandTime[] = [];
    for (let i = 0; i < PROFILED_CALLS; i++)
      call((...xs) => {
        const { result, commands } = program!.profile(...xs);
        least = commands.map((c, k) => (least[k]?.ms < c.ms ? least[k] : c));
        return result;
      });
    return least;
  };
  const settle = async () => (loss ? loss(result).item() : sync(backend));
  call();
  const first = await settle();
  try {
    const bytes = { read: bytesOf(tensors(args)), written: bytesOf(tensors(result)) };
    const times = await time(() => call(), settle, rule);
    const timing = {
      ...times,
      ...bytes,
      device: await deviceTime(backend, call, settle, times),
      ...(program && profiled ? { commands: profile() } : {}),
    };
    if (!loss) return timing;
    const last = await settle();
    return Number(last) < Number(first) ? timing : { ...timing, note: `LOSS DID NOT FALL ${first} ${last}` };
  } finally {
    for (const x of tensors([args, result])) x.dispose();
    program?.dispose();
  }
}

/** Calls that a sample on the device's clock may hold: each submits a few times, and the clock has room for 2048. */
const MOST_CALLS = 64;

/** The least milliseconds of a call on the device's own clock, over samples of 5 ms; null where it has none. */
async function deviceTime(
  backend: Backend,
  call: () => void,
  settle: () => Promise<unknown>,
  { ms }: Timing,
): Promise<number | null> {
  const calls = Math.min(MOST_CALLS, Math.max(1, Math.ceil(SAMPLE_MS / ms)));
  let least: number | null = null;
  for (let i = 0; i < DEVICE_SAMPLES; i++) {
    const { device } = await timesOf(backend, async () => {
      for (let k = 0; k < calls; k++) call();
      await settle();
    });
    if (device === null) return null;
    least = Math.min(least ?? Infinity, device / calls);
  }
  return least;
}

const digits = (x: number, count = 6) => Number(x.toPrecision(count));

/** What the lines of one run have in common. */
interface Run {
  readonly backend: Backend;
  readonly rule: TimingRule;
  readonly machine: Machine | null;
  /** Whether to time the commands of compiled cases. */
  readonly commands: boolean;
}

function headOf(backend: Backend, w: string, id: string, pass: string, compiled = false) {
  const { threads, precision = 'highest' } = backend.describe();
  const tier = precision === 'highest' ? '' : `-${precision}`;
  return {
    peer: `weightloom-${backend.name}${tier}${compiled ? '-compiled' : ''}`,
    threads: typeof threads === 'number' ? threads : 1,
    ...(tier && { precision: precision as Precision }),
    w,
    id,
    pass,
  };
}

async function lineOf(run: Run, w: string, bench: BenchCase, compiled: boolean): Promise<BenchLine> {
  const { backend, rule, machine } = run;
  const { flops } = bench;
  const head = headOf(backend, w, bench.id, bench.pass, compiled);
  try {
    const before = await calibrate(run);
    const { ms, min_ms, n, read, written, device, commands, note } = await timeCase(
      bench,
      backend,
      rule,
      compiled,
      run.commands,
    );
    const after = await calibrate(run);
    const line: BenchLine = { ...head, ms: digits(ms), min_ms: digits(min_ms), n };
    return {
      ...line,
      ...(flops === undefined ? {} : { gflops: digits(flops / ms / 1e6) }),
      ...(bench.dispatch ? {} : { bytes: read + written }),
      ...(device === null ? {} : { kernel_ms: digits(device) }),
      ...(machine && !bench.dispatch ? shares(boundOf(machine, flops ?? 0, read, written), ms, device) : {}),
      ...(machine && { cal: digits(Math.min(before, after), 3) }),
      ...(commands && { commands: commands.map(c => ({ ...c, ms: digits(c.ms, 3) })) }),
      ...(note ? { note } : {}),
    };
  } catch (error) {
    if (error instanceof ArgumentError) throw error;
    return { ...head, error: failureLine(error) };
  }
}

const shares = (bound: number, ms: number, device: number | null) => ({
  peak: digits((100 * bound) / ms, 3),
  ...(device === null ? {} : { kernel_peak: digits((100 * bound) / device, 3) }),
});

const calibrate = async ({ backend, machine }: Run): Promise<number> =>
  machine ? (await measureFlops(backend, 1)).perSecond / machine.flops.perSecond : Number.NaN;

/** The machine's rates as lines of the suite L. */
function machineLines(backend: Backend, { flops, levels }: Machine): BenchLine[] {
  const line = (id: string, { ms, n }: Rate): BenchLine => ({
    ...headOf(backend, MACHINE_SUITE, id, 'fwd'),
    ms: digits(ms),
    min_ms: digits(ms),
    n,
  });
  const giga = (rate: Rate) => digits(rate.perSecond / 1e9, 4);
  return [
    { ...line('fma', flops), gflops: giga(flops) },
    ...levels.flatMap(({ name, read, write, copy }) =>
      Object.entries({ read, write, copy }).map(([way, rate]) => ({
        ...line(`${name}-${way}`, rate),
        GBs: giga(rate),
      })),
    ),
  ];
}

/** Times suites and prints a line per case, eager and compiled. Exit code 1 if a case could not be run. */
export async function benchCommand(args: string[]): Promise<number> {
  const { options } = parse(benchSpec, args);
  const workloads = readWorkloads(options.workloads ?? process.env.WEIGHTLOOM_WORKLOADS ?? DEFAULT_WORKLOADS);
  const chosen = (id: string) => options.case?.test(id) !== false;
  if (options.suite === GENERATE_SUITE) {
    const backend = await init({ backend: options.backend, threads: options.threads });
    await benchGenerate(backend, chosen, line =>
      console.log(options.json ? JSON.stringify(line) : showGenerate(line)),
    );
    backend.dispose();
    return 0;
  }
  const selected = [...options.suite].flatMap(w =>
    w === MACHINE_SUITE || w === PLAN_SUITE
      ? []
      : SUITES[w](workloads).flatMap(bench => (chosen(bench.id) ? [{ w, bench }] : [])),
  );
  if (selected.length === 0 && /[^LI]/.test(options.suite))
    throw new ArgumentError(`bench: --case ${options.case?.source} matches no id of suite ${options.suite}`);
  const backend = await init({
    backend: options.backend,
    threads: options.threads,
    precision: options.precision,
  });
  if (options.calibrate) {
    const file = await calibrateAndKeep(backend);
    console.error(
      `bench: ${file ? `the planner's rates are kept in ${file}` : 'nothing is kept: WEIGHTLOOM_CACHE is empty'}`,
    );
    backend.dispose();
    return 0;
  }
  if (options.tune) {
    const print = (found: Tuned) => console.log(options.json ? JSON.stringify(found) : showTuned(found));
    const file = await tune(
      backend,
      selected.map(({ bench }) => bench),
      print,
    );
    console.error(
      `bench: ${file ? `the tilings are kept in ${file}` : 'nothing is kept: WEIGHTLOOM_CACHE is empty'}`,
    );
    backend.dispose();
    return 0;
  }
  const run: Run = {
    backend,
    rule: workloads.timing,
    machine: await measureMachine(backend),
    commands: options.commands,
  };
  let failed = false;
  const print = (line: BenchLine) => {
    failed ||= line.error !== undefined;
    console.log(options.json ? JSON.stringify(line) : show(line));
  };
  if (run.machine && (options.suite.includes(MACHINE_SUITE) || !options.json))
    machineLines(backend, run.machine).forEach(print);
  for (const { w, bench } of selected)
    for (const compiled of [false, true]) print(await lineOf(run, w, bench, compiled));
  if (options.suite.includes(PLAN_SUITE))
    await benchPlans(backend, chosen, line =>
      console.log(options.json ? JSON.stringify(line) : showPlans(line)),
    );
  backend.dispose();
  return failed ? 1 : 0;
}

const showTuned = ({ key, before, after, tiling }: Tuned): string =>
  `${key.padEnd(24)} ${before.toPrecision(4)} ms -> ${after.toPrecision(4)} ms  ${tiling ? JSON.stringify(tiling) : 'as it was'}`;

function show(shown: BenchLine): string {
  const {
    peer,
    id,
    pass,
    ms,
    min_ms,
    gflops,
    bytes,
    GBs,
    peak,
    kernel_ms,
    kernel_peak,
    commands,
    note,
    error,
  } = shown;
  const head = `${peer.padEnd(26)} ${id.padEnd(16)} ${pass.padEnd(7)}`;
  if (error !== undefined) return `${head} ${error}`;
  const speed = GBs ?? (bytes === undefined ? undefined : bytes / ms! / 1e6);
  const line = [
    `${head} ${ms!.toPrecision(4)} ms  (least ${min_ms!.toPrecision(4)})`,
    ...(gflops === undefined ? [] : [`${gflops.toPrecision(4)} GFLOP/s`]),
    ...(gflops !== undefined || speed === undefined ? [] : [`${speed.toPrecision(4)} GB/s`]),
    ...(peak === undefined ? [] : [`${peak} % of the peak`]),
    ...(kernel_ms === undefined
      ? []
      : [`kernels ${kernel_ms.toPrecision(4)} ms${kernel_peak === undefined ? '' : `, ${kernel_peak} %`}`]),
    ...(note === undefined ? [] : [note]),
  ].join('  ');
  const parts = commands?.map(
    c => `${(c.ms * 1e3).toFixed(2).padStart(12)} us  ${c.kernel.padEnd(12)} ${c.op} [${c.shape}]`,
  );
  return [line, ...(parts ?? [])].join('\n');
}
