/** Commands to dispatches: lowers a command, assembles its shaders, and remembers the result by shapes and strides. */
import type { Command, Expr, Scalar, View } from '../../core/backend.js';
import { DeviceLimitError, KernelError } from '../../core/errors.js';
import type { Parts } from './backend.js';
import type { Device } from './device.js';
import { denseStrides, type Pass, product } from './kernel.js';
import { Lru } from './memory.js';
import type { ParamsAt, Pipeline, Pipelines } from './pipelines.js';
import { type Operand, type Param, Source } from './source.js';

const RECIPES = 8192;

/** One dispatch. The slots of its source number the command's distinct buffers, then its temporaries. */
export interface Step {
  readonly source: Source;
  readonly params: readonly Param[];
  readonly x: number;
  readonly y: number;
  /** The kernel, for messages. */
  readonly what: string;
  /** Its shader. */
  code(): string;
  /** The pipeline with bindings of its own. */
  pipeline(): Pipeline;
}

export interface Recipe {
  readonly steps: readonly Step[];
  /** Bytes of each temporary. */
  readonly temporaries: readonly number[];
}

/** Where a command's operands lie (outs, then ins). A buffer is whatever names one by its identity. */
export interface Operands<B> {
  /** The distinct buffers, and for each operand its place among them. */
  readonly buffers: readonly B[];
  readonly slots: readonly number[];
  /** In elements, from where the buffer is bound. */
  readonly offsets: readonly number[];
}

/** Numbers the buffers of operands. */
export function operandsOf<B>(buffers: readonly B[], offsets: readonly number[]): Operands<B> {
  const distinct: B[] = [];
  const slots = buffers.map(buffer => {
    const at = distinct.indexOf(buffer);
    return at >= 0 ? at : distinct.push(buffer) - 1;
  });
  return { buffers: distinct, slots, offsets };
}

/** The cache of what commands become. */
export class Recipes {
  private recipes = new Lru<string, Recipe>(RECIPES);

  constructor(
    private readonly device: Device,
    private readonly pipelines: Pipelines,
    private readonly parts: Pick<Parts, 'kernels' | 'shaders'>,
    private readonly maxBindings: number,
    private readonly paramsAt: ParamsAt,
    private readonly Kind: new () => Source,
  ) {}

  /**
   * The dispatches of a command. `regions` are its operands by what of a buffer is theirs alone, where buffers hold
   * several. Throws KernelError or DeviceLimitError.
   */
  of(command: Command, operands: Operands<unknown>, regions = operands): Recipe {
    const { buffers, slots, offsets } = regions;
    if (buffers.length < slots.length) checkAliases(command, slots, offsets);
    const key = keyOf(command, operands);
    return this.recipes.get(key) ?? this.recipes.set(key, this.make(command, operands));
  }

  /** Forgets all recipes: they are made anew, by other tilings. */
  clear(): void {
    this.recipes = new Lru(RECIPES);
  }

  private make(command: Command, { buffers, slots, offsets }: Operands<unknown>): Recipe {
    const lower = this.parts.kernels.get(command.kernel);
    if (!lower) throw new KernelError(`${command.op}: the webgpu backend has no kernel '${command.kernel}'`);
    const temporaries: number[] = [];
    if (command.outs.every(out => product(out.shape) === 0)) return { steps: [], temporaries };
    const operands = [...command.outs, ...command.ins].map(
      ({ shape, strides, storage }, i): Operand => ({
        shape,
        strides,
        dtype: storage.dtype,
        slot: slots[i],
        offsetOf: offsets[i] === 0 ? -1 : i,
        aligned: offsets[i] % 4 === 0,
      }),
    );
    const passes = lower({
      kernel: command.kernel,
      outs: operands.slice(0, command.outs.length),
      ins: operands.slice(command.outs.length),
      attrs: command.attrs,
      software: this.device.software,
      mixed: this.Kind !== Source,
      subgroup: this.device.subgroup,
      tuning: this.device.tuning,
      multiply: this.device.multiply,
      temporary: (shape, dtype = 'f32') => {
        const bytes = product(shape) * (dtype === 'f16' ? 2 : 4);
        if (bytes > this.device.limits.maxStorageBufferBindingSize)
          throw new DeviceLimitError(`${command.op}: ${bytes} bytes of scratch memory cannot be bound`);
        const slot = buffers.length + temporaries.push(bytes) - 1;
        return { shape, strides: denseStrides(shape), dtype, slot, offsetOf: -1, aligned: true };
      },
    });
    return { steps: passes.map(pass => this.assemble(command, pass)), temporaries };
  }

  private assemble(command: Command, pass: Pass): Step {
    const most = this.device.limits.maxComputeWorkgroupsPerDimension;
    const y = Math.ceil(pass.workgroups / most);
    const x = Math.ceil(pass.workgroups / y);
    if (y > most)
      throw new DeviceLimitError(`${command.op}: ${pass.workgroups} workgroups are more than ${most}^2`);
    const source = new this.Kind();
    for (const [name, value] of Object.entries(pass.constants ?? {})) source.constant(name, value);
    for (const [name, value] of Object.entries(pass.params ?? {}))
      source.param(name, { kind: 'size', value });
    const line = y > 1 ? ` + id.y * ${source.param('grid_width', { kind: 'size', value: x })}` : '';
    source.add(`fn group_index(id: vec3<u32>) -> u32 { return id.x${line}; }\n`);
    for (const access of pass.access) source.access(access);
    pass.generate?.(source);
    const body = pass.bodies.map(name => this.shaderNamed(name)).join('') + (pass.shader ?? '');
    const math = this.shaderNamed('math');
    const { slots, params, signature } = source;
    if (slots.length > this.maxBindings)
      throw new DeviceLimitError(
        `${command.op}: kernel '${command.kernel}' needs ${slots.length} buffers, at most ${this.maxBindings} can be bound`,
      );
    const what = `${command.op} (kernel '${command.kernel}')`;
    const code = () => source.finish(body, math, pass.directives);
    let made: Pipeline | undefined;
    const pipeline = () =>
      (made ??= this.pipelines.pipeline(code(), signature, params.length > 0 ? this.paramsAt : null, what));
    return { source, params, x, y, what, code, pipeline };
  }

  private shaderNamed(name: string): string {
    const { shaders } = this.parts;
    if (!Object.hasOwn(shaders, name)) throw new KernelError(`there is no shader '${name}'`);
    return shaders[name];
  }
}

/**
 * A buffer that is written may be read by the same command only where every element is read by the thread that writes
 * it: elementwise, in place, with one layout. Chains see to that themselves.
 */
export function checkAliases(
  { kernel, op, outs, ins }: Command,
  slots: readonly number[],
  offsets: readonly number[],
): void {
  if (kernel === 'chain') return;
  ins.forEach((x, i) => {
    const at = outs.length + i;
    const shared = outs.findIndex((_, j) => slots[j] === slots[at]);
    if (shared < 0) return;
    const inPlace = outs.some(
      (y, j) => slots[j] === slots[at] && offsets[j] === offsets[at] && sameStrides(x, y),
    );
    if (kernel !== 'elementwise' || !inPlace)
      throw new KernelError(
        `${op}: kernel '${kernel}' cannot read input ${i} from the storage that output ${shared} is written to`,
      );
  });
}

const sameStrides = (x: View, y: View): boolean =>
  x.shape.every((n, axis) => n === 1 || x.strides[axis] === y.strides[axis]);

/**
 * All that a recipe depends on. Immediates are not, nor are offsets but for whether they are 0: they are data of each
 * command.
 */
function keyOf({ kernel, outs, ins, attrs }: Command, { slots, offsets }: Operands<unknown>): string {
  let key = kernel;
  for (const name in attrs) {
    const value = attrs[name];
    key += `;${name}=${attrKey(value)}`;
  }
  const count = outs.length;
  for (let i = 0; i < slots.length; i++) {
    const view = i < count ? outs[i] : ins[i - count];
    const mark = i === count ? '<' : '|';
    const start = offsets[i] === 0 ? '' : offsets[i] % 4 === 0 ? '*' : '+';
    key += `${mark}${view.storage.dtype}${slots[i]}${start}:${view.shape};${view.strides}`;
  }
  return key;
}

const attrKey = (value: unknown): string =>
  isExpr(value) ? exprKey(value) : Array.isArray(value) ? value.map(attrKey).join() : String(value);

/** The numbers that a command's expressions read. */
export function immediatesOf({ attrs }: Command): readonly number[] {
  const { exprs, expr = attrs.epilogue ?? attrs.prologue } = attrs;
  if (exprs) return (exprs as readonly Expr[]).flatMap(({ immediates }) => immediates);
  return isExpr(expr) ? expr.immediates : [];
}

const isExpr = (value: unknown): value is Expr =>
  typeof value === 'object' && value !== null && 'code' in value;

const exprKeys = new WeakMap<Expr, string>();
const scalarIds = new Map<string, number>();

/** The structure of an expression, without the values of its immediates. */
function exprKey(expr: Expr): string {
  let key = exprKeys.get(expr);
  if (key === undefined) {
    const code = expr.code.map(({ scalar, args }) => `${scalarId(scalar)}(${args})`);
    key = `${expr.inputs}{${code.join('')}}${expr.outs}`;
    exprKeys.set(expr, key);
  }
  return key;
}

function scalarId({ name, wgsl }: Scalar): number {
  const text = `${name} ${wgsl}`;
  let id = scalarIds.get(text);
  if (id === undefined) scalarIds.set(text, (id = scalarIds.size));
  return id;
}
