import { ArgumentError, CheckpointError, ShapeError } from '../core/errors.js';

/** Element types of the format that are read; F32, I32 and U32 are also written. */
export type StoredDType =
  | 'F64'
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'I64'
  | 'I32'
  | 'I16'
  | 'I8'
  | 'U8'
  | 'U32'
  | 'BOOL';

/** What a stored tensor becomes: F16 and BF16 are widened to Float32Array, BOOL is Uint8Array of 0 and 1. */
export type StoredData =
  | Float64Array
  | Float32Array
  | BigInt64Array
  | Int32Array
  | Int16Array
  | Int8Array
  | Uint8Array
  | Uint32Array;

/** One tensor of a file, row-major. The data are a copy, independent of the file's bytes. */
export interface StoredTensor {
  /** The type in the file. */
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly data: StoredData;
}

/** A tensor to be written. */
export interface WritableTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | Uint32Array;
}

/** Everything a safetensors file holds, tensors in file order. */
export interface Safetensors {
  readonly tensors: Map<string, StoredTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** The limit of the reference implementation. */
const MAX_HEADER = 100_000_000;
const METADATA = '__metadata__';
const OPENING_BRACE = 0x7b;

const refuse = (reason: string, cause?: unknown): never => {
  throw new CheckpointError(`not a valid safetensors file: ${reason}`, { cause });
};

/** f16 bits to number. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function booleans(bytes: Uint8Array): Uint8Array {
  const wrong = bytes.find(byte => byte > 1);
  return wrong === undefined ? bytes : refuse(`a BOOL is ${wrong}, neither 0 nor 1`);
}

/** Size of one element in bytes, and how a fresh, aligned copy of its bytes becomes an array. */
const DTYPES: Record<StoredDType, { bytes: number; view: (buffer: ArrayBuffer) => StoredData }> = {
  F64: { bytes: 8, view: b => new Float64Array(b) },
  F32: { bytes: 4, view: b => new Float32Array(b) },
  F16: { bytes: 2, view: b => Float32Array.from(new Uint16Array(b), half) },
  BF16: { bytes: 2, view: b => new Float32Array(Uint32Array.from(new Uint16Array(b), v => v << 16).buffer) },
  I64: { bytes: 8, view: b => new BigInt64Array(b) },
  I32: { bytes: 4, view: b => new Int32Array(b) },
  I16: { bytes: 2, view: b => new Int16Array(b) },
  I8: { bytes: 1, view: b => new Int8Array(b) },
  U8: { bytes: 1, view: b => new Uint8Array(b) },
  U32: { bytes: 4, view: b => new Uint32Array(b) },
  BOOL: { bytes: 1, view: b => booleans(new Uint8Array(b)) },
};

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** Finds a key that occurs twice in one object of valid JSON, which JSON.parse would pass over. */
function duplicateKey(json: string): string | null {
  const open: (Set<string> | null)[] = [];
  for (const [token, quoted, colon] of json.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?|[{}[\]]/g)) {
    if (token === '{') open.push(new Set());
    else if (token === '[') open.push(null);
    else if (token === '}' || token === ']') open.pop();
    else if (colon) {
      const keys = open.at(-1)!;
      const key: string = JSON.parse(quoted);
      if (keys!.has(key)) return key;
      keys!.add(key);
    }
  }
  return null;
}

function parseHeader(bytes: Uint8Array): Record<string, unknown> {
  let header: unknown;
  let twice: string | null;
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
    twice = duplicateKey(text);
  } catch (error) {
    return refuse(
      `the header is not JSON in UTF-8 (${error instanceof Error ? error.message : error})`,
      error,
    );
  }
  if (!isRecord(header) || bytes[0] !== OPENING_BRACE) return refuse('the header is not a JSON object');
  if (twice !== null) return refuse(`the header has the key "${twice}" twice`);
  return header;
}

function parseMetadata(value: unknown): Record<string, string> {
  if (!isRecord(value)) return refuse(`${METADATA} is not an object`);
  for (const [key, text] of Object.entries(value))
    if (typeof text !== 'string') return refuse(`${METADATA}.${key} is not a string`);
  return value as Record<string, string>;
}

interface Entry {
  name: string;
  dtype: StoredDType;
  shape: number[];
  begin: number;
  end: number;
}

function parseEntry(name: string, value: unknown): Entry {
  if (!isRecord(value)) return refuse(`"${name}" is not an object`);
  const { dtype, shape, data_offsets: offsets, ...rest } = value;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) return refuse(`"${name}" has an unknown field "${unknown}"`);
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPES, dtype))
    return refuse(`"${name}" has the dtype ${JSON.stringify(dtype)}, expected one of ${Object.keys(DTYPES)}`);
  if (!Array.isArray(shape) || !shape.every(isCount))
    return refuse(`"${name}" has the shape ${JSON.stringify(shape)}, expected sizes >= 0`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    return refuse(`"${name}" has the data_offsets ${JSON.stringify(offsets)}, expected [begin, end]`);
  const bytes = shape.reduce((a, b) => a * b, DTYPES[dtype as StoredDType].bytes);
  const [begin, end] = offsets;
  if (end - begin !== bytes)
    return refuse(
      `"${name}" needs ${bytes} bytes for ${dtype} [${shape}], its data_offsets span ${end - begin}`,
    );
  return { name, dtype: dtype as StoredDType, shape, begin, end };
}

/**
 * Reads a safetensors file. Nothing damaged is let through: the header must be a JSON object without repeated keys,
 * and the tensors must cover the rest of the file exactly, without gaps or overlaps. What it cannot know is whether
 * the numbers themselves are the ones that were written; the format has no checksum.
 *
 * Format: https://github.com/huggingface/safetensors (an 8-byte little-endian length, a JSON header, the data).
 *
 * @throws CheckpointError naming the first reason to refuse the file.
 */
export function readSafetensors(file: Uint8Array): Safetensors {
  // `slice` of a Node Buffer would be a view.
  const bytes = new Uint8Array(file.buffer, file.byteOffset, file.length);
  if (bytes.length < 8) return refuse(`${bytes.length} bytes cannot hold the header's length`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const length = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  if (length > MAX_HEADER) return refuse(`a header of ${length} bytes is past the limit of ${MAX_HEADER}`);
  if (8 + length > bytes.length)
    return refuse(`a header of ${length} bytes does not fit in a file of ${bytes.length}`);
  const header = parseHeader(bytes.subarray(8, 8 + length));
  const metadata = Object.hasOwn(header, METADATA) ? parseMetadata(header[METADATA]) : {};
  const entries = Object.entries(header)
    .filter(([name]) => name !== METADATA)
    .map(([name, value]) => parseEntry(name, value))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  const data = bytes.subarray(8 + length);
  let covered = 0;
  for (const { name, begin, end } of entries) {
    if (begin !== covered)
      return refuse(
        `"${name}" begins at byte ${begin} of the data, expected ${covered}: a gap or an overlap`,
      );
    covered = end;
  }
  if (covered !== data.length)
    return refuse(`the tensors need ${covered} bytes of data, the file has ${data.length}`);
  const tensors = new Map<string, StoredTensor>();
  for (const { name, dtype, shape, begin, end } of entries)
    tensors.set(name, { dtype, shape, data: DTYPES[dtype].view(data.slice(begin, end).buffer) });
  return { tensors, metadata };
}

const byCodeUnit = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function quote(name: string): string {
  if (/\p{Surrogate}/u.test(name))
    throw new ArgumentError(`writeSafetensors: ${JSON.stringify(name)} has half a surrogate pair`);
  return JSON.stringify(name);
}

/**
 * Writes a safetensors file: tensors sorted by name, metadata sorted by key, so equal content gives equal bytes.
 * Element types follow from the arrays (F32, I32, U32); every tensor starts at a multiple of 4 bytes.
 *
 * @throws ArgumentError if a name is repeated, reserved or not valid Unicode.
 * @throws ShapeError if a shape does not fit its data.
 * @throws CheckpointError if the header would exceed 100 MB.
 */
export function writeSafetensors(
  tensors: Iterable<readonly [name: string, tensor: WritableTensor]>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const sorted = [...tensors].sort(([a], [b]) => byCodeUnit(a, b));
  const fields: string[] = [];
  const pairs = Object.entries(metadata).sort(([a], [b]) => byCodeUnit(a, b));
  if (pairs.length)
    fields.push(`"${METADATA}":{${pairs.map(([key, text]) => `${quote(key)}:${quote(text)}`).join()}}`);
  let offset = 0;
  sorted.forEach(([name, { shape, data }], i) => {
    if (name === METADATA) throw new ArgumentError(`writeSafetensors: the name ${METADATA} is reserved`);
    if (i > 0 && sorted[i - 1][0] === name)
      throw new ArgumentError(`writeSafetensors: two tensors are named "${name}"`);
    if (!shape.every(isCount) || shape.reduce((a, b) => a * b, 1) !== data.length)
      throw new ShapeError(
        `writeSafetensors: "${name}" has the shape [${shape}] but ${data.length} elements`,
      );
    const dtype = data instanceof Float32Array ? 'F32' : data instanceof Int32Array ? 'I32' : 'U32';
    const end = offset + data.byteLength;
    fields.push(`${quote(name)}:{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${offset},${end}]}`);
    offset = end;
  });
  const json = new TextEncoder().encode(`{${fields.join()}}`);
  const head = 8 + Math.ceil(json.length / 8) * 8;
  if (head - 8 > MAX_HEADER)
    throw new CheckpointError(`a header of ${head - 8} bytes is past the limit of ${MAX_HEADER}`);
  const file = new Uint8Array(head + offset);
  new DataView(file.buffer).setUint32(0, head - 8, true);
  file.set(json, 8);
  file.fill(0x20, 8 + json.length, head);
  let at = head;
  for (const [, { data }] of sorted) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return file;
}
