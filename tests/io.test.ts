import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type * as promises from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ArgumentError, CheckpointError, DataError, ShapeError } from '../src/core/errors.js';
import { loadSafetensors, saveSafetensors, writeFileAtomic } from '../src/io/files.js';
import { readNpy, writeNpy } from '../src/io/npy.js';
import { readSafetensors, type WritableTensor, writeSafetensors } from '../src/io/safetensors.js';

/** What fails inside the next atomic write. */
const broken = vi.hoisted(() => ({ step: null as 'sync' | 'writeFile' | null }));
vi.mock('node:fs/promises', async importOriginal => {
  const real = await importOriginal<typeof promises>();
  return {
    ...real,
    open: async (path: string, flags: string) => {
      const file = await real.open(path, flags);
      const { step } = broken;
      if (step) file[step] = () => Promise.reject(new Error('no space left on device'));
      return file;
    },
  };
});

const ascii = (text: string) => Uint8Array.from(text, c => c.charCodeAt(0));
const bytesOf = (data: ArrayBufferView) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
const joined = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap(part => [...part]));

/** A safetensors file put together by hand, after the description of the format. */
function handMade(
  header: string | object,
  data: Uint8Array = new Uint8Array(0),
  length?: number,
): Uint8Array {
  const text = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const size = new Uint8Array(8);
  new DataView(size.buffer).setBigUint64(0, BigInt(length ?? text.length), true);
  return joined(size, text, data);
}

const refusal = (bytes: Uint8Array): string => {
  try {
    readSafetensors(bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(CheckpointError);
    return (error as Error).message;
  }
  return 'accepted';
};

describe('readSafetensors', () => {
  it('reads a file made by hand, byte by byte', () => {
    const header =
      '{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}   ';
    // 1.5 is 0x3fc00000 and -2 is 0xc0000000.
    const bytes = handMade(header, Uint8Array.of(0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0));
    const { tensors, metadata } = readSafetensors(bytes);
    expect(metadata).toEqual({ format: 'pt' });
    expect([...tensors]).toEqual([['w', { dtype: 'F32', shape: [1, 2], data: Float32Array.of(1.5, -2) }]]);
  });

  it('reads every element type, also where it is not aligned', () => {
    const parts: [string, ArrayBufferView, ArrayLike<unknown>][] = [
      ['BOOL', Uint8Array.of(1, 0, 1), Uint8Array.of(1, 0, 1)],
      ['F64', Float64Array.of(0.1, -1e300), Float64Array.of(0.1, -1e300)],
      ['F32', Float32Array.of(0.5), Float32Array.of(0.5)],
      [
        'F16',
        Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7bff, 0xfc00),
        Float32Array.of(1, -2, 2 ** -24, 65504, -Infinity),
      ],
      ['BF16', Uint16Array.of(0x3f80, 0xc049), Float32Array.of(1, -3.140625)],
      ['I64', BigInt64Array.of(-5n, 2n ** 62n), BigInt64Array.of(-5n, 2n ** 62n)],
      ['I32', Int32Array.of(-7), Int32Array.of(-7)],
      ['I16', Int16Array.of(-300), Int16Array.of(-300)],
      ['I8', Int8Array.of(-3), Int8Array.of(-3)],
      ['U8', Uint8Array.of(200), Uint8Array.of(200)],
      ['U32', Uint32Array.of(4e9), Uint32Array.of(4e9)],
    ];
    let offset = 0;
    const header = Object.fromEntries(
      parts.map(([dtype, raw, data]) => {
        const begin = offset;
        offset += raw.byteLength;
        return [`x.${dtype}`, { dtype, shape: [data.length], data_offsets: [begin, offset] }];
      }),
    );
    const file = handMade(header, joined(...parts.map(([, raw]) => bytesOf(raw))));
    // A Node Buffer inside a larger allocation, as readFile may return.
    const { tensors } = readSafetensors(Buffer.from(joined(ascii('pad'), file)).subarray(3));
    for (const [dtype, , data] of parts)
      expect(tensors.get(`x.${dtype}`)).toEqual({ dtype, shape: [data.length], data });
  });

  it('reads scalars, empty tensors and a file without tensors', () => {
    const header = {
      scalar: { dtype: 'I32', shape: [], data_offsets: [0, 4] },
      none: { dtype: 'F32', shape: [0, 3], data_offsets: [4, 4] },
    };
    const { tensors } = readSafetensors(handMade(header, Uint8Array.of(9, 0, 0, 0)));
    expect(tensors.get('scalar')).toEqual({ dtype: 'I32', shape: [], data: Int32Array.of(9) });
    expect(tensors.get('none')).toEqual({ dtype: 'F32', shape: [0, 3], data: new Float32Array(0) });
    expect(readSafetensors(handMade('{}'))).toEqual({ tensors: new Map(), metadata: {} });
  });

  const entry = (begin: number, end: number, more: object = {}) => ({
    dtype: 'U8',
    shape: [end - begin],
    data_offsets: [begin, end],
    ...more,
  });
  const four = new Uint8Array(4);
  it.each<[string, Uint8Array, RegExp]>([
    ['an empty file', new Uint8Array(0), /0 bytes cannot hold/],
    ['a header longer than the file', handMade('{}', four, 100), /does not fit in a file of 14/],
    ['a header of more than 100 MB', handMade('{}', four, 100_000_001), /past the limit/],
    ['a length that is not a safe integer', handMade('{}', four, 2 ** 62), /past the limit/],
    ['a header that is no JSON', handMade('{"a"'), /not JSON/],
    ['a header that is not UTF-8', joined(Uint8Array.of(3, 0, 0, 0, 0, 0, 0, 0), ascii('{\xff}')), /UTF-8/],
    ['a header that is an array', handMade('[]'), /not a JSON object/],
    ['a header that begins with a space', handMade(' {}'), /not a JSON object/],
    ['metadata that are not strings', handMade({ __metadata__: { step: 3 } }), /__metadata__\.step/],
    ['metadata that are no object', handMade({ __metadata__: ['a'] }), /__metadata__ is not/],
    ['an entry that is no object', handMade({ a: 3 }), /"a" is not an object/],
    ['an unknown dtype', handMade({ a: entry(0, 4, { dtype: 'F8' }) }, four), /dtype "F8"/],
    [
      'a dtype inherited from Object',
      handMade({ a: entry(0, 4, { dtype: 'toString' }) }, four),
      /"toString"/,
    ],
    ['an unknown field', handMade({ a: entry(0, 4, { extra: 1 }) }, four), /field "extra"/],
    ['a negative size', handMade({ a: entry(0, 4, { shape: [-2, -2] }) }, four), /shape \[-2,-2\]/],
    ['a size that is no integer', handMade({ a: entry(0, 4, { shape: [0.5, 8] }) }, four), /shape/],
    ['a missing shape', handMade({ a: entry(0, 4, { shape: undefined }) }, four), /shape undefined/],
    ['three offsets', handMade({ a: entry(0, 4, { data_offsets: [0, 4, 4] }) }, four), /data_offsets/],
    [
      'offsets that do not fit the shape',
      handMade({ a: entry(0, 4, { shape: [3] }) }, four),
      /needs 3 bytes/,
    ],
    ['a gap', handMade({ a: entry(0, 1), b: entry(2, 4) }, four), /"b" begins at byte 2 .* expected 1/],
    ['an overlap', handMade({ a: entry(0, 3), b: entry(2, 4) }, four), /expected 3/],
    ['data missing at the end', handMade({ a: entry(0, 5) }, four), /need 5 bytes of data, the file has 4/],
    ['data left over', handMade({ a: entry(0, 3) }, four), /need 3 bytes of data, the file has 4/],
    [
      'a tensor twice',
      handMade(
        '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
      ),
      /key "a" twice/,
    ],
    [
      'a field twice',
      handMade('{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
      /"dtype" twice/,
    ],
    [
      'a truth value of 2',
      handMade({ a: entry(0, 4, { dtype: 'BOOL' }) }, Uint8Array.of(0, 1, 2, 0)),
      /BOOL is 2/,
    ],
  ])('refuses %s', (_, bytes, reason) => {
    expect(refusal(bytes)).toMatch(reason);
  });

  it('is not confused by keys and metadata that look like structure', () => {
    const metadata = { '{"a":': '}],"x":{', dtype: '"dtype":', '\\': '\\"', '': '' };
    const bytes = writeSafetensors([['{":[', { shape: [1], data: Int32Array.of(1) }]], metadata);
    expect(readSafetensors(bytes).metadata).toEqual(metadata);
  });
});

const tensor = fc
  .tuple(
    fc.array(fc.nat({ max: 4 }), { maxLength: 4 }),
    fc.constantFrom(Float32Array, Int32Array, Uint32Array),
    fc.infiniteStream(fc.integer()),
  )
  .map(([shape, Data, values]): WritableTensor => {
    const size = shape.reduce((a, b) => a * b, 1);
    // Random bits: in a Float32Array also NaN, infinities and subnormal numbers.
    return { shape, data: new Data(Int32Array.from([...values.take(size)]).buffer) };
  });
const name = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.constantFrom('__proto__', 'constructor', '0', '10', '2', 'a.b/c', ''),
);
const contents = fc.tuple(
  fc.dictionary(name, tensor, { maxKeys: 6 }),
  fc.dictionary(name, fc.string(), { maxKeys: 4 }),
);

describe('writeSafetensors', () => {
  it('gives back every bit, and equal bytes whatever the order', () => {
    fc.assert(
      fc.property(contents, ([tensors, metadata]) => {
        const pairs = Object.entries(tensors);
        const bytes = writeSafetensors(pairs, metadata);
        expect(Number(new DataView(bytes.buffer).getBigUint64(0, true)) % 8).toBe(0);
        const reversed = Object.fromEntries(Object.entries(metadata).reverse());
        expect(writeSafetensors(pairs.reverse(), reversed)).toEqual(bytes);
        const back = readSafetensors(bytes);
        expect(Object.entries(back.metadata).sort()).toEqual(Object.entries(metadata).sort());
        expect([...back.tensors.keys()].sort()).toEqual(Object.keys(tensors).sort());
        for (const [key, { shape, data }] of pairs) {
          const stored = back.tensors.get(key)!;
          expect(stored.shape).toEqual(shape);
          expect(stored.data.constructor).toBe(data.constructor);
          expect(bytesOf(stored.data)).toEqual(bytesOf(data));
        }
      }),
      { seed: 1, numRuns: 200 },
    );
  });

  it('writes a window of a larger array', () => {
    const data = Float32Array.of(1, 2, 3, 4).subarray(1, 3);
    const { tensors } = readSafetensors(writeSafetensors([['w', { shape: [2], data }]]));
    expect(tensors.get('w')!.data).toEqual(Float32Array.of(2, 3));
  });

  it('keeps file order and name order the same, numeric names too', () => {
    const one = { shape: [1], data: Float32Array.of(1) };
    const bytes = writeSafetensors([
      ['10', one],
      ['9', one],
      ['a', one],
    ]);
    expect([...readSafetensors(bytes).tensors.keys()]).toEqual(['10', '9', 'a']);
    const text = new TextDecoder().decode(bytes.subarray(8));
    expect(text.indexOf('"10"')).toBeLessThan(text.indexOf('"9"'));
  });

  it('refuses what it could not read back', () => {
    const one = { shape: [1], data: Float32Array.of(1) };
    expect(() =>
      writeSafetensors([
        ['a', one],
        ['a', one],
      ]),
    ).toThrow(ArgumentError);
    expect(() => writeSafetensors([['__metadata__', one]])).toThrow(/reserved/);
    expect(() => writeSafetensors([['\ud800', one]])).toThrow(/surrogate/);
    expect(() => writeSafetensors([], { a: '\udc00' })).toThrow(/surrogate/);
    expect(() => writeSafetensors([['a', { shape: [2], data: one.data }]])).toThrow(ShapeError);
    expect(() => writeSafetensors([['a', { shape: [-1, -1], data: one.data }]])).toThrow(ShapeError);
  });
});

describe('damage to a safetensors file', () => {
  const original = writeSafetensors(
    [
      ['layer/b', { shape: [3], data: Float32Array.of(1, 2, 3) }],
      ['layer/w', { shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) }],
      ['step', { shape: [], data: Int32Array.of(7) }],
    ],
    { config: '{"a":[1,"x"]}', seed: '0' },
  );
  const headerEnd = 8 + new DataView(original.buffer).getUint32(0, true);

  it('is found in every truncation', () => {
    for (let length = 0; length < original.length; length++)
      expect(refusal(original.subarray(0, length))).not.toBe('accepted');
  });

  it('in any byte of the header is refused, or changes no size', () => {
    let refused = 0;
    for (let at = 0; at < headerEnd; at++)
      for (let value = 0; value < 256; value++) {
        if (value === original[at]) continue;
        const bytes = original.slice();
        bytes[at] = value;
        try {
          const sizes = [...readSafetensors(bytes).tensors.values()].map(({ data }) => data.byteLength);
          expect(sizes).toEqual([12, 24, 4]);
        } catch (error) {
          expect(error).toBeInstanceOf(CheckpointError);
          refused++;
        }
      }
    expect(refused).toBeGreaterThan(0.5 * 255 * headerEnd);
  });

  it('of any kind never gives another error', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: headerEnd - 1 }), fc.nat({ max: 255 })), {
          minLength: 1,
          maxLength: 8,
        }),
        fc.uint8Array({ maxLength: 8 }),
        (changes, tail) => {
          const bytes = joined(original, tail);
          for (const [at, value] of changes) bytes[at] = value;
          refusal(bytes);
        },
      ),
      { seed: 2, numRuns: 2000 },
    );
  });
});

describe('files', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'weightloom-io-'));
  });
  afterEach(() => {
    broken.step = null;
    rmSync(folder, { recursive: true });
  });

  it('saves and loads a checkpoint, replacing the old one', async () => {
    const path = join(folder, 'a.safetensors');
    for (const value of [1, 2]) {
      await saveSafetensors(path, [['w', { shape: [1], data: Float32Array.of(value) }]], {
        step: `${value}`,
      });
      const { tensors, metadata } = await loadSafetensors(path);
      expect(tensors.get('w')!.data).toEqual(Float32Array.of(value));
      expect(metadata).toEqual({ step: `${value}` });
    }
    expect(readdirSync(folder)).toEqual(['a.safetensors']);
  });

  it.each(['sync', 'writeFile'] as const)(
    'leaves the old file and nothing else when %s fails',
    async step => {
      const path = join(folder, 'a.bin');
      writeFileSync(path, 'old');
      broken.step = step;
      const failure = writeFileAtomic(path, ascii('new'));
      await expect(failure).rejects.toThrow(CheckpointError);
      await expect(failure).rejects.toThrow(`cannot write ${path}: no space left on device`);
      expect(readFileSync(path, 'utf8')).toBe('old');
      expect(readdirSync(folder)).toEqual(['a.bin']);
    },
  );

  it('cleans up when the rename fails', async () => {
    const path = join(folder, 'taken');
    mkdirSync(path);
    await expect(writeFileAtomic(path, ascii('new'))).rejects.toThrow(CheckpointError);
    expect(readdirSync(folder)).toEqual(['taken']);
  });

  it('keeps writers of one path apart', async () => {
    const path = join(folder, 'a.bin');
    const texts = Array.from({ length: 8 }, (_, i) => `${i}`.repeat(10_000));
    await Promise.all(texts.map(text => writeFileAtomic(path, ascii(text))));
    expect(texts).toContain(readFileSync(path, 'utf8'));
    expect(readdirSync(folder)).toEqual(['a.bin']);
  });

  it('names the file that is missing or damaged', async () => {
    const path = join(folder, 'a.safetensors');
    await expect(loadSafetensors(path)).rejects.toThrow(/cannot read .*a\.safetensors: ENOENT/);
    writeFileSync(path, 'short');
    const failure = loadSafetensors(path);
    await expect(failure).rejects.toThrow(CheckpointError);
    await expect(failure).rejects.toThrow(/a\.safetensors: not a valid safetensors file: 5 bytes/);
  });
});

/** A .npy file put together by hand. */
function npy(dictionary: string, data: ArrayBufferView, version = 1): Uint8Array {
  const length =
    version === 1 ? [dictionary.length & 255, dictionary.length >> 8] : [dictionary.length, 0, 0, 0];
  return joined(ascii('\x93NUMPY'), Uint8Array.of(version, 0, ...length), ascii(dictionary), bytesOf(data));
}
const dict = (descr: string, shape: string, fortran = 'False') =>
  `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }\n`;

describe('npy', () => {
  it('reads what NumPy writes, in every element type', () => {
    const cases = [
      ['<f4', Float32Array.of(1.5, -2)],
      ['<f8', Float64Array.of(0.1, 3)],
      ['<i4', Int32Array.of(-1, 5)],
      ['<i8', BigInt64Array.of(-1n, 5n)],
      ['|u1', Uint8Array.of(7, 255)],
      ['|b1', Uint8Array.of(1, 0)],
    ] as const;
    for (const [descr, data] of cases)
      for (const version of [1, 2, 3])
        expect(readNpy(npy(dict(descr, '(2,)'), data, version))).toEqual({ shape: [2], data });
    expect(readNpy(npy(dict('<i4', '()'), Int32Array.of(3)))).toEqual({ shape: [], data: Int32Array.of(3) });
    const buffer = Buffer.from(joined(ascii('pad'), npy(dict('<f4', '(1, 2)'), cases[0][1]))).subarray(3);
    expect(readNpy(buffer)).toEqual({ shape: [1, 2], data: cases[0][1] });
  });

  it('turns column-major arrays into row-major ones', () => {
    // Element (i, j, k) of shape [2, 3, 2] is 100 i + 10 j + k; the first index runs fastest in the file.
    const file: number[] = [];
    const expected: number[] = [];
    for (let k = 0; k < 2; k++)
      for (let j = 0; j < 3; j++) for (let i = 0; i < 2; i++) file.push(100 * i + 10 * j + k);
    for (let i = 0; i < 2; i++)
      for (let j = 0; j < 3; j++) for (let k = 0; k < 2; k++) expected.push(100 * i + 10 * j + k);
    expect(readNpy(npy(dict('<i4', '(2, 3, 2)', 'True'), Int32Array.from(file)))).toEqual({
      shape: [2, 3, 2],
      data: Int32Array.from(expected),
    });
  });

  it('writes the exact bytes of NumPy', () => {
    const bytes = writeNpy({ shape: [2], data: Float32Array.of(1, 2) });
    const header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
    const expected = `\x93NUMPY\x01\x00\x76\x00${header.padEnd(117)}\n`;
    expect(bytes).toEqual(joined(ascii(expected), bytesOf(Float32Array.of(1, 2))));
  });

  it('gives back what it wrote', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat({ max: 4 }), { maxLength: 4 }),
        fc.constantFrom(Float32Array, Float64Array, Int32Array, Uint8Array),
        (shape, Data) => {
          const data = new Data(Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => i));
          const bytes = writeNpy({ shape, data });
          expect((bytes.length - data.byteLength) % 64).toBe(0);
          expect(readNpy(bytes)).toEqual({ shape, data });
        },
      ),
      { seed: 3, numRuns: 100 },
    );
    expect(() => writeNpy({ shape: [3], data: new Float32Array(2) })).toThrow(ShapeError);
  });

  it.each<[string, Uint8Array, RegExp]>([
    ['another format', ascii('PK\x03\x04 not numpy'), /magic/],
    ['version 4', npy(dict('<f4', '(1,)'), new Float32Array(1), 4), /version 4/],
    ['big-endian numbers', npy(dict('>f4', '(1,)'), new Float32Array(1)), />f4 is not read/],
    [
      'records',
      npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", new Float32Array(1)),
      /lacks descr/,
    ],
    ['missing data', npy(dict('<f4', '(3,)'), new Float32Array(2)), /needs 12 bytes of data, there are 8/],
    ['data left over', npy(dict('<f4', '(1,)'), new Float32Array(2)), /needs 4 bytes/],
    ['a header that is cut off', npy(dict('<f4', '(1,)'), new Float32Array(1)).subarray(0, 40), /cut off/],
  ])('refuses %s', (_, bytes, reason) => {
    expect(() => readNpy(bytes, 'x.npy')).toThrow(DataError);
    expect(() => readNpy(bytes, 'x.npy')).toThrow(reason);
  });
});
