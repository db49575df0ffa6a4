/** `bench --suite generate`: weights generated and applied per second, by every plan, over a grid of shapes. */
import type { Backend } from '../core/backend.js';
import { type LinearShapes, planLinear, type Strategy } from '../program/plan.js';
import { machineOf, type Pass } from '../program/rates.js';
import { layerOf, MOST_BYTES, timePlans } from './plans.js';

/** T, n, E, i, o: from one wide layer of few tasks to small layers of many, one row each to many. */
const GRID = [
  [32, 5, 64, 784, 64],
  [128, 5, 64, 256, 128],
  [1024, 1, 64, 64, 64],
  [1024, 10, 32, 64, 64],
  [64, 100, 64, 128, 128],
  [256, 25, 128, 64, 64],
  [16, 1, 256, 512, 512],
  [512, 5, 16, 32, 32],
] as const;

/** One plan on one shape and pass. */
export interface GenerateLine {
  readonly peer: string;
  readonly threads: number;
  readonly w: 'generate';
  readonly id: string;
  readonly pass: Pass;
  /** The least of the samples. */
  readonly ms: number;
  readonly gflops: number;
  /** Operands, results and temporaries of the compiled step. */
  readonly bytes: number;
  /** T·i·o weights over the time. */
  readonly weights_per_s: number;
  /** What the planner would take. */
  readonly chosen: boolean;
}

const digits = (x: number) => Number(x.toPrecision(5));

/** A line for each plan of each shape of the grid whose id passes `chosen`, forward and with gradients. */
export async function benchGenerate(
  backend: Backend,
  chosen: (id: string) => boolean,
  print: (line: GenerateLine) => void,
): Promise<void> {
  const { threads } = backend.describe();
  for (const [tasks, rows, code, i, out] of GRID) {
    const id = `T${tasks}n${rows}E${code}i${i}o${out}`;
    if (!chosen(id)) continue;
    const shapes: LinearShapes = { kind: 'full', tasks, rows, code, in: i, out };
    const weights = tasks * i * out;
    for (const pass of ['fwd', 'fwdbwd'] as const) {
      const { candidates, strategy: best } = planLinear(shapes, { machine: machineOf(backend), pass });
      const held = candidates.filter(({ workspace }) => workspace <= MOST_BYTES);
      const times = await timePlans(
        backend,
        shapes,
        held.map(({ strategy }) => strategy),
        pass,
      );
      for (const { strategy, flops } of held) {
        const ms = times.get(strategy)!;
        print({
          peer: `weightloom-${backend.name}-${strategy}`,
          threads: typeof threads === 'number' ? threads : 1,
          w: 'generate',
          id,
          pass,
          ms: digits(ms),
          gflops: digits(((pass === 'fwd' ? 1 : 3) * flops) / ms / 1e6),
          bytes: bytesOf(shapes, pass, strategy),
          weights_per_s: digits((1e3 * weights) / ms),
          chosen: strategy === best,
        });
      }
    }
  }
}

function bytesOf(shapes: LinearShapes, pass: Pass, strategy: Strategy): number {
  const layer = layerOf(shapes, pass, { strategy });
  try {
    layer.call();
    return layer.stats().peakBytes;
  } finally {
    layer.dispose();
  }
}

/** The line for people. */
export const showGenerate = (line: GenerateLine): string =>
  `${line.peer.padEnd(28)} ${line.id.padEnd(24)} ${line.pass.padEnd(6)} ${line.ms} ms  ${line.gflops} GFLOP/s  ` +
  `${(line.weights_per_s / 1e6).toPrecision(4)} M weights/s  ${(line.bytes / 2 ** 20).toFixed(1)} MB${line.chosen ? '  *' : ''}`;
