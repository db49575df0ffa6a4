/**
 * How a generated weight is applied to rows: every way there is, its predicted cost, and the cheapest that
 * fits the memory there is. Pure arithmetic on sizes, so that a choice can be explained,
 * tested and overridden without running anything.
 */
import { ArgumentError, MemoryContractError } from '../core/errors.js';
import { type Machine, machines, type Pass, type PlanStep, type StepKind, secondsOf } from './rates.js';

/**
 * - `materialise`: W[t] = Σ_e code[t,e] basis[e], then one product per task.
 * - `fused`: a tile of W at a time is made, applied to its task's rows and dropped; the backward pass makes it again.
 * - `reorder`: (code ⊗ x) · basis as one product; no W is made.
 * - `lowRank`: x · a[t] · b[t]; no W is made.
 */
export type Strategy = 'materialise' | 'fused' | 'reorder' | 'lowRank';

/** Sizes of one generated linear layer. */
export interface LinearShapes {
  readonly kind: 'full' | 'chunked' | 'lowRank';
  /** T. */
  readonly tasks: number;
  /** n: rows of each task (their mean where they differ). */
  readonly rows: number;
  readonly in: number;
  readonly out: number;
  /** E: width of the code (the rank r for lowRank). */
  readonly code: number;
  /** For a chunked weight: how many chunks (C), and elements of one. */
  readonly chunks?: number;
  readonly chunk?: number;
  /** The element of the first chunk a chunked weight begins with; 0 unless given. */
  readonly start?: number;
  /** A part all tasks share is added. */
  readonly base?: boolean;
  /** The basis is a window of a wider one; reordering copies it first. */
  readonly windowed?: boolean;
}

/** One way to apply the weight, and what it costs. */
export interface Candidate {
  readonly strategy: Strategy;
  /** Of the forward pass, of one part of the tasks. */
  readonly steps: readonly PlanStep[];
  /** The tasks are cut in so many parts, one after the other; the backward pass then makes each part's weights again. */
  readonly parts: number;
  /** Of the forward pass, all parts together. */
  readonly flops: number;
  readonly bytes: number;
  /** Temporaries alive at once, without operands and result: what `maxBytes` bounds. */
  readonly workspace: number;
  /** Predicted for the pass asked for. */
  readonly seconds: number;
}

export interface LinearChoice {
  readonly shapes: LinearShapes;
  readonly machine: Machine;
  readonly pass: Pass;
  readonly strategy: Strategy;
  /** Of the strategy's candidate. */
  readonly parts: number;
  /** True if the caller chose. */
  readonly forced: boolean;
  /** Cheapest first. */
  readonly candidates: readonly Candidate[];
}

export interface LinearPlan extends LinearChoice {
  /** The choice, each candidate's cost, and why the others lose. */
  explain(): string;
}

export interface PlanOptions {
  /** Takes the choice out of the planner's hands. */
  readonly strategy?: Strategy;
  /** A backend's name, or figures of your own; 'cpu' unless given. */
  readonly machine?: string | Machine;
  /** What is to be fast: 'fwd' unless given. */
  readonly pass?: Pass;
  /** Temporaries may take so many bytes (those of the step's `maxBytes` unless given): tasks are cut in parts where they would take more. */
  readonly maxBytes?: number;
  /** The tasks cannot be cut in parts (rows in unequal numbers). */
  readonly whole?: boolean;
}

/**
 * The budget of every generated layer applied from now on that is given none, as far as cutting can keep it: `compile`
 * sets it, and judges the whole step itself.
 */
export const planning = { maxBytes: Infinity };

/** More parts cost more in kernels than they save in memory. */
const MOST_PARTS = 256;

/** Rows of a task from which on the fused plan makes tiles of its weight. */
const TILED_ROWS = 2;

/**
 * How chunks lie to the rows of a matrix `[in,out]`: whole rows in each, several to a row, or (null) neither, so that
 * no part of x meets one chunk alone.
 */
export function chunksLie({ chunk = 0, start = 0, out }: LinearShapes): 'rows' | 'columns' | null {
  if (chunk === 0 || out === 0) return null;
  if (chunk % out === 0 && start % out === 0) return 'rows';
  return out % chunk === 0 && start % chunk === 0 ? 'columns' : null;
}

/** The plans a weight of these sizes has. */
export function strategiesFor(shapes: LinearShapes): readonly Strategy[] {
  if (shapes.kind === 'full') return ['materialise', 'fused', 'reorder'];
  if (shapes.kind === 'lowRank') return ['materialise', 'lowRank'];
  const lie = chunksLie(shapes);
  if (!lie) return ['materialise'];
  return lie === 'rows' ? ['materialise', 'fused', 'reorder'] : ['materialise', 'reorder'];
}

/** Why a weight has not a plan. */
function without(strategy: Strategy, { kind, out, chunk = 0 }: LinearShapes): string {
  if (kind === 'lowRank') return 'x · a · b makes no W, and fewer products than any other way without one';
  if (strategy === 'lowRank') return 'a sum over the code has no factors of low rank';
  if (chunk < out)
    return 'one element of x meets each chunk, whose tile is used once: reorder is that product';
  return `chunks of ${chunk} and rows of ${out} do not end together, so no part of x meets one chunk alone`;
}

/** A product `[m,k] · [k,n]` of each of `T` tasks. Everything passes memory once. */
const each = (what: string, T: number, m: number, k: number, n: number): PlanStep => ({
  what,
  kind: 'apply',
  tasks: T,
  lines: T * m,
  flops: 2 * T * m * k * n,
  bytes: 4 * T * (m * (k + n) + k * n),
});
/** A product `[m,k] · [k,n]` with a matrix that is one for all. */
const shared = (what: string, kind: 'weave' | 'contract', m: number, k: number, n: number): PlanStep => ({
  what,
  kind,
  tasks: 1,
  lines: m,
  flops: 2 * m * k * n,
  bytes: 4 * (m * (k + n) + k * n),
});
const pass = (
  what: string,
  lines: number,
  flops: number,
  elements: number,
  kind: StepKind = 'pass',
  tasks = 1,
): PlanStep => ({
  what,
  kind,
  tasks,
  lines,
  flops,
  bytes: 4 * elements,
});

function weaving(s: LinearShapes): PlanStep {
  const { tasks: T, in: i, out: o, code: E } = s;
  if (s.kind === 'lowRank') return each('W = a · b', T, i, E, o);
  if (s.kind === 'full') return shared('W = code · basis', 'weave', T, E, i * o);
  const { chunks = 1, chunk = i * o } = s;
  return shared('W = code · basis', 'weave', T * chunks, E, chunk);
}

function stepsOf(strategy: Strategy, s: LinearShapes): PlanStep[] {
  const { tasks: T, rows: n, in: i, out: o, code: E, base, windowed } = s;
  const fromBase = base
    ? [shared('x · base', 'contract', T * n, i, o), pass('sum of both', T * n, T * n * o, 3 * T * n * o)]
    : [];
  switch (strategy) {
    case 'materialise':
      return [
        weaving(s),
        ...(base ? [pass('W + base', T, T * i * o, 2 * T * i * o + i * o)] : []),
        each('y = x · W', T, n, i, o),
      ];
    case 'fused':
      return s.kind === 'chunked' ? chunkTiles(s) : tiles(s);
    case 'reorder':
      return s.kind === 'chunked'
        ? [...chunkCodes(s), ...fromBase]
        : [
            ...(windowed ? [pass('basis made dense', E * i, 0, 2 * E * i * o)] : []),
            {
              what: 'code ⊗ x',
              kind: 'outer',
              tasks: T,
              lines: T * n * E,
              flops: T * n * E * i,
              bytes: 4 * T * (E + n * i + n * E * i),
            },
            shared('y = (code ⊗ x) · basis', 'contract', T * n, E * i, o),
            ...fromBase,
          ];
    case 'lowRank':
      return [each('h = x · a', T, n, i, E), each('y = h · b', T, n, E, o), ...fromBase];
  }
}

/** (code of x's rows) · basis: the chunks' codes take the place of the weights. */
function chunkCodes({
  tasks: T,
  rows: n,
  in: i,
  out: o,
  code: E,
  chunks = 1,
  chunk = 1,
}: LinearShapes): PlanStep[] {
  const high = chunk / o;
  return high >= 1
    ? [each('z = code · x', T * n, E, chunks, high), shared('y = z · basis', 'contract', T * n, E * high, o)]
    : [
        each('z = x · code', T, n, i, E / high),
        shared('y = z · basis', 'contract', (T * n) / high, E, chunk),
      ];
}

/** A chunk after the other: its part of x times its tiles, added to the others'. */
function chunkTiles(s: LinearShapes): PlanStep[] {
  const { tasks: T, rows: n, out: o, chunks = 1, chunk = 1 } = s;
  const tile = tiles({ ...s, in: chunk / o });
  return Array.from({ length: chunks }, (_, k) =>
    k === 0 ? tile : [...tile, pass('sum of both', T * n, T * n * o, 3 * T * n * o)],
  ).flat();
}

/** Of one row a task, sums over pairs; of more, tiles of weights. */
function tiles({ tasks: T, rows: n, in: i, out: o, code: E, base }: LinearShapes): PlanStep[] {
  const operands = T * E + E * i * o + (base ? i * o : 0);
  const passed = T * n * (i + o);
  const applied = 2 * T * n * i * o;
  if (n < TILED_ROWS)
    return [pass('y = (code ⊗ x) · basis', T * n, E * applied, operands + passed, 'pairs', T)];
  return [
    pass('W = code · basis', T, 2 * T * E * i * o, operands, 'weaveTile'),
    pass('y = x · W', T * n, applied, passed, 'applyTile', T),
  ];
}

/** Bytes of what a plan makes beside its result; with gradients, of theirs too. */
function workspaceOf(strategy: Strategy, s: LinearShapes, pass: Pass): number {
  const { tasks: T, rows: n, in: i, out: o, code: E, windowed, base } = s;
  const twice = pass === 'fwd' ? 1 : 2;
  const fromBase = base ? T * n * o : 0;
  const coded = T * n * E * Math.max((s.chunk ?? 0) / o, 1) * Math.max(o / (s.chunk ?? o), 1);
  const elements = {
    materialise: twice * T * Math.max(i * o, (s.chunks ?? 1) * (s.chunk ?? 0)),
    fused: s.kind === 'chunked' ? twice * T * n * o : 0,
    reorder: twice * (s.kind === 'chunked' ? coded : T * n * E * i + (windowed ? E * i * o : 0)) + fromBase,
    lowRank: twice * T * n * E + fromBase,
  };
  return 4 * elements[strategy];
}

function cost(strategy: Strategy, s: LinearShapes, machine: Machine, pass: Pass, parts: number): Candidate {
  const tasks = Math.ceil(s.tasks / parts);
  const part = parts === 1 ? s : { ...s, tasks };
  const steps = stepsOf(strategy, part);
  const total = (f: (step: PlanStep) => number) => parts * steps.reduce((sum, step) => sum + f(step), 0);
  // Each part has a gradient of the basis, added to those before it.
  const gradients = pass === 'fwdbwd' && s.kind === 'full' ? 8 * s.code * s.in * s.out : 0;
  const again = pass === 'fwdbwd' && parts > 1;
  return {
    strategy,
    steps,
    parts,
    flops: total(step => step.flops),
    bytes: total(step => step.bytes),
    workspace: workspaceOf(strategy, part, pass) + (parts > 1 ? gradients : 0),
    seconds:
      total(step => secondsOf(step, machine, pass)) +
      (again ? total(step => secondsOf(step, machine, 'fwd')) : 0),
  };
}

/** The candidate in the fewest parts that fit, or in as many as there may be. */
function fitted(strategy: Strategy, s: LinearShapes, machine: Machine, options: PlanOptions): Candidate {
  const { pass = 'fwd', maxBytes = planning.maxBytes, whole = false } = options;
  const inParts = (parts: number) => cost(strategy, s, machine, pass, parts);
  let parts = 1;
  const most = whole ? 1 : Math.max(1, Math.min(s.tasks, MOST_PARTS));
  while (parts < most && inParts(parts).workspace > maxBytes) parts = Math.min(most, 2 * parts);
  // The fewest tasks that the last doubling left too many.
  for (let step = parts >> 2; step >= 1; step >>= 1)
    if (inParts(parts - step).workspace <= maxBytes) parts -= step;
  return inParts(parts);
}

/**
 * The cheapest way to apply a generated linear layer within `maxBytes`. Throws ArgumentError for a strategy this kind of
 * weight does not have, or a size that is none; MemoryContractError, with the shortfall, where no way fits.
 */
export function planLinear(shapes: LinearShapes, options: PlanOptions = {}): LinearPlan {
  const choice = choose(shapes, options);
  return { ...choice, explain: () => explain(choice) };
}

/** What `planLinear` chooses, without the means to explain it, which a page need not load to predict. */
export function choose(shapes: LinearShapes, options: PlanOptions = {}): LinearChoice {
  const { tasks, rows, in: i, out, code } = shapes;
  for (const [name, n] of Object.entries({ tasks, rows, in: i, out, code }))
    if (!(n >= 0 && n < Infinity)) throw new ArgumentError(`planLinear: ${name} must be a size, got ${n}`);
  const ways = strategiesFor(shapes);
  const { strategy: wanted, pass = 'fwd', maxBytes = planning.maxBytes } = options;
  if (wanted && !ways.includes(wanted))
    throw new ArgumentError(
      `planLinear: a ${shapes.kind} weight has the plans ${ways.join(', ')}, not ${wanted}: ${without(wanted, shapes)}`,
    );
  const machine = machineNamed(options.machine ?? 'cpu');
  const candidates = ways
    .map(way => fitted(way, shapes, machine, options))
    .sort((a, b) => Number(a.workspace > maxBytes) - Number(b.workspace > maxBytes) || a.seconds - b.seconds);
  const chosen = candidates.find(c => !wanted || c.strategy === wanted)!;
  if (chosen.workspace > maxBytes && options.maxBytes !== undefined) {
    const least = Math.min(...candidates.filter(c => !wanted || c === chosen).map(c => c.workspace));
    throw new MemoryContractError(
      `planLinear: a ${shapes.kind} weight [${i},${out}] for ${tasks} tasks needs ${least} bytes of temporaries at ` +
        `least, ${least - maxBytes} more than maxBytes = ${maxBytes}`,
    );
  }
  const { strategy, parts } = chosen;
  return { shapes, machine, pass, strategy, parts, forced: wanted !== undefined, candidates };
}

/**
 * Whether the weights of one projection, planned one by one for the same rows, cost less if one product makes all of
 * them: no plan is forced to another way, all can be whole, and what the one product saves is more than the plans do.
 */
export function together(plans: readonly LinearChoice[]): boolean {
  const weights = plans.reduce((sum, { shapes }) => sum + shapes.in * shapes.out, 0);
  let saved = 0;
  for (const [k, plan] of plans.entries()) {
    const { shapes, machine, pass, forced, strategy, candidates } = plan;
    const { parts, steps } = candidates.find(c => c.strategy === 'materialise')!;
    if (parts > 1 || (forced && strategy !== 'materialise')) return false;
    const [, ...others] = steps;
    if (k === 0) others.push(shared('', 'weave', shapes.tasks, shapes.code, weights));
    saved += planned(plan).seconds;
    for (const step of others) saved -= secondsOf(step, machine, pass);
  }
  return saved >= 0;
}

const planned = ({ candidates, strategy }: LinearChoice): Candidate =>
  candidates.find(c => c.strategy === strategy)!;

function machineNamed(machine: string | Machine): Machine {
  if (typeof machine !== 'string') return machine;
  const found = machines[machine];
  if (!found)
    throw new ArgumentError(
      `planLinear: machine '${machine}' is none of ${Object.keys(machines).join(', ')}`,
    );
  return found;
}

const sized = (x: number, units: readonly string[]): string => {
  let k = 0;
  while (x >= 1000 && k < units.length - 1) {
    x /= 1000;
    k++;
  }
  return `${x.toPrecision(3)} ${units[k]}`;
};
const flopsText = (x: number) => sized(x, ['FLOP', 'kFLOP', 'MFLOP', 'GFLOP', 'TFLOP']);
const bytesText = (x: number) => sized(x, ['B', 'kB', 'MB', 'GB', 'TB']);
const timeText = (x: number) => sized(x * 1e9, ['ns', 'us', 'ms', 's']);

function explain(plan: LinearChoice): string {
  const { shapes: s, machine, pass, strategy, forced, candidates } = plan;
  const chosen = planned(plan);
  const line = (c: Candidate) =>
    `${c.strategy}${c.parts > 1 ? ` in ${c.parts} parts` : ''}: ${flopsText(c.flops)}, ${bytesText(c.bytes)}, ` +
    `${bytesText(c.workspace)} of temporaries, ${timeText(c.seconds)} (${c.steps.map(x => x.what).join('; ')})`;
  const why = (c: Candidate) => {
    const ratio = (f: (c: Candidate) => number) => (f(c) / f(chosen)).toPrecision(2);
    const slower = c.seconds >= chosen.seconds;
    return `  ${slower ? 'loses' : 'would win'}: ${ratio(x => x.seconds)}x the time, ${ratio(x => x.flops)}x the FLOPs, ${ratio(x => x.bytes)}x the bytes`;
  };
  return [
    `${s.kind} weight [${s.in},${s.out}] for ${s.tasks} tasks of ${s.rows} rows, code ${s.code}: ${strategy}${forced ? ' (as asked)' : ''}`,
    `seconds ${pass === 'fwd' ? 'forward' : 'with gradients'}, operations and bytes forward`,
    line(chosen),
    ...candidates.filter(c => c !== chosen).flatMap(c => [line(c), why(c)]),
    machine.rates
      ? 'machine: by rates measured on it'
      : `machine: ${flopsText(machine.flops)}/s, ${bytesText(machine.bandwidth)}/s, ${timeText(machine.launch)} a kernel`,
  ].join('\n');
}
