/** Commands as the words that `native/program.h` and the kernels' `check` functions describe. */
import type { Attrs, DType, Expr, View } from '../../core/backend.js';
import { type Compounds, join } from './compounds.js';

/** What a kernel or a scalar is called in words; undefined where the addon has none. */
export interface Vocabulary {
  readonly kernels: ReadonlyMap<string, number>;
  readonly scalars: ReadonlyMap<string, number>;
  readonly compounds: Compounds;
}

const reductions = ['sum', 'max', 'min'];
const machineModes = ['fma', 'read', 'write', 'copy', 'writeAround', 'copyAround'];
const generateSlots = ['code', 'basis', 'x', 'base'];
const dtypes: readonly DType[] = ['f32', 'i32', 'u32'];
const dtypeOf = (view: View) => dtypes.indexOf(view.storage.dtype);
const integers = (value: unknown): readonly number[] => value as readonly number[];

const floatBits = new Float32Array(1);
const asWord = new Int32Array(floatBits.buffer);
/** The bits of a number rounded to f32. */
function bitsOf(value: number): number {
  floatBits[0] = value;
  return asWord[0];
}

type Words = (attrs: Attrs, outs: readonly View[], ins: readonly View[]) => readonly number[];
/** Attributes of kernels that have some besides an expression, in the order their words are written. */
const attrWords: Readonly<Record<string, Words>> = {
  cast: (_, [out], [x]) => [dtypeOf(out), dtypeOf(x)],
  crossEntropy: a => [bitsOf(a.smoothing as number)],
  crossEntropyGradient: a => [bitsOf(a.smoothing as number)],
  generateApply: a => [Number(a.base), Number(a.ragged)],
  generateGradients: a => [
    Number(a.base),
    Number(a.ragged),
    (a.wants as string[]).reduce((bits, slot) => bits | (1 << generateSlots.indexOf(slot)), 0),
  ],
  machine: a => [machineModes.indexOf(a.mode as string), a.repeats as number, a.pieces as number],
  normalise: a => [bitsOf(a.eps as number), a.reduced as number],
  random: (a, [out]) => [dtypeOf(out), a.start as number],
  reduce: a => [reductions.indexOf(a.fn as string), a.reduced as number, (a.column as number) ?? -1],
  take: a => [a.axis as number],
  scatterAdd: a => [a.axis as number],
  conv2d: a => [...integers(a.stride), ...integers(a.pad)],
  conv2dInput: a => [...integers(a.stride), ...integers(a.pad)],
  conv2dFilter: a => [...integers(a.stride), ...integers(a.pad)],
  maxPool: a => [...integers(a.window), ...integers(a.stride), ...integers(a.pad)],
  maxPoolScatter: a => [...integers(a.window), ...integers(a.stride), ...integers(a.pad)],
  sumPool: a => [...integers(a.window), ...integers(a.stride), ...integers(a.pad)],
  sumPoolSpread: a => [...integers(a.window), ...integers(a.stride), ...integers(a.pad)],
};

/** Arguments an instruction has room for, and its words: those, the opcode and the target. */
const arity = 5;
const instructionWords = arity + 2;

const isSingle = ({ inputs, code, outs }: Expr) =>
  code.length === 1 && outs.length === 1 && outs[0] === inputs;

/** A growing list of command words. */
export class Encoder {
  words = new Int32Array(4096);
  length = 0;

  constructor(private readonly vocabulary: Vocabulary) {}

  clear(): void {
    this.length = 0;
  }

  /**
   * Appends a command, whose views' slots `slotOf` tells. False, and nothing appended, where the addon has no such
   * kernel or scalar.
   */
  command(
    kernel: string,
    outs: readonly View[],
    ins: readonly View[],
    attrs: Attrs,
    slotOf: (view: View) => number,
  ): boolean {
    const opcode = this.vocabulary.kernels.get(kernel);
    if (opcode === undefined) return false;
    const begin = this.length;
    this.reserve(4 + 19 * (outs.length + ins.length));
    const { words } = this;
    words[begin] = opcode;
    words[begin + 1] = outs.length;
    words[begin + 2] = ins.length;
    this.length = begin + 4;
    for (const view of outs) this.view(view, slotOf(view));
    for (const view of ins) this.view(view, slotOf(view));
    const beforeAttrs = this.length;
    const expr = (attrs.expr ?? attrs.epilogue ?? attrs.prologue) as Expr | undefined;
    const numbers = attrWords[kernel]?.(attrs, outs, ins);
    if (numbers) {
      this.reserve(numbers.length);
      for (const n of numbers) this.words[this.length++] = n;
    }
    if (expr && !(isSingle(expr) ? this.single(expr) : this.expr(expr))) {
      this.length = begin;
      return false;
    }
    this.words[begin + 3] = this.length - beforeAttrs;
    return true;
  }

  private reserve(count: number): void {
    if (this.length + count <= this.words.length) return;
    const grown = new Int32Array(Math.max(2 * this.words.length, this.length + count));
    grown.set(this.words);
    this.words = grown;
  }

  private view({ offset, shape, strides }: View, slot: number): void {
    const { words } = this;
    const rank = shape.length;
    let at = this.length;
    words[at++] = slot;
    words[at++] = offset;
    words[at++] = rank;
    for (let k = 0; k < rank; k++) words[at++] = shape[k];
    for (let k = 0; k < rank; k++) words[at++] = strides[k];
    this.length = at;
  }

  /** Appends an expression of one instruction, the common case of eager work; false if its scalar is unknown. */
  private single({ inputs, immediates, code }: Expr): boolean {
    const { scalar, args } = code[0];
    const opcode = this.vocabulary.scalars.get(scalar.name);
    if (opcode === undefined) return false;
    this.reserve(6 + immediates.length + inputs + instructionWords);
    const { words } = this;
    let at = this.length;
    words[at++] = inputs;
    words[at++] = immediates.length;
    words[at++] = 0;
    words[at++] = 1;
    words[at++] = 1;
    for (let i = 0; i < immediates.length; i++) {
      floatBits[0] = immediates[i];
      words[at++] = asWord[0];
    }
    for (let k = 0; k <= inputs; k++) words[at++] = 0;
    words[at++] = opcode;
    words[at++] = inputs + immediates.length;
    for (let k = 0; k < arity; k++)
      words[at++] = k < args.length ? (args[k] < 0 ? inputs - 1 - args[k] : args[k]) : 0;
    this.length = at;
    return true;
  }

  /** Appends an expression as `ExprCode` in native/kernels/expr.inc wants it; false if a scalar is unknown there. */
  private expr(expr: Expr): boolean {
    const { inputs, immediates, outs } = expr;
    const code = join(expr, this.vocabulary.scalars, this.vocabulary.compounds);
    if (code === null) return false;
    const registers = inputs + expr.code.length;
    const lastRead = new Int32Array(registers).fill(-1);
    // The out that an instruction computes in place; other outs are copies made at the end.
    const outOf = new Int32Array(registers).fill(-1);
    const definition = new Int32Array(outs.length).fill(-1);
    for (let k = 0; k < outs.length; k++) if (outs[k] >= inputs && outOf[outs[k]] < 0) outOf[outs[k]] = k;
    const copies: number[] = [];
    for (let k = 0; k < outs.length; k++) if (outs[k] < 0 || outOf[outs[k]] !== k) copies.push(k);
    for (let j = 0; j < code.length; j++) for (const r of code[j].args) if (r >= 0) lastRead[r] = j;
    copies.forEach((k, i) => {
      if (outs[k] >= 0) lastRead[outs[k]] = code.length + i;
    });

    const firstTemp = inputs + immediates.length;
    const tempOf = new Int32Array(registers).fill(-1);
    const freed: number[] = [];
    let temps = 0;
    for (let j = 0; j < code.length; j++) {
      for (const r of code[j].args) {
        if (r < 0 || lastRead[r] !== j || tempOf[r] < 0 || freed.includes(tempOf[r])) continue;
        freed.push(tempOf[r]);
      }
      if (outOf[code[j].result] < 0) tempOf[code[j].result] = freed.pop() ?? temps++;
    }
    const firstOut = firstTemp + temps;
    const operand = (r: number): number =>
      r < 0 ? inputs - 1 - r : r < inputs ? r : outOf[r] >= 0 ? firstOut + outOf[r] : firstTemp + tempOf[r];

    const count = code.length + copies.length;
    this.reserve(5 + immediates.length + inputs + outs.length + instructionWords * count);
    const { words } = this;
    let at = this.length;
    words[at++] = inputs;
    words[at++] = immediates.length;
    words[at++] = temps;
    words[at++] = outs.length;
    words[at++] = count;
    for (const value of immediates) {
      floatBits[0] = value;
      words[at++] = asWord[0];
    }
    for (let k = 0; k < inputs; k++) words[at++] = lastRead[k];
    for (let j = 0; j < code.length; j++)
      if (outOf[code[j].result] >= 0) definition[outOf[code[j].result]] = j;
    copies.forEach((k, i) => {
      definition[k] = code.length + i;
    });
    for (const j of definition) words[at++] = j;
    for (let j = 0; j < code.length; j++) {
      const { opcode, args, result } = code[j];
      words[at++] = opcode;
      words[at++] = operand(result);
      for (let k = 0; k < arity; k++) words[at++] = k < args.length ? operand(args[k]) : 0;
    }
    const copy = this.vocabulary.scalars.get('copy')!;
    for (const k of copies) {
      words[at++] = copy;
      words[at++] = firstOut + k;
      words[at++] = operand(outs[k]);
      words.fill(0, at, at + arity - 1);
      at += arity - 1;
    }
    this.length = at;
    return true;
  }
}
