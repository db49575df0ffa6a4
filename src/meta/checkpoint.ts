/** A training state as the named arrays of a file, and back. */
import { CheckpointError, NaNError } from '../core/errors.js';
import { sameShape, show } from '../core/shape.js';
import { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import type { Safetensors, StoredData, StoredTensor, WritableTensor } from '../io/safetensors.js';
import { tensor } from '../ops/index.js';
import type { TrainingState } from './trainer.js';

const DTYPES = { F32: 'f32', I32: 'i32', U32: 'u32' } as const;
const STEP = 'step';

const tensors = (of: unknown): [string, Tensor][] =>
  tree.entries(of).filter((entry): entry is [string, Tensor] => entry[1] instanceof Tensor);
const named = <P>({ params, optimiser }: Omit<TrainingState<P>, 'step'>) => ({ params, optimiser });

/**
 * The tensors of a state under their paths (`params.layers.0.w`, `optimiser.mean.layers.0.w`) and the metadata that go
 * with them: `step` and what else is given. Equal states give equal results. Rejects as `Tensor.data` does, and with
 * NaNError if a value is not finite: a checkpoint is something one can go on from.
 */
export async function packState(
  state: TrainingState<unknown>,
  metadata: Readonly<Record<string, string>>,
): Promise<{ tensors: [string, WritableTensor][]; metadata: Record<string, string> }> {
  const packed = await Promise.all(
    tensors(named(state)).map(async ([path, t]): Promise<[string, WritableTensor]> => {
      const values = await t.data();
      const bad = values.findIndex(x => !Number.isFinite(x));
      if (bad >= 0) throw new NaNError(`${path} is ${values[bad]} at element ${bad}: not saved`);
      return [
        path,
        { shape: t.shape, data: values instanceof Float64Array ? Float32Array.from(values) : values },
      ];
    }),
  );
  return { tensors: packed, metadata: { ...metadata, [STEP]: String(state.step) } };
}

/**
 * The state in a file, on the backend in use. `like` is a state of the same run before its first step: it says what
 * must be there. Throws CheckpointError naming a tensor that is missing, superfluous, or of another shape or type.
 */
export function unpackState<P>(like: TrainingState<P>, file: Safetensors, origin: string): TrainingState<P> {
  const text = file.metadata[STEP];
  const step = Number(text);
  if (!/^\d+$/.test(text ?? '') || !Number.isSafeInteger(step))
    throw new CheckpointError(
      `${origin}: its metadata need step, a whole number, got ${JSON.stringify(text)}`,
    );
  const { params, optimiser } = unpack(named(like), file, origin);
  return { step, params, optimiser };
}

/**
 * The parameters alone of a state in a file, on the backend in use: all that predictions need. `like` are parameters of
 * the same learner. Throws as `unpackState` does.
 */
export function unpackParams<P>(like: P, file: Safetensors, origin: string): P {
  const own = [...file.tensors].filter(([path]) => path.startsWith('params.'));
  return unpack({ params: like }, { ...file, tensors: new Map(own) }, origin).params;
}

/** A tree like `like`, with the tensors of a file that holds these and no others. */
function unpack<T>(like: T, file: Safetensors, origin: string): T {
  const refuse = (what: string): never => {
    throw new CheckpointError(`${origin}: ${what}`);
  };
  const wanted = new Set(tensors(like).map(([path]) => path));
  for (const path of file.tensors.keys()) if (!wanted.has(path)) refuse(`it has a tensor ${path} too many`);
  return tree.mapWithPath((path, leaf) => {
    if (!(leaf instanceof Tensor)) return leaf;
    const stored = file.tensors.get(path) ?? refuse(`it has no tensor ${path} ${show(leaf.shape)}`);
    if (!sameShape(stored.shape, leaf.shape))
      refuse(`${path} should be ${show(leaf.shape)}, it is ${show(stored.shape)}`);
    if (!isNative(stored) || DTYPES[stored.dtype] !== leaf.dtype)
      return refuse(`${path} should be ${leaf.dtype}, it is ${stored.dtype}`);
    return tensor(stored.data, leaf.shape);
  }, like);
}

type NativeTensor = StoredTensor & {
  readonly dtype: keyof typeof DTYPES;
  readonly data: Extract<StoredData, Float32Array | Int32Array | Uint32Array>;
};
const isNative = (stored: StoredTensor): stored is NativeTensor => Object.hasOwn(DTYPES, stored.dtype);
