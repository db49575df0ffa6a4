/** The generated part of a shader: constants, bindings, accessors of strided operands, elementwise expressions. */
import type { DType, Expr, Scalar } from '../../core/backend.js';
import { DeviceLimitError } from '../../core/errors.js';

/** One operand of a pass: a strided window on a buffer, in elements. */
export interface Operand {
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly dtype: DType;
  /** Names the buffer. Operands that share a buffer share a slot, and so a binding. */
  readonly slot: number;
  /** Position among the command's operands whose offset this window has; -1 if it starts at 0. */
  readonly offsetOf: number;
}

/**
 * A word of a kernel's parameter block: p >= 0 is the offset of operand p, p < 0 is the bits of immediate -1-p. Both are
 * data, not text, so that sliding windows and changing numbers share one pipeline.
 */
export type Param = number;

/**
 * An operand as a shader body sees it: `load_<name>(...)` or `store_<name>(..., value)`, with one flat row-major
 * index per group of axes. `groups` holds the number of axes of each; together they cover the shape.
 */
export interface Access {
  readonly name: string;
  readonly operand: Operand;
  readonly groups: readonly number[];
  /** Given for what is stored: 'raw' or an expression run before the store. */
  readonly store?: 'raw' | Epilogue;
}

/** `expr` over the value to be stored (register 0) and `ins` (registers 1, ...), which have the target's groups. */
export interface Epilogue {
  readonly expr: Expr;
  readonly ins: readonly Operand[];
}

/** The most words a parameter block holds. */
export const MAX_PARAMS = 256;

const PARAMS = `@group(1) @binding(0) var<uniform> params: array<vec4<u32>, ${MAX_PARAMS / 4}>;\n`;
const COMPONENTS = 'xyzw';

/** Collects the text of one shader. */
export class Source {
  readonly slots: number[] = [];
  readonly params: Param[] = [];
  private readonly written = new Set<number>();
  private readonly types = new Map<number, DType>();
  private readonly scalars = new Map<string, { wgsl: string; text: string }>();
  private text = '';

  constant(name: string, value: number): void {
    this.text += `const ${name} = ${value}u;\n`;
  }

  add(text: string): void {
    this.text += text;
  }

  /** Adds the function through which a body reads or writes an operand. */
  access({ name, operand, groups, store }: Access): void {
    if (store === undefined) this.load(name, operand, groups);
    else this.store(name, operand, groups, store);
  }

  /** Adds `load_<name>`. */
  load(name: string, operand: Operand, groups: readonly number[]): void {
    const { list, element } = this.element(operand, groups, false);
    this.text += `fn load_${name}(${list.join(', ')}) -> ${operand.dtype} { return ${element}; }\n`;
  }

  private store(name: string, operand: Operand, groups: readonly number[], store: 'raw' | Epilogue): void {
    const { list, element } = this.element(operand, groups, true);
    const head = `fn store_${name}(${[...list, `value: ${operand.dtype}`].join(', ')})`;
    if (store === 'raw') {
      this.text += `${head} { ${element} = value; }\n`;
      return;
    }
    const indices = groups.map((_, g) => `i${g}`).join(', ');
    const inputs = store.ins.map((extra, j) => {
      this.load(`extra${j}`, extra, groups);
      return `load_extra${j}(${indices})`;
    });
    const { lines, outs } = this.expression(store.expr, ['value', ...inputs]);
    this.text += `${head} {\n${lines}  ${element} = ${outs[0]};\n}\n`;
  }

  /** Straight-line text of an expression over `inputs`, and the names of its outputs. */
  expression(expr: Expr, inputs: readonly string[]): { lines: string; outs: string[] } {
    const lines = inputs.map((input, r) => `  let r${r} = ${input};\n`);
    const read = (arg: number) => (arg >= 0 ? `r${arg}` : `bitcast<f32>(${this.param(arg)})`);
    expr.code.forEach(({ scalar, args }, j) => {
      const values = args.map(read).join(', ');
      lines.push(`  let r${expr.inputs + j} = ${this.scalar(scalar)}(${values});\n`);
    });
    return { lines: lines.join(''), outs: expr.outs.map(r => `r${r}`) };
  }

  /** The whole shader: what was collected, in front of `body`. `math` is added if something calls it. */
  finish(body: string, math: string): string {
    let bindings = '';
    this.slots.forEach((slot, binding) => {
      const mode = this.written.has(slot) ? 'read_write' : 'read';
      bindings += `@group(0) @binding(${binding}) var<storage, ${mode}> buffer${binding}: array<${this.types.get(slot)}>;\n`;
    });
    if (this.params.length > 0) bindings += PARAMS;
    const functions = [...this.scalars.values()].map(scalar => scalar.text).join('');
    const text = functions + this.text + body;
    return bindings + (text.includes('math_') ? math : '') + text;
  }

  /** How each binding is used, as text: the key of its bind group layout. */
  get signature(): string {
    return this.slots.map(slot => (this.written.has(slot) ? 'w' : 'r')).join('');
  }

  /** The name of an operand's binding. */
  private buffer({ slot, dtype }: Operand, write: boolean): string {
    if (!this.slots.includes(slot)) this.slots.push(slot);
    if (write) this.written.add(slot);
    const type = this.types.get(slot) ?? dtype;
    if (type !== dtype) throw new DeviceLimitError(`one buffer cannot be bound as ${type} and as ${dtype}`);
    this.types.set(slot, dtype);
    return `buffer${this.slots.indexOf(slot)}`;
  }

  /** The parameters and the element of an accessor with one flat index per group of axes. */
  private element(
    operand: Operand,
    groups: readonly number[],
    write: boolean,
  ): { list: string[]; element: string } {
    const terms: string[] = [];
    if (operand.offsetOf >= 0) terms.push(this.param(operand.offsetOf));
    let axis = 0;
    groups.forEach((rank, g) => {
      const end = axis + rank;
      terms.push(...flatTerms(`i${g}`, operand.shape.slice(axis, end), operand.strides.slice(axis, end)));
      axis = end;
    });
    const list = groups.map((_, g) => `i${g}: u32`);
    return { list, element: `${this.buffer(operand, write)}[${terms.join(' + ') || '0u'}]` };
  }

  /** The text that reads a word of the parameter block. */
  private param(wanted: Param): string {
    let at = this.params.indexOf(wanted);
    if (at < 0) at = this.params.push(wanted) - 1;
    if (at >= MAX_PARAMS)
      throw new DeviceLimitError(`a kernel may use ${MAX_PARAMS} offsets and immediates, this one uses more`);
    return `params[${at >> 2}].${COMPONENTS[at & 3]}`;
  }

  /** The name of a function for `scalar`. Two scalars of one name and different text get different functions. */
  private scalar({ name, arity, wgsl }: Scalar): string {
    const base = `scalar_${name.replace(/\W/g, '_')}`;
    let id = base;
    for (let n = 2; this.scalars.has(id) && this.scalars.get(id)!.wgsl !== wgsl; n++) id = `${base}_${n}`;
    const list = ['a: f32', 'b: f32', 'c: f32'].slice(0, arity).join(', ');
    this.scalars.set(id, { wgsl, text: `fn ${id}(${list}) -> f32 { return ${wgsl}; }\n` });
    return id;
  }
}

/** Terms of the element index that a flat row-major index over some axes contributes. */
function flatTerms(arg: string, shape: readonly number[], strides: readonly number[]): string[] {
  if (shape.includes(0)) return [];
  const axes: { size: number; stride: number }[] = [];
  shape.forEach((size, i) => {
    if (size === 1) return;
    const outer = axes.at(-1);
    if (outer && outer.stride === strides[i] * size)
      axes[axes.length - 1] = { size: outer.size * size, stride: strides[i] };
    else axes.push({ size, stride: strides[i] });
  });
  const terms: string[] = [];
  let inner = 1;
  for (let i = axes.length - 1; i >= 0; i--) {
    const { size, stride } = axes[i];
    let text = inner === 1 ? arg : `${arg} / ${inner}u`;
    if (i > 0) text = `${text} % ${size}u`;
    if (stride !== 0) terms.unshift(stride === 1 ? `${text}` : `(${text}) * ${stride}u`);
    inner *= size;
  }
  return terms;
}
