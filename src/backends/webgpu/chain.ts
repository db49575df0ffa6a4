/**
 * Chains: neighbouring commands of a compiled step that pass data on only within a task (the leading axis of all they
 * touch) run as one dispatch, in which a workgroup takes one task through all of them: the layers of a network whose
 * weights are the task's own, their losses, and the way back. Memory holds what later commands read, as without.
 */
import type { Command, Expr, View } from '../../core/backend.js';
import type { Device } from './device.js';
import { evaluator, exprsOf, shifted, wordsOf } from './elementwise.js';
import type { Place } from './executable.js';
import { type Call, type Pass, product } from './kernel.js';
import { FOLDS, functionsOf } from './reduce.js';
import { tierShaders } from './shaders.gen.js';
import { MAX_PARAMS, type Operand, type Source } from './source.js';
import { even } from './tiling.js';
import { Touched } from './touched.js';

/** Fewer tasks leave cores idle, of which each takes a task at a time. */
const FEWEST_TASKS = 8;
/** Elements of a task that an elementwise stage stores at most: more of them are faster where each has a thread. */
const MOST_ELEMENTS = 4096;
/** How many values a stage folds to one at most: one thread does it. */
const MOST_FOLDED = 256;
/** Multiply-adds of a task's product at most: more of them take a workgroup longer than a dispatch costs. */
const MOST_PRODUCTS = 2 ** 15;
/** Threads of a workgroup, */
const WIDTH = 128;
/** and how many results of a product each has in registers at most. */
const MOST_ROWS = 8;
const MOST_COLUMNS = 4;
/** Commands passed over in search of a chain's next one at most. */
const REACH = 32;

/** Where a view has a task: of each `stride` elements, the window number `base` of the first one is its. */
interface Slices {
  readonly stride: number;
  readonly base: number;
}

/** The tasks' slices of a view at a place in its region, null where they overlap or are not told apart. */
function slicesOf({ shape, strides }: View, place: Place): Slices | null {
  const offset = place.offset - place.start;
  const [stride, ...inner] = strides;
  if (inner.some(s => s < 0) || stride <= 0) return null;
  const extent = inner.reduce((sum, s, axis) => sum + s * (shape[axis + 1] - 1), 0);
  const base = Math.floor(offset / stride);
  return offset - base * stride + extent < stride ? { stride, base } : null;
}

const sameSlices = (a: Slices | null, b: Slices | null): boolean =>
  a !== null && b !== null && a.stride === b.stride && a.base === b.base;

/** True if a command's results for a task follow from its operands of that task, and a workgroup can compute them. */
function isStage({ kernel, outs, ins, attrs }: Command, tasks: number): boolean {
  const views = [...outs, ...ins];
  const fits = views.every(
    ({ shape, storage }) => shape[0] === tasks && storage.dtype === 'f32' && !shape.includes(0),
  );
  if (!fits) return false;
  const [y] = outs;
  const elements = product(y.shape) / tasks;
  if (kernel === 'matmul')
    return outs.length === 1 && y.shape.length === 3 && elements * ins[0].shape[2] <= MOST_PRODUCTS;
  if (kernel === 'elementwise') return attrs.expr !== undefined && elements <= MOST_ELEMENTS;
  if (kernel !== 'reduce' || !(String(attrs.fn) in FOLDS)) return false;
  const length = product(ins[0].shape) / tasks / elements;
  return elements <= MOST_ELEMENTS && length <= MOST_FOLDED && ins[0].shape.length > Number(attrs.reduced);
}

/** The number of tasks of a chain that could begin with this command, or 0. */
function tasksOf(command: Command): number {
  const [tasks] = command.outs[0].shape;
  return command.kernel === 'matmul' && tasks >= FEWEST_TASKS && isStage(command, tasks) ? tasks : 0;
}

interface ChainLimits {
  readonly maxBindings: number;
  /** Bytes of a storage that one binding holds at most. */
  readonly maxBinding: number;
}

class Chain {
  readonly members: Command[] = [];
  private readonly touched = new Touched();
  /** The slices by which all members use a region; null where these differ. */
  private readonly slices = new Map<object, Slices | null>();
  private words = 1;

  constructor(
    private readonly tasks: number,
    private readonly limits: ChainLimits,
  ) {}

  /** True if the command may become the next member. */
  accepts(command: Command, places: readonly Place[]): boolean {
    const { maxBindings, maxBinding } = this.limits;
    const views = [...command.outs, ...command.ins];
    return (
      isStage(command, this.tasks) &&
      views.every(({ storage }) => storage.size * 4 <= maxBinding) &&
      this.words + wordsOf(command, exprs(command)) <= MAX_PARAMS &&
      this.touched.countWith(regionsOf(places)) <= maxBindings &&
      views.every((view, i) => this.confined(view, places[i], i < command.outs.length))
    );
  }

  add(command: Command, places: readonly Place[]): void {
    this.members.push(command);
    this.words += wordsOf(command, exprs(command));
    this.touched.add(regionsOf(places), command.outs.length);
    [...command.outs, ...command.ins].forEach((view, i) => {
      const { region } = places[i];
      const slices = slicesOf(view, places[i]);
      const before = this.slices.get(region);
      this.slices.set(region, before === undefined || sameSlices(before, slices) ? slices : null);
    });
  }

  /** True if a command must stay behind the members. */
  precedes({ outs }: Command, places: readonly Place[]): boolean {
    return this.touched.conflicts(regionsOf(places), outs.length);
  }

  /** The members as one command. */
  command(): Command {
    const { members } = this;
    return {
      kernel: 'chain',
      op: members.map(({ op }) => op).join(', '),
      outs: members.flatMap(({ outs }) => outs),
      ins: members.flatMap(({ ins }) => ins),
      attrs: {
        exprs: members.flatMap(member => exprs(member)),
        stages: members.map(({ kernel, outs, ins, attrs }) => [
          kernel,
          outs.length,
          ins.length,
          attrs.epilogue ? 'epilogue' : attrs.prologue ? 'prologue' : '',
          Number(attrs.reduced ?? 0),
          String(attrs.fn ?? ''),
        ]),
      },
    };
  }

  /** True if what the members and this view write of a region is seen by the task alone that wrote it. */
  private confined(view: View, place: Place, written: boolean): boolean {
    const slices = slicesOf(view, place);
    if (written && !slices) return false;
    const others = this.slices.get(place.region);
    if (others === undefined || !(written || this.touched.writes(place.region))) return true;
    return sameSlices(others, slices);
  }
}

const regionsOf = (places: readonly Place[]): object[] => places.map(({ region }) => region);

/** The expressions of a command that may become a stage. */
const exprs = ({ kernel, attrs }: Command): readonly Expr[] => {
  const { epilogue, prologue } = attrs as { epilogue?: Expr; prologue?: Expr };
  if (kernel === 'elementwise') return exprsOf(attrs);
  return [epilogue ?? prologue].filter(expr => expr !== undefined);
};

/**
 * The commands with chains of them joined, where the adapter is none that computes on the processor: compilers of those
 * run a barrier by suspending every thread, which takes longer than a dispatch. A command in between that does not
 * depend on the chain goes before it, others go behind. `placesOf` tells where a command's outputs lie, then its inputs.
 */
export function chains(
  { software, limits }: Device,
  commands: readonly Command[],
  placesOf: (command: Command) => readonly Place[],
  maxBindings: number,
): readonly Command[] {
  const most = { maxBindings, maxBinding: limits.maxStorageBufferBindingSize };
  return software ? commands : joined(commands, placesOf, most);
}

function joined(
  commands: readonly Command[],
  placesOf: (command: Command) => readonly Place[],
  limits: ChainLimits,
): Command[] {
  const out: Command[] = [];
  let left = commands;
  for (let at = 0; at < left.length; ) {
    const found = chainAt(left, at, placesOf, limits);
    if (found) {
      out.push(...joined(found.before, placesOf, limits), found.chain);
      left = found.after;
      at = 0;
    } else out.push(left[at++]);
  }
  return out;
}

/** The chain that begins with command number `at`, if there is one, and what goes before it and behind. */
function chainAt(
  commands: readonly Command[],
  at: number,
  placesOf: (command: Command) => readonly Place[],
  limits: ChainLimits,
): { before: readonly Command[]; chain: Command; after: readonly Command[] } | null {
  const chain = new Chain(tasksOf(commands[at]), limits);
  const before: Command[] = [];
  const after: Command[] = [];
  const behind = new Touched();
  let next = at;
  for (; next < commands.length && after.length <= REACH; next++) {
    const command = commands[next];
    const places = placesOf(command);
    const late = behind.conflicts(regionsOf(places), command.outs.length);
    if (!late && chain.accepts(command, places)) chain.add(command, places);
    else if (next === at) return null;
    else if (!late && !chain.precedes(command, places)) before.push(command);
    else {
      after.push(command);
      behind.add(regionsOf(places), command.outs.length);
    }
  }
  if (chain.members.length === 1) return null;
  return { before, chain: chain.command(), after: [...after, ...commands.slice(next)] };
}

type StageAttrs = readonly [
  kernel: string,
  outs: number,
  ins: number,
  expr: 'epilogue' | 'prologue' | '',
  reduced: number,
  fn: string,
];

/** One stage as the lowering sees it. */
interface Stage {
  /** What names of it end in. */
  readonly s: string;
  readonly kernel: string;
  readonly outs: readonly Operand[];
  readonly ins: readonly Operand[];
  readonly epilogue?: Expr;
  readonly prologue?: Expr;
  readonly expr?: Expr;
  readonly reduced: number;
  readonly fn: string;
}

function stagesOf({ outs, ins, attrs }: Call): Stage[] {
  const next = { out: 0, in: 0, expr: 0, immediate: 0 };
  return (attrs.stages as readonly StageAttrs[]).map(([kernel, written, read, place, reduced, fn], s) => {
    const start = { ...next };
    next.out += written;
    next.in += read;
    const named = kernel === 'elementwise' ? 'expr' : place;
    const expr = named && (attrs.exprs as readonly Expr[])[next.expr++];
    if (expr) next.immediate += expr.immediates.length;
    return {
      s: `_${s}`,
      kernel,
      outs: outs.slice(start.out, next.out),
      ins: ins.slice(start.in, next.in),
      ...(expr && { [named]: shifted(expr, start.immediate) }),
      reduced,
      fn,
    };
  });
}

/** What a stage brings: its shader, constants, and accessors and functions added to the source. */
interface Lowered {
  readonly body: 'chainProduct' | 'chainReduce' | 'chainElementwise';
  readonly constants: Readonly<Record<string, number>>;
  readonly generate: (source: Source) => void;
}

function productStage({ s, ins, outs, epilogue }: Stage): Lowered {
  const [a, b, ...extras] = ins;
  const [y] = outs;
  const [, m, k] = a.shape;
  const n = y.shape[2];
  const threadsN = Math.min(n, WIDTH);
  const threadsM = Math.floor(WIDTH / threadsN);
  return {
    body: 'chainProduct',
    constants: {
      M: m,
      N: n,
      K: k,
      ROWS: even(Math.ceil(m / threadsM), MOST_ROWS),
      COLUMNS: even(Math.ceil(n / threadsN), MOST_COLUMNS),
      THREADS_M: threadsM,
      THREADS_N: threadsN,
    },
    generate: source => {
      const groups = [1, 1, 1];
      source.load(`a${s}`, a, groups);
      source.load(`b${s}`, b, groups);
      const store = epilogue ? { expr: epilogue, ins: extras } : 'raw';
      source.access({ name: `y${s}`, operand: y, groups, store });
    },
  };
}

function reduceStage({ s, ins, outs, epilogue, prologue, reduced, fn }: Stage): Lowered {
  const [x, ...extras] = ins;
  const [y] = outs;
  const rank = x.shape.length;
  const groups = [1, rank - reduced - 1, reduced];
  return {
    body: 'chainReduce',
    constants: { OUTPUTS: product(y.shape.slice(1)), LENGTH: product(x.shape.slice(rank - reduced)) },
    generate: source => {
      if (prologue) {
        const loaded = ins.map((operand, j) => {
          source.load(`x${j}${s}`, operand, groups);
          return `load_x${j}${s}(i0, i1, i2)`;
        });
        const { lines, outs: results } = source.expression(prologue, loaded);
        source.add(`fn load_x${s}(i0: u32, i1: u32, i2: u32) -> f32 {\n${lines}  return ${results[0]};\n}\n`);
      } else source.load(`x${s}`, x, groups);
      const store = epilogue ? { expr: epilogue, ins: extras } : 'raw';
      source.access({ name: `y${s}`, operand: y, groups: [1, y.shape.length - 1], store });
      functionsOf(source, fn, s);
    },
  };
}

function elementwiseStage({ s, ins, outs, expr }: Stage): Lowered {
  return {
    body: 'chainElementwise',
    constants: { COUNT: product(outs[0].shape.slice(1)) },
    generate: source => {
      const groups = [1, outs[0].shape.length - 1];
      outs.forEach((y, j) => {
        source.access({ name: `y${s}_${j}`, operand: y, groups, store: 'raw' });
      });
      ins.forEach((x, j) => {
        source.load(`x${s}_${j}`, x, groups);
      });
      evaluator(source, { expr: expr!, outs, ins }, s, ['task', 'i']);
    },
  };
}

/** One dispatch for all stages of a command, a workgroup for each task. */
export function chain(call: Call): Pass[] {
  const stages = stagesOf(call);
  const lowered = stages.map(stage => {
    if (stage.kernel === 'matmul') return productStage(stage);
    return stage.kernel === 'reduce' ? reduceStage(stage) : elementwiseStage(stage);
  });
  const named = (text: string, s: string) => text.replaceAll(/_S\b/g, s);
  // What a stage stores is seen by the next.
  const calls = stages.map(({ s }) => `  stage${s}(task, lane);\n`).join('  storageBarrier();\n');
  const tasks = call.outs[0].shape[0];
  return [
    {
      bodies: [],
      shader:
        tierShaders.chain +
        lowered.map(({ body }, i) => named(tierShaders[body], stages[i].s)).join('') +
        `fn stages(task: u32, lane: u32) {\n${calls}}\n`,
      constants: Object.assign(
        { WIDTH },
        ...lowered.map(({ constants }, i) =>
          Object.fromEntries(Object.entries(constants).map(([name, value]) => [name + stages[i].s, value])),
        ),
      ),
      params: { tasks },
      access: [],
      generate: source => {
        for (const { generate } of lowered) generate(source);
      },
      workgroups: tasks,
    },
  ];
}
