/** Instructions joined to one pass give the bits of the same instructions run one by one. */
import { beforeAll, expect, test } from 'vitest';
import { loadAddon } from '../src/backends/cpu/addon.js';
import { type Compounds, compoundsOf, join, type Pattern } from '../src/backends/cpu/compounds.js';
import { createCpu } from '../src/backends/cpu.js';
import type { Backend, Expr, Instruction, View } from '../src/core/backend.js';
import { scalarNamed } from '../src/ops/elementwise.js';
import { noise, storageOn, viewOf } from './cpuViews.js';

let cpu: Backend;
let compounds: Compounds;
let scalars: ReadonlyMap<string, number>;
beforeAll(async () => {
  cpu = await createCpu();
  const addon = await loadAddon();
  compounds = compoundsOf(addon.scalars);
  scalars = new Map(addon.scalars.map((name, i) => [name, i]));
});

/** The instructions of a pattern; `swapped` writes the arguments of commuting scalars the other way round. */
function instructionsOf(pattern: Pattern, inputs: number, swapped: boolean): Instruction[] {
  const code: Instruction[] = [];
  const visit = (p: Pattern): number => {
    if (typeof p === 'number') return p;
    const args = p.args.map(visit);
    if (swapped && (p.scalar === 'add' || p.scalar === 'mul')) args.reverse();
    const same = p.scalar === 'mul' && args[0] === args[1];
    code.push({ scalar: scalarNamed(same ? 'square' : p.scalar)!, args: same ? args.slice(1) : args });
    return inputs + code.length - 1;
  };
  visit(pattern);
  return code;
}

/** A vector of n numbers, or one number broadcast to n places. */
function operand(n: number, seed: number, broadcast: boolean): View {
  const storage = storageOn(cpu, 'f32', broadcast ? 1 : n);
  cpu.write(storage, Float32Array.from(noise(storage.size, seed)));
  return { ...viewOf(storage, [n]), strides: [broadcast ? 0 : 1] };
}

function evaluate(expr: Expr, ins: readonly View[], n: number): number[] {
  const out = viewOf(storageOn(cpu, 'f32', n), [n]);
  cpu.run([{ kernel: 'elementwise', op: 'test', outs: [out], ins, attrs: { expr } }]);
  return [...cpu.readSync(out)];
}

test('every compound is found and gives the bits of its instructions, whatever is broadcast', () => {
  const all = [...compounds.values()].flat();
  expect(all.length).toBeGreaterThan(30);
  for (const { opcode, arity, term } of all)
    for (let broadcast = 0; broadcast < 1 << arity; broadcast++)
      for (const n of [3, 700]) {
        const code = instructionsOf(term, arity, n === 3);
        const expr: Expr = { inputs: arity, immediates: [], code, outs: [arity + code.length - 1] };
        expect(join(expr, scalars, compounds)?.map(i => i.opcode)).toEqual([opcode]);
        const ins = Array.from({ length: arity }, (_, k) => operand(n, k + 1, ((broadcast >> k) & 1) === 1));
        // One by one: every instruction is a command of its own, results go through memory.
        const values = [...ins];
        for (const { scalar, args } of code) {
          const single = {
            inputs: args.length,
            immediates: [],
            code: [{ scalar, args: args.map((_, k) => k) }],
            outs: [args.length],
          };
          const out = viewOf(storageOn(cpu, 'f32', n), [n]);
          const given = args.map(r => values[r]);
          cpu.run([{ kernel: 'elementwise', op: 'test', outs: [out], ins: given, attrs: { expr: single } }]);
          values.push(out);
        }
        expect(evaluate(expr, ins, n)).toEqual([...cpu.readSync(values[values.length - 1])]);
      }
});

test('what is stored or read elsewhere stays an instruction of its own', () => {
  const [add, mul] = ['add', 'mul'].map(name => scalarNamed(name)!);
  const code = [
    { scalar: mul, args: [0, 1] },
    { scalar: add, args: [3, 2] },
  ];
  const joined = (outs: number[], extra: Instruction[] = []) =>
    join({ inputs: 3, immediates: [], code: [...code, ...extra], outs }, scalars, compounds)!;
  expect(joined([4]).map(i => i.args)).toEqual([[0, 1, 2]]);
  expect(joined([4, 3]).map(i => i.opcode)).toEqual([scalars.get('mul'), scalars.get('add')]);
  const twice = joined([5], [{ scalar: scalarNamed('max')!, args: [4, 3] }]);
  expect(twice.map(i => i.opcode)).toEqual(['mul', 'add', 'max'].map(name => scalars.get(name)));
  const unknown = { ...add, name: 'unheard' };
  expect(joined([5], [{ scalar: unknown, args: [4, 3] }])).toBe(null);
});
