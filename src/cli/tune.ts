/** `weightloom bench --tune`: finds the fastest tiling of each product that the chosen cases compute. */
import { createRef } from '../backends/ref.js';
import { type ProductSizes, type Tiling, type Tunable, tilingKey } from '../backends/webgpu/tiling.js';
import { fits, writeTunings } from '../backends/webgpu/tunings.js';
import type { Backend, Command, Storage, View } from '../core/backend.js';
import { ArgumentError } from '../core/errors.js';
import { sync } from '../core/queue.js';
import { scope } from '../core/tensor.js';
import { timesOf } from './machine.js';
import type { BenchCase } from './suites.js';

/** What was found for the products of one key. */
export interface Tuned {
  readonly key: string;
  /** Milliseconds with the static table's tiling, and with the fastest. */
  readonly before: number;
  readonly after: number;
  /** Null where the static table's is kept. */
  readonly tiling: Tiling | null;
}

const WARM_UPS = 3;
const SAMPLES = 7;
/** A tiling replaces the static table's if it takes at most this share of its time. */
const WORTH = 0.97;
/** Multiply-adds that the reference is given to check a tiling by. */
const CHECKED = 3e7;

/** Every tiling that is tried for a product. */
export function candidates(
  { m, n, k }: ProductSizes,
  { software, subgroup }: { software: boolean; subgroup: number },
): Tiling[] {
  const found: Tiling[] = [];
  if (software && subgroup > 1 && n >= 4) {
    for (const rows of [8, 16, 25, 32])
      for (const columns of [2, 4, 6])
        if (rows < 2 * m && columns * subgroup < 2 * n)
          found.push({ body: 'matmulLanes', rows, columns, threadsM: 1, threadsN: subgroup });
    return found;
  }
  const threads = software
    ? [[1, 8]]
    : [
        [8, 8],
        [4, 16],
        [1, 64],
        [64, 1],
      ];
  for (const [threadsM, threadsN] of threads)
    for (const rows of [1, 2, 4, 8])
      for (const columns of [1, 2, 4, 8])
        if (rows * threadsM < 2 * m && columns * threadsN < 2 * n)
          found.push({ body: 'matmulDirect', rows, columns, threadsM, threadsN });
  if (!software && Math.min(m, n, k) >= 16)
    for (const [rows, columns] of [
      [4, 4],
      [8, 4],
      [4, 8],
      [8, 8],
    ])
      for (const [threadsM, threadsN] of [
        [8, 8],
        [16, 16],
      ])
        for (const tileK of [8, 16, 32])
          found.push({ body: 'matmulTiled', rows, columns, threadsM, threadsN, tileK });
  return found;
}

/** Random operands of one product on the device, and some rows of the exact result. */
class Trial {
  readonly command: Command;
  private readonly wanted: Float32Array;
  private readonly rows: View;
  private readonly tolerance: number;

  constructor(
    readonly backend: Backend,
    sizes: ProductSizes,
  ) {
    const { batch, m, n, k, aByRows, bByRows } = sizes;
    const ref = createRef();
    const aStrides = aByRows ? [m * k, k, 1] : [m * k, 1, m];
    const bStrides = bByRows ? [k * n, n, 1] : [k * n, 1, k];
    const a = random(batch * m * k, 1);
    const b = random(batch * k * n, 2);
    const on = (where: Backend, values: Float32Array) => {
      const storage = newStorage(where, values.length);
      where.write(storage, values);
      return storage;
    };
    const y = newStorage(backend, batch * m * n);
    this.command = {
      kernel: 'matmul',
      op: 'tune',
      outs: [viewOf(y, [batch, m, n], [m * n, n, 1])],
      ins: [viewOf(on(backend, a), [batch, m, k], aStrides), viewOf(on(backend, b), [batch, k, n], bStrides)],
      attrs: {},
    };
    // Of few batches a few rows, evenly spread.
    const batches = Math.max(1, Math.min(batch, Math.floor(CHECKED / (n * k))));
    const count = Math.max(1, Math.min(m, Math.floor(CHECKED / (batches * n * k))));
    const [skip, step] = [Math.floor(batch / batches), Math.floor(m / count)];
    const exact = newStorage(ref, batches * count * n);
    const out = viewOf(exact, [batches, count, n], [count * n, n, 1]);
    const left = viewOf(
      on(ref, a),
      [batches, count, k],
      [skip * aStrides[0], step * aStrides[1], aStrides[2]],
    );
    const right = viewOf(on(ref, b), [batches, k, n], [skip * bStrides[0], bStrides[1], bStrides[2]]);
    ref.run([{ kernel: 'matmul', op: 'tune', outs: [out], ins: [left, right], attrs: {} }]);
    this.wanted = ref.readSync(out) as Float32Array;
    this.rows = viewOf(y, [batches, count, n], [skip * m * n, step * n, 1]);
    this.tolerance = 2e-6 * Math.sqrt(k) + 1e-5;
  }

  /** True if the device's result is the reference's. */
  async right(): Promise<boolean> {
    this.backend.run([this.command]);
    const got = await this.backend.read(this.rows);
    return this.wanted.every((x, i) => Math.abs(got[i] - x) <= this.tolerance * (1 + Math.abs(x)));
  }

  /** Milliseconds of one run, by the device's clock where it has one. */
  async once(): Promise<number> {
    const { wall, device } = await timesOf(this.backend, async () => {
      this.backend.run([this.command]);
      await this.backend.sync();
    });
    return device ?? wall;
  }

  end(): void {
    for (const { storage } of [...this.command.outs, ...this.command.ins]) this.backend.free(storage);
  }
}

let storages = 0;
const newStorage = (backend: Backend, size: number): Storage => ({
  id: --storages,
  dtype: 'f32',
  size,
  backend,
  memory: null,
  generation: 0,
  dead: null,
});
const viewOf = (storage: Storage, shape: readonly number[], strides: readonly number[]): View => ({
  storage,
  shape,
  strides,
  offset: 0,
  generation: 0,
});

/** Values in [-1, 1): zeros would be multiplied faster than data. */
function random(length: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state / 2 ** 31;
  });
}

const median = (times: number[]) => times.sort((x, y) => x - y)[times.length >> 1];

/** The fastest of `tilings` (null: the static table's) whose results are right, and the times of it and of the first. */
async function fastest(
  trial: Trial,
  backend: Backend & Tunable,
  key: string,
  tilings: readonly (Tiling | null)[],
): Promise<{ tiling: Tiling | null; ms: number; first: number }> {
  const runs: { tiling: Tiling | null; times: number[] }[] = [];
  for (const tiling of tilings) {
    backend.retile(key, tiling);
    if (tiling && !(await trial.right())) continue;
    for (let i = 0; i < WARM_UPS; i++) await trial.once();
    runs.push({ tiling, times: [] });
  }
  // In turns, so that a slow moment is everybody's; what is far behind after the first is left out.
  for (let i = 0; i < SAMPLES; i++) {
    const least = Math.min(...runs.map(({ times }) => times[0] ?? Infinity));
    for (const { tiling, times } of runs) {
      if (i > 0 && tiling && times[0] > 1.5 * least) continue;
      backend.retile(key, tiling);
      times.push(await trial.once());
    }
  }
  const results = runs
    .filter(({ tiling, times }) => !tiling || times.length === SAMPLES)
    .map(({ tiling, times }) => ({ tiling, ms: median(times) }));
  const best = results.reduce((x, y) => (y.ms < x.ms ? y : x));
  return { ...best, first: results[0].ms };
}

/** Finds the fastest tiling for products of these sizes and puts it in use. */
export async function tuneProduct(backend: Backend & Tunable, sizes: ProductSizes): Promise<Tuned> {
  const key = tilingKey(sizes);
  const trial = new Trial(backend, sizes);
  const { device } = backend;
  try {
    const tilings = candidates(sizes, device).filter(tiling => fits(tiling, device));
    const { tiling, ms, first } = await fastest(trial, backend, key, [null, ...tilings]);
    const cuts = [2, 4, 8, 16].filter(parts => sizes.k >= 128 * parts);
    const whole = tiling && { ...tiling, parts: 1 };
    const cut = tiling ? [tiling, whole, ...cuts.map(parts => ({ ...tiling, parts }))] : [null];
    const best = await fastest(trial, backend, key, cut);
    const kept = Math.min(best.ms, ms) <= WORTH * first ? best.tiling : null;
    backend.retile(key, kept);
    return { key, before: first, after: kept ? best.ms : first, tiling: kept };
  } finally {
    trial.end();
  }
}

/**
 * Runs the cases once to see their products, tunes each, and keeps what was found in the user's cache folder. Returns
 * the file, or null where nothing is kept. Throws ArgumentError for a backend that has nothing to tune.
 */
export async function tune(
  backend: Backend,
  cases: readonly BenchCase[],
  onTuned: (tuned: Tuned) => void,
): Promise<string | null> {
  if (!('tuning' in backend))
    throw new ArgumentError(`bench: --tune was given for backend '${backend.name}'; expected webgpu`);
  const tunable = backend as Backend & Tunable;
  const seen = new Map<string, ProductSizes>();
  tunable.tuning.seen = seen;
  try {
    for (const { inputs, step } of cases) {
      scope(() => void step(...inputs()));
      await sync(backend);
    }
  } finally {
    tunable.tuning.seen = null;
  }
  for (const sizes of seen.values()) onTuned(await tuneProduct(tunable, sizes));
  return writeTunings(tunable.device, tunable.tuning.tiles);
}
