import { decode } from 'fast-png';
import { gunzipSync, unzipSync } from 'fflate';
import { DataError } from '../core/errors.js';

const because = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Deflate cannot pack better than this; a size beyond it is damage, found before memory is reserved for it. */
const MAX_RATIO = 1032;

/**
 * The files of a zip archive by their paths, folders left out.
 *
 * @param source the archive's name, for messages.
 * @throws DataError if the archive is truncated or damaged.
 */
export function readZip(bytes: Uint8Array, source: string): Map<string, Uint8Array> {
  try {
    const files = unzipSync(bytes, {
      filter({ name, size, originalSize }) {
        if (originalSize > MAX_RATIO * size) throw new Error(`${name} cannot have ${originalSize} bytes`);
        return !name.endsWith('/');
      },
    });
    return new Map(Object.entries(files));
  } catch (error) {
    throw new DataError(`${source} is not a whole zip archive: ${because(error)}`, { cause: error });
  }
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

function crc32(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) c = CRC_TABLE[(c ^ bytes[i]) & 0xff] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

/**
 * Unpacks a gzip file and checks its checksum.
 *
 * @param source the file's name, for messages.
 * @throws DataError if it is truncated or damaged.
 */
export function readGzip(bytes: Uint8Array, source: string): Uint8Array {
  try {
    const trailer = new DataView(bytes.buffer, bytes.byteOffset + bytes.length - 8, 8);
    const size = trailer.getUint32(4, true);
    if (size > MAX_RATIO * bytes.length) throw new Error(`it cannot have ${size} bytes`);
    const content = gunzipSync(bytes);
    if (content.length !== size || crc32(content) !== trailer.getUint32(0, true))
      throw new Error('its checksum does not match its content');
    return content;
  } catch (error) {
    throw new DataError(`${source} is not a whole gzip file: ${because(error)}`, { cause: error });
  }
}

/** A black-and-white picture, one byte a pixel, row-major: 1 is ink (black), 0 is paper (white). */
export interface Bitmap {
  readonly width: number;
  readonly height: number;
  readonly ink: Uint8Array;
}

/**
 * Reads a PNG file of 1-bit grey pixels (bit 0 black, 1 white), checksums included.
 *
 * @param source the file's name, for messages.
 * @throws DataError if the file is damaged or of another pixel format.
 */
export function readBitmap(bytes: Uint8Array, source: string): Bitmap {
  let png: ReturnType<typeof decode>;
  try {
    png = decode(bytes, { checkCrc: true });
  } catch (error) {
    throw new DataError(`${source} is not a whole PNG file: ${because(error)}`, { cause: error });
  }
  const { width, height, depth, channels, palette, data } = png;
  if (depth !== 1 || channels !== 1 || palette)
    throw new DataError(
      `${source}: expected 1-bit grey pixels, got ${channels} x ${depth} bits${palette ? ' with a palette' : ''}`,
    );
  const stride = Math.ceil(width / 8);
  const ink = new Uint8Array(width * height);
  for (let y = 0; y < height; y++)
    for (let byte = 0; byte < stride; byte++) {
      const paper = data[y * stride + byte];
      if (paper === 0xff) continue;
      const end = Math.min(8, width - 8 * byte);
      for (let bit = 0; bit < end; bit++) ink[y * width + 8 * byte + bit] = ((paper >> (7 - bit)) & 1) ^ 1;
    }
  return { width, height, ink };
}
