/**
 * The generated part of a shader: constants, parameters, bindings, accessors of strided operands, elementwise
 * expressions. What varies from call to call (sizes, strides, offsets, immediates) is a parameter, read from a uniform
 * block; the text holds structure, and the few sizes that are worth dividing by as constants. So one pipeline serves
 * many shapes.
 */
import type { DType, Expr, Scalar } from '../../core/backend.js';
import { DeviceLimitError } from '../../core/errors.js';

/** What buffers hold: values of tensors, or half-precision scratch of kernels that enable `f16`. */
export type Element = DType | 'f16';

/** One operand of a pass: a strided window on a buffer, in elements. */
export interface Operand {
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly dtype: Element;
  /** Names the buffer. Operands that share a buffer share a slot, and so a binding. */
  readonly slot: number;
  /** Position among the command's operands whose offset this window has; -1 if it starts at 0. */
  readonly offsetOf: number;
  /** True if that offset is a multiple of four elements. */
  readonly aligned: boolean;
  /** True if four f32 are one element of the binding. Then it is aligned, and its flat index counts fours. */
  readonly fours?: boolean;
}

/** What an element of an operand is in WGSL. */
export const typeOf = ({ dtype, fours }: Operand): string => (fours ? `vec4<${dtype}>` : dtype);

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

/** A word of the parameter block: a number known at lowering, or where to find one in the command. */
export type Param =
  | { readonly kind: 'size'; readonly value: number }
  | { readonly kind: 'offset'; readonly operand: number }
  | { readonly kind: 'immediate'; readonly index: number };

/** The most words a parameter block holds. */
export const MAX_PARAMS = 256;

/** Collects the text of one shader. */
export class Source {
  readonly slots: number[] = [];
  protected readonly named = new Map<string, Param>();
  private readonly written = new Set<number>();
  protected readonly types = new Map<number, string>();
  private readonly scalars = new Map<string, { wgsl: string; text: string }>();
  private text = '';

  /** The parameter block, in the order of its fields. */
  get params(): Param[] {
    return [...this.named.values()];
  }

  /** How each binding is used, as text: the key of its bind group layout. */
  get signature(): string {
    return this.slots.map(slot => (this.writes(slot) ? 'w' : 'r')).join('');
  }

  /** True if the shader writes a slot. */
  writes(slot: number): boolean {
    return this.written.has(slot);
  }

  add(text: string): void {
    this.text += text;
  }

  constant(name: string, value: number): void {
    this.text += `const ${name} = ${value}u;\n`;
  }

  /** Adds a parameter; the text that reads it is returned. Of equal names the first stays. */
  param(name: string, value: Param): string {
    if (!this.named.has(name)) this.named.set(name, value);
    if (this.named.size > MAX_PARAMS)
      throw new DeviceLimitError(`a kernel may use ${MAX_PARAMS} sizes and immediates, this one uses more`);
    return `params.${name}`;
  }

  /** Adds the function through which a body reads or writes an operand. */
  access({ name, operand, groups, store }: Access): void {
    if (store === undefined) this.load(name, operand, groups);
    else this.store(name, operand, groups, store);
  }

  /** Adds `load_<name>`. */
  load(name: string, operand: Operand, groups: readonly number[]): void {
    const { list, index } = this.element(name, operand, groups, false);
    const value = this.read(operand, index);
    this.text += `fn load_${name}(${list.join(', ')}) -> ${typeOf(operand)} { return ${value}; }\n`;
  }

  /** Straight-line text of an expression over `inputs`, and the names of its outputs. */
  expression(expr: Expr, inputs: readonly string[]): { lines: string; outs: string[] } {
    const lines = inputs.map((input, r) => `  let r${r} = ${input};\n`);
    const read = (arg: number) =>
      arg >= 0 ? `r${arg}` : this.param(`immediate${-1 - arg}`, { kind: 'immediate', index: -1 - arg });
    expr.code.forEach(({ scalar, args }, j) => {
      const values = args.map(read).join(', ');
      lines.push(`  let r${expr.inputs + j} = ${this.scalar(scalar)}(${values});\n`);
    });
    return { lines: lines.join(''), outs: expr.outs.map(read) };
  }

  /**
   * The whole shader: what was collected, in front of `body`. `math` is added if something calls it; `directives` go in
   * front of everything.
   */
  finish(body: string, math: string, directives: readonly string[] = []): string {
    const functions = [...this.scalars.values()].map(scalar => scalar.text).join('');
    const text = functions + this.text + body;
    const head = directives.map(line => `${line};\n`).join('');
    const bindings = this.slots.map((slot, i) => this.declare(slot, i)).join('');
    return head + bindings + this.block() + (text.includes('math_') ? math : '') + text;
  }

  /** The declaration of the i-th buffer. */
  protected declare(slot: number, i: number, binding = i, written = this.writes(slot)): string {
    const mode = written ? 'read_write' : 'read';
    return `@group(0) @binding(${binding}) var<storage, ${mode}> buffer${i}: array<${this.types.get(slot)}>;\n`;
  }

  /** The declaration of the parameters. */
  protected block(value = `@group(0) @binding(${this.slots.length}) var<uniform> params: Params`): string {
    const fields = [...this.named].map(
      ([name, { kind }]) => `  ${name}: ${kind === 'immediate' ? 'f32' : 'u32'},\n`,
    );
    return fields.length > 0 ? `struct Params {\n${fields.join('')}}\n${value};\n` : '';
  }

  /** What an operand's element is read as. */
  protected read({ slot }: Operand, index: string): string {
    return `buffer${this.slots.indexOf(slot)}[${index}]`;
  }

  /** The statement that stores a value. */
  protected assign(operand: Operand, index: string, value: string): string {
    return `${this.read(operand, index)} = ${value};`;
  }

  private store(name: string, operand: Operand, groups: readonly number[], store: 'raw' | Epilogue): void {
    const { list, index } = this.element(name, operand, groups, true);
    const head = `fn store_${name}(${[...list, `value: ${typeOf(operand)}`].join(', ')})`;
    if (store === 'raw') {
      this.text += `${head} { ${this.assign(operand, index, 'value')} }\n`;
      return;
    }
    const indices = groups.map((_, g) => `i${g}`).join(', ');
    const inputs = store.ins.map((extra, j) => {
      this.load(`extra${j}_${name}`, extra, groups);
      return `load_extra${j}_${name}(${indices})`;
    });
    const { lines, outs } = this.expression(store.expr, ['value', ...inputs]);
    this.text += `${head} {\n${lines}  ${this.assign(operand, index, outs[0])}\n}\n`;
  }

  /** Notes how a slot is used. */
  private note(operand: Operand, write: boolean): void {
    const { slot } = operand;
    if (!this.slots.includes(slot)) this.slots.push(slot);
    if (write) this.written.add(slot);
    this.types.set(slot, this.held(typeOf(operand), this.types.get(slot)));
  }

  /** What a binding holds that has windows of both types. */
  protected held(wanted: string, type = wanted): string {
    if (type !== wanted) throw new DeviceLimitError(`one buffer cannot be bound as ${type} and as ${wanted}`);
    return type;
  }

  /** The parameters and the place of the element of an accessor with one flat index per group of axes. */
  private element(name: string, operand: Operand, groups: readonly number[], write: boolean) {
    const { offsetOf, shape, strides, fours } = operand;
    this.note(operand, write);
    const terms: string[] = [];
    if (offsetOf >= 0)
      terms.push(
        this.param(`${name}_offset`, { kind: 'offset', operand: offsetOf }) + (fours ? ' / 4u' : ''),
      );
    let axis = 0;
    groups.forEach((rank, g) => {
      const end = axis + rank;
      terms.push(...this.flatTerms(name, g, shape.slice(axis, end), strides.slice(axis, end)));
      axis = end;
    });
    const list = groups.map((_, g) => `i${g}: u32`);
    return { list, index: terms.join(' + ') || '0u' };
  }

  /** What a flat index over some axes contributes to the place of an element. Strides of 0 and 1 are in the text. */
  private flatTerms(
    name: string,
    group: number,
    shape: readonly number[],
    strides: readonly number[],
  ): string[] {
    const axes = merged(shape, strides);
    const terms: string[] = [];
    let inner = 1;
    for (let i = axes.length - 1; i >= 0; i--) {
      const { size, stride } = axes[i];
      const quotient = inner === 1 ? `i${group}` : `i${group} / ${inner}u`;
      const place = i === 0 ? quotient : `${quotient} % ${size}u`;
      inner *= size;
      if (stride === 1) terms.push(`(${place})`);
      else if (stride !== 0)
        terms.push(
          `(${place}) * ${this.param(`${name}_stride${group}_${i}`, { kind: 'size', value: stride })}`,
        );
    }
    return terms;
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

/** The axes with more than one element, neighbours joined where their strides chain; at least one. */
function merged(shape: readonly number[], strides: readonly number[]): { size: number; stride: number }[] {
  const axes: { size: number; stride: number }[] = [];
  shape.forEach((size, i) => {
    const outer = axes.at(-1);
    if (size === 1) return;
    if (outer && outer.stride === strides[i] * size)
      axes[axes.length - 1] = { size: outer.size * size, stride: strides[i] };
    else axes.push({ size, stride: strides[i] });
  });
  return axes.length > 0 && !shape.includes(0) ? axes : [{ size: 1, stride: 0 }];
}
