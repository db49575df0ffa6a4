/** Joining instructions of an expression to the compounds that the addon runs in one pass over a block. */
import type { Expr, Instruction } from '../../core/backend.js';

/** A compound's value: a scalar of patterns, or an operand's number. */
export type Pattern = number | Term;
export interface Term {
  readonly scalar: string;
  readonly args: readonly Pattern[];
}

export interface Compound {
  readonly opcode: number;
  readonly arity: number;
  readonly term: Term;
}

/** Compounds by the scalar of their root, the one with the most instructions first. */
export type Compounds = ReadonlyMap<string, readonly Compound[]>;

/** The compounds among the names of the addon's opcodes: those like `add(mul(a, b), c)`. */
export function compoundsOf(names: readonly string[]): Compounds {
  const found = new Map<string, Compound[]>();
  names.forEach((name, opcode) => {
    const term = parse(name);
    if (typeof term === 'number' || term.args.length === 0) return;
    const compound = { opcode, arity: 1 + Math.max(...operandsOf(term)), term };
    found.set(term.scalar, [...(found.get(term.scalar) ?? []), compound]);
  });
  for (const list of found.values()) list.sort((a, b) => sizeOf(b.term) - sizeOf(a.term));
  return found;
}

function parse(text: string): Pattern {
  const tokens = text.match(/\w+|[()]/g) ?? [];
  let at = 0;
  const next = (): Pattern => {
    const word = tokens[at++];
    if (tokens[at] !== '(') return word.length === 1 ? word.charCodeAt(0) - 97 : { scalar: word, args: [] };
    const args: Pattern[] = [];
    for (at++; tokens[at] !== ')'; ) args.push(next());
    at++;
    return { scalar: word, args };
  };
  return next();
}

const operandsOf = (p: Pattern): number[] => (typeof p === 'number' ? [p] : p.args.flatMap(operandsOf));
const sizeOf = (p: Pattern): number =>
  typeof p === 'number' ? 0 : p.args.reduce<number>((n, q) => n + sizeOf(q), 1);

/** An instruction for the addon, with the register it defines. */
export interface NativeInstruction {
  readonly opcode: number;
  readonly args: readonly number[];
  readonly result: number;
}

const commutes = new Set(['add', 'mul']);

/**
 * The expression's instructions, from the last on joined with those before them whose results nothing else reads,
 * where the addon has the compound. Null if a scalar is unknown to the addon.
 */
export function join(
  { inputs, code, outs }: Expr,
  scalars: ReadonlyMap<string, number>,
  compounds: Compounds,
): NativeInstruction[] | null {
  const uses = new Int32Array(inputs + code.length);
  for (const { args } of code) for (const r of args) if (r >= 0) uses[r]++;
  for (const r of outs) if (r >= 0) uses[r] += 2;
  const absorbed = new Uint8Array(inputs + code.length);

  /** Binds operands to registers so that the instruction computes the term; the instructions used go to `inner`. */
  const matches = ({ scalar, args }: Instruction, term: Term, bound: number[], inner: number[]): boolean => {
    let given = args;
    if (scalar.name === 'square' && term.scalar === 'mul') given = [args[0], args[0]];
    else if (scalar.name !== term.scalar) return false;
    const [known, taken] = [[...bound], inner.length];
    if (given.every((r, k) => fits(r, term.args[k], bound, inner))) return true;
    if (!commutes.has(term.scalar)) return false;
    bound.splice(0, bound.length, ...known);
    inner.length = taken;
    return fits(given[1], term.args[0], bound, inner) && fits(given[0], term.args[1], bound, inner);
  };
  const fits = (r: number, pattern: Pattern, bound: number[], inner: number[]): boolean => {
    if (typeof pattern === 'number') {
      bound[pattern] ??= r;
      return bound[pattern] === r;
    }
    if (r < inputs || uses[r] !== 1 || !matches(code[r - inputs], pattern, bound, inner)) return false;
    inner.push(r);
    return true;
  };

  const joined: NativeInstruction[] = [];
  for (let j = code.length - 1; j >= 0; j--) {
    const result = inputs + j;
    if (absorbed[result]) continue;
    const { scalar, args } = code[j];
    const opcode = scalars.get(scalar.name);
    if (opcode === undefined) return null;
    let instruction: NativeInstruction = { opcode, args, result };
    for (const compound of compounds.get(scalar.name) ?? []) {
      const bound: number[] = [];
      const inner: number[] = [];
      if (!matches(code[j], compound.term, bound, inner)) continue;
      for (const r of inner) absorbed[r] = 1;
      instruction = { opcode: compound.opcode, args: bound, result };
      break;
    }
    joined.push(instruction);
  }
  return joined.reverse();
}
