import { DataError, ShapeError } from '../core/errors.js';

/** Element types of .npy files that are read and written: NumPy's f4, f8, i4, i8 and u1, little-endian. */
export type NpyData = Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array;

/** An array of a .npy file, always row-major ("C order"). b1 is read as a Uint8Array of 0 and 1. */
export interface NpyArray {
  readonly shape: readonly number[];
  readonly data: NpyData;
}

const TYPES = {
  '<f4': Float32Array,
  '<f8': Float64Array,
  '<i4': Int32Array,
  '<i8': BigInt64Array,
  '|u1': Uint8Array,
  '|b1': Uint8Array,
} as const;
const MAGIC = '\x93NUMPY';

/** Copies a column-major array into row-major order. */
function toRowMajor(source: NpyData, shape: readonly number[]): NpyData {
  const out = source.slice();
  const index = new Array<number>(shape.length).fill(0);
  const strides = shape.map((_, axis) => shape.slice(0, axis).reduce((a, b) => a * b, 1));
  for (let i = 0; i < out.length; i++) {
    out[i] = source[index.reduce((sum, k, axis) => sum + k * strides[axis], 0)];
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis] === shape[axis]; axis--) index[axis] = 0;
  }
  return out;
}

/**
 * Reads a .npy file, format versions 1 to 3 (NEP 1). Column-major ("Fortran order") arrays are converted.
 *
 * @param source the file's name, for messages.
 * @throws DataError if the file is damaged or its element type is not read.
 */
export function readNpy(bytes: Uint8Array, source = '.npy file'): NpyArray {
  const refuse = (reason: string): never => {
    throw new DataError(`${source}: ${reason}`);
  };
  if (bytes.length < 12 || String.fromCharCode(...bytes.subarray(0, 6)) !== MAGIC)
    return refuse('the magic of a .npy file is missing');
  const version = bytes[6];
  if (version < 1 || version > 3) return refuse(`format version ${version} is not known`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const start = version === 1 ? 10 : 12;
  const head = start + (version === 1 ? view.getUint16(8, true) : view.getUint32(8, true));
  if (head > bytes.length) return refuse('the header is cut off');
  const header = new TextDecoder().decode(bytes.subarray(start, head));
  const descr = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1];
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(header)?.[1];
  const sizes = /'shape'\s*:\s*\(([\d\s,]*)\)/.exec(header)?.[1];
  if (descr === undefined || order === undefined || sizes === undefined)
    return refuse(`the header lacks descr, fortran_order or shape: ${JSON.stringify(header.trim())}`);
  if (!Object.hasOwn(TYPES, descr))
    return refuse(`element type ${descr} is not read; expected one of ${Object.keys(TYPES).join(' ')}`);
  const shape = (sizes.match(/\d+/g) ?? []).map(Number);
  const Data = TYPES[descr as keyof typeof TYPES];
  const expected = shape.reduce((a, b) => a * b, Data.BYTES_PER_ELEMENT);
  if (bytes.length - head !== expected)
    return refuse(`${descr} [${shape}] needs ${expected} bytes of data, there are ${bytes.length - head}`);
  const data = new Data(new Uint8Array(bytes.subarray(head)).buffer);
  return { shape, data: order === 'True' ? toRowMajor(data, shape) : data };
}

/**
 * Writes a .npy file of format version 1, row-major, as NumPy would: the data start at a multiple of 64 bytes.
 *
 * @throws ShapeError if the shape does not fit the data.
 */
export function writeNpy({ shape, data }: NpyArray): Uint8Array {
  if (shape.reduce((a, b) => a * b, 1) !== data.length)
    throw new ShapeError(`writeNpy: the shape [${shape}] does not fit ${data.length} elements`);
  const descr = Object.entries(TYPES).find(([, Data]) => data instanceof Data)![0];
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(', ');
  const dictionary = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${sizes}), }`;
  const head = Math.ceil((10 + dictionary.length + 1) / 64) * 64;
  const file = new Uint8Array(head + data.byteLength);
  const text = `${MAGIC}\x01\x00\x00\x00${dictionary.padEnd(head - 11)}\n`;
  for (let i = 0; i < head; i++) file[i] = text.charCodeAt(i);
  new DataView(file.buffer).setUint16(8, head - 10, true);
  file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), head);
  return file;
}
