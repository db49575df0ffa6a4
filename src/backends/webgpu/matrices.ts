/**
 * Products in f16 matrices with sums in f32: the tiers of `precision`. 'medium' rounds operands to f16. 'high' splits
 * them into two f16 parts and adds three products, which keeps the accuracy of f32 (Ootomo and Yokota, arXiv
 * 2203.03341). Both scale rows by powers of two, so the range of f32 is kept; an infinite element makes its row or
 * column NaN. Browsers do not bundle this module.
 */
import { DeviceLimitError } from '../../core/errors.js';
import type { Device, Precision, Tier } from './device.js';
import { type Call, flat, type Pass } from './kernel.js';
import { epilogueOf, kParts, type Product } from './matmul.js';
import { foldParts } from './reduce.js';
import { tierShaders } from './shaders.gen.js';
import type { Operand } from './source.js';

/** The matrices a device multiplies, M x K by K x N, and how many threads hold one. */
interface Unit {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly subgroup: number;
  readonly shader: string;
  readonly directives: readonly string[];
}

const MATRIX_FEATURES = ['chromium-experimental-subgroup-matrix', 'shader-f16', 'subgroups'];

/** What lavapipe and others without tensor cores compute, slowly, with the same roundings. */
const EMULATED: Unit = {
  m: 16,
  n: 16,
  k: 16,
  subgroup: 32,
  shader: tierShaders.matrixEmulated,
  directives: ['enable f16'],
};

/** @types/webgpu knows nothing of subgroup matrices yet. */
interface MatrixInfo {
  readonly subgroupMatrixConfigs?: readonly {
    componentType: string;
    resultComponentType: string;
    M: number;
    N: number;
    K: number;
  }[];
}

/**
 * What `precision` needs of an adapter, and its products. `emulated` needs `shader-f16` alone.
 * Throws DeviceLimitError naming what the adapter lacks.
 */
export function tierOf(
  adapter: GPUAdapter,
  precision: Exclude<Precision, 'highest'>,
  emulated = false,
): Tier {
  const refuse = (lack: string): never => {
    throw new DeviceLimitError(`precision '${precision}' cannot be had here: ${lack}; ask for 'highest'`);
  };
  const features = emulated ? ['shader-f16'] : MATRIX_FEATURES;
  const missing = features.filter(feature => !adapter.features.has(feature));
  if (missing.length > 0) refuse(`the adapter lacks ${missing.join(', ')}`);
  const unit = emulated ? EMULATED : unitOf(adapter.info, refuse);
  return {
    precision,
    matrices: `${unit.m}x${unit.n}x${unit.k}${emulated ? ' emulated' : ''}`,
    features: features as GPUFeatureName[],
    multiply: (device, call, p) => multiply(device, unit, precision === 'high' ? 2 : 1, call, p),
  };
}

function unitOf(info: GPUAdapterInfo, refuse: (lack: string) => never): Unit {
  const { subgroupMatrixConfigs = [] } = info as MatrixInfo;
  const { subgroupMinSize, subgroupMaxSize } = info;
  if (subgroupMinSize !== subgroupMaxSize)
    refuse(`its subgroups have ${subgroupMinSize} to ${subgroupMaxSize} threads, not one size`);
  const fitting = subgroupMatrixConfigs.filter(
    c => c.componentType === 'f16' && c.resultComponentType === 'f32' && (c.M * c.N) % subgroupMaxSize === 0,
  );
  const { M, N, K } =
    fitting.find(c => c.M === 16 && c.N === 16 && c.K === 16) ??
    fitting.find(c => 256 % c.M === 0 && 256 % c.N === 0) ??
    refuse('it multiplies no f16 matrices with f32 sums');
  return {
    m: M,
    n: N,
    k: K,
    subgroup: subgroupMaxSize,
    shader: tierShaders.matrixSubgroup,
    directives: [
      'enable f16',
      'enable subgroups',
      'enable chromium_experimental_subgroup_matrix',
      // Threads of one subgroup have neighbouring indices: what is divided by its size is uniform.
      'diagnostic(off, chromium.subgroup_matrix_uniformity)',
    ],
  };
}

/** Multiply-adds for each element of operands and result below which memory, not arithmetic, takes the time. */
const LEAST_INTENSITY = 64;
const LEAST_SIZE = 32;

/** Null where matrices do not pay, or do not fit into a binding: the product is computed in f32 then. */
function multiply(device: Device, unit: Unit, parts: number, call: Call, p: Product): Pass[] | null {
  const { batch, m, n, k } = p;
  if (p.ranged || Math.min(m, n, k) < LEAST_SIZE) return null;
  if (m * n * k < LEAST_INTENSITY * (m * k + k * n + m * n)) return null;
  const blocksM = Math.ceil(m / unit.m);
  const blocksN = Math.ceil(n / unit.n);
  const blocksK = Math.ceil(k / unit.k);
  const most = device.limits.maxStorageBufferBindingSize;
  const elements = (blocks: number, side: number) => parts * batch * blocks * blocksK * side * unit.k;
  if (2 * Math.max(elements(blocksM, unit.m), elements(blocksN, unit.n)) > most) return null;

  const side = (name: 'a' | 'b', rows: number, block: number, blocks: number) => {
    const packed = call.temporary([elements(blocks, block)], 'f16');
    const exponent = call.temporary([batch, rows], 'i32');
    const place = name === 'a' ? 'row, k' : 'k, row';
    const pass: Pass = {
      directives: ['enable f16'],
      bodies: p.bodies ?? [],
      shader: tierShaders.matmulPack,
      constants: {
        ...p.constants,
        BLOCK: block,
        BLOCK_K: unit.k,
        PARTS: parts,
        BY_ROWS: Number(name === 'a' ? p.aByRows : !p.bByRows),
      },
      params: { m, n, rows, k, blocks, k_blocks: blocksK, groups: blocks * batch },
      access: [
        ...p.access.filter(access => p.bodies || access.name === name),
        flat('packed', packed, 'raw'),
        flat('exponent', exponent, 'raw'),
      ],
      generate: source =>
        source.add(
          `fn load_row(batch: u32, row: u32, k: u32) -> f32 { return load_${name}(batch, ${place}); }\n`,
        ),
      workgroups: blocks * batch,
    };
    return { packed, exponent, pass };
  };
  const a = side('a', m, unit.m, blocksM);
  const b = side('b', n, unit.n, blocksN);

  // Registers hold the sums of 16 matrices of 16 x 16, or of 4 where the larger tiles leave cores without work.
  const large = blocksM * blocksN * batch >= 64 * 128;
  const rows = large ? 4 : 2;
  const columns = large && parts === 1 ? 4 : 2;
  const tilesM = Math.ceil(blocksM / (2 * rows));
  const tilesN = Math.ceil(blocksN / (2 * columns));
  const cuts = kParts(k, tilesM * tilesN * batch, call.software);
  const chunk = Math.ceil(blocksK / cuts);
  const [y] = call.outs;
  const epilogue = epilogueOf(call);
  const target: Operand = cuts === 1 ? y : call.temporary([cuts * batch, m, n]);
  const workgroups = tilesM * tilesN * batch * cuts;
  const pass: Pass = {
    directives: unit.directives,
    bodies: [],
    shader: unit.shader + tierShaders.matmulMatrix,
    constants: {
      MATRIX_M: unit.m,
      MATRIX_N: unit.n,
      MATRIX_K: unit.k,
      SUBGROUP: unit.subgroup,
      SUBGROUPS_M: 2,
      SUBGROUPS_N: 2,
      ROWS: rows,
      COLUMNS: columns,
      PARTS: parts,
    },
    params: {
      m,
      n,
      batch,
      blocks_m: blocksM,
      blocks_n: blocksN,
      k_blocks: blocksK,
      k_chunk: chunk,
      tiles_m: tilesM,
      tiles_n: tilesN,
      groups: workgroups,
    },
    access: [
      flat('left', a.packed),
      flat('right', b.packed),
      flat('left_exponent', a.exponent),
      flat('right_exponent', b.exponent),
      {
        name: 'y',
        operand: target,
        groups: cuts === 1 ? p.groups : [1, 1, 1],
        store: cuts === 1 ? epilogue : 'raw',
      },
    ],
    workgroups,
  };
  return [a.pass, b.pass, pass, ...(cuts === 1 ? [] : [foldParts(call, target, cuts, y, epilogue)])];
}
